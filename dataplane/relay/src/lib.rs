//! The stateless worker: TLS, canonical request, route, session, policy,
//! tunnel. Everything it decides on is in its snapshot.
//!
//! Must never know: how configuration is decided.
//!
//! Its folders are the life of a request, and arrows go one way: `entrance`,
//! `request` (read it first: all steps on one page), `forward`, `open`,
//! `sessions`, `links`, `record`. What all of them know: `current` (the snapshot
//! and its keys), `refusal`, `settings`. `tests/it/tidy.rs` has the table.

mod current;
mod entrance;
mod forward;
pub mod keys;
mod life;
mod links;
mod open;
mod record;
pub mod refusal;
pub mod refusal_texts;
mod request;
mod sessions;
pub mod settings;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use eventlog::{Journal, Presence, Projection};
use proto::signed::Verifier;
use runtime::{Clock, clock::fresh_id, metrics::Metrics, probes::Readiness, sealing::SealingKey};
use tokens::TokenFaults;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Builder,
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use entrance::RelayError;
pub use forward::headers;
pub use links::{audience, link};
pub use sessions::{session, signin};
pub use settings::Settings;

use crate::{
    audience::Audience,
    current::Current,
    entrance::{
        ComingLink, Entrance, http3, listener, plain,
        tls::{FromSnapshot, UserTls, challenge_tls},
    },
    forward::Forwarder,
    life::Life,
    link::ConnectorName,
    links::{
        Links,
        connectors::{Connectors, Supply},
    },
    open::{connection_permits::ConnectionPermits, rejudge::Rejudge},
    record::{Recorder, activity::ActivityLog, metrics::RelayMetrics},
    request::{Requests, client_authorities::ClientAuthorities, quota::Quotas},
    session::Sessions,
    sessions::{UserSessions, identity::Identity, renewal::Renewals},
};

/// What a relay is given.
pub struct Surroundings {
    pub projection: Projection,
    /// Writes ACTIVITY.
    pub journal: Journal,
    /// Whose permits are believed: the controllers'.
    pub trust: Verifier,
    /// The key that opens secrets sealed to relays.
    pub sealing: Arc<SealingKey>,
    pub clock: Clock,
    pub metrics: Metrics,
    /// Counts tokens that are refused.
    pub token_faults: TokenFaults,
    /// Begins the drain.
    pub stop: CancellationToken,
}

/// A relay: its parts, which share the current snapshot and one lifetime.
pub struct Relay {
    entrance: Arc<Entrance>,
    links: Arc<Links>,
    open: Arc<Rejudge>,
    recorder: Arc<Recorder>,
    current: Arc<Current>,
    projection: Projection,
    life: Life,
    settings: Settings,
}

/// A relay that is listening.
pub struct Running {
    pub relay: Arc<Relay>,
    pub address: SocketAddr,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Relay {
    /// Ready when it has a snapshot that is fresh enough to decide on.
    pub fn readiness(&self) -> Readiness {
        let view = self.current.view();
        let age = view.age().as_secs();
        let known = view.snapshot.config > 0;
        let detail = match &view.quarantine {
            Some(why) => format!("snapshot at {}, {age} s old, stopped at {why}", view.snapshot.config),
            None => format!("snapshot at {}, {age} s old", view.snapshot.config),
        };
        let fresh = view.age() < model::app::STALENESS_MAX;
        Readiness { part: "relay", ready: known && fresh && view.quarantine.is_none(), detail }
    }

    /// Not ready while a link should take requests and has no stream for them. A
    /// relay that no connector has dialled yet is ready: it says who is missing.
    pub fn links_readiness(&self) -> Readiness {
        let Supply { links, parked, streamless } = self.links.connectors.look_after(Instant::now());
        let detail =
            format!("{links} links to connectors, {parked} streams parked on them, {streamless} links without");
        Readiness { part: "links", ready: streamless == 0, detail }
    }

    /// One connection that came another way than by the listener, TLS and all
    /// done: for simulations. It speaks HTTP/1.1.
    pub async fn serve_user_on<T>(self: Arc<Self>, io: T, peer: IpAddr, host: &str)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.entrance.clone().serve_user_on(io, peer, host).await;
    }

    /// A connector's connection that came another way than by the listener, its
    /// certificate read: for simulations.
    pub async fn serve_connector_on<T>(self: Arc<Self>, io: T, name: ConnectorName)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.links.clone().serve_connector_on(io, name).await;
    }

    /// Waits until what happened so far is in the log.
    pub async fn settle(&self) {
        self.recorder.activity.flush().await;
    }

    /// How many exchanges are open, for benchmarks and drills.
    pub fn open_exchanges(&self) -> usize {
        self.open.count()
    }
}

/// A port that is open, with nobody behind it yet.
pub struct Port {
    pub address: SocketAddr,
    listener: std::net::TcpListener,
}

impl Port {
    /// Shared with other relays of this user on this machine: one may take over
    /// from another.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::of(listener::bind(address)?)
    }

    /// An error where somebody else listens, whoever it is.
    pub fn open_alone(address: SocketAddr) -> io::Result<Self> {
        Self::of(listener::bind_alone(address)?)
    }

    fn of(listener: std::net::TcpListener) -> io::Result<Self> {
        // Port 0 chose one.
        Ok(Self { address: listener.local_addr()?, listener })
    }
}

