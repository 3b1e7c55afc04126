//! The tenant as the log says now, and the time: what every part of identity asks.

use std::sync::Arc;

use eventlog::Projection;
use model::{Position, Tenant, TenantId, Timestamp, event::Stream};
use runtime::Clock;
use tokio::time::{Duration, timeout};

/// How long a reader waits for a position of the log.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Current {
    pub tenant_id: TenantId,
    projection: Projection,
    clock: Clock,
}

impl Current {
    pub(crate) fn new(tenant_id: TenantId, projection: Projection, clock: Clock) -> Self {
        Self { tenant_id, projection, clock }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    pub(crate) fn tenant(&self) -> Arc<Tenant> {
        self.at_directory().0
    }

    /// The tenant, and the position of DIRECTORY it was read at.
    pub(crate) fn at_directory(&self) -> (Arc<Tenant>, Position) {
        let snapshot = self.projection.snapshot();
        (snapshot.tenant(&self.tenant_id).cloned().unwrap_or_default(), snapshot.directory)
    }

    /// The same from a position of DIRECTORY on, or as late as it is after two seconds.
    pub(crate) async fn caught_up(&self, needed: Position) -> (Arc<Tenant>, Position) {
        // Late: a token says from which position it is, so relays notice.
        let _late = timeout(CATCH_UP_TIMEOUT, self.projection.reach(Stream::Directory, needed)).await;
        self.at_directory()
    }
}
