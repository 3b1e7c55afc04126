//! What each sink has delivered, refused and not got yet. Labels are the names of
//! sinks in the settings, and closed sets.

use runtime::metrics::{Counter, EncodeLabelSet, Family, Gauge, Metrics};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSink {
    sink: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    sink: String,
    /// Why a record never reaches the sink.
    reason: &'static str,
}

/// None of ours signed the event, or it cannot be read.
const UNTRUSTED: &str = "untrusted";
/// The sink will never take it.
const REJECTED: &str = "rejected";

#[derive(Clone, Default)]
pub(crate) struct SinksMetrics {
    delivered: Family<OfSink, Counter>,
    refused: Family<OfReason, Counter>,
    retries: Family<OfSink, Counter>,
    lag: Family<OfSink, Gauge>,
}

/// The metrics of one sink.
pub(crate) struct SinkMetrics {
    pub delivered: Counter,
    pub untrusted: Counter,
    pub rejected: Counter,
    pub retries: Counter,
    pub lag: Gauge,
}

impl SinksMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let ours = Self::default();
        metrics.register("sink_delivered_records", "Records a sink has acknowledged", ours.delivered.clone());
        metrics.register("sink_refused_records", "Records that never reach a sink, by reason", ours.refused.clone());
        metrics.register("sink_retries", "Deliveries that failed and were tried again", ours.retries.clone());
        metrics.register("sink_lag_events", "Events of ACTIVITY a sink has not acknowledged", ours.lag.clone());
        ours
    }

    pub(crate) fn of(&self, sink: &str) -> SinkMetrics {
        let of_sink = OfSink { sink: sink.to_owned() };
        let refused = |reason| self.refused.get_or_create(&OfReason { sink: sink.to_owned(), reason }).clone();
        SinkMetrics {
            delivered: self.delivered.get_or_create(&of_sink).clone(),
            untrusted: refused(UNTRUSTED),
            rejected: refused(REJECTED),
            retries: self.retries.get_or_create(&of_sink).clone(),
            lag: self.lag.get_or_create(&of_sink).clone(),
        }
    }
}
