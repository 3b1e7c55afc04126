//! Time and chance enter the process here and are handed inward as values.

use std::{
    cell::Cell,
    marker::PhantomData,
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::rand;
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use uuid::Uuid;

thread_local! {
    /// Where clocks of this thread began to follow its timers, and the time they
    /// showed. Only a simulation sets it.
    static FOLLOWED: Cell<Option<(tokio::time::Instant, i64)>> = const { Cell::new(None) };
}

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
        let real = FOLLOWED.get().map_or_else(
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as i64),
            |(since, ms)| ms.saturating_add(since.elapsed().as_millis() as i64),
        );
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

/// Lets every clock of this thread pass as its timers do, for as long as the
/// result is kept: a simulation, where timers run on virtual time.
pub fn follow_timers() -> FollowingTimers {
    FOLLOWED.set(None);
    FOLLOWED.set(Some((tokio::time::Instant::now(), Clock::default().now_ms())));
    FollowingTimers(PhantomData)
}

/// Clocks of this thread follow its timers. Not to be sent to another.
pub struct FollowingTimers(PhantomData<*const ()>);

impl Drop for FollowingTimers {
    fn drop(&mut self) {
        FOLLOWED.set(None);
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

    #[tokio::test(start_paused = true)]
    async fn clocks_that_follow_timers_pass_as_they_do() {
        let (clock, real_ms) = (Clock::default(), Clock::default().now_ms());
        let following = follow_timers();
        let begun = clock.now_ms();
        assert!((0..10_000).contains(&(begun - real_ms)));
        let before = tokio::time::Instant::now();
        clock.reach_ms(begun + 3_600_000).await;
        assert!(clock.now_ms() >= begun + 3_600_000 && before.elapsed() >= Duration::from_secs(3600));
        drop(following);
        assert!(clock.now_ms() < begun + 3_600_000);
    }

    #[test]
    fn tls_judges_by_a_clock_that_is_wrong_too() {
        let ahead = Clock { skew_ms: 600_000 };
        let shown = ahead.current_time().unwrap().as_secs();
        assert!(shown.abs_diff((Clock::default().now_ms() / 1000) as u64 + 600) <= 1);
    }
}
