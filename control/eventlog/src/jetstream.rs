//! The log in a NATS cluster: one JetStream stream for each of ours.
//!
//! An append of several events is one atomic batch (ADR-50, server 2.12 and
//! later). The expected position is the stream's last sequence, checked by the
//! server. Durability is the server's: see `deploy/nats/nats-server.conf` for
//! why `sync_interval: always` is not optional.

mod streams;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions, HeaderMap,
    jetstream::{
        self, Context, ErrorCode,
        consumer::{AckPolicy, DeliverPolicy, pull},
        context::{GetStreamErrorKind, PublishErrorKind},
        message::PublishMessage,
    },
};
use futures_util::{FutureExt, StreamExt};
use model::{Position, event::Stream};
use proto::{
    Message,
    v1::{LinkedConnector, LinkedConnectors},
};
use tokio::{sync::mpsc, task::JoinSet};
use uuid::Uuid;

pub use self::streams::{Permissions, permissions};
use self::streams::{config, name, takes_large_events};
use crate::{
    Append, AppendError, Entry, Latest, LogError, PART_EVENTS, PARTS_AHEAD,
    presence::{Presence, Presences},
};

/// The server answers a durable append in about 1 ms; after this it is not coming.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A consumer that has nothing to deliver is told so within this time.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// A consumer is gone this long after nobody pulled from it.
const CONSUMER_IDLE_MAX: Duration = Duration::from_secs(10);
const PULL_MESSAGES: usize = 1024;
/// After two of these in silence the consumer is made anew.
const HEARTBEAT: Duration = Duration::from_secs(5);

const PRESENCE: &str = "postern.presence";
/// Before the id of a relay. An earlier controller takes it for a relay's presence
/// that it cannot read.
const LINKED: &str = "postern.presence.relay.linked.";

/// How to reach the cluster. All secrets are in files.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `nats://` or `tls://`, several separated by commas.
    pub url: String,
    pub ca: Option<PathBuf>,
    /// Client certificate and key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A file with one nkey seed (`SU…`).
    pub nkey: Option<PathBuf>,
    /// Answers come to subjects below `_INBOX_<inbox>`, which only this role may
    /// read: answers carry events.
    pub inbox: String,
    pub replicas: usize,
    /// What ACTIVITY may take before its oldest events go; 0 means 8 GiB. Counts
    /// when the stream is made.
    pub activity_mib_max: u64,
    /// What CONFIG and DIRECTORY may take, each; 0 means 1 GiB. Counts when the
    /// streams are made.
    pub state_mib_max: u64,
    /// Only the controller may create streams.
    pub create: bool,
}

#[derive(Clone)]
pub(crate) struct JetStream {
    client: Client,
    context: Context,
    _tasks: Arc<JoinSet<()>>,
}

impl JetStream {
    pub(crate) async fn connect(settings: &Settings, presences: Presences) -> Result<Self, LogError> {
        let client = connect(settings).await?;
        let context = jetstream::new(client.clone());
        if settings.create {
            for stream in Stream::ALL {
                let there = context.get_or_create_stream(config(stream, settings)).await;
                let there = there.map_err(|source| LogError::new("creating a stream", source))?;
                takes_large_events(&there.cached_info().config)?;
            }
        }
        let mut tasks = JoinSet::new();
        // Only controllers ask who serves what, and only they may listen.
        if settings.create {
            tasks.spawn(listen(client.clone(), presences));
        }
        Ok(Self { client, context, _tasks: Arc::new(tasks) })
    }

