//! Copies of a log: one file, made while the log is in use, and put back.
//!
//! A copy is a log file of its own, with the events of CONFIG, DIRECTORY and RISK
//! at their positions, whichever backend they came from and go to. ACTIVITY is not
//! in it: it is exported as it happens, and would be most of the file.
//!
//! RISK is read first: it names positions of DIRECTORY, which must not end before.

use std::{collections::BTreeMap, path::Path};

use model::{Position, event::Stream};
use proto::{
    Message,
    v1::{EventBody, SignedEvent},
};
use thiserror::Error;

use crate::{APPEND_MAX, Append, AppendError, Entry, EventLog, LogError, embedded, embedded::Embedded};

const ORDER: [Stream; 3] = [Stream::Risk, Stream::Config, Stream::Directory];

#[derive(Debug, Error)]
pub enum CopyError {
    #[error("reading the log")]
    Log(#[from] LogError),
    #[error("writing the copy")]
    Append(#[from] AppendError),
    #[error("event {position} of {} is missing or cannot be read", .stream.name())]
    Missing { stream: Stream, position: Position },
    #[error("{} of the other log has events of its own", .stream.name())]
    NotEmpty { stream: Stream },
}

/// Where each stream ends in a copy.
pub type Ends = BTreeMap<Stream, Position>;

impl EventLog {
    /// Opens a file to be written by nobody else, without room kept beside it.
    pub fn open_copy(path: &Path) -> Result<Self, LogError> {
        Embedded::open(path).map(Self::from)
    }

    /// Opens a file as it is now, also one that another process writes to.
    pub fn open_to_read(path: &Path) -> Result<Self, LogError> {
        Embedded::open_to_read(path).map(Self::from)
    }

    /// Does a process hold this file?
    pub fn is_held(path: &Path) -> bool {
        path.with_extension("lock").exists() && embedded::lock(path).is_err()
    }
}

/// Makes one file of a copy that nobody has open any more.
pub fn close_copy(path: &Path) -> Result<(), LogError> {
    embedded::settle(path)
}

/// Copies every event of the state from one log to another, each at its position.
/// What is there already is what a copy that broke off has left, or it is refused.
pub async fn copy(from: &EventLog, to: &EventLog) -> Result<Ends, CopyError> {
    let mut ends = Ends::new();
    for stream in ORDER {
        ends.insert(stream, from.head(stream).await?);
    }
    for (stream, end) in &ends {
        copy_stream(from, to, *stream, *end).await?;
    }
    Ok(ends)
}

async fn copy_stream(from: &EventLog, to: &EventLog, stream: Stream, end: Position) -> Result<(), CopyError> {
    let mut position = to.head(stream).await?;
    if position > 0 {
        let same = position <= end && event_at(from, stream, position).await? == event_at(to, stream, position).await?;
        if !same {
            return Err(CopyError::NotEmpty { stream });
        }
    }
    while position < end {
        let mut entries = from.read(stream, position).await?;
        entries.retain(|it| it.position <= end);
        if entries.is_empty() {
            return Err(CopyError::Missing { stream, position: position + 1 });
        }
        for entries in entries.chunks(APPEND_MAX) {
            let mut appends = Vec::with_capacity(entries.len());
            for (entry, expected) in entries.iter().zip(position + 1..) {
                let event = (entry.position == expected).then(|| with_subject(entry)).flatten();
                appends.push(event.ok_or(CopyError::Missing { stream, position: expected })?);
            }
            position = to.append(stream, appends, Some(position)).await?;
        }
    }
    Ok(())
}

async fn event_at(log: &EventLog, stream: Stream, position: Position) -> Result<Option<Entry>, LogError> {
    Ok(log.read(stream, position - 1).await?.into_iter().next())
}

fn with_subject(entry: &Entry) -> Option<Append> {
    let event = SignedEvent::decode(entry.bytes.clone()).ok()?;
    let subject = EventBody::decode(event.body).ok()?.subject;
    Some(Append { subject, bytes: entry.bytes.clone() })
}
