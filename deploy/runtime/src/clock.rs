//! Time and chance enter the process here and are handed inward as values.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::rand;
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use uuid::Uuid;

/// Added to the time of every clock of the process. Only a drill changes it.
static DRILL_MS: AtomicI64 = AtomicI64::new(0);
const DRILL_LOOK: Duration = Duration::from_millis(10);
/// How often somebody who waits for a time looks at the clock: timers stand still
/// while a machine is suspended, and know nothing of a clock that was set.
const LOOK: Duration = Duration::from_secs(30);

/// The process's clock. A value and not a function, so that a test can bend it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Added to the real time, in milliseconds.
    pub skew_ms: i64,
}

impl Clock {
    /// Milliseconds since 1970, UTC.
    #[expect(clippy::disallowed_methods, reason = "this is the edge where time comes in")]
    pub fn now_ms(self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let real = since.map_or(0, |it| it.as_millis() as i64);
        real.saturating_add(self.skew_ms).saturating_add(DRILL_MS.load(Ordering::Relaxed))
    }

    /// For measuring how long something took.
    #[expect(clippy::disallowed_methods, reason = "this is the edge where time comes in")]
    pub fn instant(self) -> Instant {
        Instant::now()
    }

    /// Waits until this clock shows a time, however it gets there.
    pub async fn reach_ms(self, at_ms: i64) {
        loop {
            let left_ms = at_ms.saturating_sub(self.now_ms());
            if left_ms <= 0 {
                return;
            }
            let look = if DRILL_MS.load(Ordering::Relaxed) == 0 { LOOK } else { DRILL_LOOK };
            tokio::time::sleep(look.min(Duration::from_millis(left_ms as u64))).await;
        }
    }
}

/// TLS judges certificates by the same clock as everybody else.
impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.now_ms().max(0) as u64)))
    }
}

/// Lets a file say by how many milliseconds this process's clocks are wrong, for
/// as long as the process runs: the way to live through a year in a minute, or
/// with a clock that is ahead. For drills only.
pub fn drill(path: &Path) -> std::io::Result<()> {
    let read = |path: &Path| std::fs::read_to_string(path).ok().and_then(|it| it.trim().parse().ok());
    DRILL_MS.store(read(path).unwrap_or(0), Ordering::Relaxed);
    let path = path.to_owned();
    thread::Builder::new().name("drill".into()).spawn(move || {
        loop {
            if let Some(ms) = read(&path) {
                DRILL_MS.store(ms, Ordering::Relaxed);
            }
            thread::sleep(DRILL_LOOK);
        }
    })?;
    Ok(())
}

/// A fresh id (UUIDv7): unique, and sorted by when it was made.
pub fn fresh_id() -> Uuid {
    Uuid::now_v7()
}

/// Bytes nobody can guess.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The library documents this as failing only when the process cannot go on.
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_has_come_is_not_waited_for() {
        let clock = Clock::default();
        clock.reach_ms(clock.now_ms()).await;
        clock.reach_ms(i64::MIN).await;
        let begun = clock.now_ms();
        clock.reach_ms(begun + 20).await;
        assert!(clock.now_ms() >= begun + 20);
    }

    #[test]
    fn tls_judges_by_a_clock_that_is_wrong_too() {
        let ahead = Clock { skew_ms: 600_000 };
        let shown = ahead.current_time().unwrap().as_secs();
        assert!(shown.abs_diff((Clock::default().now_ms() / 1000) as u64 + 600) <= 1);
    }
}
