//! Append and follow: the only memory processes share.
//!
//! [`EventLog`] is one struct over two backends, both in daily use and both
//! held to the same contract (`tests.rs`): embedded (a SQLite file in this
//! process) and JetStream (a NATS cluster). Nothing above can tell them apart.
//! It knows bytes, subjects and positions; what an event means is `model`'s.
//!
//! Read: this file, `journal` (writing), `projection` (reading), `codec` and
//! `wire` (bytes), `judgement` (in accesses), `chain`, `memory`, then the backends.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use model::{Position, event::Stream};
use proto::v1::LinkedConnector;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

pub mod backup;
pub mod chain;
pub mod codec;
mod embedded;
pub mod jetstream;
pub mod journal;
pub mod judgement;
mod memory;
mod past;
pub mod presence;
pub mod projection;
mod reserve;
pub mod simulated;
pub mod wire;

#[cfg(test)]
mod tests;

pub use codec::{Activity, Fact};
use embedded::Embedded;
use jetstream::JetStream;
pub use journal::{Journal, Recording, UnsignedEvent};
pub use presence::Presence;
use presence::Presences;
pub use projection::{Files, Projection, SignedKeys, View};
use simulated::{Disturbance, Moment, Simulated};

/// One event as it lies in the log: an encoded `SignedEvent` at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    pub bytes: Bytes,
}

/// An event on its way into the log.
#[derive(Clone, Debug)]
pub struct Append {
    pub subject: String,
    pub bytes: Bytes,
}

/// Events one append may carry; larger ones are cut by the caller.
/// JetStream takes 1,000 messages in an atomic batch.
pub const APPEND_MAX: usize = 512;
/// An append is recognised by its id this long.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(120);
/// Events one read returns at most.
pub const READ_MAX: usize = 4096;
/// Parts of [`Latest`], and how many are read ahead.
const PART_EVENTS: usize = 8192;
const PARTS_AHEAD: usize = 2;
/// Encoded size of one event. A broker takes 1 MiB with headers, unless it is told
/// otherwise (`max_payload`).
pub const EVENT_BYTES_MAX: usize = 1_000_000;

#[derive(Debug, Error)]
pub enum AppendError {
    #[error("the stream has moved on to {at}")]
    Conflict { at: Position },
    #[error("an event of {bytes} bytes is larger than {EVENT_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("the disk of the log is full; nothing was recorded")]
    Full,
    /// The answer is missing: the events may or may not be there.
    #[error("the log did not answer; the outcome is unknown")]
    Unknown(#[source] LogError),
}

impl AppendError {
    /// The caller waited no longer.
    pub fn late(elapsed: tokio::time::error::Elapsed) -> Self {
        Self::Unknown(LogError::new("appending", elapsed))
    }
}

#[derive(Debug, Error)]
#[error("{what}")]
pub struct LogError {
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl LogError {
    fn new(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what, source: source.into() }
    }
}

#[derive(Clone)]
pub struct EventLog {
    backend: Backend,
    presences: Presences,
    simulated: Option<Simulated>,
}

#[derive(Clone)]
enum Backend {
    Embedded(Embedded),
    JetStream(Arc<JetStream>),
}

impl EventLog {
    /// Opens or creates the file. One process at a time may hold it.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Embedded::open_log(path).map(Self::from)
    }

    /// Connects, and creates the streams when they are missing and allowed.
    pub async fn connect(settings: &jetstream::Settings) -> Result<Self, LogError> {
        let presences = Presences::default();
        let log = JetStream::connect(settings, presences.clone()).await?;
        Ok(Self { backend: Backend::JetStream(Arc::new(log)), presences, simulated: None })
    }

    /// The same log as one process of a simulation has it, on virtual time.
    pub fn simulated(&self, weather: impl Fn(Moment) -> Disturbance + Send + Sync + 'static) -> Self {
        Self { simulated: Some(Simulated::new(weather)), ..self.clone() }
    }

    /// Appends all or nothing. With `expected`, only if the stream ends there.
    /// Returns the position of the last event, once it is durable.
    pub async fn append(
        &self,
        stream: Stream,
        events: Vec<Append>,
        expected: Option<Position>,
    ) -> Result<Position, AppendError> {
        if let Some(event) = events.iter().find(|it| it.bytes.len() > EVENT_BYTES_MAX) {
            return Err(AppendError::TooLarge { bytes: event.bytes.len() });
        }
        self.append_to_backend(stream, events, expected, None).await
    }

    /// Appends all or nothing, and once however often it is repeated with the
    /// same id within `REPEAT_WINDOW`: an unknown outcome may be tried again.
    pub async fn append_once(&self, stream: Stream, events: Vec<Append>, id: Uuid) -> Result<Position, AppendError> {
        if let Some(event) = events.iter().find(|it| it.bytes.len() > EVENT_BYTES_MAX) {
            return Err(AppendError::TooLarge { bytes: event.bytes.len() });
        }
        self.append_to_backend(stream, events, None, Some(id)).await
    }

    async fn append_to_backend(
        &self,
        stream: Stream,
        events: Vec<Append>,
        expected: Option<Position>,
        id: Option<Uuid>,
    ) -> Result<Position, AppendError> {
        let appended = async {
            match &self.backend {
                Backend::Embedded(it) => it.append(stream, events, expected, id).await,
                Backend::JetStream(it) => it.append(stream, events, expected, id).await,
            }
        };
        match &self.simulated {
            None => appended.await,
            Some(simulated) => simulated.append(appended).await,
        }
    }

