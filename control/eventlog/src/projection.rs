//! Reading: the state streams folded into a snapshot, for everybody in the process.
//!
//! One task owns the fold and publishes a [`View`] after each batch. An event
//! that is forged, out of its chain, unreadable or of an unknown kind stops the
//! fold for good: the last good snapshot goes on serving, its age grows, and
//! the view says which event and why. Nothing is ever skipped.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    path::Path,
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
    Append, Entry, EventLog, LogError,
    chain::{BrokenChain, Chain, Place},
    codec::{DecodeError, Fact},
    embedded::Embedded,
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
}

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
    #[error("the log ends at {found} of {}, before {seen} where it was last seen", .stream.name())]
    WentBack { stream: Stream, seen: Position, found: Position },
}

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
}

/// A running fold. Dropping the last handle stops it.
#[derive(Clone)]
pub struct Projection {
    views: watch::Receiver<View>,
    chain: Arc<Mutex<Chain>>,
    _tasks: Arc<JoinSet<()>>,
}

impl Projection {
    /// Loads the last event of each subject, then follows. With a mirror, the
    /// events are also kept in a file, from which a process starts when the log
    /// is out of reach; they are signed, so the file needs no trust.
    pub async fn start(
        log: EventLog,
        streams: &[Stream],
        trust: Verifier,
        mirror: Option<&Path>,
    ) -> Result<Self, StartError> {
        let mirror = mirror.map(Embedded::open).transpose()?;
        let mut fold = Fold::new(trust);
        let loaded = fold.load(&log, streams, mirror.as_ref()).await;
        let from_mirror = match (loaded, &mirror) {
            (Ok(()), _) => false,
            (Err(StartError::Log(error)), Some(mirror)) if mirror.head(Stream::Config) > 0 => {
                warn!(error = %chain_of(&error), "the log is out of reach; starting from the mirror");
                fold = Fold::new(fold.trust);
                fold.load(&mirror.clone().into(), streams, None).await?;
                true
            }
            (Err(error), _) => return Err(error),
        };
        if from_mirror {
            fold.confirmed = fold.confirmed.checked_sub(NEVER_CONFIRMED).unwrap_or(fold.confirmed);
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
                mirror: mirror.clone(),
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

    /// Waits until a position of a stream is in the snapshot.
    pub async fn reach(&self, stream: Stream, position: Position) -> Arc<Snapshot> {
        let mut views = self.views.clone();
        let reached = views.wait_for(|view| view.snapshot.position(stream) >= position).await;
        match reached {
            Ok(view) => view.snapshot.clone(),
            // The follower is gone: the process is stopping.
            Err(_) => self.snapshot(),
        }
    }
}

/// A mirror says nothing about how old it is, so it counts as this old.
const NEVER_CONFIRMED: Duration = Duration::from_secs(3600);

struct Fold {
    snapshot: Snapshot,
    signed_apps: imbl::OrdMap<model::AppId, bytes::Bytes>,
    signed_tenants: imbl::OrdMap<TenantId, bytes::Bytes>,
    chain: Arc<Mutex<Chain>>,
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
        }
    }

    async fn load(&mut self, log: &EventLog, streams: &[Stream], mirror: Option<&Embedded>) -> Result<(), StartError> {
        for stream in streams {
            let seen = mirror.map_or(0, |mirror| mirror.head(*stream));
            let mut latest = log.latest(*stream).await?;
            let found = latest.position();
            if seen > found {
                return Err(StartError::WentBack { stream: *stream, seen, found });
            }
            while let Some(entries) = latest.next().await? {
                self.begin(*stream, &entries)?;
                if let Some(mirror) = mirror {
                    copy(mirror, *stream, &entries).await;
                }
            }
            self.snapshot.advance(*stream, latest.position());
            self.confirmed_by.insert(*stream, now());
        }
        Ok(())
    }

