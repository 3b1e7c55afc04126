//! The stateless worker: TLS, canonical request, route, session, policy,
//! tunnel. Everything it decides on is in its snapshot.
//!
//! Must never know: how configuration is decided.
//!
//! Read: `request` (the life of a request), `canonical`, `session`, `signin`,
//! `client_auth`, `quota`, `headers`, `forward`, `body`; then `listener`, `http3`
//! and `link` (connections), `gate` and `http3_gate` (what of them gets in),
//! `audience` (what links are told), `connectors` (streams), `judge` (open
//! exchanges), `keys`, `refusal`.

mod activity;
mod app_test;
mod assertion;
pub mod audience;
mod body;
pub mod canonical;
mod client_auth;
mod connectors;
mod edge;
mod forward;
pub mod framing;
mod gate;
pub mod headers;
pub mod http2_frames;
mod http3;
pub mod http3_gate;
mod judge;
pub mod keys;
pub mod link;
mod listener;
mod metrics;
mod plain;
mod quota;
pub mod refusal;
mod renewal;
mod request;
pub mod session;
pub mod settings;
pub mod signin;
mod slots;
mod streams;
mod trace;
mod visitor;
pub mod words;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use eventlog::{Journal, Presence, Projection, View};
use model::TenantId;
use proto::signed::Verifier;
use runtime::{Clock, clock::fresh_id, metrics::Metrics, probes::Readiness, sealing::SealingKey};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use thiserror::Error;
use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use tunnel::link::STREAMLESS_LOOK;

use crate::{
    activity::ActivityLog,
    audience::Audience,
    client_auth::ClientAuthorities,
    connectors::{Connectors, Supply},
    keys::Keys,
    listener::{ACME_TLS, Challenges, ComingLink, FromSnapshot, user_tls},
    metrics::RelayMetrics,
    quota::Quotas,
    renewal::Renewals,
    session::Sessions,
    slots::Slots,
    streams::OpenExchanges,
};
pub use settings::Settings;

