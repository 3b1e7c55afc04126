//! Streams that connectors have parked, and which one gets the next request.
//!
//! Each relay thread has its own pool, so a request usually stays on its
//! thread; another thread's pool is asked only when the own one is empty. The
//! link of the group that has parked most is the least loaded.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use model::{ConnectorGroupId, ConnectorId, TenantId};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tunnel::exchange::Whole;

use crate::settings::{PARKED_MAX, STREAM_WAIT, WAITING_REQUESTS_MAX};

/// A connection to a connector.
#[derive(Debug)]
pub(crate) struct Link {
    pub tenant: TenantId,
    pub group: ConnectorGroupId,
    pub connector: ConnectorId,
    /// The relay thread it lives on.
    pub thread: usize,
    /// It does not take streams back any more.
    pub draining: AtomicBool,
}

/// A stream ready for a request.
#[derive(Debug)]
pub(crate) struct Parked {
    pub whole: Whole,
    pub link: Arc<Link>,
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
    groups: HashMap<ConnectorGroupId, Vec<Shelf>>,
}

struct Shelf {
    link: Arc<Link>,
    parked: Vec<Whole>,
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
        pool.groups.entry(link.group).or_default().push(Shelf { link: link.clone(), parked: Vec::new() });
    }

    /// The link is gone, and its streams with it.
    pub(crate) fn remove(&self, link: &Arc<Link>) {
        let mut pool = self.lock(link.thread);
        if let Some(shelves) = pool.groups.get_mut(&link.group) {
            shelves.retain(|shelf| !Arc::ptr_eq(&shelf.link, link));
            if shelves.is_empty() {
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
            let shelf = pool.shelf(link);
            shelf.map(|shelf| std::mem::take(&mut shelf.parked)).unwrap_or_default()
        };
        for whole in parked {
            whole.sender.close();
        }
    }

    pub(crate) fn park(&self, parked: Parked) {
        let surplus = {
            let mut pool = self.lock(parked.link.thread);
            match pool.shelf(&parked.link) {
                Some(shelf) if shelf.parked.len() < PARKED_MAX && !parked.link.draining.load(Ordering::SeqCst) => {
                    shelf.parked.push(parked.whole);
                    None
                }
                Some(_) | None => Some(parked.whole),
            }
        };
        match surplus {
            Some(whole) => whole.sender.close(),
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

    fn take(&self, tenant: &TenantId, group: ConnectorGroupId, thread: usize) -> Option<Parked> {
        let threads = self.pools.len();
        (0..threads).find_map(|offset| self.lock((thread + offset) % threads).take(tenant, group))
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
            for shelves in pool.groups.values() {
                count += shelves.iter().filter(|shelf| shelf.link.tenant == *tenant).count();
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
    fn shelf(&mut self, link: &Arc<Link>) -> Option<&mut Shelf> {
        self.groups.get_mut(&link.group)?.iter_mut().find(|shelf| Arc::ptr_eq(&shelf.link, link))
    }

    fn take(&mut self, tenant: &TenantId, group: ConnectorGroupId) -> Option<Parked> {
        let shelves = self.groups.get_mut(&group)?.iter_mut().filter(|shelf| shelf.link.tenant == *tenant);
        let fullest = shelves.max_by_key(|shelf| shelf.parked.len())?;
        let whole = fullest.parked.pop()?;
        Some(Parked { whole, link: fullest.link.clone() })
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
