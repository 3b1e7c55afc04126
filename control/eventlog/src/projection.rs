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

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use model::{Position, Snapshot, TenantId, event::Stream};
use proto::{
    Message,
    signed::{Hash, Untrusted, Verifier},
    v1::{EventBody, SignedEvent},
};
use thiserror::Error;
use tokio::{sync::watch, task::JoinSet};
use tracing::{error, warn};

use crate::{
    Entry, EventLog, LogError,
    chain::{BrokenChain, Chain, Place},
    codec::{DecodeError, Fact, Mark},
    embedded::Embedded,
    memory::{Memory, Remembered, set_aside_if_damaged},
    past::Past,
    presence::now,
};

/// How often a reader makes sure that it has seen the end of the log.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

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

/// A mirror says nothing about how old it is, so it counts as this old.
const NEVER_CONFIRMED: Duration = Duration::from_secs(3600);

pub(crate) struct Fold {
    pub(crate) snapshot: Snapshot,
    signed_apps: imbl::OrdMap<model::AppId, bytes::Bytes>,
    signed_tenants: imbl::OrdMap<TenantId, bytes::Bytes>,
    signed_keys: imbl::OrdMap<TenantId, SignedKeys>,
    pub(crate) chain: Arc<Mutex<Chain>>,
    trust: Verifier,
    confirmed: Instant,
    confirmed_by: BTreeMap<Stream, Instant>,
    quarantine: Option<Arc<str>>,
}

impl Fold {
    fn new(trust: Verifier) -> Self {
        Self {
            snapshot: Snapshot::default(),
            signed_apps: imbl::OrdMap::new(),
            signed_tenants: imbl::OrdMap::new(),
            signed_keys: imbl::OrdMap::new(),
            chain: Arc::default(),
            trust,
            confirmed: now(),
            confirmed_by: BTreeMap::new(),
            quarantine: None,
        }
    }

    fn view(&self) -> View {
        View {
            snapshot: Arc::new(self.snapshot.clone()),
            confirmed: self.confirmed,
            quarantine: self.quarantine.clone(),
            signed_apps: Arc::new(self.signed_apps.clone()),
            signed_tenants: Arc::new(self.signed_tenants.clone()),
            signed_keys: Arc::new(self.signed_keys.clone()),
        }
    }

    /// Loads a stream, and proves that nothing is left out of it up to its end.
    pub(crate) async fn load(&mut self, log: &EventLog, stream: Stream) -> Result<Loaded, StartError> {
        let before = (self.snapshot.clone(), self.signed_apps.clone(), self.signed_keys.clone());
        let mut latest = log.latest(stream).await?;
        let mut checkpoint = None;
        while let Some(entries) = latest.next().await? {
            // What came after the newest checkpoint is read in full.
            if checkpoint.is_none() {
                checkpoint = self.begin(stream, &entries)?;
            }
        }
        let head = latest.position();
        let mut loaded = Loaded { checkpoint: checkpoint.unwrap_or(0), tail: BTreeMap::new() };
        let mut position = loaded.checkpoint.saturating_sub(1);
        if checkpoint.is_none() {
            // A young stream, or one written before there were checkpoints: all
            // of it is read in full, from the beginning.
            (self.snapshot, self.signed_apps, self.signed_keys) = before;
            self.chain.lock().unwrap_or_else(PoisonError::into_inner).restart(stream);
        }
        if let Some(checkpoint) = checkpoint {
            let tail = read_all(log, stream, position, head).await?;
            position = in_a_row(stream, position, &tail)?;
            self.resume(stream, checkpoint, &tail, &mut loaded)?;
        }
        while position < head {
            let entries = log.read(stream, position).await?;
            position = in_a_row(stream, position, &entries)?;
            if entries.is_empty() {
                break;
            }
            let believed = self.verify(stream, &entries);
            self.follow(stream, &entries, believed, &mut loaded)?;
        }
        if position < head {
            return Err(StartError::EndsEarly { stream, end: head, found: position });
        }
        let end = log.head(stream).await?;
        if end < position {
            return Err(StartError::EndsEarly { stream, end: position, found: end });
        }
        self.snapshot.advance(stream, position);
        self.confirmed_by.insert(stream, now());
        Ok(loaded)
    }

