//! What is true now: the fold of CONFIG, DIRECTORY and RISK.
//!
//! Maps are persistent (imbl), so a reader keeps its snapshot for nothing while
//! the next one grows beside it. A tenant is a world of its own: a command can
//! only touch the maps of its tenant. Events on different subjects may arrive
//! in any order, so no arm of `apply` looks at what another subject says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use crate::kinds::Tenant;
use crate::{
    app::App,
    directory::{Principal, Role},
    event::Stream,
    hosts::Hosts,
    ids::*,
    kinds::{Event, Key, KeyPurpose, User, in_use, table::Stored},
    policy::{self, Authorized, Denied, Facts},
    route::Routes,
};

#[derive(Clone, Default, Debug, PartialEq)]
pub struct Snapshot {
    pub tenants: BTreeMap<TenantId, Arc<Tenant>>,
    /// Hosts belong to one tenant each; routing starts here.
    pub routes: Routes,
    pub config: Position,
    pub directory: Position,
    pub risk: Position,
}

/// An application, and the version a connector can wait for.
pub type Published = Stored<App>;

impl Snapshot {
    pub fn tenant(&self, id: &TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(id)
    }

    pub fn position(&self, stream: Stream) -> Position {
        match stream {
            Stream::Config => self.config,
            Stream::Directory => self.directory,
            Stream::Risk => self.risk,
            Stream::Activity => 0,
        }
    }

    pub fn advance(&mut self, stream: Stream, position: Position) {
        match stream {
            Stream::Config => self.config = position,
            Stream::Directory => self.directory = position,
            Stream::Risk => self.risk = position,
            Stream::Activity => {}
        }
    }

    /// Folds one event. What is in the log has happened; nothing is judged here.
    pub fn apply(&mut self, tenant_id: &TenantId, event: Event, version: u64) {
        let tenant = Arc::make_mut(self.tenants.entry(tenant_id.clone()).or_default());
        match event {
            Event::Put(object) => tenant.put(&mut self.routes, tenant_id, object, version),
            Event::Removed(key) => tenant.remove(&mut self.routes, tenant_id, &key),
        }
    }
}

impl Tenant {
    pub fn hosts(&self) -> Hosts<'_> {
        Hosts::of(&self.domain)
    }

    /// Who signs tokens of this tenant.
    pub fn issuer(&self) -> String {
        self.hosts().issuer(self.public_port)
    }

    pub fn is_issuer(&self, iss: &str) -> bool {
        self.hosts().is_issuer(iss)
    }

    pub fn app(&self, id: AppId) -> Option<&App> {
        self.apps.get(&id)
    }

    pub fn user_by_name(&self, username: &str) -> Option<&User> {
        self.users.by_name(username)
    }

    /// A removed or disabled user, or one of whom nothing is known, is not active.
    pub fn active_user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id).filter(|user| !user.disabled)
    }

    /// Groups the user is in, directly or through other groups. Cycles end.
    pub fn groups_of(&self, user: UserId) -> BTreeSet<GroupId> {
        let mut found = BTreeSet::new();
        let mut open = vec![Principal::User(user)];
        while let Some(principal) = open.pop() {
            for group in self.member_of.get(&principal).into_iter().flat_map(|it| it.iter()) {
                if self.groups.contains_key(group) && found.insert(*group) {
                    open.push(Principal::Group(*group));
                }
            }
        }
        found
    }

    /// Users in a group, directly or through other groups.
    pub fn users_in(&self, group: GroupId) -> BTreeSet<UserId> {
        let mut users = BTreeSet::new();
        let mut seen = BTreeSet::from([group]);
        let mut open = vec![group];
        while let Some(group) = open.pop() {
            for member in self.members.get(&group).into_iter().flat_map(|it| it.iter()) {
                match member {
                    Principal::User(user) => {
                        users.insert(*user);
                    }
                    Principal::Group(inner) => {
                        if seen.insert(*inner) {
                            open.push(*inner);
                        }
                    }
                    Principal::Everyone => {}
                }
            }
        }
        users
    }

    /// The DIRECTORY that a token of this user has to be minted from, or a later
    /// one: the user changed there, alone or with others.
    pub fn directory_for(&self, user: UserId) -> Position {
        let alone = self.user_revocations.get(&user).map_or(0, |it| it.directory);
        alone.max(self.outdated.directory_for(user))
    }

    pub fn assigned(&self, app: AppId) -> Option<&BTreeSet<Principal>> {
        self.assigned.get(&app).map(Arc::as_ref)
    }

    pub fn is_assigned(&self, app: AppId, user: UserId, groups: &BTreeSet<GroupId>) -> bool {
        self.assigned(app).is_some_and(|it| policy::is_assigned(it, user, groups))
    }

    /// May this request pass?
    pub fn authorize(&self, facts: &Facts<'_>) -> Result<Authorized, Denied> {
        policy::authorize(self.assigned(facts.app), &self.by_app, facts)
    }

    /// Keys of a purpose, in the order they become active.
    pub fn keys_for(&self, purpose: KeyPurpose) -> Vec<(Timestamp, &Key)> {
        let keys = self.keys.values().filter(|key| key.purpose == purpose);
        let mut keys: Vec<_> = keys.map(|key| (key.active_from, key)).collect();
        keys.sort_by(|(a, one), (b, other)| (a, &one.id).cmp(&(b, &other.id)));
        keys
    }

    /// The key that signs or seals now.
    pub fn key_in_use(&self, purpose: KeyPurpose, now: Timestamp) -> Option<&Key> {
        in_use(&self.keys_for(purpose), now).copied()
    }

    pub fn role(&self, user: UserId) -> Option<Role> {
        self.roles.get(&user).map(|it| it.role)
    }

    /// An invitation makes one connector and no second.
    pub fn is_spent(&self, token: JoinTokenId) -> bool {
        self.connectors.values().any(|connector| connector.join_token == token)
    }
}
