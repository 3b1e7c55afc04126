//! Events as bytes: which message an event's payload is, by its kind.
//!
//! A kind that is not here is an error and never skipped: the event may take a
//! right away. Kinds are never reused; `samples/` holds one of each, for ever.

use model::{Event, event::Stream};
use proto::{
    Message,
    signed::Verifier,
    v1::{self, EventBody, SignedEvent},
};
use thiserror::Error;

use crate::{
    Entry,
    wire::{self, FieldError},
};

/// What ACTIVITY records. Nothing folds it into a snapshot.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are accesses")]
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
#[expect(clippy::large_enum_variant, reason = "a fact is written or read, and gone")]
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
    /// What an entry of ACTIVITY says, in which body, if one of ours signed it.
    pub fn believed(trust: &mut Verifier, entry: &Entry) -> Option<(EventBody, Self)> {
        let event = SignedEvent::decode(entry.bytes.clone()).ok()?;
        let (body, _) = trust.verify(&event).ok()?;
        match Fact::decode(&body.kind, &body.payload).ok()? {
            Fact::Activity(activity) => Some((body, activity)),
            Fact::State(_) => None,
        }
    }

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
    pub fn encode(&self) -> (String, Vec<u8>) {
        match self {
            Self::State(event) => wire::encode(event),
            Self::Activity(activity) => (activity.kind().to_owned(), activity.payload()),
        }
    }

    /// What an entry says, in which body, whoever signed it.
    pub fn unverified(entry: &Entry) -> Option<(EventBody, Self)> {
        let event = SignedEvent::decode(entry.bytes.clone()).ok()?;
        let body = EventBody::decode(event.body).ok()?;
        let fact = Self::decode(&body.kind, &body.payload).ok()?;
        Some((body, fact))
    }

    pub fn decode(kind: &str, payload: &[u8]) -> Result<Self, DecodeError> {
        let activity = match kind {
            "SignInAttempted" => Activity::SignIn(message(kind, payload)?),
            "Accessed" => Activity::Access(message(kind, payload)?),
            "AccessesRecorded" => Activity::Accesses(message(kind, payload)?),
            "ConnectorActed" => Activity::Connector(message(kind, payload)?),
            "ActivityDropped" => Activity::Gap(message(kind, payload)?),
            _ => return Self::state(kind, payload),
        };
        Ok(Self::Activity(activity))
    }

    fn state(kind: &str, payload: &[u8]) -> Result<Self, DecodeError> {
        let (of, happened) = wire::meaning(kind).ok_or_else(|| DecodeError::UnknownKind(kind.to_owned()))?;
        let event =
            wire::decode(of, happened, payload).ok_or_else(|| DecodeError::Malformed { kind: kind.to_owned() })?;
        event.map(Self::State).map_err(|source| DecodeError::Invalid { kind: kind.to_owned(), source })
    }
}

fn message<M: Message + Default>(kind: &str, payload: &[u8]) -> Result<M, DecodeError> {
    M::decode(payload).map_err(|_| DecodeError::Malformed { kind: kind.to_owned() })
}
