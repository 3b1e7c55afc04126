//! What happened, on its way to the log: a bounded buffer that never makes a
//! user wait and counts what it had to drop.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use eventlog::{Activity, Draft, Fact, Journal};
use model::{TenantId, Timestamp};
use proto::v1::ActivityGap;
use runtime::{Clock, clock::fresh_id, metrics::Counter, telemetry::chain};
use tokio::sync::mpsc;
use tracing::warn;

use crate::settings::WAITING_ACCESSES_MAX;

#[derive(Clone)]
pub(crate) struct ActivityLog {
    waiting: mpsc::Sender<(TenantId, i64, Activity)>,
    /// Not said in the log yet.
    dropped: Arc<AtomicU64>,
    dropped_total: Counter,
}

impl ActivityLog {
    /// The buffer, and the task that empties it into the log.
    pub(crate) fn new(
        journal: Journal,
        writer: String,
        clock: Clock,
        dropped_total: Counter,
    ) -> (Self, impl Future<Output = ()>) {
        let (waiting, receiver) = mpsc::channel(WAITING_ACCESSES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = Self { waiting, dropped: dropped.clone(), dropped_total };
        (log, write(journal, writer, clock, receiver, dropped))
    }

    pub(crate) fn record(&self, tenant: &TenantId, now_ms: i64, activity: Activity) {
        if self.waiting.try_send((tenant.clone(), now_ms, activity)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.dropped_total.inc();
        }
    }

    pub(crate) fn dropped_total(&self) -> u64 {
        self.dropped_total.get()
    }
}

async fn write(
    journal: Journal,
    writer: String,
    clock: Clock,
    mut receiver: mpsc::Receiver<(TenantId, i64, Activity)>,
    dropped: Arc<AtomicU64>,
) {
    let draft = |(tenant, time, activity)| Draft {
        id: fresh_id(),
        tenant,
        time: Timestamp(time),
        actor: writer.clone(),
        cause: String::new(),
        fact: Fact::Activity(activity),
    };
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, eventlog::APPEND_MAX - 1).await > 0 {
        let mut drafts: Vec<Draft> = batch.drain(..).map(draft).collect();
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let gap = ActivityGap { writer: writer.clone(), dropped: lost };
            drafts.push(draft((TenantId::default_tenant(), clock.now_ms(), Activity::Gap(gap))));
        }
        if let Err(error) = journal.record(&drafts).await {
            warn!(error = %chain(&error), events = drafts.len(), "activity is not recorded");
            dropped.fetch_add(drafts.len() as u64, Ordering::Relaxed);
        }
    }
}
