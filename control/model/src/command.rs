//! What may be wished, and what comes of it: `decide` turns a command into
//! events or a rejection, looking only at the snapshot.
//!
//! A command whose effect already holds yields no events; repeating it is safe.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::{
    app::{App, Name},
    branding::Branding,
    connector::{Connector, ConnectorGroup, JoinToken},
    directory::{Credentials, Group, Principal, Role, User},
    event::Event,
    ids::*,
    keys::{Certificate, Key, Source},
    policy::Policy,
    risk::{SessionRevocation, UserRevocation},
    snapshot::{Snapshot, Tenant},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    SetTenant {
        domain: String,
        public_port: u16,
        /// None leaves them as they are.
        relays: Vec<String>,
    },
    SetBranding(Branding),
    PublishApp(Box<App>),
    ChangeApp(Box<App>),
    RetireApp(AppId),
    CreateConnectorGroup(ConnectorGroup),
    ChangeConnectorGroup(ConnectorGroup),
    RetireConnectorGroup(ConnectorGroupId),
    IssueJoinToken(JoinToken),
    EnrolConnector {
        connector: Connector,
        now: Timestamp,
    },
    RevokeConnector(ConnectorId),
    Assign {
        app: AppId,
        principal: Principal,
    },
    Unassign {
        app: AppId,
        principal: Principal,
    },
    CreatePolicy(Policy),
    ChangePolicy(Policy),
    RemovePolicy(PolicyId),
    SetRole {
        user: UserId,
        role: Option<Role>,
    },
    PublishKey(Key),
    /// What it signed or sealed counts no more.
    RetireKey {
        id: String,
        now: Timestamp,
    },
    InstallCertificate(Certificate),
    RemoveCertificate(CertificateId),
    CreateUser(User),
    ChangeUser(User),
    RemoveUser(UserId),
    SetCredentials(Credentials),
    CreateGroup(Group),
    ChangeGroup(Group),
    RemoveGroup(GroupId),
    AddMember {
        group: GroupId,
        member: Principal,
    },
    RemoveMember {
        group: GroupId,
        member: Principal,
    },
    RevokeSession(SessionRevocation),
    /// Ends sessions begun before now, or makes tokens older than a position stale.
    RevokeUser(UserRevocation),
    /// Makes tokens of many people stale that were minted before they changed.
    OutdateTokens {
        users: BTreeSet<UserId>,
        directory: Position,
        now: Timestamp,
    },
    EndAllSessions {
        before: Timestamp,
    },
}

/// A reasoned no. `field` and `remedy` are for the administrator.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    #[error("{0} does not exist")]
    NotFound(What),
    #[error("{0} exists already")]
    Exists(What),
    #[error("the name {name:?} is taken by another {what}")]
    NameTaken { what: What, name: String },
    #[error("{url} is taken by another application")]
    UrlTaken { url: String },
    #[error("the host {host} belongs to another tenant")]
    HostTaken { host: String },
    #[error("{what} is in use by {by}")]
    InUse { what: What, by: String },
    #[error("the join token was used before or has expired")]
    TokenSpent,
    #[error("the connector was revoked")]
    Revoked,
    #[error("the last owner cannot be removed, disabled or given another role")]
    LastOwner,
    #[error("a group cannot contain itself, directly or through other groups")]
    Cycle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    App,
    ConnectorGroup,
    Connector,
    JoinToken,
    Policy,
    User,
    Group,
    Key,
    Certificate,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::App => "application",
            Self::ConnectorGroup => "connector group",
            Self::Connector => "connector",
            Self::JoinToken => "join token",
            Self::Policy => "policy",
            Self::User => "user",
            Self::Group => "group",
            Self::Key => "key",
            Self::Certificate => "certificate",
        })
    }
}

