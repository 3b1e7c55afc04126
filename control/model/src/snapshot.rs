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

use imbl::{HashMap, OrdMap};

use crate::{
    app::App,
    branding::Branding,
    connector::{Connector, ConnectorGroup, JoinToken},
    directory::{Credentials, Group, Principal, Role, User},
    event::{Event, Stream},
    ids::*,
    keys::{Certificate, Key, KeyPurpose, in_use},
    links::ByOrigin,
    policy::{Policies, Policy},
    risk::{Outdated, SessionRevocation, UserRevocation},
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

#[derive(Clone, Default, Debug, PartialEq)]
pub struct Tenant {
    pub domain: String,
    /// Where users reach relays.
    pub public_port: u16,
    /// Where connectors reach relays, `HOST:PORT`.
    pub relays: Arc<[String]>,
    pub branding: Branding,
    pub apps: OrdMap<AppId, Arc<Published>>,
    pub by_origin: ByOrigin,
    pub assignments: OrdMap<AppId, Arc<BTreeSet<Principal>>>,
    pub groups: OrdMap<ConnectorGroupId, ConnectorGroup>,
    pub join_tokens: OrdMap<JoinTokenId, Arc<JoinToken>>,
    pub connectors: OrdMap<ConnectorId, Arc<Connector>>,
    pub policies: Policies,
    pub roles: OrdMap<UserId, Role>,
    pub keys: BTreeMap<String, Arc<Key>>,
    pub certificates: OrdMap<CertificateId, Arc<Certificate>>,
    pub users: OrdMap<UserId, Arc<User>>,
    pub usernames: HashMap<Arc<str>, UserId>,
    pub credentials: OrdMap<UserId, Arc<Credentials>>,
    pub user_groups: OrdMap<GroupId, Arc<Group>>,
    pub members: OrdMap<GroupId, Arc<BTreeSet<Principal>>>,
    /// The groups each principal is directly in: `members` read backwards.
    pub member_of: OrdMap<Principal, Arc<BTreeSet<GroupId>>>,
    pub revoked_sessions: OrdMap<SessionId, SessionRevocation>,
    pub revoked_users: OrdMap<UserId, UserRevocation>,
    pub outdated: Outdated,
    /// Sessions of anybody begun before this are over.
    pub sessions_before: Timestamp,
}

/// An application and how often it has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    pub app: App,
    /// Version of the event that published it, so a connector can wait for it.
    pub version: u64,
}

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
            Event::TenantChanged { domain, public_port, relays } => {
                tenant.domain = domain;
                tenant.public_port = public_port;
                tenant.relays = relays.into();
            }
            Event::BrandingChanged(branding) => tenant.branding = branding,
            Event::AppPublished(app) | Event::AppChanged(app) => {
                if let Some(before) = tenant.apps.get(&app.id) {
                    self.routes.remove(&before.app);
                    tenant.by_origin.remove(&before.app);
                }
                self.routes.insert(tenant_id, &app);
                tenant.by_origin.insert(&app);
                tenant.apps.insert(app.id, Arc::new(Published { app: *app, version }));
            }
            Event::AppRetired(id) => {
                if let Some(before) = tenant.apps.remove(&id) {
                    self.routes.remove(&before.app);
                    tenant.by_origin.remove(&before.app);
                }
            }
            Event::ConnectorGroupCreated(group) | Event::ConnectorGroupChanged(group) => {
                tenant.groups.insert(group.id, group);
            }
            Event::ConnectorGroupRetired(id) => {
                tenant.groups.remove(&id);
            }
            Event::JoinTokenIssued(token) => {
                tenant.join_tokens.insert(token.id, Arc::new(token));
            }
            Event::ConnectorEnrolled(connector) | Event::ConnectorRevoked(connector) => {
                tenant.connectors.insert(connector.id, Arc::new(connector));
            }
            Event::Assigned { app, principal } => {
                Arc::make_mut(tenant.assignments.entry(app).or_default()).insert(principal);
            }
            Event::Unassigned { app, principal } => {
                Arc::make_mut(tenant.assignments.entry(app).or_default()).remove(&principal);
            }
            Event::PolicyCreated(policy) | Event::PolicyChanged(policy) => tenant.policies.insert(policy),
            Event::PolicyRemoved(id) => tenant.policies.remove(id),
            Event::RoleGranted { user, role } => {
                tenant.roles.insert(user, role);
            }
            Event::RoleWithdrawn { user } => {
                tenant.roles.remove(&user);
            }
            Event::KeyPublished(key) => {
                tenant.keys.insert(key.id.clone(), Arc::new(key));
            }
            Event::KeyRetired(id) => {
                tenant.keys.remove(&id);
            }
            Event::CertificateInstalled(certificate) => {
                tenant.certificates.insert(certificate.id, Arc::new(certificate));
            }
            Event::CertificateRemoved(id) => {
                tenant.certificates.remove(&id);
            }
            Event::UserCreated(user) | Event::UserChanged(user) => tenant.put_user(user),
            Event::UserRemoved(id) => tenant.remove_user(id),
            Event::CredentialsChanged(credentials) => {
                tenant.credentials.insert(credentials.user, Arc::new(credentials));
            }
            Event::GroupCreated(group) | Event::GroupChanged(group) => {
                tenant.user_groups.insert(group.id, Arc::new(group));
            }
            Event::GroupRemoved(id) => {
                tenant.user_groups.remove(&id);
            }
            Event::MemberAdded { group, member } => {
                Arc::make_mut(tenant.members.entry(group).or_default()).insert(member);
                Arc::make_mut(tenant.member_of.entry(member).or_default()).insert(group);
            }
            Event::MemberRemoved { group, member } => {
                Arc::make_mut(tenant.members.entry(group).or_default()).remove(&member);
                Arc::make_mut(tenant.member_of.entry(member).or_default()).remove(&group);
            }
            Event::SessionRevoked(revocation) => {
                tenant.revoked_sessions.insert(revocation.session, revocation);
            }
            Event::UserRevoked(revocation) => {
                tenant.revoked_users.insert(revocation.user, revocation);
            }
            Event::TokensOutdated(outdated) => tenant.outdated.insert(outdated),
            Event::AllSessionsEnded { before } => tenant.sessions_before = before,
        }
    }
}

