//! Failed attempts, by name and by address. After some, each further one has to
//! wait; the wait doubles. A right password during a wait is refused as well,
//! so that guessing does not tell.

use std::collections::HashMap;

use model::Timestamp;

/// Failures that cost nothing: people mistype.
const FREE_FAILURES_BY_NAME: u32 = 5;
const FREE_FAILURES_BY_ADDRESS: u32 = 30;
const WAIT_FIRST_S: i64 = 30;
const WAIT_MAX_S: i64 = 900;
/// A name or address that was quiet for this long starts anew.
const FORGET_S: i64 = 3600;
const REMEMBERED_MAX: usize = 50_000;

#[derive(Default)]
pub(crate) struct Throttle {
    failures: HashMap<String, Failures>,
}

struct Failures {
    count: u32,
    last: Timestamp,
    until: Timestamp,
}

impl Throttle {
    /// Seconds to wait, or none.
    pub(crate) fn wait_s(&self, name: &str, address: &str, now: Timestamp) -> Option<i64> {
        let waits = [by_name(name), by_address(address)].map(|key| {
            let until = self.failures.get(&key).map_or(0, |it| it.until.seconds());
            until - now.seconds()
        });
        waits.into_iter().max().filter(|wait| *wait > 0)
    }

    pub(crate) fn failed(&mut self, name: &str, address: &str, now: Timestamp) {
        if self.failures.len() >= REMEMBERED_MAX {
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

    pub(crate) fn succeeded(&mut self, name: &str) {
        self.failures.remove(&by_name(name));
    }
}

fn by_name(name: &str) -> String {
    format!("name {name}")
}

fn by_address(address: &str) -> String {
    format!("address {address}")
}