impl Rejection {
    /// The field of the request to change.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::Exists(_) | Self::InUse { .. } | Self::Revoked => "id",
            Self::NameTaken { what: What::User, .. } => "username",
            Self::NameTaken { .. } => "name",
            Self::UrlTaken { .. } | Self::HostTaken { .. } => "external_url",
            Self::TokenSpent => "token",
            Self::LastOwner => "role",
            Self::Cycle => "member",
        }
    }

    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "list what exists and use its id or name",
            Self::Exists(_) => "update it instead, or choose another id",
            Self::NameTaken { .. } => "choose another name",
            Self::UrlTaken { .. } => "choose another host or path",
            Self::HostTaken { .. } => "choose a host under your own domain",
            Self::InUse { .. } => "move or remove what uses it first",
            Self::TokenSpent => "ask for a new one: postern connector token",
            Self::Revoked => "join again with a new token",
            Self::LastOwner => "make another user owner first",
            Self::Cycle => "remove the other membership first",
        }
    }
}

pub fn decide(snapshot: &Snapshot, tenant_id: &TenantId, command: Command) -> Result<Vec<Event>, Rejection> {
    let empty = Tenant::default();
    let tenant = snapshot.tenant(tenant_id).map_or(&empty, |it| it.as_ref());
    match command {
        Command::SetTenant { domain, public_port, relays } => {
            let relays = if relays.is_empty() { tenant.relays.to_vec() } else { relays };
            let same = tenant.domain == domain && tenant.public_port == public_port && *tenant.relays == *relays;
            Ok(unless(same, Event::TenantChanged { domain, public_port, relays }))
        }
        Command::SetBranding(branding) => Ok(unless(tenant.branding == branding, Event::BrandingChanged(branding))),
        Command::PublishApp(app) => match tenant.app(app.id) {
            Some(before) if *before == *app => Ok(vec![]),
            Some(_) => Err(Rejection::Exists(What::App)),
            None => {
                check_app(snapshot, tenant_id, tenant, &app)?;
                Ok(vec![Event::AppPublished(app)])
            }
        },
        Command::ChangeApp(app) => {
            let before = tenant.app(app.id).ok_or(Rejection::NotFound(What::App))?;
            check_app(snapshot, tenant_id, tenant, &app)?;
            Ok(unless(*before == *app, Event::AppChanged(app)))
        }
        Command::RetireApp(id) => Ok(unless(tenant.app(id).is_none(), Event::AppRetired(id))),
        Command::CreateConnectorGroup(group) => match tenant.groups.get(&group.id) {
            Some(before) if *before == group => Ok(vec![]),
            Some(_) => Err(Rejection::Exists(What::ConnectorGroup)),
            None => {
                check_connector_group_name(tenant, &group)?;
                Ok(vec![Event::ConnectorGroupCreated(group)])
            }
        },
        Command::ChangeConnectorGroup(group) => {
            let before = tenant.groups.get(&group.id).ok_or(Rejection::NotFound(What::ConnectorGroup))?;
            check_connector_group_name(tenant, &group)?;
            Ok(unless(*before == group, Event::ConnectorGroupChanged(group)))
        }
        Command::RetireConnectorGroup(id) => retire_connector_group(tenant, id),
        Command::IssueJoinToken(token) => {
            require(tenant.groups.contains_key(&token.group), Rejection::NotFound(What::ConnectorGroup))?;
            let before = tenant.join_tokens.get(&token.id);
            Ok(unless(before.is_some_and(|it| **it == token), Event::JoinTokenIssued(token)))
        }
        Command::EnrolConnector { connector, now } => enrol(tenant, connector, now),
        Command::RevokeConnector(id) => {
            let before = tenant.connectors.get(&id).ok_or(Rejection::NotFound(What::Connector))?;
            let revoked = Connector { revoked: true, ..before.as_ref().clone() };
            Ok(unless(before.revoked, Event::ConnectorRevoked(revoked)))
        }
        Command::Assign { app, principal } => {
            require(tenant.app(app).is_some(), Rejection::NotFound(What::App))?;
            require_principal(tenant, principal)?;
            let holds = tenant.assigned(app).is_some_and(|it| it.contains(&principal));
            Ok(unless(holds, Event::Assigned { app, principal }))
        }
        Command::Unassign { app, principal } => {
            let holds = tenant.assigned(app).is_some_and(|it| it.contains(&principal));
            Ok(unless(!holds, Event::Unassigned { app, principal }))
        }
        Command::CreatePolicy(policy) => match tenant.policy(policy.id) {
            Some(before) if **before == policy => Ok(vec![]),
            Some(_) => Err(Rejection::Exists(What::Policy)),
            None => {
                check_policy(tenant, &policy)?;
                Ok(vec![Event::PolicyCreated(policy)])
            }
        },
        Command::ChangePolicy(policy) => {
            let before = tenant.policy(policy.id).ok_or(Rejection::NotFound(What::Policy))?;
            check_policy(tenant, &policy)?;
            Ok(unless(**before == policy, Event::PolicyChanged(policy)))
        }
        Command::RemovePolicy(id) => Ok(unless(tenant.policy(id).is_none(), Event::PolicyRemoved(id))),
        Command::SetRole { user, role } => set_role(tenant, user, role),
        Command::PublishKey(key) => {
            Ok(unless(tenant.keys.get(&key.id).is_some_and(|it| **it == key), Event::KeyPublished(key)))
        }
        Command::RetireKey { id, now } => {
            let Some(key) = tenant.keys.get(&id) else { return Ok(vec![]) };
            let in_use = tenant.key_in_use(key.purpose, now).is_some_and(|it| it.id == id);
            match in_use {
                true => {
                    Err(Rejection::InUse { what: What::Key, by: "those who sign with it now; rotate first".into() })
                }
                false => Ok(vec![Event::KeyRetired(id)]),
            }
        }
        Command::InstallCertificate(certificate) => {
            let before = tenant.certificates.get(&certificate.id);
            Ok(unless(before.is_some_and(|it| **it == certificate), Event::CertificateInstalled(certificate)))
        }
        Command::RemoveCertificate(id) => match tenant.certificates.get(&id) {
            Some(certificate) if certificate.source == Source::Own => Err(Rejection::InUse {
                what: What::Certificate,
                by: "the installation itself, which would make it again".into(),
            }),
            Some(_) => Ok(vec![Event::CertificateRemoved(id)]),
            None => Ok(vec![]),
        },
        Command::CreateUser(user) => match tenant.users.get(&user.id) {
            Some(before) if **before == user => Ok(vec![]),
            Some(_) => Err(Rejection::Exists(What::User)),
            None => {
                check_username(tenant, &user)?;
                Ok(vec![Event::UserCreated(user)])
            }
        },
        Command::ChangeUser(user) => {
            let before = tenant.users.get(&user.id).ok_or(Rejection::NotFound(What::User))?;
            check_username(tenant, &user)?;
            require(!(user.disabled && is_last_owner(tenant, user.id)), Rejection::LastOwner)?;
            Ok(unless(**before == user, Event::UserChanged(user)))
        }
        Command::RemoveUser(id) => {
            require(!is_last_owner(tenant, id), Rejection::LastOwner)?;
            Ok(unless(!tenant.users.contains_key(&id), Event::UserRemoved(id)))
        }
        Command::SetCredentials(credentials) => {
            require(tenant.users.contains_key(&credentials.user), Rejection::NotFound(What::User))?;
            let before = tenant.credentials.get(&credentials.user);
            Ok(unless(before.is_some_and(|it| **it == credentials), Event::CredentialsChanged(credentials)))
        }
        Command::CreateGroup(group) => match tenant.user_groups.get(&group.id) {
            Some(before) if **before == group => Ok(vec![]),
            Some(_) => Err(Rejection::Exists(What::Group)),
            None => {
                check_group_name(tenant, &group)?;
                Ok(vec![Event::GroupCreated(group)])
            }
        },
        Command::ChangeGroup(group) => {
            let before = tenant.user_groups.get(&group.id).ok_or(Rejection::NotFound(What::Group))?;
            check_group_name(tenant, &group)?;
            Ok(unless(**before == group, Event::GroupChanged(group)))
        }
        Command::RemoveGroup(id) => remove_group(tenant, id),
        Command::AddMember { group, member } => add_member(tenant, group, member),
        Command::RemoveMember { group, member } => {
            let holds = tenant.members.get(&group).is_some_and(|it| it.contains(&member));
            Ok(unless(!holds, Event::MemberRemoved { group, member }))
        }
        Command::RevokeSession(revocation) => {
            Ok(unless(tenant.revoked_sessions.contains_key(&revocation.session), Event::SessionRevoked(revocation)))
        }
        Command::RevokeUser(revocation) => Ok(revoke_user(tenant, revocation)),
        Command::EndAllSessions { before } => {
            Ok(unless(before <= tenant.sessions_before, Event::AllSessionsEnded { before }))
        }
        Command::OutdateTokens { users, directory, now } => {
            let outdated = tenant.outdated.outdate(users, directory, now);
            Ok(outdated.into_iter().map(Event::TokensOutdated).collect())
        }
    }
}

