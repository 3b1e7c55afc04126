//! Follows ACTIVITY and tells the outside: today as OCSF 1.8 JSON lines in a
//! file, at least once, with a cursor that moves only after the lines are
//! durable.
//!
//! Must never know: how relays route. Read: `ocsf` (what a line says), this
//! file (how it gets out and survives a crash).

pub mod formats;
pub mod record;

#[cfg(test)]
mod tests;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use eventlog::{EventLog, Fact};
use model::{Position, event::Stream};
use proto::{Message, signed::Verifier, v1::SignedEvent};
use runtime::{files, telemetry::chain};
use serde::Deserialize;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{formats::Format, record::Record};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where lines are appended. Rotate it by renaming; it is opened anew for each batch.
    pub file: PathBuf,
    /// Remembers what was written.
    pub cursor: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { file: "./activity.ocsf.jsonl".into(), cursor: "./activity.cursor".into() }
    }
}

#[derive(Debug, Error)]
pub enum AnalyticsError {
    #[error("{attempted} {path}")]
    File { attempted: &'static str, path: String, source: io::Error },
}

/// The log may come back later; nothing is lost meanwhile.
const RETRY: Duration = Duration::from_secs(1);

/// Follows until `stop`. An event that is not signed by one of ours is left out
/// and counted: a forged line in a SIEM is worse than a missing one.
pub async fn run(
    settings: Settings,
    log: EventLog,
    trust: Verifier,
    stop: CancellationToken,
) -> Result<(), AnalyticsError> {
    let mut exporter = Exporter { cursor: read_cursor(&settings)?, settings, trust, refused: 0 };
    exporter.begin_again_with(&log).await;
    info!(from = exporter.cursor, file = %exporter.settings.file.display(), "analytics follows activity");
    let mut follow = log.follow(Stream::Activity, exporter.cursor);
    loop {
        let next = tokio::select! {
            next = follow.next() => next,
            () = stop.cancelled() => return Ok(()),
        };
        let written = match &next {
            Ok(entries) => exporter.export(entries).map_err(|error| chain(&error)),
            Err(error) => Err(chain(error)),
        };
        if let Err(error) = written {
            warn!(%error, "export waits");
            tokio::time::sleep(RETRY).await;
            follow = log.follow(Stream::Activity, exporter.cursor);
        }
    }
}

struct Exporter {
    settings: Settings,
    trust: Verifier,
    cursor: Position,
    refused: u64,
}

impl Exporter {
    /// A restored log counts ACTIVITY from 1 again; what is in it was never exported.
    async fn begin_again_with(&mut self, log: &EventLog) {
        // Away: the positions of a log that comes back are those it had.
        let Ok(head) = log.head(Stream::Activity).await else { return };
        if head < self.cursor {
            warn!(cursor = self.cursor, head, "the log is another one than before; exporting all of it");
            self.cursor = 0;
        }
    }

    fn export(&mut self, entries: &[eventlog::Entry]) -> Result<(), AnalyticsError> {
        let mut lines = String::new();
        for entry in entries {
            match self.lines(&entry.bytes) {
                Some(of_entry) => {
                    for line in of_entry {
                        lines.push_str(&line);
                        lines.push('\n');
                    }
                }
                None => {
                    self.refused += 1;
                    warn!(
                        position = entry.position,
                        refused = self.refused,
                        "an event is not exported: not ours, or unreadable"
                    );
                }
            }
        }
        let Some(last) = entries.last() else { return Ok(()) };
        append(&self.settings.file, lines.as_bytes()).map_err(in_file("appending to", &self.settings.file))?;
        // Only now: a crash in between repeats lines, with the same ids.
        files::write_private(&self.settings.cursor, last.position.to_string().as_bytes())
            .map_err(in_file("writing", &self.settings.cursor))?;
        self.cursor = last.position;
        Ok(())
    }

    fn lines(&mut self, bytes: &[u8]) -> Option<Vec<String>> {
        let event = SignedEvent::decode(bytes).ok()?;
        let (body, _) = self.trust.verify(&event).ok()?;
        let Fact::Activity(activity) = Fact::decode(&body.kind, &body.payload).ok()? else { return None };
        Some(Record::of(&body, &activity).iter().map(|it| Format::Ocsf.line(it)).collect())
    }
}

fn append(path: &std::path::Path, lines: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(lines)?;
    file.sync_data()
}

fn read_cursor(settings: &Settings) -> Result<Position, AnalyticsError> {
    match std::fs::read_to_string(&settings.cursor) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| io::ErrorKind::InvalidData.into())
            .map_err(in_file("reading", &settings.cursor)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(in_file("reading", &settings.cursor)(error)),
    }
}

fn in_file(attempted: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> AnalyticsError {
    let path = path.display().to_string();
    move |source| AnalyticsError::File { attempted, path, source }
}
