//! Load balancing and health of the addresses that serve one application.
//!
//! The least busy place that is up counts; a sticky session keeps its own while
//! that is up. A place that cannot be reached is left alone for a while, and
//! the request goes to the next: nothing of it was sent. With none up, all are
//! tried, for being wrong about all of them is likelier than all being down.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, header};
use http_body_util::{BodyExt, Either, Empty};
use proto::v1::{App, RequestHead, ResetCode};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::{
    backend::{Backend, Body, Failed, Network, OriginResponse, Owner, Target},
    origins::Definition,
    trust::Trust,
};

/// How often a place is asked for its health, and how long it may take.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// A place that failed is left alone for a second, then ever longer.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);
/// Wildcards make an origin of every name they are asked for.
const ORIGINS_MAX: usize = 4096;

/// All origins of one worker.
pub struct Pools {
    origins: Mutex<BTreeMap<Key, PooledOrigin>>,
    trust: Arc<Trust>,
    network: Arc<dyn Network>,
    tasks: TaskTracker,
}

/// Application, segment, and what stands for `*`.
type Key = (String, u32, String);

struct PooledOrigin {
    origin: Arc<Origin>,
    used: Instant,
}

/// One address of an application on one worker.
pub struct Origin {
    pub app: Arc<App>,
    version: u64,
    places: Vec<OriginAddress>,
    turn: AtomicUsize,
}

