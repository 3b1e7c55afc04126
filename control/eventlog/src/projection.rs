//! Reading: the state streams folded into a snapshot, for everybody in the process.
//!
//! One task owns the fold and publishes a [`View`] after each batch. An event
//! that is forged, out of its chain, unreadable or of an unknown kind stops the
//! fold for good: the last good snapshot goes on serving, its age grows, and
//! the view says which event and why. Nothing is ever skipped.
//!
//! A start proves that nothing is left out: the newest checkpoint confirms the
//! last event of every subject before it, and what came after is read in full
//! (`load`). What the process remembers of the log proves that it is the same
//! history (`memory`).

mod fold;
mod follower;
mod verified;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub(crate) use fold::{Fold, Loaded};
use follower::Follower;
use model::{Position, Snapshot, TenantId, event::Stream};
use proto::signed::{Untrusted, Verifier};
use thiserror::Error;
use tokio::{sync::watch, task::JoinSet};
use tracing::{error, warn};

use crate::{
    EventLog, LogError,
    chain::{BrokenChain, Chain},
    codec::DecodeError,
    embedded::Embedded,
    memory::{Memory, set_aside_if_damaged},
    past::Past,
};

/// A mirror says nothing about how old it is, so it counts as this old.
const NEVER_CONFIRMED: Duration = Duration::from_secs(3600);

/// What this process knows, and how well.
#[derive(Clone)]
pub struct View {
    pub snapshot: Arc<Snapshot>,
    /// When the end of the log was last seen to be no further than this.
    pub confirmed: Instant,
    /// Why the fold has stopped, if it has.
    pub quarantine: Option<Arc<str>>,
    /// Signed bytes of each application's last event: what connectors believe.
    pub signed_apps: Arc<imbl::OrdMap<model::AppId, bytes::Bytes>>,
    /// And of each tenant's: where its relays are.
    pub signed_tenants: Arc<imbl::OrdMap<TenantId, bytes::Bytes>>,
    /// And of each tenant's keys that sign session tokens, by id; of retired ones too.
    pub signed_keys: Arc<imbl::OrdMap<TenantId, SignedKeys>>,
}

/// Signed bytes of each key's last event, by the key's id.
pub type SignedKeys = Arc<imbl::OrdMap<String, bytes::Bytes>>;

impl View {
    pub fn age(&self) -> Duration {
        self.confirmed.elapsed()
    }
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error("reading the log")]
    Log(#[from] LogError),
    #[error("event {position} of {} is refused", .stream.name())]
    Refused { stream: Stream, position: Position, source: Refused },
    #[error("the log ends at {found} of {}, before {seen} where it was last seen; {remedy}", .stream.name())]
    WentBack { stream: Stream, seen: Position, found: Position, remedy: Remedy },
    #[error(
        "event {position} of {} is {found}, and {remembered} is remembered: the log is another history; {remedy}",
        .stream.name()
    )]
    AnotherHistory { stream: Stream, position: Position, remembered: String, found: String, remedy: Remedy },
    #[error(
        "the last events of {} before {checkpoint} are not those its checkpoint signs: events were left out or \
         replaced; restore the log from a backup", .stream.name()
    )]
    Incomplete { stream: Stream, checkpoint: Position },
    #[error("{} should end at {end}, and its events end at {found}; restore the log from a backup", .stream.name())]
    EndsEarly { stream: Stream, end: Position, found: Position },
    #[error("event {found} of {} follows {after}: what is between is missing, or was moved; restore the log from a backup", .stream.name())]
    Moved { stream: Stream, after: Position, found: Position },
}

/// What to do about a log that is not the one a process remembers.
#[derive(Debug, Error)]
#[error(
    "if an older log was restored on purpose, `postern restore` signs that; to forget knowingly, stop this process \
     and remove {0:?}"
)]
pub struct Remedy(pub(crate) Vec<PathBuf>);