/// Starts listening. Returns when the port is open.
pub fn start(settings: Settings, surroundings: Surroundings) -> Result<Running, RelayError> {
    let address = settings.listen;
    let port = Port::open(address).map_err(|source| RelayError::Listen { address, source })?;
    start_on(port, settings, surroundings)
}

/// Serves a port that is open.
pub fn start_on(port: Port, settings: Settings, surroundings: Surroundings) -> Result<Running, RelayError> {
    let count = match settings.threads {
        0 => thread::available_parallelism().map_or(1, |it| it.get()),
        threads => threads,
    };
    let (relay, receivers) = assemble(settings, surroundings, count)?;
    let address = port.address;
    let listeners = listeners(port, count)?;
    let (entrance, tasks) = (&relay.entrance, &relay.life.tasks);
    if relay.settings.http3 {
        let endpoint = http3::bind(address, FromSnapshot(relay.current.shared_keys()))?;
        tasks.spawn(http3::accept(entrance.clone(), endpoint));
    }
    if let Some(plain) = relay.settings.http_listen {
        let failed = |source| RelayError::Listen { address: plain, source };
        let listener = listener::bind(plain).and_then(tokio::net::TcpListener::from_std).map_err(failed)?;
        tasks.spawn(plain::accept(entrance.clone(), listener));
    }
    if let Some(limit_kib) = relay.settings.memory_limit_kib() {
        tasks.spawn(entrance.permits.clone().watch_memory(limit_kib));
    }
    let mut threads = Vec::new();
    for (thread, (listener, links)) in listeners.into_iter().zip(receivers).enumerate() {
        threads.push(worker(entrance.clone(), listener, links, thread)?);
    }
    info!(%address, threads = count, "relay listens");
    Ok(Running { relay, address, threads })
}

/// A relay that listens nowhere, on the caller's runtime: connections are handed
/// to it (`serve_user_on`, `serve_connector_on`). For simulations.
pub fn without_listener(settings: Settings, surroundings: Surroundings) -> Result<Arc<Relay>, RelayError> {
    assemble(settings, surroundings, 1).map(|(relay, _nobody_deals)| relay)
}

/// All but its doors.
fn assemble(
    settings: Settings,
    surroundings: Surroundings,
    count: usize,
) -> Result<(Arc<Relay>, Vec<mpsc::Receiver<ComingLink>>), RelayError> {
    let Surroundings { projection, journal, trust, sealing, clock, metrics, token_faults, stop } = surroundings;
    let (life, current) = (Life::new(stop), Arc::new(Current::new(projection.view(), &sealing, clock)));
    let metrics = Arc::new(RelayMetrics::register(&metrics));
    let id = fresh_id().simple().to_string();
    let dropped = metrics.accesses_dropped.clone();
    let (activity, writing) = ActivityLog::new(journal.clone(), format!("relay:{id}"), clock, dropped);
    let recorder = Arc::new(Recorder { relay: id, clock, activity, metrics: metrics.clone() });
    let (links, open) = outwards(&settings, count, &current, &recorder, &life, token_faults);
    let permits = ConnectionPermits::new(settings.connections_max, settings.connections_per_source_max);
    let requests = Arc::new(Requests {
        current: current.clone(),
        sessions: open.sessions.clone(),
        forwarder: Forwarder { connectors: links.connectors.clone(), open: open.clone(), clock },
        client_authorities: ClientAuthorities::default(),
        quotas: Quotas::default(),
        recorder: recorder.clone(),
        permits: permits.clone(),
        tasks: life.tasks.clone(),
        trust,
        http3: settings.http3,
    });
    let (link_queues, receivers): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mpsc::channel(listener::WAITING_LINKS_MAX)).unzip();
    let entrance = Arc::new(Entrance {
        requests,
        links: links.clone(),
        current: current.clone(),
        metrics,
        permits,
        user_tls: UserTls::new(&current.shared_keys())?,
        challenge_tls: challenge_tls(&current.shared_keys()),
        link_queues,
        coming: (0..count).map(|_| AtomicUsize::new(0)).collect(),
        life: life.clone(),
    });
    life.tasks.spawn(writing);
    life.tasks.spawn(links.clone().look_after());
    life.tasks.spawn(open.clone().run());
    let relay = Arc::new(Relay { entrance, links, open, recorder, current, projection, life, settings });
    relay.life.tasks.spawn(relay.clone().follow(sealing));
    relay.life.tasks.spawn(relay.clone().announce(journal.clone()));
    relay.life.tasks.spawn(relay.clone().announce_linked(journal));
    Ok((relay, receivers))
}