struct OriginAddress {
    backend: Arc<Backend>,
    /// Differs between places, and is the same in every connector.
    seed: u64,
    busy: Arc<AtomicUsize>,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

/// A request a place is busy with.
pub struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn begin(busy: &Arc<AtomicUsize>) -> Self {
        busy.fetch_add(1, Ordering::Relaxed);
        Self(busy.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pools {
    pub fn new(trust: Arc<Trust>, network: Arc<dyn Network>, tasks: TaskTracker) -> Self {
        Self { origins: Mutex::default(), trust, network, tasks }
    }

    /// The origin a request is for. A new version leaves the old connections behind.
    pub fn origin(
        &self,
        definition: &Definition,
        app: &Arc<App>,
        head: &RequestHead,
    ) -> Result<Arc<Origin>, ResetCode> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let key = (app.id.clone(), head.segment, head.label.clone());
        if let Some(known) = origins.get_mut(&key).filter(|it| it.origin.version == definition.version) {
            known.used = now;
            return Ok(known.origin.clone());
        }
        if origins.len() >= ORIGINS_MAX
            && let Some(oldest) = origins.iter().min_by_key(|(_, known)| known.used).map(|(key, _)| key.clone())
        {
            origins.remove(&oldest);
        }
        let origin = Arc::new(self.make(app.clone(), definition.version, head)?);
        if origin.places.len() > 1 && !app.health_path.is_empty() {
            self.tasks.spawn(watch(Arc::downgrade(&origin)));
        }
        origins.insert(key, PooledOrigin { origin: origin.clone(), used: now });
        Ok(origin)
    }

    fn make(&self, app: Arc<App>, version: u64, head: &RequestHead) -> Result<Origin, ResetCode> {
        let mut places = Vec::new();
        for url in urls(&app, head)? {
            let target = Target::parse(&url).ok_or(ResetCode::OriginRefused)?;
            let seed = url.bytes().fold(0, |seed, byte| mix(seed ^ u64::from(byte)));
            let backend = Arc::new(Backend::new(&app, target, &self.trust, self.network.clone(), self.tasks.clone())?);
            places.push(OriginAddress { backend, seed, busy: Arc::default(), health: Mutex::default() });
        }
        Ok(Origin { app, version, places, turn: AtomicUsize::new(0) })
    }
}

/// Where the controller said this address is; never anything a relay made up.
fn urls(app: &App, head: &RequestHead) -> Result<Vec<String>, ResetCode> {
    if head.segment == 0 {
        let all = std::iter::once(&app.origin).chain(&app.more_origins);
        return all.map(|it| named(it, &head.label)).collect();
    }
    let segment = app.segments.get(head.segment as usize - 1).ok_or(ResetCode::OriginRefused)?;
    Ok(vec![named(&segment.origin, &head.label)?])
}

fn named(origin: &str, label: &str) -> Result<String, ResetCode> {
    if !origin.contains("://*.") {
        return Ok(origin.to_owned());
    }
    let is_label = (1..=63).contains(&label.len())
        && label.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-');
    is_label.then(|| origin.replacen('*', label, 1)).ok_or(ResetCode::OriginRefused)
}

/// A step of splitmix64: spreads neighbouring numbers far apart.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

impl Origin {
    /// Sends a request and waits for the head of the response. What it is busy
    /// with ends when the other half of the answer is dropped.
    pub async fn send(
        &self,
        request: Request<Body>,
        affinity: u64,
        owner: &Owner,
    ) -> Result<(OriginResponse, Busy), Failed> {
        let response_timeout = Duration::from_millis(self.app.response_timeout_ms.into());
        let answered = timeout(response_timeout, self.send_soon(request, affinity, owner)).await;
        answered.unwrap_or_else(|_| Err(Failed::sent(ResetCode::Timeout)))
    }

    async fn send_soon(
        &self,
        mut request: Request<Body>,
        affinity: u64,
        owner: &Owner,
    ) -> Result<(OriginResponse, Busy), Failed> {
        if let [only] = self.places.as_slice() {
            let answered = only.backend.send(request, owner).await?;
            return Ok((answered, Busy::begin(&only.busy)));
        }
        let mut failure = ResetCode::Connect;
        for place in self.order(affinity) {
            let busy = Busy::begin(&place.busy);
            match place.backend.send(request, owner).await {
                Ok(answered) => {
                    place.came_through();
                    return Ok((answered, busy));
                }
                Err(mut failed) => {
                    failure = failed.code;
                    match failed.unsent.take() {
                        Some(unsent) => request = *unsent,
                        None => return Err(failed),
                    }
                    place.rest();
                    debug!(app = %self.app.id, code = ?failure, "a place cannot be reached, trying the next");
                }
            }
        }
        Err(Failed::sent(failure))
    }

    /// Each place once, the best first.
    fn order(&self, affinity: u64) -> Vec<&OriginAddress> {
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<(bool, u64, usize, &OriginAddress)> = Vec::with_capacity(self.places.len());
        for (index, place) in self.places.iter().enumerate() {
            let cost = match affinity {
                0 => place.busy.load(Ordering::Relaxed) as u64,
                // Rendezvous hashing: a place that goes moves only its own sessions.
                affinity => mix(place.seed ^ affinity),
            };
            order.push((place.rests(now), cost, (index + turn) % self.places.len(), place));
        }
        order.sort_by_key(|(rests, cost, turn, _)| (*rests, *cost, *turn));
        order.into_iter().map(|(.., place)| place).collect()
    }

    /// Can it be reached? It is asked nothing.
    pub async fn reach(&self) -> Result<(), ResetCode> {
        let mut reached = Err(ResetCode::OriginRefused);
        for place in &self.places {
            reached = place.backend.reach().await;
            if reached.is_ok() {
                break;
            }
        }
        reached
    }
}

impl OriginAddress {
    fn rests(&self, now: Instant) -> bool {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.rests_until.is_some_and(|until| until > now)
    }

    fn rest(&self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = REST_MAX.min(REST_MIN * 2u32.pow(health.failures.min(5)));
        health.failures = health.failures.saturating_add(1);
        health.rests_until = Some(Instant::now() + rest);
    }

    fn came_through(&self) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = Health::default();
    }
}

/// Asks every place for its health until the origin is gone.
async fn watch(origin: Weak<Origin>) {
    let mut were_up: Vec<bool> = Vec::new();
    while let Some(origin) = origin.upgrade() {
        were_up.resize(origin.places.len(), true);
        for (place, was_up) in origin.places.iter().zip(&mut were_up) {
            let is_up = is_healthy(place, &origin.app).await;
            match is_up {
                true if !*was_up => place.came_through(),
                true => {}
                false => {
                    let mut health = place.health.lock().unwrap_or_else(PoisonError::into_inner);
                    // Until it says otherwise.
                    health.rests_until = Some(Instant::now() + 2 * HEALTH_INTERVAL + HEALTH_TIMEOUT);
                }
            }
            if is_up != *was_up {
                info!(app = %origin.app.id, is_up, "the health of a place changed");
            }
            *was_up = is_up;
        }
        drop(origin);
        sleep(HEALTH_INTERVAL).await;
    }
}

async fn is_healthy(place: &OriginAddress, app: &App) -> bool {
    let mut request = Request::new(Either::Right(Empty::new()));
    let Ok(uri) = app.health_path.parse() else { return true };
    *request.uri_mut() = uri;
    // The name it is published under: virtual hosts answer by it.
    let host = app.external_url.split('/').nth(2).unwrap_or("localhost");
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    let asked = timeout(HEALTH_TIMEOUT, async {
        let answered = place.backend.send(request, &Owner::default()).await.ok()?;
        let status = answered.response.status();
        let _body = answered.response.into_body().collect().await.ok()?;
        if let Some(lent) = answered.lent {
            lent.give_back();
        }
        Some(!status.is_server_error() && !status.is_client_error())
    });
    asked.await.ok().flatten().unwrap_or(false)
}

#[cfg(test)]
mod tests;
