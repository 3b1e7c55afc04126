//! How many connections of users there may be, in all and from each address,
//! and none at all while memory is short.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tracing::warn;

use crate::settings::MEMORY_WATCH_INTERVAL;

/// How many connections there are, in all and from each address.
pub(crate) struct ConnectionPermits {
    max: usize,
    per_source_max: usize,
    all: AtomicUsize,
    /// Memory is short: nobody new comes in.
    pressed: AtomicBool,
    by_source: Mutex<HashMap<IpAddr, usize>>,
}

impl ConnectionPermits {
    pub(crate) fn new(max: usize, per_source_max: usize) -> Arc<Self> {
        let max = if max == 0 { descriptors() * 8 / 10 } else { max };
        Arc::new(Self {
            max,
            per_source_max,
            all: AtomicUsize::new(0),
            pressed: AtomicBool::new(false),
            by_source: Mutex::default(),
        })
    }

    pub(crate) fn taken(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }

    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Watches the memory of this process against a limit in KiB.
    pub(crate) async fn watch_memory(self: Arc<Self>, limit_kib: u64) {
        loop {
            let pressed = resident_kib() > limit_kib / 10 * 9;
            if self.pressed.swap(pressed, Ordering::Relaxed) != pressed {
                warn!(pressed, "memory: {}", if pressed { "no new connections" } else { "connections again" });
            }
            tokio::time::sleep(MEMORY_WATCH_INTERVAL).await;
        }
    }
}

/// One connection's place.
pub(crate) struct ConnectionPermit {
    permits: Arc<ConnectionPermits>,
    source: IpAddr,
}

impl ConnectionPermit {
    pub(crate) fn take(permits: &Arc<ConnectionPermits>, source: IpAddr) -> Option<Self> {
        if permits.is_pressed() {
            return None;
        }
        let mut by_source = permits.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_source.entry(source).or_default();
        if *count >= permits.per_source_max || permits.all.load(Ordering::SeqCst) >= permits.max {
            return None;
        }
        *count += 1;
        permits.all.fetch_add(1, Ordering::SeqCst);
        Some(Self { permits: permits.clone(), source })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut by_source = self.permits.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                by_source.remove(&self.source);
            }
        }
        self.permits.all.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The soft limit of open files, as the kernel tells it.
fn descriptors() -> usize {
    const ASSUMED: usize = 1024;
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap_or(ASSUMED)
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_source_and_in_all() {
        let permits = ConnectionPermits::new(5, 3);
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<ConnectionPermit> = (0..3).filter_map(|_| ConnectionPermit::take(&permits, one)).collect();
        assert_eq!(held.len(), 3);
        assert!(ConnectionPermit::take(&permits, one).is_none(), "one address has its share");
        held.extend((0..3).filter_map(|_| ConnectionPermit::take(&permits, other)));
        assert_eq!((held.len(), permits.taken()), (5, 5), "and all together have theirs");
        held.clear();
        assert_eq!(permits.taken(), 0);
        assert!(ConnectionPermit::take(&permits, one).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_new_comes_in_while_memory_is_short() {
        let permits = ConnectionPermits::new(5, 5);
        let source = IpAddr::from([10, 0, 0, 1]);
        for (limit_kib, comes_in) in [(1024, false), (u64::MAX, true)] {
            let _watched = tokio::time::timeout(MEMORY_WATCH_INTERVAL, permits.clone().watch_memory(limit_kib)).await;
            assert_eq!(ConnectionPermit::take(&permits, source).is_some(), comes_in);
        }
    }
}
