//! The record of sign-ins: each attempt becomes one event of ACTIVITY.

use eventlog::{Activity, Fact, Journal, UnsignedEvent};
use model::{TenantId, Timestamp};
use proto::v1::SignInAttempt;
use runtime::{Clock, clock::fresh_id, telemetry::chain};
use tokio::sync::mpsc;
use tracing::warn;

/// Attempts waiting to be recorded. Past this a sign-in waits: an attempt that
/// nobody could see afterwards must not succeed.
const WAITING_ATTEMPTS_MAX: usize = 1024;

pub(crate) struct Attempts(mpsc::Sender<SignInAttempt>);

impl Attempts {
    /// The way in, and the task that writes down until nobody is left to come in.
    pub(crate) fn recorded_in(
        journal: Journal,
        tenant: TenantId,
        clock: Clock,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (attempts, waiting) = mpsc::channel(WAITING_ATTEMPTS_MAX);
        (Self(attempts), write_down(journal, tenant, clock, waiting))
    }

    pub(crate) async fn record(&self, attempt: SignInAttempt) {
        // Closed only when the process stops.
        let _stopping = self.0.send(attempt).await;
    }
}

async fn write_down(journal: Journal, tenant: TenantId, clock: Clock, mut waiting: mpsc::Receiver<SignInAttempt>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, eventlog::APPEND_MAX).await > 0 {
        let drafts: Vec<UnsignedEvent> = batch
            .drain(..)
            .map(|attempt| UnsignedEvent {
                id: fresh_id(),
                tenant: tenant.clone(),
                time: Timestamp(clock.now_ms()),
                actor: "identity".into(),
                cause: String::new(),
                fact: Fact::Activity(Activity::SignIn(attempt)),
            })
            .collect();
        if let Err(error) = journal.record(&drafts).await {
            warn!(error = %chain(&error), "sign-in attempts are not recorded");
        }
    }
}
