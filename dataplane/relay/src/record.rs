//! What is remembered of a request: activity, metrics and traces.

pub(crate) mod activity;
pub(crate) mod metrics;
pub(crate) mod trace;
