//! Many objects as one change.
//!
//! Each object is read as if those before it had been recorded, so that one may
//! name another of the same request. The writer decides all of it again: this
//! only finds out which commands are meant, and which object is wrong.

use std::collections::HashMap;

use eventlog::wire;
use model::{Command, Snapshot, Tenant, decide};
use proto::v1::{self, batches_server::Batches};
use tonic::{Request, Response, Status};

use super::{Admin, Call, access, caller};
use crate::errors::{about, invalid, rejected};

#[tonic::async_trait]
impl Batches for Admin {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let caller = caller(&request)?;
        let mut it = request.into_inner();
        let snapshot = self.writer.snapshot().as_ref().clone();
        let mut draft = Draft { call: self.call(caller, it.change.take()), snapshot, commands: Vec::new() };
        draft.people(&mut it)?;
        self.memberships(&mut draft, it.memberships)?;
        self.apps(&mut draft, it.apps).await?;
        draft.access(it.policies, it.assignments)?;
        let Draft { call, commands, .. } = draft;
        let changed = commands.len() as u32;
        let position = self.execute(&call, commands).await?;
        Ok(Response::new(v1::ApplyResponse { position, changed }))
    }
}

impl Admin {
    fn memberships(&self, draft: &mut Draft, memberships: Vec<v1::Membership>) -> Result<(), Status> {
        draft.settle();
        let names = Names::of(&draft.call.tenant);
        for mut wire in memberships {
            let object = format!("membership of {} in {}", wire.member, wire.group);
            wire.group = names.group(&wire.group);
            wire.member = names.principal(&wire.member);
            let member = self.membership(&draft.call, Some(wire)).map_err(|it| about(&object, &it))?;
            let (group, member) = member;
            draft.add(&object, Command::AddMember { group, member })?;
        }
        Ok(())
    }

    async fn apps(&self, draft: &mut Draft, apps: Vec<v1::App>) -> Result<(), Status> {
        draft.settle();
        let names = Names::of(&draft.call.tenant);
        for mut wire in apps {
            let object = format!("application {}", wire.name);
            let known = draft.known(&mut wire.id, &wire.name, "app", &names.apps);
            let app = self.app(&draft.call, wire).await.map_err(|it| about(&object, &it))?;
            let app = Box::new(app);
            draft.add(&object, if known { Command::ChangeApp(app) } else { Command::PublishApp(app) })?;
        }
        Ok(())
    }
}

/// What the request comes to, as far as it has been read.
struct Draft {
    /// Its tenant is the one that names are looked up in.
    call: Call,
    snapshot: Snapshot,
    commands: Vec<Command>,
}

impl Draft {
    fn people(&mut self, it: &mut v1::ApplyRequest) -> Result<(), Status> {
        let names = Names::of(&self.call.tenant);
        for mut wire in std::mem::take(&mut it.connector_groups) {
            let object = format!("connector group {}", wire.name);
            if !self.known(&mut wire.id, &wire.name, "connector group", &names.connector_groups) {
                let group = wire::connector_group_from(wire).map_err(|it| about(&object, &invalid(it)))?;
                self.add(&object, Command::CreateConnectorGroup(group))?;
            }
        }
        for mut wire in std::mem::take(&mut it.users) {
            let object = format!("user {}", wire.username);
            let known = self.known(&mut wire.id, &wire.username, "user", &names.users);
            let user = wire::user_from(wire).map_err(|it| about(&object, &invalid(it)))?;
            self.add(&object, if known { Command::ChangeUser(user) } else { Command::CreateUser(user) })?;
        }
        for mut wire in std::mem::take(&mut it.groups) {
            let object = format!("group {}", wire.name);
            let known = self.known(&mut wire.id, &wire.name, "group", &names.groups);
            let group = wire::group_from(wire).map_err(|it| about(&object, &invalid(it)))?;
            self.add(&object, if known { Command::ChangeGroup(group) } else { Command::CreateGroup(group) })?;
        }
        Ok(())
    }