    pub(crate) async fn append(
        &self,
        stream: Stream,
        events: Vec<Append>,
        expected: Option<Position>,
        id: Option<Uuid>,
    ) -> Result<Position, AppendError> {
        let published = tokio::time::timeout(ANSWER_TIMEOUT, self.publish(events, expected, id)).await;
        let error = match published {
            Ok(Ok(position)) => return Ok(position),
            Ok(Err(error)) => error,
            Err(late) => return Err(AppendError::Unknown(LogError::new("publishing", late))),
        };
        if is_full(&error.to_string()) {
            return Err(AppendError::Full);
        }
        // A batch is all or nothing: what has one of its ids has all of it.
        if id.is_some() && error.to_string().contains("duplicate message id") {
            return Ok(self.head(stream).await.unwrap_or(0));
        }
        // A batch answers a conflict in other words than a single publish does.
        let refused = error.to_string().contains("last sequence")
            || matches!(error.downcast_ref::<jetstream::context::PublishError>(), Some(it) if it.kind() == PublishErrorKind::WrongLastSequence);
        match refused {
            true => Err(AppendError::Conflict { at: self.head(stream).await.unwrap_or(0) }),
            false => Err(AppendError::Unknown(LogError::new("publishing", error))),
        }
    }

    async fn publish(
        &self,
        mut events: Vec<Append>,
        expected: Option<Position>,
        id: Option<Uuid>,
    ) -> Result<Position, Box<dyn std::error::Error + Send + Sync>> {
        let Some(last) = events.pop() else { return Ok(expected.unwrap_or(0)) };
        let batch = Uuid::now_v7().to_string();
        let count = events.len() + 1;
        for (index, event) in events.into_iter().enumerate() {
            let mut headers = batch_headers(&batch, index + 1, id);
            if let (0, Some(expected)) = (index, expected) {
                headers.insert("Nats-Expected-Last-Sequence", expected.to_string().as_str());
            }
            self.client.publish_with_headers(event.subject, headers, event.bytes).await?;
        }
        let mut message = PublishMessage::build().payload(last.bytes);
        if count > 1 {
            let mut headers = batch_headers(&batch, count, id);
            headers.insert("Nats-Batch-Commit", "1");
            message = message.headers(headers);
        } else {
            message = message.message_id(id.map_or(batch, |id| id.to_string()));
            if let Some(expected) = expected {
                message = message.expected_last_sequence(expected);
            }
        }
        Ok(self.context.send_publish(last.subject, message).await?.await?.sequence)
    }