    /// Goes on from a checkpoint, the first of `tail`, if its root confirms what
    /// was loaded: with each subject that changed since put back to what its
    /// first event after the checkpoint names as the one before.
    fn resume(
        &mut self,
        stream: Stream,
        checkpoint: Position,
        tail: &[Entry],
        loaded: &mut Loaded,
    ) -> Result<(), StartError> {
        let incomplete = || StartError::Incomplete { stream, checkpoint };
        let believed = self.verify(stream, tail);
        {
            let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
            for believed in believed.iter().flatten() {
                chain.before(stream, &believed.body);
            }
            let Some(Ok(Believed { body, said: Said::Mark(Mark::Checkpoint(said)), .. })) = believed.first() else {
                return Err(incomplete());
            };
            if said.root != chain.root(stream).0 {
                return Err(incomplete());
            }
            chain.resume(stream, body);
        }
        self.follow(stream, tail, believed, loaded)
    }

    /// Applies events that were read in full.
    fn follow(
        &mut self,
        stream: Stream,
        entries: &[Entry],
        believed: Vec<Result<Believed, Refused>>,
        loaded: &mut Loaded,
    ) -> Result<(), StartError> {
        for (entry, believed) in entries.iter().zip(believed) {
            let refused = |source| StartError::Refused { stream, position: entry.position, source };
            let believed = believed.map_err(refused)?;
            self.chain_and_apply(stream, entry, believed).map_err(refused)?;
            loaded.tail.extend(self.last(stream).map(|last| (entry.position, last.hash)));
        }
        Ok(())
    }

    /// Verifies events on all cores.
    fn verify(&self, stream: Stream, entries: &[Entry]) -> Vec<Result<Believed, Refused>> {
        let threads = thread::available_parallelism().map_or(1, |it| it.get());
        let share = entries.len().div_ceil(threads).max(1);
        let trust = &self.trust;
        let verify = |entries: &[Entry]| {
            let mut trust = trust.clone();
            entries.iter().map(|entry| Believed::verify(&mut trust, stream, entry)).collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let verifying: Vec<_> = entries.chunks(share).map(|part| scope.spawn(|| verify(part))).collect();
            let join = |thread: ScopedJoinHandle<'_, Vec<_>>| thread.join().unwrap_or_else(|it| resume_unwind(it));
            verifying.into_iter().flat_map(join).collect()
        })
    }

    /// Applies the last events of subjects in order, up to the first checkpoint,
    /// whose position it returns; each takes its place in the chain on trust.
    fn begin(&mut self, stream: Stream, entries: &[Entry]) -> Result<Option<Position>, StartError> {
        for (entry, believed) in entries.iter().zip(self.verify(stream, entries)) {
            let refused = |source| StartError::Refused { stream, position: entry.position, source };
            let believed = believed.map_err(refused)?;
            if let Said::Mark(Mark::Checkpoint(_)) = believed.said {
                return Ok(Some(entry.position));
            }
            self.chain.lock().unwrap_or_else(PoisonError::into_inner).begin(stream, &believed.body, believed.hash);
            self.apply(stream, entry, believed);
        }
        Ok(None)
    }

    /// Verifies and applies one event.
    fn fold(&mut self, stream: Stream, entry: &Entry) -> Result<(), Refused> {
        let believed = Believed::verify(&mut self.trust, stream, entry)?;
        self.chain_and_apply(stream, entry, believed)
    }

    fn chain_and_apply(&mut self, stream: Stream, entry: &Entry, believed: Believed) -> Result<(), Refused> {
        let place = {
            let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
            chain.follow(stream, &believed.body, believed.hash)?
        };
        match place {
            Place::Duplicate => {}
            Place::Next => self.apply(stream, entry, believed),
        }
        Ok(())
    }

    fn apply(&mut self, stream: Stream, entry: &Entry, believed: Believed) {
        match believed.said {
            Said::State(tenant, event) => {
                self.remember_signed(&tenant, &event, entry);
                self.snapshot.apply(&tenant, event, believed.body.version);
            }
            Said::Mark(Mark::Checkpoint(_)) => {}
            Said::Mark(Mark::Restored(it)) => {
                self.chain.lock().unwrap_or_else(PoisonError::into_inner).restored(stream, it.epoch);
            }
        }
    }

    fn remember_signed(&mut self, tenant: &TenantId, event: &model::Event, entry: &Entry) {
        let signed = || bytes::Bytes::copy_from_slice(&entry.bytes);
        if let model::Event::AppPublished(app) | model::Event::AppChanged(app) = event {
            self.signed_apps.insert(app.id, signed());
        } else if let model::Event::AppRetired(id) = event {
            self.signed_apps.insert(*id, signed());
        } else if let model::Event::TenantChanged { .. } = event {
            self.signed_tenants.insert(tenant.clone(), signed());
        } else if let Some(key) = session_key(event) {
            Arc::make_mut(self.signed_keys.entry(tenant.clone()).or_default()).insert(key.to_owned(), signed());
        }
    }

    pub(crate) fn last(&self, stream: Stream) -> Option<Remembered> {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let (position, epoch) = (self.snapshot.position(stream), chain.epoch(stream));
        chain.last(stream).map(|hash| Remembered { position, hash, epoch })
    }

    fn confirm(&mut self, stream: Stream) {
        self.confirmed_by.insert(stream, now());
        self.confirmed = self.confirmed_by.values().min().copied().unwrap_or(self.confirmed);
    }
}

