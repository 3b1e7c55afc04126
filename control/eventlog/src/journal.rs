//! Writing: events are wrapped, chained, signed and appended in one place.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use model::{Position, TenantId, Timestamp, event::Stream};
use proto::{
    Message,
    signed::{Hash, Signer, body_hash},
    v1::{Checkpoint, EventBody, LogRestored, SignedEvent},
};
use uuid::Uuid;

use crate::{APPEND_MAX, Append, AppendError, EventLog, Fact, Projection, chain::Chain, codec::Mark};

/// A fact that is about to be recorded, with who and why.
#[derive(Clone, Debug)]
pub struct UnsignedEvent {
    pub id: Uuid,
    pub tenant: TenantId,
    pub time: Timestamp,
    pub actor: String,
    pub cause: String,
    pub fact: Fact,
}

/// Signed events of ACTIVITY on their way into the log.
pub struct Recording {
    parts: VecDeque<(Uuid, Vec<Append>)>,
}

impl Recording {
    /// Events that are not known to be in the log; the last of those given.
    pub fn remaining(&self) -> usize {
        self.parts.iter().map(|(_, appends)| appends.len()).sum()
    }
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
        drafts: &[UnsignedEvent],
        chain: &Mutex<Chain>,
        expected: Position,
    ) -> Result<Position, AppendError> {
        let mut position = expected;
        let mut previous = None;
        for drafts in drafts.chunks(APPEND_MAX) {
            let (appends, last) = {
                let chain = chain.lock().unwrap_or_else(PoisonError::into_inner);
                let mut bodies = Vec::with_capacity(drafts.len() + 1);
                if previous.is_none() && chain.is_checkpoint_due(stream) {
                    bodies.push(self.checkpoint(stream, &chain, expected, drafts[0].time));
                }
                bodies.extend(drafts.iter().map(|draft| body(draft, |subject| chain.next(stream, subject))));
                self.link(bodies, previous.unwrap_or_else(|| chain.stream_previous(stream)))
            };
            position = self.log.append(stream, appends, Some(position)).await?;
            previous = Some(last);
        }
        Ok(position)
    }

    /// Appends a checkpoint if one is due: events of before there were links
    /// are sealed by it. Returns where the stream ends then.
    pub async fn seal(
        &self,
        stream: Stream,
        chain: &Mutex<Chain>,
        expected: Position,
        time: Timestamp,
    ) -> Result<Position, AppendError> {
        let (appends, _) = {
            let chain = chain.lock().unwrap_or_else(PoisonError::into_inner);
            if !chain.is_checkpoint_due(stream) {
                return Ok(expected);
            }
            let checkpoint = self.checkpoint(stream, &chain, expected, time);
            self.link(vec![checkpoint], chain.stream_previous(stream))
        };
        self.log.append(stream, appends, Some(expected)).await
    }

    /// Says in every state stream that an older history goes on here, so that
    /// readers who remember a later one accept it. `epoch` grows with each
    /// restore: the time now, as long as clocks do not go back. The projection
    /// is one of this log, begun without a memory.
    pub async fn record_restore(
        &self,
        projection: &Projection,
        epoch: u64,
        time: Timestamp,
    ) -> Result<(), AppendError> {
        for stream in Stream::STATE {
            let expected = projection.snapshot().position(stream);
            let (appends, _) = {
                let chain = projection.chain().lock().unwrap_or_else(PoisonError::into_inner);
                let epoch = epoch.max(chain.epoch(stream) + 1);
                let mark = Mark::Restored(LogRestored { stream: stream.name().to_owned(), epoch });
                let mut bodies = Vec::new();
                if chain.is_checkpoint_due(stream) {
                    bodies.push(self.checkpoint(stream, &chain, expected, time));
                }
                bodies.push(marking(stream, &chain, &mark, time));
                self.link(bodies, chain.stream_previous(stream))
            };
            let position = self.log.append(stream, appends, Some(expected)).await?;
            projection.reach(stream, position).await;
        }
        Ok(())
    }

    fn checkpoint(&self, stream: Stream, chain: &Chain, expected: Position, time: Timestamp) -> EventBody {
        let (root, subjects) = chain.root(stream);
        let (stream_name, position) = (stream.name().to_owned(), expected + 1);
        let checkpoint = Checkpoint { stream: stream_name, position, subjects, root: root.to_vec() };
        marking(stream, chain, &Mark::Checkpoint(checkpoint), time)
    }

    /// Each names the one before it in the stream. Also returns the last one's hash.
    fn link(&self, mut bodies: Vec<EventBody>, mut previous: Hash) -> (Vec<Append>, Hash) {
        for body in &mut bodies {
            body.stream_previous = Bytes::copy_from_slice(&previous);
            previous = body_hash(&body.encode_to_vec());
        }
        (self.sign(bodies), previous)
    }

    /// Appends what happened. ACTIVITY has many writers and no chain.
    pub async fn record(&self, drafts: &[UnsignedEvent]) -> Result<(), AppendError> {
        self.send(&mut self.recording(drafts)).await
    }

    /// What happened, signed: sending it again is no second event.
    pub fn recording(&self, drafts: &[UnsignedEvent]) -> Recording {
        let sign =
            |drafts: &[UnsignedEvent]| self.sign(drafts.iter().map(|draft| body(draft, |_| (0, vec![]))).collect());
        Recording { parts: drafts.chunks(APPEND_MAX).map(|drafts| (Uuid::now_v7(), sign(drafts))).collect() }
    }

    /// Appends what of a recording is not in the log yet.
    pub async fn send(&self, recording: &mut Recording) -> Result<(), AppendError> {
        while let Some((id, appends)) = recording.parts.front() {
            self.log.append_once(Stream::Activity, appends.clone(), *id).await?;
            recording.parts.pop_front();
        }
        Ok(())
    }

    fn sign(&self, bodies: Vec<EventBody>) -> Vec<Append> {
        let signed = self.signer.sign(bodies.iter().map(Message::encode_to_vec).collect());
        let append = |(body, event): (EventBody, SignedEvent)| Append {
            subject: body.subject,
            bytes: Bytes::from(event.encode_to_vec()),
        };
        bodies.into_iter().zip(signed).map(append).collect()
    }
}

fn body(draft: &UnsignedEvent, place: impl Fn(&str) -> (u64, Vec<u8>)) -> EventBody {
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
        kind,
        payload: payload.into(),
        stream_previous: Bytes::new(),
    }
}

fn marking(stream: Stream, chain: &Chain, mark: &Mark, time: Timestamp) -> EventBody {
    let subject = mark.subject(stream);
    let (version, previous) = chain.next(stream, &subject);
    EventBody {
        id: Bytes::copy_from_slice(Uuid::now_v7().as_bytes()),
        subject,
        version,
        previous: previous.into(),
        time_ms: time.0,
        actor: "system".to_owned(),
        cause: "log".to_owned(),
        kind: mark.kind().to_owned(),
        payload: mark.payload().into(),
        ..Default::default()
    }
}

fn subject(draft: &UnsignedEvent) -> String {
    match &draft.fact {
        Fact::State(event) => event.subject().path(&draft.tenant),
        Fact::Activity(activity) => format!("postern.activity.{}.{}", draft.tenant, activity.topic()),
    }
}