    pub(crate) async fn head(&self, stream: Stream) -> Result<Position, LogError> {
        let stream = self.stream(stream).await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    pub(crate) async fn read(&self, stream: Stream, after: Position, limit: usize) -> Result<Vec<Entry>, LogError> {
        let head = self.head(stream).await?;
        if head <= after {
            return Ok(vec![]);
        }
        let mut tail = Tail::new(self.clone(), stream);
        let mut entries: Vec<Entry> = Vec::new();
        while entries.len() < limit && entries.last().is_none_or(|it| it.position < head) {
            let position = entries.last().map_or(after, |it| it.position);
            let next = tokio::time::timeout(CATCH_UP_TIMEOUT, tail.next(position, limit - entries.len()));
            entries.extend(next.await.map_err(|late| LogError::new("reading a stream", late))??);
        }
        Ok(entries)
    }

    pub(crate) async fn latest(&self, stream: Stream) -> Result<Latest, LogError> {
        if self.head(stream).await? == 0 {
            return Ok(Latest::nothing());
        }
        let mut messages = self.consume(stream, DeliverPolicy::LastPerSubject).await?;
        // Asked after the consumer is there: what is appended since comes too,
        // so what came up to here lacks nothing.
        let head = self.head(stream).await?;
        let (parts, receiver) = mpsc::channel(PARTS_AHEAD);
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            let mut reached = 0;
            while reached < head {
                let part = part(&mut messages, head).await;
                let last = part.as_ref().ok().and_then(|part| part.last()).map(|it| it.position);
                if parts.send(part).await.is_err() {
                    return;
                }
                let Some(last) = last else { return };
                reached = last;
            }
        });
        Ok(Latest { position: head, parts: receiver, _reading: reading })
    }

    async fn stream(&self, stream: Stream) -> Result<jetstream::stream::Stream, LogError> {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.context.get_stream(name(stream))).await;
        asked
            .map_err(|late| LogError::new("asking for a stream", late))?
            .map_err(|source| LogError::new("asking for a stream", source))
    }

    /// A consumer without a name: the broker lets roles make no others, see
    /// [`permissions`]. It goes by itself when nobody pulls any more.
    async fn consume(&self, stream: Stream, deliver_policy: DeliverPolicy) -> Result<Messages, LogError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| LogError::new("following a stream", source);
        let config = pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            filter_subject: format!("postern.{}.>", stream.name()),
            inactive_threshold: CONSUMER_IDLE_MAX,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        let created =
            tokio::time::timeout(ANSWER_TIMEOUT, self.context.create_consumer_on_stream(config, name(stream)));
        let consumer = created
            .await
            .map_err(|late| LogError::new("following a stream", late))?
            .map_err(|source| failed(source.into()))?;
        let messages = consumer.stream().max_messages_per_batch(PULL_MESSAGES).heartbeat(HEARTBEAT).messages();
        Ok(Messages { stream: messages.await.map_err(|source| failed(source.into()))?, delivered: 0 })
    }

    /// Whether a controller has made it yet.
    pub(crate) async fn has(&self, stream: Stream) -> Result<bool, LogError> {
        const ASKING: &str = "asking for a stream";
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.context.get_stream(name(stream))).await;
        match asked.map_err(|late| LogError::new(ASKING, late))? {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(false),
                GetStreamErrorKind::JetStream(_)
                | GetStreamErrorKind::EmptyName
                | GetStreamErrorKind::Request
                | GetStreamErrorKind::InvalidStreamName => Err(LogError::new(ASKING, error)),
            },
        }
    }

    /// The server says its time with what it says of a stream.
    pub(crate) async fn server_time_ms(&self, stream: Stream) -> Result<i64, LogError> {
        const ASKING: &str = "asking the log for the time";
        let subject = format!("STREAM.INFO.{}", name(stream));
        let asked = self.context.request::<_, _, serde_json::Value>(subject, &());
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        let answer = answered.map_err(|late| LogError::new(ASKING, late))?;
        let answer = answer.map_err(|source| LogError::new(ASKING, source))?;
        let time: jiff::Timestamp =
            answer["ts"].as_str().unwrap_or_default().parse().map_err(|source| LogError::new(ASKING, source))?;
        Ok(time.as_millisecond())
    }

    pub(crate) async fn announce(&self, presence: Presence) -> Result<(), LogError> {
        let subject = format!("{PRESENCE}.{}.{}", presence.role, presence.id);
        let payload = format!("{} {}", presence.config, presence.risk);
        let published = self.client.publish(subject, payload.into()).await;
        published.map_err(|source| LogError::new("announcing", source))
    }

    pub(crate) async fn announce_linked(&self, relay: &str, connectors: Vec<LinkedConnector>) -> Result<(), LogError> {
        let payload = LinkedConnectors { connectors }.encode_to_vec();
        let published = self.client.publish(format!("{LINKED}{relay}"), payload.into()).await;
        published.map_err(|source| LogError::new("announcing", source))
    }
}

/// The next messages up to `head`. The last message of a stream is the last of
/// its subject, so it always comes; one that came since may stand in its place.
async fn part(messages: &mut Messages, head: Position) -> Result<Vec<Entry>, LogError> {
    let mut part: Vec<Entry> = Vec::new();
    while part.len() < PART_EVENTS && part.last().is_none_or(|it| it.position < head) {
        let next = tokio::time::timeout(CATCH_UP_TIMEOUT, messages.next()).await;
        let message = next.map_err(|late| LogError::new("reading a stream", late))?;
        part.push(message?);
    }
    Ok(part)
}

/// What one consumer delivers, in order and without a gap, or an error.
struct Messages {
    stream: pull::Stream,
    delivered: u64,
}