impl Tenant {
    fn put_user(&mut self, user: User) {
        if let Some(before) = self.users.get(&user.id) {
            forget_username(&mut self.usernames, before);
        }
        self.usernames.insert(user.username.as_str().into(), user.id);
        self.users.insert(user.id, Arc::new(user));
    }

    fn remove_user(&mut self, id: UserId) {
        if let Some(before) = self.users.remove(&id) {
            forget_username(&mut self.usernames, &before);
        }
    }

    pub fn app(&self, id: AppId) -> Option<&App> {
        self.apps.get(&id).map(|it| &it.app)
    }

    pub fn user_by_name(&self, username: &str) -> Option<&Arc<User>> {
        self.usernames.get(username).and_then(|id| self.users.get(id))
    }

    /// A removed or disabled user, or one of whom nothing is known, is not active.
    pub fn active_user(&self, id: UserId) -> Option<&Arc<User>> {
        self.users.get(&id).filter(|user| !user.disabled)
    }

    /// Groups the user is in, directly or through other groups. Cycles end.
    pub fn groups_of(&self, user: UserId) -> BTreeSet<GroupId> {
        let mut found = BTreeSet::new();
        let mut open = vec![Principal::User(user)];
        while let Some(principal) = open.pop() {
            for group in self.member_of.get(&principal).into_iter().flat_map(|it| it.iter()) {
                if self.user_groups.contains_key(group) && found.insert(*group) {
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
        let alone = self.revoked_users.get(&user).map_or(0, |it| it.directory);
        alone.max(self.outdated.directory_for(user))
    }

    pub fn assigned(&self, app: AppId) -> Option<&BTreeSet<Principal>> {
        self.assignments.get(&app).map(Arc::as_ref)
    }

    /// Keys of a purpose, in the order they become active.
    pub fn keys_for(&self, purpose: KeyPurpose) -> Vec<(Timestamp, &Key)> {
        let keys = self.keys.values().filter(|key| key.purpose == purpose);
        let mut keys: Vec<_> = keys.map(|key| (key.active_from, key.as_ref())).collect();
        keys.sort_by(|(a, one), (b, other)| (a, &one.id).cmp(&(b, &other.id)));
        keys
    }

    /// The key that signs or seals now.
    pub fn key_in_use(&self, purpose: KeyPurpose, now: Timestamp) -> Option<&Key> {
        in_use(&self.keys_for(purpose), now).copied()
    }

    pub fn policy(&self, id: PolicyId) -> Option<&Arc<Policy>> {
        self.policies.get(id)
    }

    /// An invitation makes one connector and no second.
    pub fn is_spent(&self, token: JoinTokenId) -> bool {
        self.connectors.values().any(|connector| connector.join_token == token)
    }
}

/// The name may already be another user's: subjects arrive in any order.
fn forget_username(usernames: &mut HashMap<Arc<str>, UserId>, user: &User) {
    if usernames.get(user.username.as_str()) == Some(&user.id) {
        usernames.remove(user.username.as_str());
    }
}
