//! Streams that connectors have parked, and which one gets the next request.
//!
//! Each relay thread has its own pool, so a request usually stays on its
//! thread; another thread's pool is asked only when the own one is empty. The
//! link of the group that has parked most is the least loaded. A link on which a
//! request was not heard of is asked last; one without any stream is given up.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::Deref,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::{ConnectorGroupId, ConnectorId, TenantId};
use proto::v1::{LinkedConnector, RequestHead};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tunnel::{
    TunnelError,
    exchange::{Exchange, FirstBody, IdleStream},
    link::streamless_max,
};

use crate::settings::{PARKED_MAX, STREAM_WAIT, WAITING_REQUESTS_MAX};

/// Connectors that controllers are told of: 100 bytes each.
const LINKED_TOLD_MAX: usize = 4096;
const VERSION_CHARS_MAX: usize = 64;

/// A connection to a connector.
#[derive(Debug)]
pub(crate) struct Link {
    pub tenant: TenantId,
    pub group: ConnectorGroupId,
    pub connector: ConnectorId,
    /// The relay thread it lives on.
    pub thread: usize,
    /// Where it comes from.
    address: Option<IpAddr>,
    /// Of the connector, as it says itself.
    version: OnceLock<String>,
    /// It does not take streams back any more.
    pub draining: AtomicBool,
    /// The connector says when it has read a request.
    pub acknowledges: AtomicBool,
    /// The connector was told all it needs to serve requests.
    pub serves: AtomicBool,
    /// A request on it was not heard of in time, and nothing was heard since.
    suspect: AtomicBool,
    /// Streams there are, parked or at work.
    streams: AtomicUsize,
    health: Mutex<Health>,
    /// Told when the link is to be given up.
    pub given_up: Notify,
}

#[derive(Debug, Default)]
struct Health {
    round_trip: Duration,
    /// Since when it serves without any stream.
    streamless: Option<Instant>,
}

impl Link {
    pub(crate) fn new(
        tenant: TenantId,
        group: ConnectorGroupId,
        connector: ConnectorId,
        thread: usize,
        address: Option<IpAddr>,
    ) -> Self {
        Self {
            tenant,
            group,
            connector,
            thread,
            address,
            version: OnceLock::new(),
            draining: AtomicBool::new(false),
            acknowledges: AtomicBool::new(false),
            serves: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            health: Mutex::default(),
            given_up: Notify::new(),
        }
    }

    /// What the connector calls its version. Administrators see it.
    pub(crate) fn says_version(&self, version: &str) {
        let shown: String = version.chars().filter(char::is_ascii_graphic).take(VERSION_CHARS_MAX).collect();
        if !shown.is_empty() {
            self.version.get_or_init(|| shown);
        }
    }

    /// A request was not heard of in time; other links are preferred.
    pub(crate) fn unheard(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heard(&self) {
        if self.is_suspect() {
            self.suspect.store(false, Ordering::Relaxed);
        }
    }

    /// A ping was answered.
    pub(crate) fn measured(&self, round_trip: Duration) {
        self.heard();
        self.health.lock().unwrap_or_else(PoisonError::into_inner).round_trip = round_trip;
    }

    fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// It should have streams, and has had none for too long.
    fn is_streamless(&self, now: Instant) -> bool {
        let should = self.serves.load(Ordering::Relaxed) && !self.draining.load(Ordering::Relaxed);
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if !should || self.streams.load(Ordering::Relaxed) > 0 {
            health.streamless = None;
            return false;
        }
        let since = *health.streamless.get_or_insert(now);
        now.duration_since(since) >= streamless_max(health.round_trip)
    }
}

/// The link of one stream, which counts that stream for as long as this lives.
#[derive(Debug)]
pub(crate) struct StreamLink(Arc<Link>);

impl StreamLink {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        link.streams.fetch_add(1, Ordering::Relaxed);
        Self(link)
    }

    pub(crate) fn link(&self) -> Arc<Link> {
        self.0.clone()
    }
}

impl Deref for StreamLink {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.0
    }
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream ready for a request.
#[derive(Debug)]
pub(crate) struct Parked {
    pub whole: IdleStream,
    pub link: StreamLink,
}

/// What connectors have ready, over all links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Supply {
    pub links: usize,
    pub parked: usize,
    /// Links that serve and have no stream at all.
    pub streamless: usize,
}

