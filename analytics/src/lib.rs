//! Follows ACTIVITY and tells the outside: sign-ins, accesses and connectors as
//! OCSF or CEF to files and syslog receivers, at least once, each with a cursor
//! that moves only after its sink acknowledged.
//!
//! Must never know: how relays route. Read: `record` (the table of fields),
//! `formats` (a record as a line), `delivery` (how lines get out and survive a
//! crash), `sinks` (where to), `settings`.

mod delivery;
pub mod formats;
mod metrics;
pub mod record;
mod settings;
mod sinks;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use eventlog::EventLog;
use model::event::Stream;
use proto::signed::Verifier;
use runtime::metrics::{Gauge, Metrics};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{delivery::Delivery, metrics::SinksMetrics};
pub use settings::{Settings, SettingsError, SinkSettings};

#[derive(Debug, Error)]
pub enum AnalyticsError {
    #[error("{attempted} {path}")]
    File { attempted: &'static str, path: String, source: io::Error },
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// How often the metric of each sink's lag is set.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// Delivers to every sink until `stop`. `trust` has the keys of every role that
/// writes ACTIVITY.
pub async fn run(
    settings: Settings,
    log: EventLog,
    trust: Verifier,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), AnalyticsError> {
    let metrics = SinksMetrics::register(&metrics);
    let mut tasks = JoinSet::new();
    let mut lags = Vec::new();
    let mut deliveries = Vec::new();
    for destination in settings.destinations()? {
        let of_sink = metrics.of(&destination.name);
        let lag = of_sink.lag.clone();
        let delivery = Delivery::open(destination, log.clone(), trust.clone(), of_sink, stop.clone())?;
        lags.push((delivery.cursor.shared(), lag));
        deliveries.push(delivery);
    }
    for delivery in deliveries {
        tasks.spawn(delivery.run());
    }
    tokio::select! {
        () = watch_lag(&log, &lags) => {}
        () = stop.cancelled() => {}
    }
    // A panic of one goes on here, as it did when there was one task.
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    Ok(())
}

/// Says how many events each sink is behind, for as long as it is polled.
async fn watch_lag(log: &EventLog, lags: &[(Arc<AtomicU64>, Gauge)]) {
    loop {
        if let Ok(head) = log.head(Stream::Activity).await {
            for (cursor, lag) in lags {
                lag.set(head.saturating_sub(cursor.load(Ordering::Relaxed)) as i64);
            }
        }
        tokio::time::sleep(LAG_INTERVAL).await;
    }
}

pub(crate) fn in_file(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AnalyticsError {
    let path = path.display().to_string();
    move |source| AnalyticsError::File { attempted, path, source }
}
