//! The thread that writes the file: appends that wait share one transaction.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use model::{Position, event::Stream};
use proto::{
    Message,
    v1::{EventBody, SignedEvent},
};
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::WAITING_APPENDS_MAX;
use crate::{Append, AppendError, LogError, codec::CHECKPOINT, reserve::Reserve};

/// ACTIVITY keeps this many events; older ones go when the writer is idle enough to notice.
const ACTIVITY_EVENTS_MAX: u64 = 1_000_000;

/// Ids of appends that are known when they are repeated. Whoever repeats one
/// waits for its answer first.
const IDS_MAX: usize = 256;

pub(super) struct Request {
    pub(super) stream: Stream,
    pub(super) events: Vec<Append>,
    pub(super) place: Place,
    pub(super) answer: oneshot::Sender<Result<Position, AppendError>>,
}

/// Where events go.
pub(super) enum Place {
    /// After whatever is there.
    End,
    /// At the end, unless an append with this id is there already.
    Once(Uuid),
    /// After this position, or nowhere.
    After(Position),
    /// Where they are in the log this file mirrors. With an end, everything up
    /// to it is there; without, the file does not count as filled.
    Mirror { positions: Vec<Position>, end: Option<Position> },
    /// Nowhere: the mirror forgets the stream.
    MirrorAnew,
}

pub(super) fn write_loop(
    mut connection: Connection,
    mut requests: mpsc::Receiver<Request>,
    heads: &BTreeMap<Stream, watch::Sender<Position>>,
    mut reserve: Option<Reserve>,
) {
    let mut batch = Vec::new();
    let mut written = VecDeque::new();
    while requests.blocking_recv_many(&mut batch, WAITING_APPENDS_MAX) > 0 {
        let mut requests = std::mem::take(&mut batch);
        if reserve.as_mut().is_some_and(|it| !it.hold()) {
            requests = only_revocations(requests);
        }
        let mut outcome = commit(&mut connection, &requests, heads, &written);
        if outcome.as_ref().is_err_and(is_full) && reserve.is_some() {
            requests = only_revocations(requests);
            outcome = commit(&mut connection, &requests, heads, &written);
            if outcome.as_ref().is_err_and(is_full) && reserve.as_mut().is_some_and(Reserve::release) {
                outcome = commit(&mut connection, &requests, heads, &written);
            }
        }
        answer(requests, outcome, heads, &mut written);
    }
}

/// Refuses all others.
fn only_revocations(requests: Vec<Request>) -> Vec<Request> {
    let (revocations, others): (Vec<_>, Vec<_>) = requests.into_iter().partition(|it| it.stream == Stream::Risk);
    for request in others {
        let _gone = request.answer.send(Err(AppendError::Full));
    }
    revocations
}

fn answer(
    requests: Vec<Request>,
    outcome: rusqlite::Result<Vec<Result<Position, AppendError>>>,
    heads: &BTreeMap<Stream, watch::Sender<Position>>,
    written: &mut VecDeque<Uuid>,
) {
    match outcome {
        Ok(outcomes) => {
            for (request, outcome) in requests.into_iter().zip(outcomes) {
                if let (Place::Once(id), Ok(_)) = (&request.place, &outcome) {
                    written.push_back(*id);
                    written.drain(..written.len().saturating_sub(IDS_MAX));
                }
                if let (Ok(position), Some(head)) = (&outcome, heads.get(&request.stream)) {
                    head.send_if_modified(|head| std::mem::replace(head, *position) < *position);
                }
                // An appender that went away does not want its answer.
                let _gone = request.answer.send(outcome);
            }
        }
        Err(error) => {
            let full = is_full(&error);
            let error = Arc::new(error);
            for request in requests {
                let failed = match full {
                    true => AppendError::Full,
                    false => AppendError::Unknown(LogError::new("writing to the log file", error.clone())),
                };
                let _gone = request.answer.send(Err(failed));
            }
        }
    }
}