/// Why a reader does not believe an event.
#[derive(Debug, Error)]
pub enum Refused {
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error(transparent)]
    Chain(#[from] BrokenChain),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the tenant {0:?} is not a valid name")]
    Tenant(String),
    #[error("the event says {said:?} about {meant:?}")]
    Misfiled { said: String, meant: String },
    #[error("the checkpoint was written for position {0}")]
    Moved(Position),
}

/// Where a process keeps what it knows of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// The events, from which the process starts when the log is out of reach;
    /// they are signed, so the file needs no trust.
    pub mirror: Option<&'a Path>,
    /// The last event of each stream that was acted on.
    pub memory: Option<&'a Path>,
}

/// A running fold. Dropping the last handle stops it.
#[derive(Clone)]
pub struct Projection {
    views: watch::Receiver<View>,
    chain: Arc<Mutex<Chain>>,
    _tasks: Arc<JoinSet<()>>,
}

impl Projection {
    /// Loads the last event of each subject, then follows.
    pub async fn start(
        log: EventLog,
        streams: &[Stream],
        trust: Verifier,
        mirror: Option<&Path>,
    ) -> Result<Self, StartError> {
        Self::start_with(log, streams, trust, Files { mirror, memory: None }).await
    }

    /// Starts with what an earlier process of the same role left behind.
    pub async fn start_with(
        log: EventLog,
        streams: &[Stream],
        trust: Verifier,
        files: Files<'_>,
    ) -> Result<Self, StartError> {
        if let Some(path) = files.mirror {
            set_aside_if_damaged(path, "the mirror of the log")?;
        }
        let mirror = files.mirror.map(Embedded::open).transpose()?;
        // Without a memory a start is less sure, and still a start.
        let memory = files.memory.and_then(|path| match Memory::open(path) {
            Ok(memory) => Some(memory),
            Err(error) => {
                let (file, error) = (path.display(), chain_of(&error));
                error!(%file, %error, "nothing is remembered of the log: this process may not write there");
                None
            }
        });
        let past = Past { mirror, memory };
        let mut fold = Fold::new(trust);
        let loaded = past.load(&mut fold, &log, streams).await;
        let from_mirror = match (loaded, &past.mirror) {
            (Ok(()), _) => false,
            (Err(StartError::Log(error)), Some(mirror)) if mirror.head(Stream::Config) > 0 => {
                warn!(error = %chain_of(&error), "the log is out of reach; starting from the mirror");
                fold = Fold::new(fold.trust);
                past.load_mirror(&mut fold, mirror, streams).await?;
                true
            }
            (Err(error), _) => return Err(error),
        };
        if from_mirror {
            fold.confirmed = fold.confirmed.checked_sub(NEVER_CONFIRMED).unwrap_or(fold.confirmed);
        }
        for stream in streams {
            past.remember(&fold, *stream).await;
        }
        let (views, receiver) = watch::channel(fold.view());
        let chain = fold.chain.clone();
        let fold = Arc::new(Mutex::new(fold));
        let mut tasks = JoinSet::new();
        for stream in streams {
            let follower = Follower {
                log: log.clone(),
                stream: *stream,
                fold: fold.clone(),
                views: views.clone(),
                past: past.clone(),
            };
            tasks.spawn(follower.run());
        }
        Ok(Self { views: receiver, chain, _tasks: Arc::new(tasks) })
    }

    pub fn view(&self) -> View {
        self.views.borrow().clone()
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.views.borrow().snapshot.clone()
    }

    pub fn watch(&self) -> watch::Receiver<View> {
        self.views.clone()
    }

    pub fn chain(&self) -> &Mutex<Chain> {
        &self.chain
    }

    /// Waits until a position of a stream is in the snapshot, or the fold has
    /// stopped and it never will be; then the snapshot ends before the position.
    pub async fn reach(&self, stream: Stream, position: Position) -> Arc<Snapshot> {
        let mut views = self.views.clone();
        let ends = |view: &View| view.snapshot.position(stream) >= position || view.quarantine.is_some();
        let reached = views.wait_for(ends).await;
        match reached {
            Ok(view) => view.snapshot.clone(),
            // The follower is gone: the process is stopping.
            Err(_) => self.snapshot(),
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |it| it.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