fn unless(holds: bool, event: Event) -> Vec<Event> {
    match holds {
        true => vec![],
        false => vec![event],
    }
}

fn require(holds: bool, otherwise: Rejection) -> Result<(), Rejection> {
    holds.then_some(()).ok_or(otherwise)
}

fn require_principal(tenant: &Tenant, principal: Principal) -> Result<(), Rejection> {
    match principal {
        Principal::Everyone => Ok(()),
        Principal::User(id) => require(tenant.users.contains_key(&id), Rejection::NotFound(What::User)),
        Principal::Group(id) => require(tenant.user_groups.contains_key(&id), Rejection::NotFound(What::Group)),
    }
}

fn check_app(snapshot: &Snapshot, tenant_id: &TenantId, tenant: &Tenant, app: &App) -> Result<(), Rejection> {
    require(tenant.groups.contains_key(&app.group), Rejection::NotFound(What::ConnectorGroup))?;
    let mut own = BTreeSet::new();
    for (url, _) in app.addresses() {
        // A name below another tenant's wildcard is that tenant's.
        if snapshot.routes.on_host(&url.host).iter().any(|route| route.tenant != *tenant_id) {
            return Err(Rejection::HostTaken { host: url.host.to_string() });
        }
        let mut others = snapshot.routes.named(&url.host).iter().filter(|route| route.app != app.id);
        if others.any(|route| route.path == url.path) || !own.insert(url) {
            return Err(Rejection::UrlTaken { url: url.to_string() });
        }
    }
    let same_name = |it: &App| it.id != app.id && same(&it.name, &app.name);
    match tenant.apps.values().any(|it| same_name(&it.app)) {
        true => Err(name_taken(What::App, &app.name)),
        false => Ok(()),
    }
}