    /// Events after a position, oldest first, `READ_MAX` at most.
    pub async fn read(&self, stream: Stream, after: Position) -> Result<Vec<Entry>, LogError> {
        match &self.backend {
            Backend::Embedded(it) => it.read(stream, after, READ_MAX).await,
            Backend::JetStream(it) => it.read(stream, after, READ_MAX).await,
        }
    }

    /// The last event of each subject, in order, and the position this is true at.
    pub async fn latest(&self, stream: Stream) -> Result<Latest, LogError> {
        match &self.backend {
            Backend::Embedded(it) => it.latest(stream).await,
            Backend::JetStream(it) => it.latest(stream).await,
        }
    }

    /// Where the stream ends now.
    pub async fn head(&self, stream: Stream) -> Result<Position, LogError> {
        match &self.backend {
            Backend::Embedded(it) => Ok(it.head(stream)),
            Backend::JetStream(it) => it.head(stream).await,
        }
    }

    /// Whether the stream exists: at a broker the first controller makes it.
    pub async fn has(&self, stream: Stream) -> Result<bool, LogError> {
        match &self.backend {
            Backend::Embedded(_) => Ok(true),
            Backend::JetStream(it) => it.has(stream).await,
        }
    }

    /// What time it is where the log is, in milliseconds since 1970; none where
    /// that is this process. Whoever asks names a stream it may read.
    pub async fn server_time_ms(&self, stream: Stream) -> Result<Option<i64>, LogError> {
        match &self.backend {
            Backend::Embedded(_) => Ok(None),
            Backend::JetStream(it) => it.server_time_ms(stream).await.map(Some),
        }
    }

    pub fn follow(&self, stream: Stream, after: Position) -> Follow {
        let source = match &self.backend {
            Backend::Embedded(it) => Source::Embedded(it.clone()),
            Backend::JetStream(it) => Source::JetStream(Box::new(jetstream::Tail::new(it.as_ref().clone(), stream))),
        };
        Follow { stream, after, source, simulated: self.simulated.clone(), shown_at: None }
    }

    /// Tells the others what this process serves. Lost on a restart; repeat it.
    pub async fn announce(&self, presence: Presence) -> Result<(), LogError> {
        match &self.backend {
            Backend::Embedded(_) => {
                self.presences.hear(presence);
                Ok(())
            }
            Backend::JetStream(it) => it.announce(presence).await,
        }
    }

    /// Tells controllers which connectors a relay has links to. As `announce`.
    pub async fn announce_linked(&self, relay: &str, connectors: Vec<LinkedConnector>) -> Result<(), LogError> {
        match &self.backend {
            Backend::Embedded(_) => {
                self.presences.hear_linked(relay.to_owned(), connectors);
                Ok(())
            }
            Backend::JetStream(it) => it.announce_linked(relay, connectors).await,
        }
    }

    /// Connectors as relays described them lately, once for each relay.
    pub fn linked_connectors(&self) -> Vec<LinkedConnector> {
        self.presences.linked()
    }

    /// Processes of a role that were heard of lately.
    pub fn presences(&self, role: &str) -> Vec<Presence> {
        self.presences.live(role)
    }
}

impl From<Embedded> for EventLog {
    fn from(file: Embedded) -> Self {
        Self { backend: Backend::Embedded(file), presences: Presences::default(), simulated: None }
    }
}

/// A reader at a position. Cancel-safe: a dropped `next` loses nothing.
/// The last event of each subject, in order, a part at a time: all of them at
/// once would need more memory than what they say.
pub struct Latest {
    position: Position,
    parts: mpsc::Receiver<Result<Vec<Entry>, LogError>>,
    _reading: JoinSet<()>,
}

impl Latest {
    pub(crate) fn nothing() -> Self {
        let (_, parts) = mpsc::channel(1);
        Self { position: 0, parts, _reading: JoinSet::new() }
    }

    /// `None` after the last part.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, LogError> {
        let part = self.parts.recv().await.transpose()?;
        let last = part.as_ref().and_then(|part| part.last());
        self.position = last.map_or(self.position, |last| self.position.max(last.position));
        Ok(part)
    }

    /// What came is the truth as of here. It may move on until the last part came.
    pub fn position(&self) -> Position {
        self.position
    }
}

pub struct Follow {
    stream: Stream,
    after: Position,
    source: Source,
    simulated: Option<Simulated>,
    /// When a simulation lets this reader see what is there; a dropped `next` does
    /// not put it off.
    shown_at: Option<Instant>,
}

enum Source {
    Embedded(Embedded),
    JetStream(Box<jetstream::Tail>),
}

impl Follow {
    /// The next events, at least one; waits for them.
    pub async fn next(&mut self) -> Result<Vec<Entry>, LogError> {
        let entries = match &mut self.source {
            Source::Embedded(log) => loop {
                log.wait_beyond(self.stream, self.after).await;
                let entries = log.read(self.stream, self.after, READ_MAX).await?;
                if !entries.is_empty() {
                    break entries;
                }
            },
            Source::JetStream(tail) => tail.next(self.after, READ_MAX).await?,
        };
        if let Some(simulated) = &self.simulated {
            sleep_until(*self.shown_at.get_or_insert_with(|| Instant::now() + simulated.lag())).await;
            self.shown_at = None;
        }
        if let Some(last) = entries.last() {
            self.after = last.position;
        }
        Ok(entries)
    }
}
