//! What a relay counts. Labels come from closed sets.

use proto::v1::Access;
use runtime::metrics::{Counter, EncodeLabelSet, Family, Gauge, Histogram, Metrics};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    /// 1xx to 5xx.
    pub status: &'static str,
    /// A refusal's code, or `forwarded`.
    pub refusal: String,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

pub(crate) struct RelayMetrics {
    requests: Family<Outcome, Counter>,
    /// Those of forwarded requests by class, found once.
    forwarded: [Counter; 5],
    pub seconds: Histogram,
    pub links: Gauge,
    pub links_revived: Counter,
    pub parked_streams: Gauge,
    pub connections: Gauge,
    pub connections_refused: Counter,
    pub cuts: Counter,
    pub malformed: Counter,
    pub accesses_dropped: Counter,
    pub open: Gauge,
    pub snapshot_age: Gauge,
}

impl RelayMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let requests = Family::<Outcome, Counter>::default();
        let forwarded = CLASSES.map(|status| {
            let outcome = Outcome { status, refusal: "forwarded".into() };
            requests.get_or_create(&outcome).clone()
        });
        let ours = Self {
            requests,
            forwarded,
            seconds: Histogram::new(buckets),
            links: Gauge::default(),
            links_revived: Counter::default(),
            parked_streams: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            cuts: Counter::default(),
            malformed: Counter::default(),
            accesses_dropped: Counter::default(),
            open: Gauge::default(),
            snapshot_age: Gauge::default(),
        };
        metrics.register("requests", "Requests by status class and refusal", ours.requests.clone());
        metrics.register(
            "request_seconds",
            "From the head of a request to the end of its response",
            ours.seconds.clone(),
        );
        metrics.register("links", "Connections to connectors", ours.links.clone());
        metrics.register(
            "links_revived",
            "Connections to connectors given up because no stream was left on them",
            ours.links_revived.clone(),
        );
        metrics.register("parked_streams", "Streams that wait for a request", ours.parked_streams.clone());
        metrics.register("connections", "Connections of users", ours.connections.clone());
        metrics.register("connections_refused", "Connections over a limit", ours.connections_refused.clone());
        metrics.register("cuts", "Open exchanges that were cut", ours.cuts.clone());
        metrics.register("malformed", "Connections that broke the grammar of HTTP", ours.malformed.clone());
        metrics.register("accesses_dropped", "Access events the log was too slow for", ours.accesses_dropped.clone());
        metrics.register("open_exchanges", "Exchanges with applications that are open", ours.open.clone());
        metrics.register(
            "snapshot_age_seconds",
            "Since the log last confirmed the snapshot",
            ours.snapshot_age.clone(),
        );
        ours
    }

    pub(crate) fn observe(&self, access: &Access) {
        let class = (access.status / 100).clamp(1, 5) as usize - 1;
        if access.refusal.is_empty() {
            self.forwarded[class].inc();
        } else {
            let outcome = Outcome { status: CLASSES[class], refusal: access.refusal.clone() };
            self.requests.get_or_create(&outcome).inc();
        }
        self.seconds.observe(f64::from(access.total_us) / 1e6);
    }
}
