//! The access record of one request.

use std::{sync::Arc, time::Instant};

use eventlog::Activity;
use model::TenantId;
use proto::v1::Access;
use runtime::Clock;
use tracing::Span;

use crate::record::{activity::ActivityLog, metrics::RelayMetrics};

/// An access that is recorded when its exchange ends, however it ends.
pub(crate) struct Record {
    pub access: Access,
    pub tenant: TenantId,
    pub started: Instant,
    pub clock: Clock,
    pub log: ActivityLog,
    pub metrics: Arc<RelayMetrics>,
    pub span: Span,
}

impl Drop for Record {
    fn drop(&mut self) {
        let mut access = std::mem::take(&mut self.access);
        self.span.record("http.response.status_code", i64::from(access.status));
        self.span.record("server.address", &access.host);
        self.span.record("postern.app", &access.app);
        if !access.refusal.is_empty() {
            self.span.record("postern.refusal", &access.refusal);
        }
        access.total_us = self.started.elapsed().as_micros().min(u32::MAX.into()) as u32;
        self.metrics.observe(&access);
        self.log.record(&self.tenant, self.clock.now_ms(), Activity::Access(access));
    }
}
