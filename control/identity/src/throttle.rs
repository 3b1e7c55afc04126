//! Failed attempts, by name and by address. After some, each further one has to
//! wait; the wait doubles. A right password during a wait is refused as well,
//! so that guessing does not tell.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use model::Timestamp;

/// Failures that cost nothing: people mistype.
const FREE_FAILURES_BY_NAME: u32 = 5;
const FREE_FAILURES_BY_ADDRESS: u32 = 30;
const WAIT_FIRST_S: i64 = 30;
const WAIT_MAX_S: i64 = 900;
/// A name or address that was quiet for this long starts anew.
const FORGET_S: i64 = 3600;
const REMEMBERED_MAX: usize = 50_000;
const SWEEP_INTERVAL_S: i64 = 10;

#[derive(Default)]
pub(crate) struct Throttle(Mutex<Failed>);

impl Throttle {
    /// Seconds to wait, or none.
    pub(crate) fn wait_s(&self, name: &str, address: &str, now: Timestamp) -> Option<i64> {
        self.locked().wait_s(name, address, now)
    }

    pub(crate) fn failed(&self, name: &str, address: &str, now: Timestamp) {
        self.locked().add(name, address, now);
    }

    pub(crate) fn succeeded(&self, name: &str) {
        self.locked().failures.remove(&by_name(name));
    }

    fn locked(&self) -> MutexGuard<'_, Failed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Failed {
    failures: HashMap<String, Failures>,
    /// Looking through all of them is not for every attempt of an attacker.
    swept: Timestamp,
}

struct Failures {
    count: u32,
    last: Timestamp,
    until: Timestamp,
}

impl Failed {
    fn wait_s(&self, name: &str, address: &str, now: Timestamp) -> Option<i64> {
        let waits = [by_name(name), by_address(address)].map(|key| {
            let until = self.failures.get(&key).map_or(0, |it| it.until.seconds());
            until - now.seconds()
        });
        waits.into_iter().max().filter(|wait| *wait > 0)
    }

    fn add(&mut self, name: &str, address: &str, now: Timestamp) {
        if self.failures.len() >= REMEMBERED_MAX && now.seconds() - self.swept.seconds() >= SWEEP_INTERVAL_S {
            self.swept = now;
            self.failures.retain(|_, it| now.seconds() - it.last.seconds() < FORGET_S);
        }
        for (key, free) in [(by_name(name), FREE_FAILURES_BY_NAME), (by_address(address), FREE_FAILURES_BY_ADDRESS)] {
            if self.failures.len() >= REMEMBERED_MAX && !self.failures.contains_key(&key) {
                continue;
            }
            let it = self.failures.entry(key).or_insert(Failures { count: 0, last: now, until: Timestamp(0) });
            if now.seconds() - it.last.seconds() >= FORGET_S {
                it.count = 0;
            }
            it.count += 1;
            it.last = now;
            if let Some(over) = it.count.checked_sub(free) {
                let wait = WAIT_FIRST_S.saturating_mul(1 << over.min(10)).min(WAIT_MAX_S);
                it.until = now.plus_seconds(wait);
            }
        }
    }
}

fn by_name(name: &str) -> String {
    format!("name {name}")
}

fn by_address(address: &str) -> String {
    format!("address {address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn guessing_gets_slower_and_slower_and_mistyping_costs_nothing() {
        let throttle = Throttle::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push(throttle.wait_s("alice", "10.0.0.1", NOW));
            throttle.failed("alice", "10.0.0.1", NOW);
        }
        assert_eq!(waits[..5], [None; 5]);
        assert_eq!(waits[5..], [Some(30), Some(60), Some(120), Some(240)]);
        assert_eq!(throttle.wait_s("alice", "10.0.0.2", NOW), Some(480), "a name waits wherever it is tried from");
        assert_eq!(throttle.wait_s("bob", "10.0.0.1", NOW), None, "others behind that address do not, yet");
        assert_eq!(throttle.wait_s("alice", "10.0.0.1", NOW.plus_seconds(480)), None);
        throttle.succeeded("alice");
        throttle.failed("alice", "10.0.0.3", NOW);
        assert_eq!(throttle.wait_s("alice", "10.0.0.3", NOW), None, "a right password starts anew");
    }

    #[test]
    fn one_address_that_tries_many_names_waits() {
        let throttle = Throttle::default();
        for n in 0..FREE_FAILURES_BY_ADDRESS {
            throttle.failed(&format!("user{n}"), "10.0.0.1", NOW);
        }
        assert_eq!(throttle.wait_s("anyone", "10.0.0.1", NOW), Some(WAIT_FIRST_S));
        assert_eq!(throttle.wait_s("anyone", "10.0.0.2", NOW), None);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..REMEMBERED_MAX + 10 {
            throttle.failed(&n.to_string(), &n.to_string(), NOW);
        }
        assert!(throttle.locked().failures.len() <= REMEMBERED_MAX);
        throttle.failed("later", "later", NOW.plus_seconds(FORGET_S));
        assert_eq!(throttle.locked().failures.len(), 2);
    }
}
