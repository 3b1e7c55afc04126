//! What is remembered of a request: activity, metrics and traces.

pub(crate) mod access;
pub(crate) mod activity;
pub(crate) mod metrics;
pub(crate) mod trace;

use std::{net::IpAddr, sync::Arc};

use eventlog::Activity;
use http::{header, request::Parts};
use model::{TenantId, activity::ConnectorEvent};
use proto::v1::{Access, ConnectorActivity};
use runtime::Clock;
use tracing::Span;

use crate::record::{access::Record, activity::ActivityLog, metrics::RelayMetrics};

/// Records in the name of one relay.
pub(crate) struct Recorder {
    pub relay: String,
    pub clock: Clock,
    pub activity: ActivityLog,
    pub metrics: Arc<RelayMetrics>,
}

impl Recorder {
    /// A request that has just come; what else is known of it is filled in later.
    pub(crate) fn begin(&self, peer: IpAddr, parts: &Parts, request_id: &str, span: &Span) -> Record {
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let access = Access {
            request_id: request_id.to_owned(),
            address: peer.to_canonical().to_string(),
            method: parts.method.as_str().to_owned(),
            user_agent: user_agent.chars().take(256).collect(),
            ..Default::default()
        };
        Record {
            access,
            tenant: TenantId::default_tenant(),
            started: self.clock.instant(),
            clock: self.clock,
            log: self.activity.clone(),
            metrics: self.metrics.clone(),
            span: span.clone(),
        }
    }

    /// What a connector does: it comes, goes, or is cut off.
    pub(crate) fn connector(&self, tenant: &TenantId, connector: String, what: ConnectorEvent, detail: &str) {
        let activity =
            ConnectorActivity { connector, relay: self.relay.clone(), what: what.into(), detail: detail.to_owned() };
        self.activity.record(tenant, self.clock.now_ms(), Activity::Connector(activity));
    }
}