/// Names are compared as people read them.
fn same(a: &Name, b: &Name) -> bool {
    a.as_str().to_lowercase() == b.as_str().to_lowercase()
}

fn name_taken(what: What, name: &Name) -> Rejection {
    Rejection::NameTaken { what, name: name.to_string() }
}

fn check_connector_group_name(tenant: &Tenant, group: &ConnectorGroup) -> Result<(), Rejection> {
    let taken = tenant.groups.values().any(|it| it.id != group.id && same(&it.name, &group.name));
    require(!taken, name_taken(What::ConnectorGroup, &group.name))
}

fn check_group_name(tenant: &Tenant, group: &Group) -> Result<(), Rejection> {
    let taken = tenant.user_groups.values().any(|it| it.id != group.id && same(&it.name, &group.name));
    require(!taken, name_taken(What::Group, &group.name))
}

fn check_username(tenant: &Tenant, user: &User) -> Result<(), Rejection> {
    let taken = tenant.usernames.get(user.username.as_str()).is_some_and(|id| *id != user.id);
    let name = user.username.as_str().to_owned();
    require(!taken, Rejection::NameTaken { what: What::User, name })
}

fn check_policy(tenant: &Tenant, policy: &Policy) -> Result<(), Rejection> {
    for app in policy.apps.iter().chain(&policy.exclude_apps) {
        require(tenant.app(*app).is_some(), Rejection::NotFound(What::App))?;
    }
    for principal in policy.include.iter().chain(&policy.exclude) {
        require_principal(tenant, *principal)?;
    }
    let taken = tenant.policies.iter().any(|it| it.id != policy.id && same(&it.name, &policy.name));
    require(!taken, name_taken(What::Policy, &policy.name))
}

fn retire_connector_group(tenant: &Tenant, id: ConnectorGroupId) -> Result<Vec<Event>, Rejection> {
    if let Some(app) = tenant.apps.values().find(|it| it.app.group == id) {
        let by = format!("application {}", app.app.name);
        return Err(Rejection::InUse { what: What::ConnectorGroup, by });
    }
    if let Some(connector) = tenant.connectors.values().find(|it| it.group == id && !it.revoked) {
        let by = format!("connector {}", connector.name);
        return Err(Rejection::InUse { what: What::ConnectorGroup, by });
    }
    Ok(unless(!tenant.groups.contains_key(&id), Event::ConnectorGroupRetired(id)))
}

