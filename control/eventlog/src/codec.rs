//! Events as bytes: which message an event's payload is, by its kind.
//!
//! A kind that is not here is an error and never skipped: the event may take a
//! right away. Kinds are never reused; `samples/` holds one of each, for ever.

use model::{Event, Timestamp, event::Stream};
use proto::{Message, v1};
use thiserror::Error;

use crate::wire::{self, FieldError, InField, Parsed, parse};

/// What ACTIVITY records. Nothing folds it into a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub enum Activity {
    SignIn(v1::SignInAttempt),
    /// As relays wrote it before they wrote several at once.
    Access(v1::Access),
    Accesses(v1::Accesses),
    Connector(v1::ConnectorActivity),
    /// So many events of one writer were dropped.
    Gap(v1::ActivityGap),
}

/// What the body of an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    State(Event),
    Activity(Activity),
}

/// What a state stream says of itself. It belongs to no tenant.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    Checkpoint(v1::Checkpoint),
    Restored(v1::LogRestored),
}

pub(crate) const CHECKPOINT: &str = "Checkpoint";
const RESTORED: &str = "LogRestored";

impl Mark {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Checkpoint(_) => CHECKPOINT,
            Self::Restored(_) => RESTORED,
        }
    }

    /// Each kind has one subject in each stream; `_` is no tenant's name.
    pub fn subject(&self, stream: Stream) -> String {
        match self {
            Self::Checkpoint(_) => format!("postern.{}._.checkpoint.last", stream.name()),
            Self::Restored(_) => format!("postern.{}._.restored.last", stream.name()),
        }
    }

    pub fn stream(&self) -> &str {
        match self {
            Self::Checkpoint(it) => &it.stream,
            Self::Restored(it) => &it.stream,
        }
    }

    pub fn payload(&self) -> Vec<u8> {
        match self {
            Self::Checkpoint(it) => it.encode_to_vec(),
            Self::Restored(it) => it.encode_to_vec(),
        }
    }

    /// `None` for kinds that are no marks.
    pub fn decode(kind: &str, payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        match kind {
            CHECKPOINT => message(kind, payload).map(Self::Checkpoint).map(Some),
            RESTORED => message(kind, payload).map(Self::Restored).map(Some),
            _ => Ok(None),
        }
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("unknown kind of event {0:?}; a newer release wrote it")]
    UnknownKind(String),
    #[error("the payload of a {kind} cannot be read")]
    Malformed { kind: String },
    #[error("the payload of a {kind} is invalid")]
    Invalid { kind: String, source: FieldError },
}

impl Activity {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SignIn(_) => "SignInAttempted",
            Self::Access(_) => "Accessed",
            Self::Accesses(_) => "AccessesRecorded",
            Self::Connector(_) => "ConnectorActed",
            Self::Gap(_) => "ActivityDropped",
        }
    }

    /// The token of the subject: `postern.activity.<tenant>.<this>`.
    pub fn topic(&self) -> &'static str {
        match self {
            Self::SignIn(_) => "signin",
            Self::Access(_) | Self::Accesses(_) => "access",
            Self::Connector(_) => "connector",
            Self::Gap(_) => "gap",
        }
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            Self::SignIn(it) => it.encode_to_vec(),
            Self::Access(it) => it.encode_to_vec(),
            Self::Accesses(it) => it.encode_to_vec(),
            Self::Connector(it) => it.encode_to_vec(),
            Self::Gap(it) => it.encode_to_vec(),
        }
    }
}

impl Fact {
    pub fn stream(&self) -> Stream {
        match self {
            Self::State(event) => event.subject().stream,
            Self::Activity(_) => Stream::Activity,
        }
    }

    /// The kind and the payload.
    pub fn encode(&self) -> (&'static str, Vec<u8>) {
        match self {
            Self::State(event) => encode(event),
            Self::Activity(activity) => (activity.kind(), activity.payload()),
        }
    }

    pub fn decode(kind: &str, payload: &[u8]) -> Result<Self, DecodeError> {
        let activity = match kind {
            "SignInAttempted" => Activity::SignIn(message(kind, payload)?),
            "Accessed" => Activity::Access(message(kind, payload)?),
            "AccessesRecorded" => Activity::Accesses(message(kind, payload)?),
            "ConnectorActed" => Activity::Connector(message(kind, payload)?),
            "ActivityDropped" => Activity::Gap(message(kind, payload)?),
            _ => return decode(kind, payload).map(Self::State),
        };
        Ok(Self::Activity(activity))
    }
}

