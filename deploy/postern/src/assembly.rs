//! How a role is put together, the same for all who run it: a process of its own
//! (`roles`), everything in one (`up`), a simulation on virtual time.
//!
//! A role stands on a [`Base`]; what it shows of itself goes to [`Vitals`].
//!
//! Not here: where settings come from, signals, and in which order roles start.

pub mod controller;
pub mod identity;
pub mod relay;

use std::sync::Arc;

use eventlog::{EventLog, Journal, Projection};
use runtime::{
    Clock,
    endings::{Endings, What},
    metrics::Metrics,
    probes::{Check, Probes},
};

use tokens::TokenFaults;

use crate::{endings, keys::RoleKeys};

/// What a role stands on: its own keys, the log, and the log as folded so far.
pub struct Base<'a> {
    pub keys: &'a RoleKeys,
    pub log: &'a EventLog,
    pub projection: &'a Projection,
    pub clock: Clock,
    pub token_faults: TokenFaults,
    pub metrics: Metrics,
}

impl Base<'_> {
    fn journal(&self) -> anyhow::Result<Journal> {
        Ok(Journal::new(self.log.clone(), self.keys.signer()?))
    }
}

/// What a process shows of itself: readiness, metrics, and when what it holds ends.
pub struct Vitals {
    pub checks: Vec<Check>,
    pub metrics: Metrics,
    pub endings: Endings,
    pub token_faults: TokenFaults,
}

impl Default for Vitals {
    fn default() -> Self {
        let metrics = Metrics::default();
        Self {
            checks: vec![],
            endings: Endings::register(&metrics),
            token_faults: TokenFaults::register(&metrics),
            metrics,
        }
    }
}

impl Vitals {
    /// When certificates end that the snapshot knows.
    pub fn of_snapshot(&self, projection: &Projection) {
        endings::of_snapshot(&self.endings, projection);
    }

    /// A connector inside this process.
    pub fn of_connector(&mut self, connector: &connector::Connector) {
        self.checks.push(Arc::new(connector.readiness()));
        self.endings.tell(What::ConnectorCertificate, connector.certificate_ends());
    }

    pub fn probes(&self) -> Probes {
        Probes { checks: self.checks.clone(), metrics: self.metrics.clone() }
    }
}