fn enrol(tenant: &Tenant, connector: Connector, now: Timestamp) -> Result<Vec<Event>, Rejection> {
    if tenant.connectors.get(&connector.id).is_some_and(|it| **it == connector) {
        return Ok(vec![]);
    }
    let token = tenant.join_tokens.get(&connector.join_token).ok_or(Rejection::TokenSpent)?;
    let usable = now < token.expires && token.group == connector.group && !tenant.is_spent(token.id);
    require(usable, Rejection::TokenSpent)?;
    require(tenant.groups.contains_key(&connector.group), Rejection::NotFound(What::ConnectorGroup))?;
    require(!tenant.connectors.contains_key(&connector.id), Rejection::Exists(What::Connector))?;
    Ok(vec![Event::ConnectorEnrolled(connector)])
}

fn set_role(tenant: &Tenant, user: UserId, role: Option<Role>) -> Result<Vec<Event>, Rejection> {
    require(tenant.users.contains_key(&user), Rejection::NotFound(What::User))?;
    require(role == Some(Role::Owner) || !is_last_owner(tenant, user), Rejection::LastOwner)?;
    let before = tenant.roles.get(&user).copied();
    Ok(match role {
        Some(role) => unless(before == Some(role), Event::RoleGranted { user, role }),
        None => unless(before.is_none(), Event::RoleWithdrawn { user }),
    })
}

/// An installation without an owner could not be administered any more.
fn is_last_owner(tenant: &Tenant, user: UserId) -> bool {
    let owns = |id: UserId| tenant.roles.get(&id) == Some(&Role::Owner) && tenant.active_user(id).is_some();
    owns(user) && !tenant.roles.keys().any(|id| *id != user && owns(*id))
}

fn remove_group(tenant: &Tenant, id: GroupId) -> Result<Vec<Event>, Rejection> {
    // A policy that names a missing group would silently stop applying.
    if let Some(policy) = tenant.policies.iter().find(|it| it.named_groups().any(|group| group == id)) {
        return Err(Rejection::InUse { what: What::Group, by: format!("policy {}", policy.name) });
    }
    Ok(unless(!tenant.user_groups.contains_key(&id), Event::GroupRemoved(id)))
}

fn add_member(tenant: &Tenant, group: GroupId, member: Principal) -> Result<Vec<Event>, Rejection> {
    require(tenant.user_groups.contains_key(&group), Rejection::NotFound(What::Group))?;
    require_principal(tenant, member)?;
    match member {
        Principal::Everyone => return Err(Rejection::Cycle),
        Principal::Group(inner) => require(!contains_group(tenant, inner, group), Rejection::Cycle)?,
        Principal::User(_) => {}
    }
    let holds = tenant.members.get(&group).is_some_and(|it| it.contains(&member));
    Ok(unless(holds, Event::MemberAdded { group, member }))
}

/// Is `inner` the group `outer`, or somewhere inside it?
fn contains_group(tenant: &Tenant, outer: GroupId, inner: GroupId) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    let mut open = vec![outer];
    while let Some(group) = open.pop() {
        if group == inner {
            return true;
        }
        if !seen.insert(group) {
            continue;
        }
        for member in tenant.members.get(&group).into_iter().flat_map(|it| it.iter()) {
            if let Principal::Group(id) = member {
                open.push(*id);
            }
        }
    }
    false
}

/// Revocations only ever grow: an older one never re-opens what a newer closed.
fn revoke_user(tenant: &Tenant, wished: UserRevocation) -> Vec<Event> {
    let before = tenant.revoked_users.get(&wished.user);
    let merged = UserRevocation {
        user: wished.user,
        sessions_before: wished.sessions_before.max(before.map_or(Timestamp(0), |it| it.sessions_before)),
        directory: wished.directory.max(before.map_or(0, |it| it.directory)),
    };
    unless(before == Some(&merged), Event::UserRevoked(merged))
}