    fn access(&mut self, policies: Vec<v1::Policy>, assignments: Vec<v1::Assignment>) -> Result<(), Status> {
        self.settle();
        let names = Names::of(&self.call.tenant);
        for mut wire in policies {
            let object = format!("policy {}", wire.name);
            let known = self.known(&mut wire.id, &wire.name, "policy", &names.policies);
            for principal in wire.include.iter_mut().chain(&mut wire.exclude) {
                *principal = names.principal(principal);
            }
            for app in wire.apps.iter_mut().chain(&mut wire.exclude_apps) {
                *app = names.app(app);
            }
            let policy = access::parse(&self.call.tenant, wire).map_err(|it| about(&object, &it))?;
            self.add(&object, if known { Command::ChangePolicy(policy) } else { Command::CreatePolicy(policy) })?;
        }
        for mut wire in assignments {
            let object = format!("assignment of {} to {}", wire.app, wire.principal);
            wire.app = names.app(&wire.app);
            wire.principal = names.principal(&wire.principal);
            let (app, principal) = access::assignment(&self.call, Some(wire)).map_err(|it| about(&object, &it))?;
            self.add(&object, Command::Assign { app, principal })?;
        }
        Ok(())
    }

    /// Is there such an object? Gives it the id of the one there is, or a new one.
    fn known(&self, id: &mut String, name: &str, what: &str, names: &HashMap<String, String>) -> bool {
        let found = names.get(&name.to_lowercase());
        let known = found.is_some() || names.values().any(|known| !id.is_empty() && known == id);
        if let Some(found) = found {
            id.clone_from(found);
        } else if id.is_empty() {
            *id = self.call.id_for(&format!("{what} {name}")).to_string();
        }
        known
    }

    /// A command counts when something comes of it.
    fn add(&mut self, object: &str, command: Command) -> Result<(), Status> {
        let tenant = self.call.caller.tenant.clone();
        let events = decide(&self.snapshot, &tenant, command.clone());
        let events = events.map_err(|rejection| about(object, &rejected(&rejection)))?;
        if !events.is_empty() {
            events.into_iter().for_each(|event| self.snapshot.apply(&tenant, event, 0));
            self.commands.push(command);
        }
        Ok(())
    }

    /// From here on, what was added so far can be named.
    fn settle(&mut self) {
        let tenant = self.snapshot.tenant(&self.call.caller.tenant);
        self.call.tenant = tenant.cloned().unwrap_or_default();
    }
}

/// Ids by name, in lower case: a file of thousands names thousands.
struct Names {
    connector_groups: HashMap<String, String>,
    users: HashMap<String, String>,
    groups: HashMap<String, String>,
    apps: HashMap<String, String>,
    policies: HashMap<String, String>,
}

impl Names {
    fn of(tenant: &Tenant) -> Self {
        fn names<'a>(all: impl Iterator<Item = (&'a str, String)>) -> HashMap<String, String> {
            all.map(|(name, id)| (name.to_lowercase(), id)).collect()
        }
        Self {
            connector_groups: names(tenant.groups.values().map(|it| (it.name.as_str(), it.id.to_string()))),
            users: names(tenant.users.values().map(|it| (it.username.as_str(), it.id.to_string()))),
            groups: names(tenant.user_groups.values().map(|it| (it.name.as_str(), it.id.to_string()))),
            apps: names(tenant.apps.values().map(|it| (it.app.name.as_str(), it.app.id.to_string()))),
            policies: names(tenant.policies.iter().map(|it| (it.name.as_str(), it.id.to_string()))),
        }
    }

    fn app(&self, text: &str) -> String {
        Self::find(&self.apps, text)
    }

    fn group(&self, text: &str) -> String {
        Self::find(&self.groups, text)
    }

    fn principal(&self, text: &str) -> String {
        match text.split_once(':') {
            Some(("user", name)) => format!("user:{}", Self::find(&self.users, name)),
            Some(("group", name)) => format!("group:{}", Self::find(&self.groups, name)),
            _ => text.to_owned(),
        }
    }

    /// An unknown name stays: `resolve` says what is wrong with it.
    fn find(names: &HashMap<String, String>, text: &str) -> String {
        names.get(&text.to_lowercase()).cloned().unwrap_or_else(|| text.to_owned())
    }
}