/// How a stream was loaded.
pub(crate) struct Loaded {
    /// Position of the checkpoint the load went on from; 0 is the beginning.
    pub(crate) checkpoint: Position,
    /// Hashes of what was read in full, by position.
    pub(crate) tail: BTreeMap<Position, Hash>,
}

async fn read_all(
    log: &EventLog,
    stream: Stream,
    mut position: Position,
    end: Position,
) -> Result<Vec<Entry>, LogError> {
    let mut all = Vec::new();
    while position < end {
        let entries = log.read(stream, position).await?;
        let Some(last) = entries.last() else { break };
        position = last.position;
        all.extend(entries);
    }
    Ok(all)
}

/// Positions are not signed, and people's tokens are compared by them: each event
/// that is read in full must stand right after the one before. Returns the last.
fn in_a_row(stream: Stream, mut after: Position, entries: &[Entry]) -> Result<Position, StartError> {
    for entry in entries {
        if entry.position != after + 1 {
            return Err(StartError::Moved { stream, after, found: entry.position });
        }
        after = entry.position;
    }
    Ok(after)
}

/// An event that a trusted writer wrote, and that is where it belongs.
struct Believed {
    body: EventBody,
    hash: Hash,
    said: Said,
}

enum Said {
    State(TenantId, model::Event),
    Mark(Mark),
}

impl Believed {
    fn verify(trust: &mut Verifier, stream: Stream, entry: &Entry) -> Result<Self, Refused> {
        let event = SignedEvent::decode(entry.bytes.clone()).map_err(|_| Untrusted::Malformed)?;
        let (body, hash) = trust.verify(&event)?;
        if let Some(mark) = Mark::decode(&body.kind, &body.payload)? {
            let subject = mark.subject(stream);
            if mark.stream() != stream.name() || subject != body.subject {
                return Err(Refused::Misfiled { said: mark.stream().to_owned(), meant: body.subject });
            }
            if let Mark::Checkpoint(it) = &mark
                && it.position != entry.position
            {
                return Err(Refused::Moved(it.position));
            }
            return Ok(Self { body, hash, said: Said::Mark(mark) });
        }
        let tenant = TenantId::parse(&body.tenant).ok_or_else(|| Refused::Tenant(body.tenant.clone()))?;
        let fact = Fact::decode(&body.kind, &body.payload)?;
        let Fact::State(event) = fact else {
            return Err(Refused::Misfiled { said: body.kind, meant: stream.name().to_owned() });
        };
        let subject = event.subject();
        if subject.stream != stream || subject.path(&tenant) != body.subject {
            return Err(Refused::Misfiled { said: subject.path(&tenant), meant: body.subject });
        }
        Ok(Self { body, hash, said: Said::State(tenant, event) })
    }
}

