//! Delivery: from the log to one sink, at least once and in order.
//!
//! Pull from ACTIVITY, verify, format, batch by bytes, count and age, hand the
//! batch to the sink, and move the cursor only after the sink acknowledged it. A
//! sink that is away is tried again, longer and longer apart; nothing is lost
//! meanwhile, since events stay in the log. A record the sink will never take is
//! found by halving its batch, counted, logged and left out. Each sink has its own
//! cursor and task, so none waits for another.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use eventlog::{Activity, Entry, EventLog, Follow, LogError};
use model::{Position, event::Stream};
use proto::signed::Verifier;
use runtime::{files, telemetry::chain};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    AnalyticsError,
    formats::Format,
    in_file,
    metrics::SinkMetrics,
    record::Record,
    settings::Destination,
    sinks::{Line, Outcome, Sink},
};

/// A batch is full at so many bytes; one event may go beyond.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Records of a full batch; one event, 256 accesses at most, may go beyond.
const BATCH_RECORDS_MAX: usize = 5000;
/// How long the first record of a batch waits for others.
const BATCH_AGE_MAX: Duration = Duration::from_millis(100);
/// Between attempts: the first, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How far a sink is: the position of the last event it acknowledged.
pub(crate) struct Cursor {
    path: PathBuf,
    position: Arc<AtomicU64>,
}

impl Cursor {
    pub(crate) fn read(path: PathBuf) -> Result<Self, AnalyticsError> {
        let position = match std::fs::read_to_string(&path) {
            Ok(text) => {
                text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into()).map_err(in_file("reading", &path))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(in_file("reading", &path)(error)),
        };
        Ok(Self { path, position: Arc::new(AtomicU64::new(position)) })
    }

    pub(crate) fn position(&self) -> Position {
        self.position.load(Ordering::Relaxed)
    }

    /// Shared with whoever watches how far the sink is.
    pub(crate) fn shared(&self) -> Arc<AtomicU64> {
        self.position.clone()
    }

    fn write(&self, position: Position) -> Result<(), AnalyticsError> {
        files::write_private(&self.path, position.to_string().as_bytes()).map_err(in_file("writing", &self.path))?;
        self.position.store(position, Ordering::Relaxed);
        Ok(())
    }
}

/// The way to one sink.
pub(crate) struct Delivery {
    name: String,
    log: EventLog,
    trust: Verifier,
    format: Format,
    sink: Sink,
    pub(crate) cursor: Cursor,
    metrics: SinkMetrics,
    stop: CancellationToken,
}

/// Lines of whole events, and the position of the last of these.
#[derive(Default)]
struct Batch {
    lines: Vec<Line>,
    bytes: usize,
    end: Position,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX || self.lines.len() >= BATCH_RECORDS_MAX
    }
}

/// The process stops; what is not acknowledged comes again after the next start.
struct Stopped;

impl Delivery {
    pub(crate) fn open(
        destination: Destination,
        log: EventLog,
        trust: Verifier,
        metrics: SinkMetrics,
        stop: CancellationToken,
    ) -> Result<Self, AnalyticsError> {
        let Destination { name, target, format, cursor } = destination;
        let cursor = Cursor::read(cursor)?;
        info!(sink = name, ?target, from = cursor.position(), "analytics follows activity");
        Ok(Self { name, log, trust, format, sink: Sink::to(&target), cursor, metrics, stop })
    }

    /// Delivers until the process stops.
    pub(crate) async fn run(mut self) {
        let _stopped = self.deliver_all().await;
        self.sink.close().await;
    }

    async fn deliver_all(&mut self) -> Result<(), Stopped> {
        let mut position = self.start().await?;
        let mut follow = self.log.follow(Stream::Activity, position);
        let mut waiting = VecDeque::new();
        let mut pause = RETRY_FIRST;
        loop {
            let stop = self.stop.clone();
            let next = tokio::select! {
                next = self.next_batch(&mut follow, &mut waiting) => next,
                () = stop.cancelled() => return Err(Stopped),
            };
            match next {
                Ok(batch) => {
                    self.deliver(&batch.lines).await?;
                    self.acknowledged(batch.end).await?;
                    (position, pause) = (batch.end, RETRY_FIRST);
                }
                Err(error) => {
                    warn!(sink = self.name, error = %chain(&error), "export waits");
                    self.wait(&mut pause).await?;
                    waiting.clear();
                    follow = self.log.follow(Stream::Activity, position);
                }
            }
        }
    }

