//! Time and chance enter the process here and are handed inward as values.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use uuid::Uuid;

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
        since.map_or(0, |it| it.as_millis() as i64).saturating_add(self.skew_ms)
    }

    /// For measuring how long something took.
    #[expect(clippy::disallowed_methods, reason = "this is the edge where time comes in")]
    pub fn instant(self) -> Instant {
        Instant::now()
    }
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