struct Follower {
    log: EventLog,
    stream: Stream,
    fold: Arc<Mutex<Fold>>,
    views: watch::Sender<View>,
    past: Past,
}

impl Follower {
    async fn run(self) {
        let start = self.position();
        let mut follow = self.log.follow(self.stream, start);
        let mut confirm = tokio::time::interval(CONFIRM_INTERVAL);
        let mut tell_once = true;
        loop {
            let entries = tokio::select! {
                next = follow.next() => next,
                _ = confirm.tick() => {
                    self.confirm().await;
                    continue;
                }
            };
            match entries {
                Ok(entries) => {
                    tell_once = true;
                    if let Err(quarantined) = self.apply(&entries) {
                        self.quarantine(&quarantined);
                        return;
                    }
                    self.keep(&entries).await;
                }
                Err(error) => {
                    if std::mem::take(&mut tell_once) {
                        warn!(stream = self.stream.name(), error = %chain_of(&error), "lost the log; serving what is known");
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    follow = self.log.follow(self.stream, self.position());
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fold> {
        self.fold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self) -> Position {
        self.lock().snapshot.position(self.stream)
    }

    fn apply(&self, entries: &[Entry]) -> Result<(), String> {
        let mut fold = self.lock();
        let mut outcome = Ok(());
        for entry in entries {
            if fold.quarantine.is_some() {
                break;
            }
            let after = fold.snapshot.position(self.stream);
            if let Err(moved) = in_a_row(self.stream, after, std::slice::from_ref(entry)) {
                outcome = Err(moved.to_string());
                break;
            }
            if let Err(refused) = fold.fold(self.stream, entry) {
                outcome = Err(format!("event {} of {}: {refused}", entry.position, self.stream.name()));
                break;
            }
            fold.snapshot.advance(self.stream, entry.position);
        }
        self.views.send_replace(fold.view());
        outcome
    }

    fn quarantine(&self, why: &str) {
        error!(%why, "an event cannot be believed; no further event is applied");
        let mut fold = self.lock();
        fold.quarantine = Some(why.into());
        self.views.send_replace(fold.view());
    }

    /// Only a reader that has everything may say that it is up to date.
    async fn confirm(&self) {
        let Ok(head) = self.log.head(self.stream).await else { return };
        let mut fold = self.lock();
        let position = fold.snapshot.position(self.stream);
        if head < position {
            let why = format!("{} ends at {head}, before {position} where it was seen", self.stream.name());
            drop(fold);
            self.quarantine(&why);
            return;
        }
        if head == position && fold.quarantine.is_none() {
            fold.confirm(self.stream);
            let confirmed = fold.confirmed;
            // Nobody needs to wake up for this.
            self.views.send_if_modified(|view| {
                view.confirmed = confirmed;
                false
            });
        }
    }

    async fn keep(&self, entries: &[Entry]) {
        self.past.mirror(self.stream, entries).await;
        let it = self.lock().last(self.stream);
        self.past.keep(self.stream, it).await;
    }
}

/// An error and its causes in one line.
/// The key that connectors must hear of, by id. What a retired one was for, its
/// last event does not say.
fn session_key(event: &model::Event) -> Option<&str> {
    if let model::Event::KeyPublished(key) = event {
        return Some(key.id.as_str()).filter(|_| key.purpose == model::keys::KeyPurpose::Session);
    }
    if let model::Event::KeyRetired(id) = event { Some(id) } else { None }
}

pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |it| it.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