    /// A restored log counts ACTIVITY from 1 again; what is in it was never exported.
    async fn start(&self) -> Result<Position, Stopped> {
        let cursor = self.cursor.position();
        let head = tokio::select! {
            head = self.log.head(Stream::Activity) => head,
            () = self.stop.cancelled() => return Err(Stopped),
        };
        match head {
            Ok(head) if head < cursor => {
                warn!(sink = self.name, cursor, head, "the log is another one than before; exporting all of it");
                Ok(0)
            }
            // Away: the positions of a log that comes back are those it had.
            Ok(_) | Err(_) => Ok(cursor),
        }
    }

    /// Waits for the first event, and for others as long as the batch is young.
    async fn next_batch(&mut self, follow: &mut Follow, waiting: &mut VecDeque<Entry>) -> Result<Batch, LogError> {
        if waiting.is_empty() {
            waiting.extend(follow.next().await?);
        }
        let mut batch = Batch::default();
        let mut old = std::pin::pin!(tokio::time::sleep(BATCH_AGE_MAX));
        loop {
            while let Some(entry) = waiting.pop_front() {
                self.put(&mut batch, &entry);
                if batch.is_full() {
                    return Ok(batch);
                }
            }
            tokio::select! {
                entries = follow.next() => match entries {
                    Ok(entries) => waiting.extend(entries),
                    // A log that stays away says so again when the next batch begins.
                    Err(_) => return Ok(batch),
                },
                () = &mut old => return Ok(batch),
            }
        }
    }

    /// An event that is not signed by one of ours is left out and counted: a
    /// forged line in a SIEM is worse than a missing one.
    fn put(&mut self, batch: &mut Batch, entry: &Entry) {
        batch.end = entry.position;
        match self.lines(entry) {
            Some(lines) => {
                batch.bytes += lines.iter().map(|it| it.text.len()).sum::<usize>();
                batch.lines.extend(lines);
            }
            None => {
                self.metrics.untrusted.inc();
                let (position, refused) = (entry.position, self.metrics.untrusted.get());
                warn!(sink = self.name, position, refused, "an event is not exported: not ours, or unreadable");
            }
        }
    }

    fn lines(&mut self, entry: &Entry) -> Option<Vec<Line>> {
        let (body, activity) = Activity::believed(&mut self.trust, entry)?;
        let line = |record: Record<'_>| Line {
            kind: record.what.kind(),
            severity: record.what.severity(),
            time_ms: record.time_ms,
            text: self.format.line(&record),
            id: record.id,
        };
        Some(Record::of(&body, &activity).into_iter().map(line).collect())
    }

    /// Until each line is acknowledged, or rejected by itself.
    async fn deliver(&mut self, lines: &[Line]) -> Result<(), Stopped> {
        let mut parts = vec![lines];
        let mut pause = RETRY_FIRST;
        let mut said = false;
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            match self.sink.send(part).await {
                Outcome::Accepted => {
                    self.metrics.delivered.inc_by(part.len() as u64);
                    if std::mem::take(&mut said) {
                        info!(sink = self.name, "export goes on");
                    }
                    pause = RETRY_FIRST;
                }
                Outcome::Retry(error) => {
                    self.metrics.retries.inc();
                    if !std::mem::replace(&mut said, true) {
                        warn!(sink = self.name, error = %chain(&error), "export waits");
                    }
                    parts.push(part);
                    self.wait(&mut pause).await?;
                }
                Outcome::Refused(why) => match part {
                    [line] => {
                        self.metrics.rejected.inc();
                        warn!(sink = self.name, id = line.id, why, "a record is not exported: the sink rejects it");
                    }
                    part => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                },
            }
        }
        Ok(())
    }

    /// Only now: a crash in between repeats the batch, with the same ids.
    async fn acknowledged(&mut self, position: Position) -> Result<(), Stopped> {
        let mut pause = RETRY_FIRST;
        while let Err(error) = self.cursor.write(position) {
            warn!(sink = self.name, error = %chain(&error), "export waits");
            self.wait(&mut pause).await?;
        }
        Ok(())
    }

    /// Waits, and makes the next wait longer.
    async fn wait(&self, pause: &mut Duration) -> Result<(), Stopped> {
        tokio::select! {
            () = tokio::time::sleep(*pause) => {}
            () = self.stop.cancelled() => return Err(Stopped),
        }
        *pause = (*pause * 2).min(RETRY_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