#[derive(Debug, Error)]
pub enum RelayError {
    #[error("listening on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("preparing TLS")]
    Tls(#[from] rustls::Error),
    #[error("starting a worker")]
    Worker(#[source] io::Error),
}

/// What a relay is given.
pub struct Surroundings {
    pub projection: Projection,
    /// Writes ACTIVITY.
    pub journal: Journal,
    /// Whose permits are believed: the controllers'.
    pub trust: Verifier,
    /// Opens what is sealed to relays.
    pub sealing: Arc<SealingKey>,
    pub clock: Clock,
    pub metrics: Metrics,
    /// Begins the drain.
    pub stop: CancellationToken,
}

/// Everything the threads share.
pub struct Relay {
    id: String,
    settings: Settings,
    clock: Clock,
    projection: Projection,
    trust: Verifier,
    view: ArcSwap<View>,
    /// Tells that `view` is another.
    followed: watch::Sender<()>,
    keys: Arc<ArcSwap<Keys>>,
    user_tls: Arc<ServerConfig>,
    client_authorities: ClientAuthorities,
    challenge_tls: Arc<ServerConfig>,
    connectors: Arc<Connectors>,
    audience: Arc<Audience>,
    sessions: Sessions,
    quotas: Quotas,
    renewals: Renewals,
    activity: ActivityLog,
    metrics: Arc<RelayMetrics>,
    /// Open exchanges, by thread.
    open: Vec<Arc<OpenExchanges>>,
    slots: Arc<Slots>,
    link_queues: Vec<mpsc::Sender<ComingLink>>,
    /// Links on their way to each thread.
    coming: Vec<AtomicUsize>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The grace period is over.
    ended: CancellationToken,
}

/// A relay that is listening.
pub struct Running {
    pub relay: Arc<Relay>,
    pub address: SocketAddr,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Relay {
    pub(crate) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    pub(crate) fn keys(&self) -> arc_swap::Guard<Arc<Keys>> {
        self.keys.load()
    }

    /// Ready when it has a snapshot that is fresh enough to decide on.
    pub fn readiness(&self) -> Readiness {
        let view = self.view();
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
        let Supply { links, parked, streamless } = self.connectors.look_after(Instant::now());
        let detail =
            format!("{links} links to connectors, {parked} streams parked on them, {streamless} links without");
        Readiness { part: "links", ready: streamless == 0, detail }
    }

    /// Keeps links able to take requests.
    async fn look_after_links(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(STREAMLESS_LOOK) => {}
                () = self.ended.cancelled() => return,
            }
            let supply = self.connectors.look_after(Instant::now());
            self.metrics.parked_streams.set(supply.parked as i64);
        }
    }

    /// Waits until what happened so far is in the log.
    pub async fn settle(&self) {
        self.activity.flush().await;
    }

    /// Connections and open exchanges, for benchmarks and drills.
    pub fn open_exchanges(&self) -> usize {
        self.open.iter().map(|it| it.count()).sum()
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
    if relay.settings.http3 {
        let endpoint = http3::bind(address, FromSnapshot(relay.keys.clone()))?;
        relay.tasks.spawn(http3::accept(relay.clone(), endpoint));
    }
    if let Some(plain) = relay.settings.http_listen {
        let failed = |source| RelayError::Listen { address: plain, source };
        let listener = listener::bind(plain).and_then(tokio::net::TcpListener::from_std).map_err(failed)?;
        relay.tasks.spawn(plain::accept(relay.clone(), listener));
    }
    if let Some(limit_kib) = relay.settings.memory_limit_kib() {
        relay.tasks.spawn(relay.slots.clone().watch_memory(limit_kib));
    }
    let mut threads = Vec::new();
    for (thread, (listener, links)) in listeners.into_iter().zip(receivers).enumerate() {
        threads.push(worker(relay.clone(), listener, links, thread)?);
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
    let Surroundings { projection, journal, trust, sealing, clock, metrics, stop } = surroundings;
    let view = projection.view();
    let keys = Arc::new(ArcSwap::from_pointee(Keys::derive(&view.snapshot, &sealing)));
    let audience = Arc::new(Audience::default());
    audience.tell(&view);
    let id = fresh_id().simple().to_string();
    let metrics = Arc::new(RelayMetrics::register(&metrics));
    let dropped = metrics.accesses_dropped.clone();
    let (activity, writing) = ActivityLog::new(journal.clone(), format!("relay:{id}"), clock, dropped);
    let (link_queues, receivers): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mpsc::channel(listener::WAITING_LINKS_MAX)).unzip();
    let nobody = WebPkiClientVerifier::no_client_auth();
    let user_tls = user_tls(runtime::tls::USER_VERSIONS, nobody, FromSnapshot(keys.clone()), &USER_ALPN)?;
    let relay = Arc::new(Relay {
        id,
        clock,
        client_authorities: ClientAuthorities::new(FromSnapshot(keys.clone()))?,
        user_tls: Arc::new(user_tls),
        challenge_tls: challenge_tls(&keys),
        view: ArcSwap::from_pointee(view),
        followed: watch::Sender::new(()),
        keys,
        connectors: Arc::new(Connectors::new(count)),
        audience,
        sessions: Sessions::default(),
        quotas: Quotas::default(),
        renewals: Renewals::default(),
        activity,
        metrics,
        open: (0..count).map(|_| Arc::default()).collect(),
        slots: Slots::new(settings.connections_max, settings.connections_per_source_max),
        link_queues,
        coming: (0..count).map(|_| AtomicUsize::new(0)).collect(),
        tasks: TaskTracker::new(),
        stop,
        ended: CancellationToken::new(),
        projection,
        trust,
        settings,
    });
    relay.tasks.spawn(writing);
    relay.tasks.spawn(relay.clone().follow(sealing));
    relay.tasks.spawn(relay.clone().look_after_links());
    relay.tasks.spawn(relay.clone().judge_open_exchanges());
    relay.tasks.spawn(relay.clone().announce(journal));
    Ok((relay, receivers))
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
    relay: Arc<Relay>,
    listener: std::net::TcpListener,
    links: mpsc::Receiver<ComingLink>,
    thread: usize,
) -> Result<thread::JoinHandle<()>, RelayError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(RelayError::Worker)?;
    let run = move || {
        runtime.block_on(async {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener::accept(relay.clone(), listener, links, thread).await,
                Err(error) => warn!(%error, "a worker cannot listen"),
            }
            // Connections of this thread live on it until the drain is over.
            relay.ended.cancelled().await;
        });
    };
    thread::Builder::new().name(format!("relay-{thread}")).spawn(run).map_err(RelayError::Worker)
}

