//! Fields that hold the id of another object, or `user:ID`, `group:ID` and
//! `everyone`: people write names there.

use model::{AppId, ConnectorGroupId, GroupId, KindName, ObjectKey, Principal, Tenant, UserId};
use uuid::Uuid;

use super::FieldError;

/// One such field of a message.
pub struct Link<'a> {
    pub field: &'static str,
    pub text: &'a mut String,
    to: To,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Kind(KindName),
    Principal,
}

/// A name that nothing has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub field: &'static str,
    pub kind: &'static str,
    pub name: String,
}

impl From<Unknown> for FieldError {
    fn from(it: Unknown) -> Self {
        let problem = match it.kind {
            "principal" => format!("{:?} is not user:NAME, group:NAME or everyone", it.name),
            kind => format!("there is no {kind} {:?}; list them, or check the spelling", it.name),
        };
        Self { field: it.field, problem }
    }
}

impl<'a> Link<'a> {
    pub fn app(field: &'static str, text: &'a mut String) -> Self {
        Self { field, text, to: To::Kind(KindName::App) }
    }

    pub fn connector_group(field: &'static str, text: &'a mut String) -> Self {
        Self { field, text, to: To::Kind(KindName::ConnectorGroup) }
    }

    pub fn user(field: &'static str, text: &'a mut String) -> Self {
        Self { field, text, to: To::Kind(KindName::User) }
    }

    pub fn group(field: &'static str, text: &'a mut String) -> Self {
        Self { field, text, to: To::Kind(KindName::Group) }
    }

    pub fn principal(field: &'static str, text: &'a mut String) -> Self {
        Self { field, text, to: To::Principal }
    }

    /// A connector group that is not named is the default one's.
    pub fn is_empty_connector_group(&self) -> bool {
        self.text.is_empty() && self.to == To::Kind(KindName::ConnectorGroup)
    }

    /// The kind and the name or id that the text speaks of.
    pub fn target(&self) -> Option<(KindName, &str)> {
        match (self.to, self.text.split_once(':')) {
            (To::Kind(kind), _) => Some((kind, self.text.as_str())),
            (To::Principal, Some(("user", name))) => Some((KindName::User, name)),
            (To::Principal, Some(("group", name))) => Some((KindName::Group, name)),
            (To::Principal, _) => None,
        }
    }

    pub fn put_id(&mut self, id: &str) {
        let Some((_, name)) = self.target() else { return };
        let prefix = self.text.len() - name.len();
        self.text.replace_range(prefix.., id);
    }

    /// Puts the id in place of a name.
    pub fn resolve(self, tenant: &Tenant) -> Result<(), Unknown> {
        let resolved = match self.to {
            To::Kind(kind) => id_of(tenant, self.field, kind, self.text)?,
            To::Principal => resolve_principal(tenant, self.field, self.text)?.to_string(),
        };
        *self.text = resolved;
        Ok(())
    }

    /// Puts the name in place of an id, where the object is known.
    pub fn name(&mut self, tenant: &Tenant) {
        let named = self.target().and_then(|(kind, id)| {
            let (object, _) = tenant.get(&by_id(kind, id)?)?;
            object.name().map(str::to_owned)
        });
        if let Some(name) = named {
            self.put_id(&name);
        }
    }
}

/// `user:NAME`, `group:NAME`, `everyone`, with ids in place of names if wished.
pub fn resolve_principal(tenant: &Tenant, field: &'static str, text: &str) -> Result<Principal, Unknown> {
    let unknown = || Unknown { field, kind: "principal", name: text.to_owned() };
    let resolved = match text.split_once(':') {
        None if text == "everyone" => return Ok(Principal::Everyone),
        Some(("user", name)) => format!("user:{}", id_of(tenant, field, KindName::User, name)?),
        Some(("group", name)) => format!("group:{}", id_of(tenant, field, KindName::Group, name)?),
        None | Some(_) => return Err(unknown()),
    };
    resolved.parse().map_err(|_| unknown())
}

fn id_of(tenant: &Tenant, field: &'static str, kind: KindName, text: &str) -> Result<String, Unknown> {
    let key = by_id(kind, text).filter(|key| tenant.contains(key)).or_else(|| tenant.named(kind, text));
    key.map(|it| it.subject().id).ok_or_else(|| Unknown { field, kind: kind.title(), name: text.to_owned() })
}

/// Kinds that links lead to have ids.
fn by_id(kind: KindName, text: &str) -> Option<ObjectKey> {
    let id = Uuid::try_parse(text).ok()?;
    if kind == KindName::App {
        return Some(ObjectKey::App(AppId(id)));
    }
    if kind == KindName::ConnectorGroup {
        return Some(ObjectKey::ConnectorGroup(ConnectorGroupId(id)));
    }
    if kind == KindName::User {
        return Some(ObjectKey::User(UserId(id)));
    }
    (kind == KindName::Group).then_some(ObjectKey::Group(GroupId(id)))
}
