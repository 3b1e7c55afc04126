//! Answers about activity: who signed in lately, and which URLs pages asked for
//! in vain. A projection of ACTIVITY, folded as it grows, so that an answer reads
//! nothing from the log but where it ends.
//!
//! Choices. The fold is in the memory of each controller and not in analytics: an
//! answer needs no second process, no listener and no credential, and it is small
//! because it keeps only what administrators act on. A controller that starts
//! reads the newest `EVENTS_AT_START` once, in the background. Given up: what is
//! older is not known after a restart. Look again when questions need a search.
//!
//! Not here: the access log, and reports; a SIEM or analytics has them.

mod recent;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use eventlog::{Activity, Entry, EventLog, LogError};
use model::{AppId, ConnectorId, Position, TenantId, Timestamp, event::Stream};
use proto::{signed::Verifier, v1};
#[cfg(test)]
pub(crate) use recent::AtRelay;
pub(crate) use recent::Links;
use recent::RecentActivity;
use runtime::telemetry::chain;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How far back in ACTIVITY a controller reads when it starts.
const EVENTS_AT_START: Position = 100_000;
/// Events verified and folded without a pause: other tasks share the thread.
const EVENTS_AT_ONCE: usize = 128;
/// How long an answer waits for the fold to reach the end of the log.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts when the log does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Why there is no answer now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the event log does not answer")]
    Log(#[from] LogError),
    #[error("activity is still being read, up to {position} of {head}; ask again in a few seconds")]
    Behind { position: Position, head: Position },
}

/// A reader of ACTIVITY that several calls and one follower share.
#[derive(Clone)]
pub(crate) struct ActivityReader {
    log: EventLog,
    trust: Verifier,
    recent: Arc<Mutex<RecentActivity>>,
    /// Everything up to here is folded; `None` until the first start is made.
    position: watch::Sender<Option<Position>>,
    /// The log is another one than before: everything is read again.
    anew: Arc<Notify>,
}

impl ActivityReader {
    /// `trust` has the keys of every role that writes ACTIVITY.
    pub(crate) fn new(log: EventLog, trust: Verifier) -> Self {
        let position = watch::Sender::new(None);
        Self { log, trust, recent: Arc::default(), position, anew: Arc::default() }
    }

    /// Folds until `stop`.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let mut said = false;
        loop {
            tokio::select! {
                error = self.follow_from_start() => {
                    if !std::mem::replace(&mut said, true) {
                        warn!(error = %chain(&error), "activity cannot be read yet");
                    }
                }
                () = self.anew.notified() => info!("the log of activity is another one than before; reading it again"),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Sign-ins of a tenant whose sessions have not come to their end, by session.
    pub(crate) async fn sessions(&self, tenant: &TenantId, now: Timestamp) -> Result<Vec<v1::Session>, NoAnswer> {
        self.reach_end_of_log().await?;
        Ok(self.lock().sessions(tenant, now))
    }

    /// Of each connector that was linked lately.
    pub(crate) async fn links(&self, tenant: &TenantId) -> Result<Vec<(ConnectorId, Links)>, NoAnswer> {
        self.reach_end_of_log().await?;
        Ok(self.lock().links(tenant))
    }

    /// What pages of `app` asked for where nothing is published, most asked for first (PUB-07).
    pub(crate) async fn missing_paths(
        &self,
        tenant: &TenantId,
        app: AppId,
        now: Timestamp,
    ) -> Result<Vec<v1::MissingPath>, NoAnswer> {
        self.reach_end_of_log().await?;
        Ok(self.lock().missing_paths(tenant, app, now))
    }

    /// Everything that was in the log when this was called is folded.
    async fn reach_end_of_log(&self) -> Result<(), NoAnswer> {
        let before = *self.position.borrow();
        let head = self.log.head(Stream::Activity).await?;
        let mut positions = self.position.subscribe();
        let reach = async {
            if before.is_some_and(|before| head < before) {
                self.anew.notify_one();
                let _restarted = positions.wait_for(|it| it.is_none_or(|it| it <= head)).await;
            }
            // The sender is this very value: it is not gone.
            let _reached = positions.wait_for(|it| it.is_some_and(|it| it >= head)).await;
        };
        let reached = tokio::time::timeout(REACH_TIMEOUT, reach).await;
        let position = || self.position.borrow().unwrap_or(0);
        reached.map_err(|_late| NoAnswer::Behind { position: position(), head })
    }

    /// Returns only when the log does not say where to start.
    async fn follow_from_start(&self) -> LogError {
        let head = match self.log.head(Stream::Activity).await {
            Ok(head) => head,
            Err(error) => {
                tokio::time::sleep(RETRY).await;
                return error;
            }
        };
        let start = head.saturating_sub(EVENTS_AT_START);
        *self.lock() = RecentActivity::default();
        self.position.send_replace(Some(start));
        let mut trust = self.trust.clone();
        let mut follow = self.log.follow(Stream::Activity, start);
        let mut reached = start;
        loop {
            match follow.next().await {
                Ok(entries) => {
                    for part in entries.chunks(EVENTS_AT_ONCE) {
                        self.fold(&mut trust, part);
                        tokio::task::yield_now().await;
                    }
                    reached = entries.last().map_or(reached, |it| it.position);
                }
                Err(error) => {
                    debug!(error = %chain(&error), "activity cannot be followed; trying again");
                    tokio::time::sleep(RETRY).await;
                    follow = self.log.follow(Stream::Activity, reached);
                }
            }
        }
    }

    fn fold(&self, trust: &mut Verifier, entries: &[Entry]) {
        let mut recent = self.lock();
        for entry in entries {
            match believed(trust, entry) {
                Some((tenant, time, activity)) => recent.apply(&tenant, time, activity),
                None => warn!(position = entry.position, "an event of ACTIVITY is left out: not ours, or unreadable"),
            }
        }
        drop(recent);
        self.position.send_replace(entries.last().map(|it| it.position));
    }

    fn lock(&self) -> MutexGuard<'_, RecentActivity> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an event says, of whom and when, if one of ours signed it.
fn believed(trust: &mut Verifier, entry: &Entry) -> Option<(TenantId, Timestamp, Activity)> {
    let (body, activity) = Activity::believed(trust, entry)?;
    Some((TenantId::parse(&body.tenant)?, Timestamp(body.time_ms), activity))
}

#[cfg(test)]
mod tests;