/// Why there is no stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoStream {
    /// No connector of the group has a link here.
    Offline,
    /// All are busy, and so is the queue.
    Busy,
}

pub(crate) struct Connectors {
    pools: Vec<Mutex<Pool>>,
    waiting: AtomicUsize,
    parked: Notify,
}

#[derive(Default)]
struct Pool {
    groups: HashMap<ConnectorGroupId, Vec<LinkStreams>>,
}

/// The idle streams of one link.
struct LinkStreams {
    link: Arc<Link>,
    parked: Vec<Parked>,
}

impl Connectors {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            pools: (0..threads).map(|_| Mutex::default()).collect(),
            waiting: AtomicUsize::new(0),
            parked: Notify::new(),
        }
    }

    pub(crate) fn add(&self, link: &Arc<Link>) {
        let mut pool = self.lock(link.thread);
        pool.groups.entry(link.group).or_default().push(LinkStreams { link: link.clone(), parked: Vec::new() });
    }

    /// The link is gone, and its streams with it.
    pub(crate) fn remove(&self, link: &Arc<Link>) {
        let mut pool = self.lock(link.thread);
        if let Some(links) = pool.groups.get_mut(&link.group) {
            links.retain(|streams| !Arc::ptr_eq(&streams.link, link));
            if links.is_empty() {
                pool.groups.remove(&link.group);
            }
        }
        drop(pool);
        self.parked.notify_waiters();
    }

    /// Takes no more streams of this link and closes those that are parked.
    pub(crate) fn drain(&self, link: &Arc<Link>) {
        link.draining.store(true, Ordering::SeqCst);
        let parked = {
            let mut pool = self.lock(link.thread);
            let streams = pool.streams_of(link);
            streams.map(|streams| std::mem::take(&mut streams.parked)).unwrap_or_default()
        };
        for parked in parked {
            parked.whole.sender.close();
        }
    }

    /// Gives up each link that serves and has had no stream for too long, so that
    /// its connector dials again. Tells what there is.
    pub(crate) fn look_after(&self, now: Instant) -> Supply {
        let mut supply = Supply::default();
        for thread in 0..self.pools.len() {
            let pool = self.lock(thread);
            for streams in pool.groups.values().flatten() {
                supply.links += 1;
                supply.parked += streams.parked.len();
                if streams.link.is_streamless(now) {
                    supply.streamless += 1;
                    streams.link.given_up.notify_one();
                }
            }
        }
        supply
    }

    /// What controllers are told of each connector that has a link here.
    pub(crate) fn linked(&self) -> Vec<LinkedConnector> {
        let mut linked: BTreeMap<ConnectorId, LinkedConnector> = BTreeMap::new();
        for thread in 0..self.pools.len() {
            let pool = self.lock(thread);
            for LinkStreams { link, parked } in pool.groups.values().flatten() {
                let told = linked
                    .entry(link.connector)
                    .or_insert_with(|| LinkedConnector { connector: link.connector.to_string(), ..Default::default() });
                if let Some(version) = link.version.get() {
                    told.version.clone_from(version);
                }
                if let Some(address) = link.address {
                    told.address = address.to_canonical().to_string();
                }
                let at_work = link.streams.load(Ordering::Relaxed).saturating_sub(parked.len());
                told.open_exchanges += u32::try_from(at_work).unwrap_or(u32::MAX);
            }
        }
        linked.into_values().take(LINKED_TOLD_MAX).collect()
    }

    pub(crate) fn park(&self, parked: Parked) {
        let surplus = {
            let mut pool = self.lock(parked.link.thread);
            match pool.streams_of(&parked.link) {
                Some(streams) if streams.parked.len() < PARKED_MAX && !parked.link.draining.load(Ordering::SeqCst) => {
                    streams.parked.push(parked);
                    None
                }
                Some(_) | None => Some(parked),
            }
        };
        match surplus {
            Some(parked) => parked.whole.sender.close(),
            None if self.waiting.load(Ordering::SeqCst) > 0 => self.parked.notify_waiters(),
            None => {}
        }
    }

    /// A stream of the group; waits a moment when all are busy.
    pub(crate) async fn pick(
        &self,
        tenant: &TenantId,
        group: ConnectorGroupId,
        thread: usize,
    ) -> Result<Parked, NoStream> {
        if let Some(parked) = self.take(tenant, group, thread) {
            return Ok(parked);
        }
        let Some(_place) = Waiting::enter(&self.waiting) else { return Err(NoStream::Busy) };
        let deadline = Instant::now() + STREAM_WAIT;
        loop {
            let mut next = std::pin::pin!(self.parked.notified());
            // Registered before looking, so a stream parked in between is seen.
            next.as_mut().enable();
            if let Some(parked) = self.take(tenant, group, thread) {
                return Ok(parked);
            }
            if timeout_at(deadline, next).await.is_err() {
                return Err(if self.is_online(group) { NoStream::Busy } else { NoStream::Offline });
            }
        }
    }

    /// Begins an exchange; the stream comes back to those of its link by itself.
    pub(crate) fn begin(
        self: &Arc<Self>,
        parked: Parked,
        head: RequestHead,
        body: FirstBody,
    ) -> Result<Exchange, TunnelError> {
        let Parked { whole, link } = parked;
        let connectors = self.clone();
        Exchange::begin(whole, head, body, move |whole| connectors.park(Parked { whole, link }))
    }

    fn take(&self, tenant: &TenantId, group: ConnectorGroupId, thread: usize) -> Option<Parked> {
        let threads = self.pools.len();
        let mut has_suspects = false;
        let trusted = (0..threads).find_map(|offset| {
            self.lock((thread + offset) % threads).take(tenant, group, |link| {
                let is_suspect = link.is_suspect();
                has_suspects |= is_suspect;
                !is_suspect
            })
        });
        match trusted {
            None if has_suspects => {
                (0..threads).find_map(|offset| self.lock((thread + offset) % threads).take(tenant, group, |_| true))
            }
            trusted => trusted,
        }
    }

    pub(crate) fn is_online(&self, group: ConnectorGroupId) -> bool {
        (0..self.pools.len()).any(|thread| self.lock(thread).groups.contains_key(&group))
    }

    /// Links per thread, so that the next one goes where there are fewest.
    pub(crate) fn links(&self, thread: usize, tenant: &TenantId) -> usize {
        let pool = self.lock(thread);
        #[expect(clippy::iter_over_hash_type, reason = "a sum has no order")]
        let count = {
            let mut count = 0;
            for links in pool.groups.values() {
                count += links.iter().filter(|streams| streams.link.tenant == *tenant).count();
            }
            count
        };
        count
    }

    fn lock(&self, thread: usize) -> std::sync::MutexGuard<'_, Pool> {
        self.pools[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn streams_of(&mut self, link: &Link) -> Option<&mut LinkStreams> {
        self.groups.get_mut(&link.group)?.iter_mut().find(|streams| std::ptr::eq(&*streams.link, link))
    }

    fn take(
        &mut self,
        tenant: &TenantId,
        group: ConnectorGroupId,
        mut suits: impl FnMut(&Link) -> bool,
    ) -> Option<Parked> {
        let links = self.groups.get_mut(&group)?.iter_mut();
        let links = links.filter(|streams| streams.link.tenant == *tenant && suits(&streams.link));
        links.max_by_key(|streams| streams.parked.len())?.parked.pop()
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::SeqCst) >= WAITING_REQUESTS_MAX {
            waiting.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_stream_but_not_long() {
        let connectors = Connectors::new(1);
        let (tenant, group) = (TenantId::default_tenant(), ConnectorGroupId(uuid::Uuid::nil()));
        let started = Instant::now();
        let picked = connectors.pick(&tenant, group, 0).await;
        assert!(matches!(picked, Err(NoStream::Offline)));
        assert_eq!(started.elapsed(), STREAM_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let connectors = Connectors::new(1);
        let (tenant, group) = (TenantId::default_tenant(), ConnectorGroupId(uuid::Uuid::nil()));
        let waiting: Vec<_> = std::iter::from_fn(|| Waiting::enter(&connectors.waiting)).collect();
        assert_eq!(waiting.len(), WAITING_REQUESTS_MAX);
        let started = Instant::now();
        let picked = connectors.pick(&tenant, group, 0).await;
        assert!(matches!(picked, Err(NoStream::Busy)));
        assert!(started.elapsed().is_zero(), "an overloaded relay answers at once");
    }
}