impl Messages {
    async fn next(&mut self) -> Result<Entry, LogError> {
        let message = self
            .stream
            .next()
            .await
            .ok_or_else(|| LogError::new("following a stream", "the consumer ended"))?
            .map_err(|source| LogError::new("following a stream", source))?;
        let info = message.info().map_err(|source| LogError::new("reading a position", source))?;
        let position = info.stream_sequence;
        // Nothing is delivered twice, and what was lost on the way does not come again.
        self.delivered += 1;
        if info.consumer_sequence != self.delivered {
            return Err(LogError::new("following a stream", "a message was lost on the way"));
        }
        Ok(Entry { position, bytes: message.message.payload })
    }
}

/// A consumer that follows one stream and is made anew when it breaks.
pub(crate) struct Tail {
    log: JetStream,
    stream: Stream,
    messages: Option<Messages>,
}

impl Tail {
    pub(crate) fn new(log: JetStream, stream: Stream) -> Self {
        Self { log, stream, messages: None }
    }

    pub(crate) async fn next(&mut self, after: Position, limit: usize) -> Result<Vec<Entry>, LogError> {
        // The consumer stays when this future is dropped; a new one for each
        // try would be one a second at rest.
        let messages = match &mut self.messages {
            Some(messages) => messages,
            none => {
                let from = DeliverPolicy::ByStartSequence { start_sequence: after + 1 };
                none.insert(self.log.consume(self.stream, from).await?)
            }
        };
        let mut entries = Vec::new();
        let mut next = Some(messages.next().await);
        while let Some(message) = next.take() {
            match message {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    self.messages = None;
                    return Err(error);
                }
            }
            if entries.len() < limit {
                next = messages.next().now_or_never();
            }
        }
        Ok(entries)
    }
}

async fn connect(settings: &Settings) -> Result<Client, LogError> {
    let failed = |source: std::io::Error| LogError::new("reading the credentials for the log", source);
    let mut options = ConnectOptions::new().retry_on_initial_connect().ping_interval(Duration::from_secs(5));
    if !settings.inbox.is_empty() {
        options = options.custom_inbox_prefix(format!("_INBOX_{}", settings.inbox));
    }
    if let Some(path) = &settings.nkey {
        let seed = tokio::fs::read_to_string(path).await.map_err(failed)?;
        options = options.nkey(seed.trim().to_owned());
    }
    if let Some(ca) = &settings.ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &settings.certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    options.connect(&settings.url).await.map_err(|source| LogError::new("connecting to the log", source))
}

/// The server refused, and has nothing of it: a stream is at its limit, or the
/// server at its own. It says so in words only (its errors 10023, 10047, 10077).
fn is_full(answer: &str) -> bool {
    ["maximum bytes exceeded", "insufficient storage resources", "insufficient resources", "resource limits exceeded"]
        .iter()
        .any(|words| answer.contains(words))
}

fn batch_headers(batch: &str, sequence: usize, id: Option<Uuid>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        headers.insert("Nats-Msg-Id", format!("{id}-{sequence}").as_str());
    }
    headers.insert("Nats-Batch-Id", batch);
    headers.insert("Nats-Batch-Sequence", sequence.to_string().as_str());
    headers
}

async fn listen(client: Client, presences: Presences) {
    let Ok(mut announcements) = client.subscribe(format!("{PRESENCE}.>")).await else { return };
    while let Some(message) = announcements.next().await {
        if let Some(relay) = message.subject.strip_prefix(LINKED) {
            if let Ok(linked) = LinkedConnectors::decode(message.payload.clone()) {
                presences.hear_linked(relay.to_owned(), linked.connectors);
            }
        } else if let Some(presence) = parse_presence(&message) {
            presences.hear(presence);
        }
    }
}

fn parse_presence(message: &async_nats::Message) -> Option<Presence> {
    let (role, id) = message.subject.strip_prefix(PRESENCE)?.strip_prefix('.')?.split_once('.')?;
    let (config, risk) = std::str::from_utf8(&message.payload).ok()?.split_once(' ')?;
    Some(Presence { role: role.to_owned(), id: id.to_owned(), config: config.parse().ok()?, risk: risk.parse().ok()? })
}