/// Over TCP.
const USER_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// For ACME servers that ask whether a host leads here.
fn challenge_tls(keys: &Arc<ArcSwap<Keys>>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_protocol_versions(runtime::tls::USER_VERSIONS)
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Challenges(FromSnapshot(keys.clone()))));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Arc::new(config)
}

/// How often a relay says what it serves, besides at every change.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

impl Relay {
    /// Takes over each new view, and derives keys again when they changed.
    async fn follow(self: Arc<Self>, sealing: Arc<SealingKey>) {
        let mut views = self.projection.watch();
        loop {
            let view = views.borrow_and_update().clone();
            if keys_changed(&self.view.load(), &view) {
                let keys = self.keys().derive_again(&view.snapshot, &sealing);
                self.keys.store(Arc::new(keys));
            }
            self.metrics.snapshot_age.set(view.age().as_secs() as i64);
            self.metrics.open.set(self.open_exchanges() as i64);
            self.view.store(Arc::new(view.clone()));
            self.audience.tell(&view);
            self.followed.send_replace(());
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                // A confirmation of the same snapshot wakes nobody.
                () = tokio::time::sleep(ANNOUNCE_INTERVAL) => {}
                () = self.ended.cancelled() => return,
            }
        }
    }

    /// Tells controllers what this relay serves, so that `wait_applied` can wait.
    async fn announce(self: Arc<Self>, journal: Journal) {
        let mut views = self.projection.watch();
        loop {
            // Only what requests are judged by counts as served.
            let served = self.view.load().snapshot.clone();
            let presence =
                Presence { role: "relay".into(), id: self.id.clone(), config: served.config, risk: served.risk };
            if let Err(error) = journal.log().announce(presence).await {
                warn!(%error, "cannot announce");
            }
            let behind = views.borrow_and_update().snapshot.config > served.config;
            let pause = if behind { Duration::from_millis(1) } else { ANNOUNCE_INTERVAL };
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
                () = self.ended.cancelled() => return,
            }
        }
    }
}

fn keys_changed(before: &View, after: &View) -> bool {
    let same = |id: &TenantId| match (before.snapshot.tenant(id), after.snapshot.tenant(id)) {
        (Some(a), Some(b)) => {
            let same_address = a.domain == b.domain && a.public_port == b.public_port;
            Arc::ptr_eq(a, b) || same_address && a.keys == b.keys && a.certificates == b.certificates
        }
        (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
    };
    before.snapshot.tenants.len() != after.snapshot.tenants.len() || !after.snapshot.tenants.keys().all(same)
}

impl Running {
    /// Serves until told to stop, then drains.
    pub async fn run(self) {
        let relay = self.relay;
        relay.stop.cancelled().await;
        info!("relay drains");
        let grace = relay.settings.drain_grace();
        let idle = async {
            // A connection closes when its last answer is written.
            while relay.open_exchanges() > 0 || relay.slots.taken() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(grace, idle).await.is_err() {
            warn!(open = relay.open_exchanges(), "the grace period is over; open exchanges are cut");
        }
        relay.ended.cancel();
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A worker that panicked has said so already.
                let _panicked = thread.join();
            }
        });
        let _joined = joined.await;
        relay.settle().await;
        let dropped = relay.activity.dropped_total();
        if dropped > 0 {
            warn!(dropped, "accesses were not recorded");
        }
        info!(links = relay.coming.iter().map(|it| it.load(Ordering::SeqCst)).sum::<usize>(), "relay stopped");
    }
}