fn encode(event: &Event) -> (&'static str, Vec<u8>) {
    match event {
        Event::TenantChanged { domain, public_port, relays } => {
            let (domain, public_port, relays) = (domain.clone(), u32::from(*public_port), relays.clone());
            ("TenantChanged", v1::Tenant { domain, public_port, relays }.encode_to_vec())
        }
        Event::AppPublished(app) => ("AppPublished", wire::app_to(app).encode_to_vec()),
        Event::AppChanged(app) => ("AppChanged", wire::app_to(app).encode_to_vec()),
        Event::BrandingChanged(it) => ("BrandingChanged", wire::branding_to(it).encode_to_vec()),
        Event::AppRetired(id) => ("AppRetired", v1::App { id: id.to_string(), ..Default::default() }.encode_to_vec()),
        Event::ConnectorGroupCreated(it) => ("ConnectorGroupCreated", wire::connector_group_to(it).encode_to_vec()),
        Event::ConnectorGroupChanged(it) => ("ConnectorGroupChanged", wire::connector_group_to(it).encode_to_vec()),
        Event::ConnectorGroupRetired(id) => {
            ("ConnectorGroupRetired", v1::ConnectorGroup { id: id.to_string(), ..Default::default() }.encode_to_vec())
        }
        Event::JoinTokenIssued(it) => ("JoinTokenIssued", wire::join_token_to(it).encode_to_vec()),
        Event::ConnectorEnrolled(it) => ("ConnectorEnrolled", wire::connector_to(it).encode_to_vec()),
        Event::ConnectorRevoked(it) => ("ConnectorRevoked", wire::connector_to(it).encode_to_vec()),
        Event::Assigned { app, principal } => ("Assigned", assignment(app, principal)),
        Event::Unassigned { app, principal } => ("Unassigned", assignment(app, principal)),
        Event::PolicyCreated(it) => ("PolicyCreated", wire::policy_to(it).encode_to_vec()),
        Event::PolicyChanged(it) => ("PolicyChanged", wire::policy_to(it).encode_to_vec()),
        Event::PolicyRemoved(id) => {
            ("PolicyRemoved", v1::Policy { id: id.to_string(), ..Default::default() }.encode_to_vec())
        }
        Event::RoleGranted { user, role } => {
            let role = wire::role_to(*role).into();
            ("RoleGranted", v1::RoleAssignment { user: user.to_string(), role }.encode_to_vec())
        }
        Event::RoleWithdrawn { user } => {
            ("RoleWithdrawn", v1::RoleAssignment { user: user.to_string(), role: 0 }.encode_to_vec())
        }
        Event::KeyPublished(it) => ("KeyPublished", wire::key_to(it).encode_to_vec()),
        Event::KeyRetired(id) => ("KeyRetired", v1::Key { id: id.clone(), ..Default::default() }.encode_to_vec()),
        Event::CertificateInstalled(it) => ("CertificateInstalled", wire::certificate_to(it).encode_to_vec()),
        Event::CertificateRemoved(id) => {
            ("CertificateRemoved", v1::Certificate { id: id.to_string(), ..Default::default() }.encode_to_vec())
        }
        Event::UserCreated(it) => ("UserCreated", wire::user_to(it).encode_to_vec()),
        Event::UserChanged(it) => ("UserChanged", wire::user_to(it).encode_to_vec()),
        Event::UserRemoved(id) => {
            ("UserRemoved", v1::User { id: id.to_string(), ..Default::default() }.encode_to_vec())
        }
        Event::CredentialsChanged(it) => ("CredentialsChanged", wire::credentials_to(it).encode_to_vec()),
        Event::GroupCreated(it) => ("GroupCreated", wire::group_to(it).encode_to_vec()),
        Event::GroupChanged(it) => ("GroupChanged", wire::group_to(it).encode_to_vec()),
        Event::GroupRemoved(id) => {
            ("GroupRemoved", v1::Group { id: id.to_string(), ..Default::default() }.encode_to_vec())
        }
        Event::MemberAdded { group, member } => ("MemberAdded", membership(group, member)),
        Event::MemberRemoved { group, member } => ("MemberRemoved", membership(group, member)),
        Event::SessionRevoked(it) => ("SessionRevoked", wire::session_revocation_to(it).encode_to_vec()),
        Event::UserRevoked(it) => ("UserRevoked", wire::user_revocation_to(it).encode_to_vec()),
        Event::AllSessionsEnded { before } => {
            ("AllSessionsEnded", v1::AllSessionsEnded { before_ms: before.0 }.encode_to_vec())
        }
        Event::TokensOutdated(it) => ("TokensOutdated", wire::outdated_tokens_to(it).encode_to_vec()),
    }
}

fn assignment(app: &model::AppId, principal: &model::Principal) -> Vec<u8> {
    v1::Assignment { app: app.to_string(), principal: principal.to_string() }.encode_to_vec()
}

fn membership(group: &model::GroupId, member: &model::Principal) -> Vec<u8> {
    v1::Membership { group: group.to_string(), member: member.to_string() }.encode_to_vec()
}

fn decode(kind: &str, payload: &[u8]) -> Result<Event, DecodeError> {
    decode_known(kind, payload)?.map_err(|source| DecodeError::Invalid { kind: kind.to_owned(), source })
}

