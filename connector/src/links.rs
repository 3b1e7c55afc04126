//! Connections to relays: how many, how they are kept, how they end.
//!
//! To each relay as many links as the relay has threads. On each link some
//! streams stay parked. One that is taken, or ends in whatever way, is replaced,
//! unless the link drains. Only the relay gives a parked stream up, so none is
//! closed under a request that is on its way. A lost link, and one that has no
//! stream left, is dialled again after a full-jitter back-off.
//!
//! Which relays there are, the controller says; links to those that are none any
//! more drain once one of the others serves, so a wrong list strands nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use proto::v1::{LinkReport, LinkSettings};
use runtime::{
    Clock,
    metrics::{Counter, Gauge, Metrics},
    probes::Readiness,
    telemetry::chain,
};
use rustls::RootCertStore;
use tokens::TokenFaults;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Builder, Handle},
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use tunnel::{TunnelError, exchange, link};

use crate::{
    ConnectorError, Settings,
    backend::System,
    dial::Dialer,
    enrol::Identity,
    origin::Pools,
    origins::{Origins, Relays},
    serve::Worker,
    statements::Statements,
    trust::Trust,
};

/// Streams that wait for work on each link.
const PARKED_MIN: usize = 8;
/// Beyond that, this share of the busy ones.
const PARKED_PER_BUSY: usize = 4;
/// A stream that the relay closed unused, or did not take, is replaced after so long.
const UNWANTED_PAUSE: Duration = Duration::from_millis(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const RENEWAL_RETRY_MAX: Duration = Duration::from_secs(60);
/// However short lives are.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// More relays than this are not linked to.
const RELAYS_MAX: usize = 64;
/// How often somebody looks whether a relay of a new list serves already.
const SERVES_INTERVAL: Duration = Duration::from_millis(200);
/// A relay cannot ask for more links than this.
const LINKS_PER_RELAY_MAX: usize = 64;

pub struct Links {
    identity: watch::Sender<Identity>,
    origins: Arc<Origins>,
    way: Dialer,
    workers: Vec<(Handle, Worker)>,
    grace: Duration,
    /// What there is at each relay.
    supplies: Mutex<BTreeMap<String, Arc<Supply>>>,
    metrics: LinkMetrics,
    next_worker: AtomicUsize,
    tasks: TaskTracker,
    stopped: CancellationToken,
}

impl Links {
    pub fn new(settings: &Settings, identity: Identity, metrics: LinkMetrics) -> Result<Self, ConnectorError> {
        let way = Dialer::new(settings.proxy.as_deref(), settings.proxy_credentials_file.as_deref())
            .map_err(|source| ConnectorError::Dial { address: "the proxy".into(), source })?;
        let origins = Arc::new(Origins::new(&identity.state.group, identity.writers()));
        let faults = metrics.token_faults.clone();
        let statements = Statements::new(&identity.tenant()?, identity.writers(), faults, Clock::default());
        let statements = Arc::new(statements);
        let tasks = TaskTracker::new();
        let client_certificates = settings.client_certificates.clone();
        let trust = Arc::new(Trust { roots: Arc::new(system_roots()), client_certificates });
        let threads = match settings.threads {
            0 => thread::available_parallelism().map_or(1, |it| it.get()),
            threads => threads,
        };
        let stopped = CancellationToken::new();
        let workers = (0..threads)
            .map(|n| {
                let pools = Arc::new(Pools::new(trust.clone(), Arc::new(System), tasks.clone()));
                Ok((
                    worker_thread(n, stopped.clone())?,
                    Worker { origins: origins.clone(), pools, statements: statements.clone() },
                ))
            })
            .collect::<Result<_, ConnectorError>>()?;
        Ok(Self {
            identity: watch::Sender::new(identity),
            origins,
            way,
            workers,
            grace: Duration::from_secs(settings.drain_grace_s),
            supplies: Mutex::default(),
            metrics,
            next_worker: AtomicUsize::new(0),
            tasks,
            stopped,
        })
    }

    pub fn readiness(&self) -> Readiness {
        let (links, parked) = self.supply();
        let detail = format!("{links} links to relays, {parked} streams parked on them");
        Readiness { part: "links", ready: links > 0 && parked > 0, detail }
    }

    pub async fn run(self: &Arc<Self>, stop: CancellationToken) {
        let keeping = TaskTracker::new();
        keeping.spawn(self.clone().keep_relays(stop.clone()));
        keeping.spawn(self.clone().keep_certificate(stop.clone()));
        keeping.close();
        keeping.wait().await;
        self.tasks.close();
        self.stopped.cancel();
    }

    pub fn certificate_ends_s(&self) -> Option<i64> {
        self.identity.borrow().end_s()
    }

    async fn keep_certificate(self: Arc<Self>, stop: CancellationToken) {
        let mut retry = RENEWAL_PAUSE;
        loop {
            let due_s = self.identity.borrow().renewal_s();
            tokio::select! {
                () = Clock::default().reach_ms(due_s * 1000) => {}
                () = stop.cancelled() => return,
            }
            let identity = self.identity.borrow().clone();
            let pause = match identity.renew(&self.way).await {
                Ok(renewed) => {
                    info!("certificate renewed");
                    self.identity.send_replace(renewed);
                    retry = RENEWAL_PAUSE;
                    RENEWAL_PAUSE
                }
                Err(error) => {
                    warn!(error = %chain(&error), "the certificate is not renewed yet");
                    retry = (retry * 2).min(RENEWAL_RETRY_MAX);
                    jitter(retry).max(RENEWAL_PAUSE)
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Keeps links to the relays there are, as the controller says where they are.
    async fn keep_relays(self: Arc<Self>, stop: CancellationToken) {
        let (mut told, mut identity) = (self.origins.relays(), self.identity.subscribe());
        let keeping = TaskTracker::new();
        let mut kept: BTreeMap<String, CancellationToken> = BTreeMap::new();
        let mut tell_once = true;
        loop {
            let news = told.borrow_and_update().clone();
            let wanted: BTreeSet<String> = {
                let identity = identity.borrow_and_update();
                let addresses = identity.news(&news).unwrap_or(&identity.state.relays);
                addresses.iter().take(RELAYS_MAX).cloned().collect()
            };
            for relay in &wanted {
                kept.entry(relay.clone()).or_insert_with(|| {
                    let leave = stop.child_token();
                    keeping.spawn(self.clone().keep_relay(relay.clone(), leave.clone()));
                    leave
                });
            }
            let serves = wanted.iter().any(|relay| self.supply_at(relay).links() > 0);
            if serves {
                kept.retain(|relay, leave| {
                    let stays = wanted.contains(relay);
                    if !stays {
                        info!(%relay, "is not a relay any more");
                        leave.cancel();
                    }
                    stays
                });
                self.remember(&news);
                tell_once = true;
            } else if kept.len() > wanted.len() && std::mem::take(&mut tell_once) {
                warn!(relays = ?wanted, "no relay of the new list serves yet; keeping the others");
            }
            let settled = kept.len() == wanted.len() && self.identity.borrow().news(&news).is_none();
            tokio::select! {
                Ok(()) = told.changed() => {}
                // A certificate that was renewed meanwhile brought back the old list.
                Ok(()) = identity.changed() => {}
                () = sleep(SERVES_INTERVAL), if !settled => {}
                () = stop.cancelled() => break,
            }
        }
        keeping.close();
        keeping.wait().await;
    }

    fn remember(&self, relays: &Relays) {
        self.identity.send_if_modified(|identity| {
            if let Err(error) = identity.remember(relays) {
                warn!(error = %chain(&error), "the next start will look for relays where they were");
            }
            // Links go on: it is no new certificate.
            false
        });
    }

    fn supply_at(&self, relay: &str) -> Arc<Supply> {
        let mut supplies = self.supplies.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Supply { metrics: self.metrics.clone(), ..Supply::default() });
        supplies.entry(relay.to_owned()).or_insert_with(fresh).clone()
    }

    /// Links and parked streams at all relays.
    fn supply(&self) -> (usize, usize) {
        let supplies = self.supplies.lock().unwrap_or_else(PoisonError::into_inner);
        supplies.values().fold((0, 0), |(links, parked), it| (links + it.links(), parked + it.parked()))
    }

    /// Keeps as many links to a relay as it has threads.
    async fn keep_relay(self: Arc<Self>, relay: String, stop: CancellationToken) {
        let wanted = watch::Sender::new(1usize);
        let mut changes = wanted.subscribe();
        let links = TaskTracker::new();
        let mut kept = 0;
        loop {
            let count = (*changes.borrow_and_update()).min(LINKS_PER_RELAY_MAX);
            while kept < count {
                let worker = self.next_worker.fetch_add(1, Ordering::Relaxed) % self.workers.len();
                let handle = self.workers[worker].0.clone();
                let keep = self.clone().keep_link(relay.clone(), worker, wanted.clone(), stop.clone(), links.clone());
                links.spawn_on(keep, &handle);
                kept += 1;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
        }
        links.close();
        links.wait().await;
    }

    /// One link after the other. With a new certificate the next begins at once,
    /// while the one before it drains.
    async fn keep_link(
        self: Arc<Self>,
        relay: String,
        worker: usize,
        wanted: watch::Sender<usize>,
        stop: CancellationToken,
        links: TaskTracker,
    ) {
        let mut backoff = BACKOFF_FIRST;
        while !stop.is_cancelled() {
            let mut renewed = self.identity.subscribe();
            let link = self.clone().link(relay.clone(), worker, wanted.clone(), stop.clone(), renewed.clone());
            let mut link = links.spawn(link);
            let ended = tokio::select! {
                ended = &mut link => ended,
                Ok(()) = renewed.changed() => {
                    backoff = BACKOFF_FIRST;
                    continue;
                }
            };
            match ended {
                Ok(Ok(())) => backoff = BACKOFF_FIRST,
                Ok(Err(error)) => warn!(%relay, error = %chain(&error), "no link; trying again"),
                Err(panicked) => warn!(%relay, %panicked, "a link failed; trying again"),
            }
            tokio::select! {
                () = sleep(jitter(backoff)) => {}
                () = stop.cancelled() => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One link, from dialling to its end. An error means that it never was.
    async fn link(
        self: Arc<Self>,
        relay: String,
        worker: usize,
        wanted: watch::Sender<usize>,
        stop: CancellationToken,
        renewed: watch::Receiver<Identity>,
    ) -> Result<(), ConnectorError> {
        let identity = renewed.borrow().clone();
        let dial = |source| ConnectorError::Dial { address: relay.clone(), source };
        let talk = |source| ConnectorError::Link { address: relay.clone(), source };
        let io = self.way.dial(&relay, &identity.state.endpoint, identity.tls()?).await.map_err(dial)?;
        let ending = Ending { stop, renewed, grace: self.grace, expires: identity.until_end(now_s()) };
        serve(&relay, io, self.workers[worker].1.clone(), &wanted, ending, &self.supply_at(&relay)).await.map_err(talk)
    }
}

/// What a connector has ready for the requests of one relay.
#[derive(Debug, Default)]
pub struct Supply {
    links: AtomicUsize,
    parked: AtomicUsize,
    metrics: LinkMetrics,
}

/// What a connector counts of its links to all relays.
#[derive(Clone, Debug, Default)]
pub struct LinkMetrics {
    links: Gauge,
    parked_streams: Gauge,
    links_revived: Counter,
    token_faults: TokenFaults,
}

impl LinkMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let ours = Self { token_faults: TokenFaults::register(metrics), ..Self::default() };
        metrics.register("links", "Connections to relays that serve", ours.links.clone());
        metrics.register("parked_streams", "Streams that wait for a request", ours.parked_streams.clone());
        metrics.register(
            "links_revived",
            "Connections to relays given up because no stream was left on them",
            ours.links_revived.clone(),
        );
        ours
    }
}

impl Supply {
    /// Links that serve.
    pub fn links(&self) -> usize {
        self.links.load(Ordering::Relaxed)
    }

    /// Streams that wait for a request.
    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }
}

/// A link on a connection to `relay` that is there, until it ends. `wanted` learns how many
/// links the relay would like, `supply` counts what there is.
pub async fn serve<T, R>(
    relay: &str,
    io: T,
    worker: Worker,
    wanted: &watch::Sender<usize>,
    ending: Ending<R>,
    supply: &Arc<Supply>,
) -> Result<(), TunnelError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, mut connection) = link::connect(io).await?;
    let pings = connection.ping_pong().ok_or(TunnelError::Ended)?;
    let window = watch::Sender::new(0u32);
    let measured = window.clone();
    let round_trips = watch::Sender::new(Duration::ZERO);
    let last_round_trip = round_trips.subscribe();
    let state = Arc::new(LinkState {
        requests,
        worker,
        supply: supply.clone(),
        counts: Mutex::default(),
        changed: Notify::new(),
        acknowledges: AtomicBool::new(false),
        serving: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        streams: TaskTracker::new(),
    });
    let driving = drive(connection, window.subscribe());
    let mut windows = link::Windows::default();
    let alive = link::keep_alive(pings, move |round_trip| {
        round_trips.send_replace(round_trip);
        measured.send_if_modified(|it| std::mem::replace(it, windows.measured(round_trip)) != *it);
    });
    let talking = state.clone().follow(wanted, ending);
    tokio::select! {
        error = driving => debug!(%relay, ?error, "link closed"),
        error = alive => info!(%relay, %error, "link lost"),
        () = state.clone().keep_parked() => {}
        () = state.streamless(last_round_trip) => {
            supply.metrics.links_revived.inc();
            warn!(%relay, "a link had no stream left; dialling again");
        }
        ended = talking => ended?,
    }
    state.streams.close();
    Ok(())
}

/// Drives the connection and adjusts its window to the measured round trip.
async fn drive<T>(mut connection: link::ClientConnection<T>, mut window: watch::Receiver<u32>) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        tokio::select! {
            ended = &mut connection => return ended,
            Ok(()) = window.changed() => {
                let size = *window.borrow_and_update();
                connection.set_initial_window_size(size)?;
            }
        }
    }
}

struct LinkState {
    requests: h2::client::SendRequest<tunnel::frame::Chunk>,
    worker: Worker,
    supply: Arc<Supply>,
    counts: Mutex<Counts>,
    /// Streams began, or ended.
    changed: Notify,
    /// The relay understands that a request was read.
    acknowledges: AtomicBool,
    /// Requests may come.
    serving: AtomicBool,
    draining: AtomicBool,
    streams: TaskTracker,
}

/// Why and how long a link drains.
pub struct Ending<R> {
    pub stop: CancellationToken,
    /// A new certificate: the next link carries it.
    pub renewed: watch::Receiver<R>,
    pub grace: Duration,
    /// When this link's own certificate ends, and the relay cuts it.
    pub expires: Instant,
}

impl<R> Ending<R> {
    async fn begins(&mut self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            Ok(()) = self.renewed.changed() => {}
        }
    }

    /// What is open may go on for the grace period after a stop, and after a
    /// renewal for as long as the certificate lets it.
    async fn ends(self) {
        let stopped = async {
            self.stop.cancelled().await;
            sleep(self.grace).await;
        };
        tokio::select! {
            () = stopped => {}
            () = sleep_until(self.expires) => {}
        }
    }
}

