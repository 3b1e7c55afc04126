//! Which role may read, put and remove objects of which kind: the lines of
//! `roles.txt` that begin with `object`.
//!
//! An owner of an application may change it and its assignments without a role,
//! never who owns it, where it is published and whether people sign in to it.

use std::collections::BTreeMap;

use eventlog::wire::{role_name, role_named};
use model::{App, AppId, KindName, Object, ObjectKey, Principal, Role, Tenant};
use tonic::Status;

use crate::callers::{Caller, Who};

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Read,
    Put,
    Remove,
}

impl Verb {
    pub const ALL: [Self; 3] = [Self::Read, Self::Put, Self::Remove];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Put => "put",
            Self::Remove => "remove",
        }
    }
}

/// The least role for each kind and verb; `None` leaves it to the calls that do more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permits {
    least: BTreeMap<(KindName, Verb), Option<Role>>,
    /// Kinds that the owner of an application may put and remove.
    of_app_owners: Vec<KindName>,
}

impl Permits {
    /// `KIND READ PUT REMOVE [app-owner]`, with `-` where no role will do.
    pub(crate) fn add(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        // A kind that only tests have.
        let kind = match KindName::parse(name) {
            None if name == "toy" => return Some(()),
            kind => kind?,
        };
        for verb in Verb::ALL {
            let least = match words.next()? {
                "-" => None,
                name => Some(role_named(name)?),
            };
            self.least.insert((kind, verb), least);
        }
        match words.next() {
            None => Some(()),
            Some("app-owner") => {
                self.of_app_owners.push(kind);
                Some(())
            }
            Some(_) => None,
        }
    }

    pub fn kinds(&self) -> impl Iterator<Item = KindName> {
        self.least.keys().filter(|(_, verb)| *verb == Verb::Read).map(|(kind, _)| *kind)
    }

    /// The least role, as the table says it.
    pub fn least(&self, kind: KindName, verb: Verb) -> String {
        self.least.get(&(kind, verb)).copied().flatten().map_or_else(|| "-".to_owned(), role_name)
    }

    /// May the caller do this to any object of the kind?
    pub fn permits(&self, caller: &Caller, kind: KindName, verb: Verb) -> bool {
        let least = self.least.get(&(kind, verb)).copied().flatten();
        match (&caller.who, least) {
            (Who::Person { role: Some(role), .. }, Some(least)) => *role >= least,
            _ => false,
        }
    }

    /// Is there an object of the kind that the caller may do this to? Asked before
    /// anything is read, so that nobody learns more.
    pub(crate) fn require_any(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        kind: KindName,
        verb: Verb,
    ) -> Result<(), Status> {
        let owns_one = || tenant.apps.values().any(|app| owns(caller, tenant, app));
        match self.permits(caller, kind, verb) || self.of_app_owners.contains(&kind) && owns_one() {
            true => Ok(()),
            false => Err(self.refusal(kind, verb)),
        }
    }

    pub(crate) fn require(&self, caller: &Caller, kind: KindName, verb: Verb) -> Result<(), Status> {
        match self.permits(caller, kind, verb) {
            true => Ok(()),
            false => Err(self.refusal(kind, verb)),
        }
    }

    /// May the caller do this to this object? `after` is what it becomes.
    pub(crate) fn require_for(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        key: &ObjectKey,
        verb: Verb,
        after: Option<&Object>,
    ) -> Result<(), Status> {
        let kind = key.kind();
        if self.permits(caller, kind, verb) {
            return Ok(());
        }
        let owned = app_of(key).and_then(|id| tenant.app(id)).filter(|app| owns(caller, tenant, app));
        let within = match (owned, after) {
            (Some(before), Some(Object::App(after))) => keeps_whats_not_theirs(before, after),
            (Some(_), _) => true,
            (None, _) => false,
        };
        match within && self.of_app_owners.contains(&kind) {
            true => Ok(()),
            false => Err(self.refusal(kind, verb)),
        }
    }

    fn refusal(&self, kind: KindName, verb: Verb) -> Status {
        let least = self.least.get(&(kind, verb)).copied().flatten();
        let (verb, title) = (verb.as_str(), kind.title());
        Status::permission_denied(match least {
            Some(least) => format!("to {verb} this ({title}) needs the role {least:?} or higher; ask an owner"),
            None => format!("this ({title}) has commands of its own; see postern --help"),
        })
    }
}

fn keeps_whats_not_theirs(before: &App, after: &App) -> bool {
    before.owners == after.owners
        && before.group == after.group
        && before.pre_authentication == after.pre_authentication
        && before.addresses().map(|(external, _)| external).eq(after.addresses().map(|(external, _)| external))
}

/// Does a person own the application, by name or through a group.
pub(crate) fn owns(caller: &Caller, tenant: &Tenant, app: &App) -> bool {
    let Some(user) = caller.user() else { return false };
    let groups = tenant.groups_of(user);
    app.owners.iter().any(|owner| match owner {
        Principal::Everyone => false,
        Principal::User(id) => *id == user,
        Principal::Group(id) => groups.contains(id),
    })
}

/// The application an object is, or is a part of.
pub(crate) fn app_of(key: &ObjectKey) -> Option<AppId> {
    if let ObjectKey::Assignment(key) = key {
        return Some(key.app);
    }
    if let ObjectKey::App(id) = key { Some(*id) } else { None }
}
