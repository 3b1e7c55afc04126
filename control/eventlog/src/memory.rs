//! What a process remembers of the log: for each stream the last event it acted
//! on. A log that says otherwise is another history, however long it is.
//!
//! A small SQLite file. It is written without waiting for the disk: killing the
//! process loses nothing, a power cut perhaps the last moments.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use model::{Position, event::Stream};
use proto::signed::Hash;
use rusqlite::{Connection, ErrorCode, params};
use tracing::{error, warn};

use crate::LogError;

/// The last event that was acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) position: Position,
    pub(crate) hash: Hash,
    /// Of the last restore that was accepted.
    pub(crate) epoch: u64,
}

#[derive(Clone)]
pub(crate) struct Memory {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;
    CREATE TABLE IF NOT EXISTS remembered (
        stream INTEGER PRIMARY KEY, position INTEGER NOT NULL, hash BLOB NOT NULL, epoch INTEGER NOT NULL
    );
";

impl Memory {
    pub(crate) fn open(path: &Path) -> Result<Self, LogError> {
        set_aside_if_damaged(path, "what was remembered of the log")?;
        let failed = |source| LogError::new("opening what was remembered of the log", source);
        let connection = Connection::open(path).map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        Ok(Self { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self) -> Result<BTreeMap<Stream, Remembered>, LogError> {
        self.query().map_err(|source| LogError::new("reading what was remembered of the log", source))
    }

    fn query(&self) -> rusqlite::Result<BTreeMap<Stream, Remembered>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached("SELECT stream, position, hash, epoch FROM remembered")?;
        let mut rows = statement.query([])?;
        let mut all = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            let stream = Stream::STATE.into_iter().find(|it| *it as i64 == number);
            let it = Remembered { position: row.get(1)?, hash: row.get(2)?, epoch: row.get(3)? };
            all.extend(stream.map(|stream| (stream, it)));
        }
        Ok(all)
    }

    pub(crate) async fn keep(&self, stream: Stream, it: Remembered) {
        let connection = self.connection.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO remembered VALUES (?, ?, ?, ?)")?;
            insert.execute(params![stream as i64, it.position, it.hash, it.epoch])
        });
        if let Ok(Err(source)) = kept.await {
            warn!(file = %self.path.display(), error = %source, "the last event acted on is not remembered");
        }
    }
}

/// A file that is only a copy must not keep its process from starting.
pub(crate) fn set_aside_if_damaged(path: &Path, what: &str) -> Result<(), LogError> {
    if !path.exists() || !is_damaged(path) {
        return Ok(());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    error!(file = %path.display(), moved_to = %Path::new(&aside).display(), "{what} is damaged and begins anew");
    std::fs::rename(path, aside).map_err(|source| LogError::new("moving a damaged file aside", source))?;
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        // Usually it is not there.
        let _absent = std::fs::remove_file(beside);
    }
    Ok(())
}

fn is_damaged(path: &Path) -> bool {
    let check = |connection: Connection| {
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)).map(|it| it != "ok")
    };
    match Connection::open(path).and_then(check) {
        Ok(damaged) => damaged,
        Err(error) => {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        }
    }
}