/// Nothing of the transaction is there then.
fn is_full(error: &rusqlite::Error) -> bool {
    /// The index of the write-ahead log could not grow.
    const INDEX_CANNOT_GROW: i32 = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|it| it.extended_code == INDEX_CANNOT_GROW)
}

/// One transaction for all requests. A conflict refuses its request only.
fn commit(
    connection: &mut Connection,
    requests: &[Request],
    heads: &BTreeMap<Stream, watch::Sender<Position>>,
    written: &VecDeque<Uuid>,
) -> rusqlite::Result<Vec<Result<Position, AppendError>>> {
    let transaction = connection.transaction()?;
    let mut ends: BTreeMap<Stream, Position> = heads.iter().map(|(stream, head)| (*stream, *head.borrow())).collect();
    let mut outcomes = Vec::with_capacity(requests.len());
    for request in requests {
        let end = ends.entry(request.stream).or_default();
        if matches!(request.place, Place::After(expected) if expected != *end) {
            outcomes.push(Err(AppendError::Conflict { at: *end }));
            continue;
        }
        if matches!(&request.place, Place::Once(id) if written.contains(id)) {
            outcomes.push(Ok(*end));
            continue;
        }
        match &request.place {
            Place::Mirror { positions, end: filled } => {
                for (event, position) in request.events.iter().zip(positions) {
                    keep_mirrored(&transaction, request.stream, *position, event)?;
                }
                *end = filled.unwrap_or(*end);
            }
            Place::MirrorAnew => {
                forget_stream(&transaction, request.stream)?;
                *end = 0;
            }
            Place::End | Place::Once(_) | Place::After(_) => {
                for event in &request.events {
                    *end += 1;
                    insert(&transaction, request.stream, *end, event)?;
                }
            }
        }
        outcomes.push(Ok(*end));
    }
    for (stream, end) in &ends {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO heads VALUES (?, ?)")?
            .execute(params![*stream as i64, end])?;
    }
    forget_old_activity(&transaction, &ends)?;
    transaction.commit()?;
    Ok(outcomes)
}

fn insert(connection: &Connection, stream: Stream, position: Position, event: &Append) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?)")?.execute(params![
        stream as i64,
        position,
        event.subject,
        event.bytes.as_ref()
    ])?;
    if stream.is_state() {
        connection.prepare_cached("INSERT OR REPLACE INTO latest VALUES (?, ?, ?)")?.execute(params![
            stream as i64,
            event.subject,
            position
        ])?;
    }
    Ok(())
}

/// A mirror keeps what a start reads: the last event of each subject, and all
/// since the newest checkpoint.
fn keep_mirrored(connection: &Connection, stream: Stream, position: Position, event: &Append) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM events WHERE stream = ? AND position = ?")?
        .execute(params![stream as i64, position])?;
    insert(connection, stream, position, event)?;
    let body = SignedEvent::decode(event.bytes.clone()).and_then(|it| EventBody::decode(it.body));
    if body.is_ok_and(|it| it.kind == CHECKPOINT) {
        connection
            .prepare_cached(
                "DELETE FROM events WHERE stream = ?1 AND position < ?2 AND position NOT IN
                 (SELECT position FROM latest WHERE stream = ?1)",
            )?
            .execute(params![stream as i64, position])?;
    }
    Ok(())
}

fn forget_stream(connection: &Connection, stream: Stream) -> rusqlite::Result<()> {
    for table in ["events", "latest"] {
        connection.execute(&format!("DELETE FROM {table} WHERE stream = ?"), params![stream as i64])?;
    }
    Ok(())
}

fn forget_old_activity(connection: &Connection, ends: &BTreeMap<Stream, Position>) -> rusqlite::Result<()> {
    let end = ends.get(&Stream::Activity).copied().unwrap_or(0);
    if let Some(oldest) = end.checked_sub(ACTIVITY_EVENTS_MAX) {
        connection
            .prepare_cached("DELETE FROM events WHERE stream = ? AND position <= ?")?
            .execute(params![Stream::Activity as i64, oldest])?;
    }
    Ok(())
}
