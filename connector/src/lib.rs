//! The agent beside the applications. It only ever dials out, and reaches only
//! the origins that the controller signed for its group.
//!
//! Must never know: NATS, policies, other groups' applications.
//!
//! Read: `enrol` (how it becomes somebody), `links` (connections to relays),
//! `serve` (one request), `origins` (what may be reached), `statements` (whose
//! request it is), `origin` (which place),
//! `backend` (getting there), `trust` (TLS to it).

pub mod backend;
pub mod dial;
pub mod enrol;
pub mod links;
pub mod origin;
pub mod origins;
pub mod serve;
pub mod settings;
pub mod statements;
pub mod trust;

use std::sync::Arc;

use proto::enrolment::{ConnectorUriFault, JoinTokenFault};
use runtime::{probes::Readiness, settings::SettingsError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use settings::Settings;

#[derive(Debug, Error)]
pub enum ConnectorError {
    #[error("the join token is not one: copy the whole line that `postern connector token` printed")]
    Token(#[from] JoinTokenFault),
    #[error("{attempted} {path}")]
    File { attempted: &'static str, path: String, source: std::io::Error },
    #[error("reaching the relay at {address}")]
    Dial { address: String, source: dial::DialError },
    #[error("talking to the relay at {address}")]
    Link { address: String, source: tunnel::TunnelError },
    #[error("the controller refused: {0}")]
    Refused(#[from] tunnel::link::GrpcStatus),
    #[error("making a key or a certificate request")]
    Certificate(#[from] rcgen::Error),
    #[error("preparing TLS")]
    Tls(#[from] rustls::Error),
    #[error("reading the connector's name in its certificate")]
    Name(#[from] ConnectorUriFault),
    #[error("this connector has not joined yet: postern-connector join TOKEN")]
    NotJoined,
    #[error("reading settings")]
    Settings(#[from] SettingsError),
}

/// A running connector.
pub struct Connector {
    links: Arc<links::Links>,
}

impl Connector {
    /// Loads what enrolment left and prepares the workers.
    pub fn prepare(settings: &Settings) -> Result<Self, ConnectorError> {
        Self::counting(settings, links::LinkMetrics::default())
    }

    /// With what it counts shown to somebody.
    pub fn counting(settings: &Settings, metrics: links::LinkMetrics) -> Result<Self, ConnectorError> {
        let identity = enrol::Identity::load(&settings.state)?;
        Ok(Self { links: Arc::new(links::Links::new(settings, identity, metrics)?) })
    }

    /// Serves until `stop`, then drains: no request fails, long ones get a
    /// grace period.
    pub async fn run(self, stop: CancellationToken) {
        self.links.run(stop).await;
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn certificate_ends(&self) -> impl Fn() -> Option<i64> + Send + Sync + 'static {
        let links = self.links.clone();
        move || links.certificate_ends_s()
    }

    pub fn readiness(&self) -> impl Fn() -> Readiness + Send + Sync + 'static {
        let links = self.links.clone();
        move || links.readiness()
    }
}