/// Links, and what is open through them.
fn outwards(
    settings: &Settings,
    threads: usize,
    current: &Arc<Current>,
    recorder: &Arc<Recorder>,
    life: &Life,
    token_faults: TokenFaults,
) -> (Arc<Links>, Arc<Rejudge>) {
    let connectors = Arc::new(Connectors::new(threads));
    let audience = Arc::new(Audience::default());
    audience.tell(&current.view());
    let sessions = Arc::new(UserSessions {
        verified: Sessions::counting(token_faults),
        identity: Identity { connectors: connectors.clone(), current: current.clone() },
        renewals: Renewals::default(),
        current: current.clone(),
        tasks: life.tasks.clone(),
    });
    let open = Arc::new(Rejudge {
        by_thread: (0..threads).map(|_| Arc::default()).collect(),
        current: current.clone(),
        sessions,
        metrics: recorder.metrics.clone(),
        life: life.clone(),
    });
    let links = Arc::new(Links {
        connectors,
        audience,
        current: current.clone(),
        recorder: recorder.clone(),
        life: life.clone(),
        controllers: settings.controllers.clone(),
        threads: threads as u32,
    });
    (links, open)
}

/// One for each thread.
fn listeners(port: Port, count: usize) -> Result<Vec<std::net::TcpListener>, RelayError> {
    let Port { address, listener } = port;
    let mut listeners = vec![listener];
    for _ in 1..count {
        let one_more = Port::open(address).map_err(|source| RelayError::Listen { address, source })?;
        listeners.push(one_more.listener);
    }
    Ok(listeners)
}

fn worker(
    entrance: Arc<Entrance>,
    listener: std::net::TcpListener,
    links: mpsc::Receiver<ComingLink>,
    thread: usize,
) -> Result<thread::JoinHandle<()>, RelayError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(RelayError::Worker)?;
    let run = move || {
        runtime.block_on(async {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener::accept(entrance.clone(), listener, links, thread).await,
                Err(error) => warn!(%error, "a worker thread cannot listen"),
            }
            // Connections of this thread live on it until the drain is over.
            entrance.life.ended.cancelled().await;
        });
    };
    thread::Builder::new().name(format!("relay-{thread}")).spawn(run).map_err(RelayError::Worker)
}

/// How often a relay says what it serves, besides at every change.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// The links are a longer message.
const ANNOUNCE_LINKED_INTERVAL: Duration = Duration::from_secs(3);

impl Relay {
    /// Takes over each new view, and derives keys again when they changed.
    async fn follow(self: Arc<Self>, sealing: Arc<SealingKey>) {
        let mut views = self.projection.watch();
        loop {
            let view = views.borrow_and_update().clone();
            self.current.follow(&view, &sealing);
            self.recorder.metrics.snapshot_age.set(view.age().as_secs() as i64);
            self.recorder.metrics.open.set(self.open_exchanges() as i64);
            self.links.audience.tell(&view);
            self.current.tell();
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                // A confirmation of the same snapshot wakes nobody.
                () = tokio::time::sleep(ANNOUNCE_INTERVAL) => {}
                () = self.life.ended.cancelled() => return,
            }
        }
    }

    /// Tells controllers which connectors are linked here, for administrators.
    async fn announce_linked(self: Arc<Self>, journal: Journal) {
        loop {
            let linked = self.links.connectors.linked();
            if let Err(error) = journal.log().announce_linked(&self.recorder.relay, linked).await {
                debug!(%error, "cannot announce which connectors are linked here");
            }
            tokio::select! {
                () = tokio::time::sleep(ANNOUNCE_LINKED_INTERVAL) => {}
                () = self.life.ended.cancelled() => return,
            }
        }
    }

    /// Tells controllers what this relay serves, so that `wait_applied` can wait.
    async fn announce(self: Arc<Self>, journal: Journal) {
        let mut views = self.projection.watch();
        loop {
            // Only what requests are judged by counts as served.
            let served = self.current.view().snapshot.clone();
            let presence = Presence {
                role: "relay".into(),
                id: self.recorder.relay.clone(),
                config: served.config,
                risk: served.risk,
            };
            if let Err(error) = journal.log().announce(presence).await {
                warn!(%error, "cannot announce which snapshot this relay serves");
            }
            let behind = views.borrow_and_update().snapshot.config > served.config;
            let pause = if behind { Duration::from_millis(1) } else { ANNOUNCE_INTERVAL };
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
                () = self.life.ended.cancelled() => return,
            }
        }
    }
}

impl Running {
    /// Serves until told to stop, then drains.
    pub async fn run(self) {
        let relay = self.relay;
        relay.life.stop.cancelled().await;
        info!("relay drains");
        let grace = relay.settings.drain_grace();
        let idle = async {
            // A connection closes when its last answer is written.
            while relay.open_exchanges() > 0 || relay.entrance.permits.taken() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(grace, idle).await.is_err() {
            warn!(open = relay.open_exchanges(), "the grace period is over; open exchanges are cut");
        }
        relay.life.ended.cancel();
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A worker that panicked has said so already.
                let _panicked = thread.join();
            }
        });
        let _joined = joined.await;
        relay.settle().await;
        let dropped = relay.recorder.activity.dropped_total();
        if dropped > 0 {
            warn!(dropped, "accesses were not recorded");
        }
        info!(links = relay.entrance.coming.iter().map(|it| it.load(Ordering::SeqCst)).sum::<usize>(), "relay stopped");
    }
}
