//! Sinks: where batches go. A sink is an adapter and nothing else: it takes a
//! batch and says what became of it. Cursor, retry and order are `delivery`'s.
//!
//! A new sink is one file, one variant here and one in the settings.

mod file;
mod syslog;

use std::io;

use file::FileSink;
use syslog::SyslogSink;
use thiserror::Error;

use crate::{record::Severity, settings::Target};

/// A record in the format of its sink, with what sinks need beside the text.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub id: String,
    pub kind: &'static str,
    pub severity: Severity,
    pub time_ms: i64,
    pub text: String,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The sink has all of it.
    Accepted,
    /// It may have some of it; all of it is to be sent again.
    Retry(SendError),
    /// At least one line will never be taken; none was.
    Refused(&'static str),
}

#[derive(Debug, Error)]
#[error("{attempted} {target}")]
pub(crate) struct SendError {
    attempted: &'static str,
    target: String,
    source: io::Error,
}

pub(crate) enum Sink {
    File(FileSink),
    Syslog(SyslogSink),
}

impl Sink {
    pub(crate) fn to(target: &Target) -> Self {
        match target {
            Target::File(path) => Self::File(FileSink::new(path.clone())),
            Target::Syslog(address) => Self::Syslog(SyslogSink::new(address.clone())),
        }
    }

    /// Returns within a bounded time.
    pub(crate) async fn send(&mut self, batch: &[Line]) -> Outcome {
        match self {
            Self::File(sink) => sink.send(batch).await,
            Self::Syslog(sink) => sink.send(batch).await,
        }
    }

    /// Lets the receiver read to the end of what was sent.
    pub(crate) async fn close(self) {
        match self {
            Self::File(_) => {}
            Self::Syslog(sink) => sink.close().await,
        }
    }
}
