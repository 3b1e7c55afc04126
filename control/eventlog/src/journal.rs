//! Writing: events are wrapped, chained, signed and appended in one place.

use std::sync::Arc;

use bytes::Bytes;
use model::{Position, TenantId, Timestamp, event::Stream};
use proto::{
    Message,
    signed::Signer,
    v1::{EventBody, SignedEvent},
};
use uuid::Uuid;

use crate::{APPEND_MAX, Append, AppendError, EventLog, Fact, chain::Chain};

/// A fact that is about to be recorded, with who and why.
#[derive(Clone, Debug)]
pub struct Draft {
    pub id: Uuid,
    pub tenant: TenantId,
    pub time: Timestamp,
    pub actor: String,
    pub cause: String,
    pub fact: Fact,
}

/// A log and the key of one writer.
#[derive(Clone)]
pub struct Journal {
    log: EventLog,
    signer: Arc<Signer>,
}

impl Journal {
    pub fn new(log: EventLog, signer: Arc<Signer>) -> Self {
        Self { log, signer }
    }

    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// Signs something that is for no stream, and so can never stand in one.
    pub fn permit(&self, kind: &'static str, tenant: &TenantId, payload: Vec<u8>) -> SignedEvent {
        let body = EventBody {
            tenant: tenant.to_string(),
            subject: format!("postern.permit.{tenant}"),
            kind: kind.to_owned(),
            payload: payload.into(),
            ..Default::default()
        };
        self.signer.sign(vec![body.encode_to_vec()]).remove(0)
    }

    /// Appends events of one state stream, each on a subject of its own, if the
    /// stream still ends where the chain was read. All or nothing, unless there
    /// are more than `APPEND_MAX`.
    pub async fn append(
        &self,
        stream: Stream,
        drafts: &[Draft],
        chain: &std::sync::Mutex<Chain>,
        expected: Position,
    ) -> Result<Position, AppendError> {
        let mut position = expected;
        for drafts in drafts.chunks(APPEND_MAX) {
            let appends = {
                let chain = chain.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                self.sign(drafts, |subject| chain.next(subject))
            };
            position = self.log.append(stream, appends, Some(position)).await?;
        }
        Ok(position)
    }

    /// Appends what happened. ACTIVITY has many writers and no chain.
    pub async fn record(&self, drafts: &[Draft]) -> Result<(), AppendError> {
        for drafts in drafts.chunks(APPEND_MAX) {
            let appends = self.sign(drafts, |_| (0, vec![]));
            self.log.append(Stream::Activity, appends, None).await?;
        }
        Ok(())
    }

    fn sign(&self, drafts: &[Draft], place: impl Fn(&str) -> (u64, Vec<u8>)) -> Vec<Append> {
        let bodies: Vec<EventBody> = drafts
            .iter()
            .map(|draft| {
                let subject = subject(draft);
                let (version, previous) = place(&subject);
                let (kind, payload) = draft.fact.encode();
                EventBody {
                    id: Bytes::copy_from_slice(draft.id.as_bytes()),
                    tenant: draft.tenant.to_string(),
                    subject,
                    version,
                    previous: previous.into(),
                    time_ms: draft.time.0,
                    actor: draft.actor.clone(),
                    cause: draft.cause.clone(),
                    kind: kind.to_owned(),
                    payload: payload.into(),
                }
            })
            .collect();
        let signed = self.signer.sign(bodies.iter().map(Message::encode_to_vec).collect());
        let append = |(body, event): (EventBody, proto::v1::SignedEvent)| Append {
            subject: body.subject,
            bytes: Bytes::from(event.encode_to_vec()),
        };
        bodies.into_iter().zip(signed).map(append).collect()
    }
}

fn subject(draft: &Draft) -> String {
    match &draft.fact {
        Fact::State(event) => event.subject().path(&draft.tenant),
        Fact::Activity(activity) => format!("postern.activity.{}.{}", draft.tenant, activity.topic()),
    }
}