    /// Verifies the first events of subjects on all cores, and applies them in
    /// order; each takes its place in the chain on trust.
    fn begin(&mut self, stream: Stream, entries: &[Entry]) -> Result<(), StartError> {
        let threads = thread::available_parallelism().map_or(1, |it| it.get());
        let share = entries.len().div_ceil(threads).max(1);
        let trust = &self.trust;
        let verify = |entries: &[Entry]| {
            let mut trust = trust.clone();
            entries.iter().map(|entry| Believed::verify(&mut trust, stream, entry)).collect::<Vec<_>>()
        };
        let believed: Vec<_> = thread::scope(|scope| {
            let verifying: Vec<_> = entries.chunks(share).map(|part| scope.spawn(|| verify(part))).collect();
            let join = |thread: ScopedJoinHandle<'_, Vec<_>>| thread.join().unwrap_or_else(|it| resume_unwind(it));
            verifying.into_iter().flat_map(join).collect()
        });
        for (entry, believed) in entries.iter().zip(believed) {
            let refused = |source| StartError::Refused { stream, position: entry.position, source };
            let believed = believed.map_err(refused)?;
            self.chain.lock().unwrap_or_else(PoisonError::into_inner).begin(&believed.body, believed.hash);
            self.apply(entry, believed);
        }
        Ok(())
    }

    /// Verifies and applies one event.
    fn fold(&mut self, stream: Stream, entry: &Entry) -> Result<(), Refused> {
        let believed = Believed::verify(&mut self.trust, stream, entry)?;
        let place = {
            let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
            chain.follow(&believed.body, believed.hash)?
        };
        match place {
            Place::Duplicate => {}
            Place::Next => self.apply(entry, believed),
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, believed: Believed) {
        self.remember_signed(&believed, entry);
        self.snapshot.apply(&believed.tenant, believed.event, believed.body.version);
    }

    fn remember_signed(&mut self, believed: &Believed, entry: &Entry) {
        let signed = || bytes::Bytes::copy_from_slice(&entry.bytes);
        if let model::Event::AppPublished(app) | model::Event::AppChanged(app) = &believed.event {
            self.signed_apps.insert(app.id, signed());
        } else if let model::Event::AppRetired(id) = &believed.event {
            self.signed_apps.insert(*id, signed());
        } else if let model::Event::TenantChanged { .. } = &believed.event {
            self.signed_tenants.insert(believed.tenant.clone(), signed());
        }
    }

    fn confirm(&mut self, stream: Stream) {
        self.confirmed_by.insert(stream, now());
        self.confirmed = self.confirmed_by.values().min().copied().unwrap_or(self.confirmed);
    }
}

/// An event that a trusted writer wrote, and that is where it belongs.
struct Believed {
    body: EventBody,
    hash: Hash,
    tenant: TenantId,
    event: model::Event,
}

impl Believed {
    fn verify(trust: &mut Verifier, stream: Stream, entry: &Entry) -> Result<Self, Refused> {
        let event = SignedEvent::decode(entry.bytes.clone()).map_err(|_| Untrusted::Malformed)?;
        let (body, hash) = trust.verify(&event)?;
        let tenant = TenantId::parse(&body.tenant).ok_or_else(|| Refused::Tenant(body.tenant.clone()))?;
        let fact = Fact::decode(&body.kind, &body.payload)?;
        let Fact::State(event) = fact else {
            return Err(Refused::Misfiled { said: body.kind, meant: stream.name().to_owned() });
        };
        let subject = event.subject();
        if subject.stream != stream || subject.path(&tenant) != body.subject {
            return Err(Refused::Misfiled { said: subject.path(&tenant), meant: body.subject });
        }
        Ok(Self { body, hash, tenant, event })
    }
}

struct Follower {
    log: EventLog,
    stream: Stream,
    fold: Arc<Mutex<Fold>>,
    views: watch::Sender<View>,
    mirror: Option<Embedded>,
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
                    self.mirror(&entries).await;
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

    async fn mirror(&self, entries: &[Entry]) {
        if let Some(mirror) = &self.mirror {
            copy(mirror, self.stream, entries).await;
        }
    }
}

/// The mirror is a help, not a duty: without it the next start reads the log.
async fn copy(mirror: &Embedded, stream: Stream, entries: &[Entry]) {
    for entries in entries.chunks(crate::APPEND_MAX) {
        let appends = entries.iter().filter_map(|entry| {
            let event = SignedEvent::decode(entry.bytes.clone()).ok()?;
            let subject = EventBody::decode(event.body).ok()?.subject;
            Some(Append { subject, bytes: entry.bytes.clone() })
        });
        let positions = entries.iter().map(|entry| entry.position).collect();
        if let Err(error) = mirror.mirror(stream, positions, appends.collect()).await {
            warn!(error = %chain_of(&error), "the mirror missed events");
            return;
        }
    }
}

/// An error and its causes in one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |it| it.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
