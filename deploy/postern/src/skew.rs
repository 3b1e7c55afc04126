//! How far this machine's clock is from the log's.
//!
//! Tokens, certificates and revocations are judged by each role's own clock; one
//! that is wrong by more than they forgive refuses everybody or sends browsers
//! round. The broker says its time with each answer about a stream. A log that is
//! a file of this process has no other clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use eventlog::EventLog;
use model::event::Stream;
use runtime::{
    Clock,
    metrics::{Gauge, Metrics},
    probes::Readiness,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Half of what a token forgives (`model::session::CLOCK_LEEWAY_S`): said before
/// anybody is refused.
pub const SKEW_MAX: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// An answer that took longer says little about the time.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Default)]
pub struct Skew {
    /// Seconds this clock is ahead.
    ahead_s: Gauge,
    measured: Arc<AtomicBool>,
}

impl Skew {
    pub fn register(metrics: &Metrics) -> Self {
        let ours = Self::default();
        metrics.register(
            "clock_skew_seconds",
            "How far this clock is ahead of the log's; negative when behind",
            ours.ahead_s.clone(),
        );
        ours
    }

    pub fn readiness(&self) -> Readiness {
        let ahead_s = self.ahead_s.get();
        let direction = if ahead_s < 0 { "behind" } else { "ahead of" };
        let detail = match (self.measured.load(Ordering::Relaxed), self.is_wrong()) {
            (false, _) => "not compared with the log's".to_owned(),
            (true, false) => format!("{} s {direction} the log's", ahead_s.abs()),
            (true, true) => {
                format!("{} s {direction} the log's; synchronise both machines (NTP)", ahead_s.abs())
            }
        };
        Readiness { part: "clock", ready: !self.is_wrong(), detail }
    }

    fn is_wrong(&self) -> bool {
        self.ahead_s.get().unsigned_abs() > SKEW_MAX.as_secs()
    }

    fn measure(&self, asked_ms: i64, theirs_ms: i64, answered_ms: i64) {
        if answered_ms.abs_diff(asked_ms) > ROUND_TRIP_MAX.as_millis() as u64 {
            return;
        }
        let was_wrong = self.is_wrong();
        self.ahead_s.set((asked_ms + (answered_ms - asked_ms) / 2 - theirs_ms) / 1000);
        self.measured.store(true, Ordering::Relaxed);
        if self.is_wrong() && !was_wrong {
            warn!(ahead_s = self.ahead_s.get(), "this clock and the log's differ; sign-ins will fail");
        }
    }
}

/// Asks with a stream this role may read.
pub async fn watch(skew: Skew, log: EventLog, stream: Stream, clock: Clock, stop: CancellationToken) {
    loop {
        let asked_ms = clock.now_ms();
        match log.server_time_ms(stream).await {
            Ok(Some(theirs_ms)) => skew.measure(asked_ms, theirs_ms, clock.now_ms()),
            Ok(None) => return,
            // The age of the snapshot says that the log is away.
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_not_ready_and_says_by_how_much() {
        let skew = Skew::default();
        assert!(skew.readiness().ready, "nothing is known yet");
        let now_ms = 1_764_000_000_000;
        for (ahead_s, ready, said) in [
            (0, true, "0 s ahead of"),
            (30, true, "30 s ahead of"),
            (31, false, "31 s ahead of the log's; synchronise"),
            (-600, false, "600 s behind the log's; synchronise"),
            (2, true, "2 s ahead of"),
        ] {
            skew.measure(now_ms - 200, now_ms - ahead_s * 1000, now_ms + 200);
            let readiness = skew.readiness();
            assert_eq!(readiness.ready, ready, "{ahead_s}");
            assert!(readiness.detail.contains(said), "{}", readiness.detail);
        }
        skew.measure(now_ms - 6_000, now_ms - 600_000, now_ms);
        assert!(skew.readiness().ready, "a slow answer says nothing");
    }
}