/// Streams of one link.
#[derive(Default)]
struct Counts {
    /// The relay has not answered yet.
    opening: usize,
    parked: usize,
    busy: usize,
}

impl Counts {
    fn of(&mut self, state: StreamState) -> &mut usize {
        match state {
            StreamState::Opening => &mut self.opening,
            StreamState::Parked => &mut self.parked,
            StreamState::Busy => &mut self.busy,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamState {
    Opening,
    Parked,
    Busy,
}

/// A link that is counted for as long as this lives.
struct Up<'a>(&'a Supply);

impl<'a> Up<'a> {
    fn new(supply: &'a Supply) -> Self {
        supply.links.fetch_add(1, Ordering::Relaxed);
        supply.metrics.links.inc();
        Self(supply)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.links.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.links.dec();
    }
}

/// A stream in the counts of its link, for as long as this lives: however its
/// task ends, another takes its place.
struct Counted {
    link: Arc<LinkState>,
    state: StreamState,
}

impl Counted {
    fn becomes(&mut self, state: StreamState) {
        let before = std::mem::replace(&mut self.state, state);
        self.link.count(|counts| {
            *counts.of(before) -= 1;
            *counts.of(state) += 1;
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.link.count(|counts| *counts.of(self.state) -= 1);
        self.link.changed.notify_one();
    }
}

impl LinkState {
    /// The control stream: learns applications, drains when told.
    async fn follow<R>(
        self: Arc<Self>,
        wanted: &watch::Sender<usize>,
        mut ending: Ending<R>,
    ) -> Result<(), TunnelError> {
        let (mut reports, mut settings) = link::follow(&self.requests).await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        reports.send(&LinkReport { version: version.clone(), acknowledges: true, ..Default::default() })?;
        let mut counted = None;
        loop {
            let next = tokio::select! {
                next = settings.next::<LinkSettings>() => next?,
                () = ending.begins() => {
                    self.draining.store(true, Ordering::Relaxed);
                    reports.send(&LinkReport { version, draining: true, acknowledges: true })?;
                    break;
                }
            };
            let Some(next) = next else { return Ok(()) };
            self.worker.origins.learn_relays(&next.tenant);
            self.worker.origins.learn(&next.apps);
            self.worker.statements.learn(&next.keys);
            self.acknowledges.fetch_or(next.acknowledge, Ordering::Relaxed);
            if next.drain {
                info!("the relay is going away");
                self.draining.store(true, Ordering::Relaxed);
                break;
            }
            wanted.send_if_modified(|it| {
                *it < next.relay_threads as usize && {
                    *it = next.relay_threads as usize;
                    true
                }
            });
            if next.complete && counted.is_none() {
                counted = Some(Up::new(&self.supply));
                self.serving.store(true, Ordering::Relaxed);
                info!(relay_threads = next.relay_threads, "link up");
                self.changed.notify_one();
            }
        }
        // The relay hands its parked streams back; busy ones end by themselves.
        self.streams.close();
        tokio::select! {
            () = self.streams.wait() => {}
            () = ending.ends() => {}
        }
        Ok(())
    }

    /// Keeps enough streams parked for as long as the link serves.
    async fn keep_parked(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            if self.serving.load(Ordering::Relaxed) && !self.draining.load(Ordering::Relaxed) {
                self.park_more();
            }
        }
    }

    /// Opens streams until enough are parked.
    fn park_more(self: &Arc<Self>) {
        let mut missing = 0;
        self.count(|counts| {
            let wanted = PARKED_MIN.max(counts.busy / PARKED_PER_BUSY);
            let ready = counts.parked + counts.opening;
            let room = (link::STREAMS_MAX as usize).saturating_sub(counts.busy + ready + 1);
            missing = wanted.saturating_sub(ready).min(room);
            counts.opening += missing;
        });
        for _ in 0..missing {
            let counted = Counted { link: self.clone(), state: StreamState::Opening };
            self.streams.spawn(self.clone().stream(counted));
        }
    }

    async fn stream(self: Arc<Self>, mut counted: Counted) {
        let mut whole = link::open(&self.requests).await.ok();
        if whole.is_none() {
            sleep(UNWANTED_PAUSE).await;
        }
        while let Some(parked) = whole {
            counted.becomes(StreamState::Parked);
            let accepted = match exchange::accept(parked).await {
                Ok(Some(accepted)) => accepted,
                Ok(None) => {
                    counted.becomes(StreamState::Opening);
                    return sleep(UNWANTED_PAUSE).await;
                }
                Err(error) => return debug!(%error, "a parked stream broke"),
            };
            counted.becomes(StreamState::Busy);
            self.changed.notify_one();
            whole = self.worker.serve(accepted, self.acknowledges.load(Ordering::Relaxed)).await;
        }
    }

    /// Ends when requests may come and no stream could take one for too long.
    /// Nobody would notice before a request waits in vain.
    async fn streamless(&self, round_trip: watch::Receiver<Duration>) {
        let mut since = None;
        loop {
            sleep(link::STREAMLESS_LOOK).await;
            let has_streams = self.count(|counts| counts.parked + counts.busy > 0);
            let may_lack = !self.serving.load(Ordering::Relaxed) || self.draining.load(Ordering::Relaxed);
            if has_streams || may_lack {
                since = None;
                continue;
            }
            if since.get_or_insert_with(Instant::now).elapsed() >= link::streamless_max(*round_trip.borrow()) {
                return;
            }
        }
    }

    fn count<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = counts.parked;
        let result = change(&mut counts);
        let (more, fewer) = (counts.parked.saturating_sub(before), before.saturating_sub(counts.parked));
        self.supply.parked.fetch_add(more, Ordering::Relaxed);
        self.supply.parked.fetch_sub(fewer, Ordering::Relaxed);
        self.supply.metrics.parked_streams.inc_by(more as i64 - fewer as i64);
        result
    }
}

fn worker_thread(n: usize, stopped: CancellationToken) -> Result<Handle, ConnectorError> {
    let failed = |source| ConnectorError::File { attempted: "starting", path: format!("worker {n}"), source };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name(format!("connector-{n}"))
        .spawn(move || runtime.block_on(stopped.cancelled()))
        .map_err(failed)?;
    Ok(handle)
}

fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    // A machine without roots can still reach applications that bring their own.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

fn now_s() -> i64 {
    Clock::default().now_ms() / 1000
}

/// Full jitter: anything between nothing and the back-off.
fn jitter(backoff: Duration) -> Duration {
    let random = u32::from_be_bytes(runtime::clock::random_bytes());
    backoff.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
