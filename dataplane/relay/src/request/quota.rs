//! How often somebody may ask an application (`requests_per_minute`).
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): one number for each
//! person and application, no window whose edge lets twice as much through.
//! Each relay counts for itself.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use model::{AppId, Timestamp, UserId};
use quick_cache::sync::Cache;

/// People remembered; who is forgotten begins anew.
const REMEMBERED: usize = 64 * 1024;
const MINUTE_US: i64 = 60_000_000;

/// A person where one has signed in, else an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    User(UserId),
    Address(IpAddr),
}

pub(crate) struct Quotas {
    /// When all that was asked so far would have been asked at an even pace.
    paid_until: Cache<(AppId, Who), Arc<AtomicI64>>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { paid_until: Cache::new(REMEMBERED) }
    }
}

impl Quotas {
    /// One request more, or the seconds after which one may be asked again. A
    /// minute's worth may come at once.
    pub(crate) fn take(&self, app: AppId, who: Who, per_minute: NonZeroU32, now: Timestamp) -> Result<(), u32> {
        let now = now.0 * 1000;
        let pace = MINUTE_US / i64::from(per_minute.get());
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::new(AtomicI64::new(now)));
        let Ok(paid_until) = self.paid_until.get_or_insert_with(&(app, who), fresh);
        let taken = paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            let next = until.max(now) + pace;
            (next - now <= MINUTE_US).then_some(next)
        });
        match taken {
            Ok(_) => Ok(()),
            Err(until) => Err(((until + pace - now - MINUTE_US) as u64).div_ceil(1_000_000) as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_minutes_worth_may_come_at_once_and_then_one_at_each_beat() {
        let quotas = Quotas::default();
        let (app, per_minute) = (AppId(Uuid::nil()), NonZeroU32::new(6).unwrap());
        let alice = Who::User(UserId(Uuid::nil()));
        let take = |who, ms: i64| quotas.take(app, who, per_minute, Timestamp(1_000_000 + ms));
        for _ in 0..6 {
            assert_eq!(take(alice, 0), Ok(()));
        }
        assert_eq!(take(alice, 0), Err(10));
        assert_eq!(take(alice, 9_500), Err(1), "asking in vain costs nothing");
        assert_eq!(take(alice, 10_000), Ok(()));
        assert_eq!(take(alice, 10_000), Err(10));
        assert_eq!(take(Who::Address(IpAddr::from([10, 0, 0, 1])), 0), Ok(()), "others have their own");
        assert_eq!(quotas.take(AppId(Uuid::max()), alice, per_minute, Timestamp(1_000_000)), Ok(()));
        for _ in 0..6 {
            assert_eq!(take(alice, 3_600_000), Ok(()), "nothing is saved up beyond a minute");
        }
        assert_eq!(take(alice, 3_600_000), Err(10));
    }
}