fn decode_known(kind: &str, payload: &[u8]) -> Result<Parsed<Event>, DecodeError> {
    Ok(match kind {
        "TenantChanged" => wire::tenant_from(message(kind, payload)?)
            .map(|(domain, public_port, relays)| Event::TenantChanged { domain, public_port, relays }),
        "AppPublished" => wire::app_from(message(kind, payload)?).map(Box::new).map(Event::AppPublished),
        "AppChanged" => wire::app_from(message(kind, payload)?).map(Box::new).map(Event::AppChanged),
        "BrandingChanged" => wire::branding_from(message(kind, payload)?).map(Event::BrandingChanged),
        "AppRetired" => parse("id", &message::<v1::App>(kind, payload)?.id).map(Event::AppRetired),
        "ConnectorGroupCreated" => {
            wire::connector_group_from(message(kind, payload)?).map(Event::ConnectorGroupCreated)
        }
        "ConnectorGroupChanged" => {
            wire::connector_group_from(message(kind, payload)?).map(Event::ConnectorGroupChanged)
        }
        "ConnectorGroupRetired" => {
            parse("id", &message::<v1::ConnectorGroup>(kind, payload)?.id).map(Event::ConnectorGroupRetired)
        }
        "JoinTokenIssued" => wire::join_token_from(message(kind, payload)?).map(Event::JoinTokenIssued),
        "ConnectorEnrolled" => wire::connector_from(message(kind, payload)?).map(Event::ConnectorEnrolled),
        "ConnectorRevoked" => wire::connector_from(message(kind, payload)?).map(Event::ConnectorRevoked),
        "Assigned" => {
            from_assignment(message(kind, payload)?).map(|(app, principal)| Event::Assigned { app, principal })
        }
        "Unassigned" => {
            from_assignment(message(kind, payload)?).map(|(app, principal)| Event::Unassigned { app, principal })
        }
        "PolicyCreated" => wire::policy_from(message(kind, payload)?).map(Event::PolicyCreated),
        "PolicyChanged" => wire::policy_from(message(kind, payload)?).map(Event::PolicyChanged),
        "PolicyRemoved" => parse("id", &message::<v1::Policy>(kind, payload)?.id).map(Event::PolicyRemoved),
        "RoleGranted" => from_role(message(kind, payload)?),
        "RoleWithdrawn" => {
            parse("user", &message::<v1::RoleAssignment>(kind, payload)?.user).map(|user| Event::RoleWithdrawn { user })
        }
        "KeyPublished" => wire::key_from(message(kind, payload)?).map(Event::KeyPublished),
        "KeyRetired" => Ok(Event::KeyRetired(message::<v1::Key>(kind, payload)?.id)),
        "CertificateInstalled" => wire::certificate_from(message(kind, payload)?).map(Event::CertificateInstalled),
        "CertificateRemoved" => {
            parse("id", &message::<v1::Certificate>(kind, payload)?.id).map(Event::CertificateRemoved)
        }
        "UserCreated" => wire::user_from(message(kind, payload)?).map(Event::UserCreated),
        "UserChanged" => wire::user_from(message(kind, payload)?).map(Event::UserChanged),
        "UserRemoved" => parse("id", &message::<v1::User>(kind, payload)?.id).map(Event::UserRemoved),
        "CredentialsChanged" => wire::credentials_from(message(kind, payload)?).map(Event::CredentialsChanged),
        "GroupCreated" => wire::group_from(message(kind, payload)?).map(Event::GroupCreated),
        "GroupChanged" => wire::group_from(message(kind, payload)?).map(Event::GroupChanged),
        "GroupRemoved" => parse("id", &message::<v1::Group>(kind, payload)?.id).map(Event::GroupRemoved),
        "MemberAdded" => {
            from_membership(message(kind, payload)?).map(|(group, member)| Event::MemberAdded { group, member })
        }
        "MemberRemoved" => {
            from_membership(message(kind, payload)?).map(|(group, member)| Event::MemberRemoved { group, member })
        }
        "SessionRevoked" => wire::session_revocation_from(message(kind, payload)?).map(Event::SessionRevoked),
        "UserRevoked" => wire::user_revocation_from(message(kind, payload)?).map(Event::UserRevoked),
        "AllSessionsEnded" => {
            let before = Timestamp(message::<v1::AllSessionsEnded>(kind, payload)?.before_ms);
            Ok(Event::AllSessionsEnded { before })
        }
        "TokensOutdated" => wire::outdated_tokens_from(message(kind, payload)?).map(Event::TokensOutdated),
        _ => return Err(DecodeError::UnknownKind(kind.to_owned())),
    })
}

fn from_assignment(wire: v1::Assignment) -> Parsed<(model::AppId, model::Principal)> {
    Ok((parse("app", &wire.app)?, parse("principal", &wire.principal)?))
}

fn from_membership(wire: v1::Membership) -> Parsed<(model::GroupId, model::Principal)> {
    Ok((parse("group", &wire.group)?, parse("member", &wire.member)?))
}

fn from_role(wire: v1::RoleAssignment) -> Parsed<Event> {
    let role = wire::role_from(wire.role()).ok_or("is unknown").in_field("role")?;
    Ok(Event::RoleGranted { user: parse("user", &wire.user)?, role })
}

fn message<M: Message + Default>(kind: &str, payload: &[u8]) -> Result<M, DecodeError> {
    M::decode(payload).map_err(|_| DecodeError::Malformed { kind: kind.to_owned() })
}
