//! What can have happened. Each event states the whole new truth about its
//! subject, so the last event on a subject is its present state.

use std::fmt;

use crate::{
    app::App,
    branding::Branding,
    connector::{Connector, ConnectorGroup, JoinToken},
    directory::{Credentials, Group, Principal, Role, User},
    ids::*,
    keys::{Certificate, Key},
    policy::Policy,
    risk::{OutdatedTokens, SessionRevocation, UserRevocation},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Config,
    Directory,
    Risk,
    Activity,
}

impl Stream {
    pub const ALL: [Self; 4] = [Self::Config, Self::Directory, Self::Risk, Self::Activity];

    /// Streams whose fold is the snapshot; each subject of theirs is a hash chain.
    pub const STATE: [Self; 3] = [Self::Config, Self::Directory, Self::Risk];

    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Directory => "directory",
            Self::Risk => "risk",
            Self::Activity => "activity",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }

    pub fn is_state(self) -> bool {
        self != Self::Activity
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    TenantChanged {
        domain: String,
        public_port: u16,
        relays: Vec<String>,
    },
    BrandingChanged(Branding),
    AppPublished(Box<App>),
    AppChanged(Box<App>),
    AppRetired(AppId),
    ConnectorGroupCreated(ConnectorGroup),
    ConnectorGroupChanged(ConnectorGroup),
    ConnectorGroupRetired(ConnectorGroupId),
    JoinTokenIssued(JoinToken),
    ConnectorEnrolled(Connector),
    ConnectorRevoked(Connector),
    Assigned {
        app: AppId,
        principal: Principal,
    },
    Unassigned {
        app: AppId,
        principal: Principal,
    },
    PolicyCreated(Policy),
    PolicyChanged(Policy),
    PolicyRemoved(PolicyId),
    RoleGranted {
        user: UserId,
        role: Role,
    },
    RoleWithdrawn {
        user: UserId,
    },
    KeyPublished(Key),
    KeyRetired(String),
    CertificateInstalled(Certificate),
    CertificateRemoved(CertificateId),
    UserCreated(User),
    UserChanged(User),
    UserRemoved(UserId),
    CredentialsChanged(Credentials),
    GroupCreated(Group),
    GroupChanged(Group),
    GroupRemoved(GroupId),
    MemberAdded {
        group: GroupId,
        member: Principal,
    },
    MemberRemoved {
        group: GroupId,
        member: Principal,
    },
    SessionRevoked(SessionRevocation),
    UserRevoked(UserRevocation),
    TokensOutdated(OutdatedTokens),
    /// Of all people: those begun before are over. What was known of some of them may be lost.
    AllSessionsEnded {
        before: Timestamp,
    },
}

/// Where an event is filed: `postern.<stream>.<tenant>.<kind>.<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub stream: Stream,
    pub kind: &'static str,
    pub id: String,
}

impl Subject {
    pub fn path(&self, tenant: &TenantId) -> String {
        format!("postern.{}.{tenant}.{}.{}", self.stream.name(), self.kind, self.id)
    }
}

impl Event {
    pub fn subject(&self) -> Subject {
        use Stream::{Config, Directory, Risk};
        let at = |stream, kind, id: &dyn fmt::Display| Subject { stream, kind, id: id.to_string() };
        match self {
            Self::TenantChanged { .. } => at(Config, "tenant", &"settings"),
            Self::BrandingChanged(_) => at(Config, "tenant", &"branding"),
            Self::AppPublished(app) | Self::AppChanged(app) => at(Config, "app", &app.id),
            Self::AppRetired(id) => at(Config, "app", id),
            Self::ConnectorGroupCreated(it) | Self::ConnectorGroupChanged(it) => at(Config, "connector-group", &it.id),
            Self::ConnectorGroupRetired(id) => at(Config, "connector-group", id),
            Self::JoinTokenIssued(it) => at(Config, "join-token", &it.id),
            Self::ConnectorEnrolled(it) | Self::ConnectorRevoked(it) => at(Config, "connector", &it.id),
            Self::Assigned { app, principal } | Self::Unassigned { app, principal } => {
                at(Config, "assignment", &format_args!("{app}.{}", token(principal)))
            }
            Self::PolicyCreated(it) | Self::PolicyChanged(it) => at(Config, "policy", &it.id),
            Self::PolicyRemoved(id) => at(Config, "policy", id),
            Self::RoleGranted { user, .. } | Self::RoleWithdrawn { user } => at(Config, "role", user),
            Self::KeyPublished(it) => at(Config, "key", &it.id),
            Self::KeyRetired(id) => at(Config, "key", id),
            Self::CertificateInstalled(it) => at(Config, "certificate", &it.id),
            Self::CertificateRemoved(id) => at(Config, "certificate", id),
            Self::UserCreated(it) | Self::UserChanged(it) => at(Directory, "user", &it.id),
            Self::UserRemoved(id) => at(Directory, "user", id),
            Self::CredentialsChanged(it) => at(Directory, "credentials", &it.user),
            Self::GroupCreated(it) | Self::GroupChanged(it) => at(Directory, "group", &it.id),
            Self::GroupRemoved(id) => at(Directory, "group", id),
            Self::MemberAdded { group, member } | Self::MemberRemoved { group, member } => {
                at(Directory, "member", &format_args!("{group}.{}", token(member)))
            }
            Self::SessionRevoked(it) => at(Risk, "session", &it.session),
            Self::UserRevoked(it) => at(Risk, "user", &it.user),
            Self::TokensOutdated(it) => at(Risk, "outdated", &it.slot),
            Self::AllSessionsEnded { .. } => at(Risk, "sessions", &"all"),
        }
    }
}

/// A principal as one token of a subject.
fn token(principal: &Principal) -> String {
    principal.to_string().replace(':', "-")
}
