//! The log in one file: SQLite in WAL mode with synchronous=FULL.
//!
//! One thread writes (`writer`); requests that arrive while a commit is under way share
//! the next one (group commit). Readers use a connection of their own, so they
//! never wait for a writer. What happens when the disk is full: `reserve`.

mod writer;

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use bytes::Bytes;
use model::{Position, event::Stream};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use uuid::Uuid;

use self::writer::{Place, Request, write_loop};
use crate::{Append, AppendError, Entry, Latest, LogError, PART_EVENTS, PARTS_AHEAD, reserve::Reserve};

/// Appends waiting for the writer. Past this, appenders wait.
const WAITING_APPENDS_MAX: usize = 1024;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS events (
        stream INTEGER NOT NULL, position INTEGER NOT NULL, subject TEXT NOT NULL, event BLOB NOT NULL,
        PRIMARY KEY (stream, position)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS latest (
        stream INTEGER NOT NULL, subject TEXT NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY (stream, subject)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS heads (stream INTEGER PRIMARY KEY, position INTEGER NOT NULL);
";

#[derive(Clone)]
pub(crate) struct Embedded {
    writer: mpsc::Sender<Request>,
    reader: Arc<Mutex<Connection>>,
    heads: Arc<BTreeMap<Stream, watch::Receiver<Position>>>,
    path: Arc<Path>,
    /// Two processes would each count on their own head.
    _lock: Arc<File>,
}

impl Embedded {
    /// The log of an installation: with room kept for revocations.
    pub(crate) fn open_log(path: &Path) -> Result<Self, LogError> {
        Self::open_with(path, || Some(Reserve::beside(path)))
    }

    pub(crate) fn open(path: &Path) -> Result<Self, LogError> {
        Self::open_with(path, || None)
    }

    /// As it is now; nobody is kept from writing to it, and this never does.
    pub(crate) fn open_to_read(path: &Path) -> Result<Self, LogError> {
        let failed = |source: rusqlite::Error| LogError::new("opening the log file", source);
        let file = File::open(path).map_err(|source| LogError::new("opening the log file", source))?;
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        reader.execute_batch("PRAGMA query_only = ON; PRAGMA busy_timeout = 5000;").map_err(failed)?;
        let mut heads = BTreeMap::new();
        let now = reader.unchecked_transaction().map_err(failed)?;
        for stream in Stream::ALL {
            heads.insert(stream, watch::channel(head(&now, stream).map_err(failed)?).1);
        }
        drop(now);
        // Its other end is gone: an append finds the log closed.
        let (writer, _) = mpsc::channel(1);
        Ok(Self {
            writer,
            reader: Arc::new(Mutex::new(reader)),
            heads: Arc::new(heads),
            path: path.into(),
            _lock: Arc::new(file),
        })
    }

    fn open_with(path: &Path, reserve: impl FnOnce() -> Option<Reserve>) -> Result<Self, LogError> {
        let failed = |source: rusqlite::Error| LogError::new("opening the log file", source);
        let lock = lock(path)?;
        let connection = open_connection(path).map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        let mut senders = BTreeMap::new();
        let mut heads = BTreeMap::new();
        for stream in Stream::ALL {
            let (sender, receiver) = watch::channel(head(&connection, stream).map_err(failed)?);
            senders.insert(stream, sender);
            heads.insert(stream, receiver);
        }
        let reader = open_connection(path).map_err(failed)?;
        let (writer, requests) = mpsc::channel(WAITING_APPENDS_MAX);
        thread::Builder::new()
            .name("eventlog".into())
            .spawn({
                let reserve = reserve();
                move || write_loop(connection, requests, &senders, reserve)
            })
            .map_err(|source| LogError::new("starting the log's thread", source))?;
        Ok(Self {
            writer,
            reader: Arc::new(Mutex::new(reader)),
            heads: Arc::new(heads),
            path: path.into(),
            _lock: Arc::new(lock),
        })
    }

    pub(crate) async fn append(
        &self,
        stream: Stream,
        events: Vec<Append>,
        expected: Option<Position>,
        id: Option<Uuid>,
    ) -> Result<Position, AppendError> {
        let place = match id {
            Some(id) => Place::Once(id),
            None => expected.map_or(Place::End, Place::After),
        };
        self.write(stream, events, place).await
    }

    /// Keeps events of another log under their positions there.
    pub(crate) async fn mirror(
        &self,
        stream: Stream,
        events: Vec<Append>,
        positions: Vec<Position>,
        end: Option<Position>,
    ) -> Result<Position, AppendError> {
        self.write(stream, events, Place::Mirror { positions, end }).await
    }

    pub(crate) async fn mirror_anew(&self, stream: Stream) -> Result<Position, AppendError> {
        self.write(stream, vec![], Place::MirrorAnew).await
    }

    async fn write(&self, stream: Stream, events: Vec<Append>, place: Place) -> Result<Position, AppendError> {
        let closed = || AppendError::Unknown(LogError::new("appending", "the log is closed"));
        let (answer, answered) = oneshot::channel();
        self.writer.send(Request { stream, events, place, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn head(&self, stream: Stream) -> Position {
        self.heads.get(&stream).map_or(0, |head| *head.borrow())
    }

    pub(crate) async fn wait_beyond(&self, stream: Stream, position: Position) {
        if let Some(head) = self.heads.get(&stream) {
            // An error means that the writer is gone with the process.
            let mut head = head.clone();
            let _closed = head.wait_for(|head| *head > position).await;
        }
    }

    pub(crate) async fn read(&self, stream: Stream, after: Position, limit: usize) -> Result<Vec<Entry>, LogError> {
        self.query(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT position, event FROM events WHERE stream = ? AND position > ? ORDER BY position LIMIT ?",
            )?;
            entries(&mut statement.query(params![stream as i64, after, limit])?, limit)
        })
        .await
    }

    pub(crate) async fn latest(&self, stream: Stream) -> Result<Latest, LogError> {
        let (parts, receiver) = mpsc::channel(PARTS_AHEAD);
        let (started, position) = oneshot::channel();
        let reader = self.reader.clone();
        let mut reading = JoinSet::new();
        reading.spawn_blocking(move || {
            let connection = reader.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(source) = read_latest(&connection, stream, started, &parts) {
                // Nobody listens any more when this fails.
                let _gone = parts.blocking_send(Err(LogError::new("reading the log", source)));
            }
        });
        match position.await {
            Ok(position) => Ok(Latest { position, parts: receiver, _reading: reading }),
            Err(_) => {
                let mut failed = receiver;
                let why = failed.recv().await.and_then(Result::err);
                Err(why.unwrap_or_else(|| LogError::new("reading the log", "the reader ended")))
            }
        }
    }

    async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || question(&reader.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|source| LogError::new("reading the log", source))?
            .map_err(|source| LogError::new("reading the log", source))
    }
}

/// In one transaction, so the position and the events belong together.
fn read_latest(
    connection: &Connection,
    stream: Stream,
    started: oneshot::Sender<Position>,
    parts: &mpsc::Sender<Result<Vec<Entry>, LogError>>,
) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    let _gone = started.send(head(&transaction, stream)?);
    let mut statement = transaction.prepare_cached(
        "SELECT e.position, e.event FROM events e JOIN latest l
         ON l.stream = e.stream AND l.position = e.position AND l.subject = e.subject
         WHERE e.stream = ? ORDER BY e.position",
    )?;
    let mut rows = statement.query(params![stream as i64])?;
    loop {
        let part = entries(&mut rows, PART_EVENTS)?;
        if part.is_empty() || parts.blocking_send(Ok(part)).is_err() {
            return Ok(());
        }
    }
}

fn open_connection(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;")?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

/// Moves what lies beside a file into it, once nobody has it open: the thread of
/// a log that was dropped closes it soon.
pub(crate) fn settle(path: &Path) -> Result<(), LogError> {
    const TRIES: usize = 250;
    const PAUSE: Duration = Duration::from_millis(20);
    let mut why = String::new();
    for _ in 0..TRIES {
        let connection = open_connection(path).map_err(|source| LogError::new("closing the log file", source))?;
        match connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "delete" => {
                let _gone = std::fs::remove_file(path.with_extension("lock"));
                return Ok(());
            }
            Ok(mode) => why = format!("its journal mode stays {mode}"),
            Err(error) => why = error.to_string(),
        }
        drop(connection);
        thread::sleep(PAUSE);
    }
    Err(LogError::new("closing the log file", why))
}

pub(crate) fn lock(path: &Path) -> Result<File, LogError> {
    let file =
        File::create(path.with_extension("lock")).map_err(|source| LogError::new("opening the log file", source))?;
    file.try_lock().map_err(|source| LogError::new("another process holds the log file", source))?;
    Ok(file)
}

/// Positions and events of the next rows. The events share one buffer: whoever
/// keeps one for long copies it.
fn entries(rows: &mut rusqlite::Rows<'_>, limit: usize) -> rusqlite::Result<Vec<Entry>> {
    let (mut buffer, mut ends) = (Vec::new(), Vec::new());
    while ends.len() < limit {
        let Some(row) = rows.next()? else { break };
        buffer.extend_from_slice(row.get_ref(1)?.as_blob()?);
        ends.push((row.get(0)?, buffer.len()));
    }
    let buffer = Bytes::from(buffer);
    let mut start = 0;
    let entry = |(position, end)| {
        let bytes = buffer.slice(start..end);
        start = end;
        Entry { position, bytes }
    };
    Ok(ends.into_iter().map(entry).collect())
}

fn head(connection: &Connection, stream: Stream) -> rusqlite::Result<Position> {
    let head = connection
        .query_row("SELECT position FROM heads WHERE stream = ?", params![stream as i64], |row| row.get(0))
        .optional()?;
    Ok(head.unwrap_or(0))
}
