//! Expiry times of certificates, keys and tokens that this process holds, for metrics.
//!
//! Each kind is told by whoever holds it, as a question asked anew at every
//! scrape, so what was renewed since shows its new end.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::{Clock, metrics::Metrics, tls};

/// Kinds of things that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The certificate of the admin API.
    ControllerCertificate,
    /// The client certificate in `owner.json`.
    OwnerCredential,
    /// The certificate authority of the installation.
    Authority,
    /// The installation's own certificate for all hosts of its domain.
    PublicCertificate,
    /// Ordered from an ACME server; the one that ends first.
    OrderedCertificate,
    /// Brought by an administrator; the one that ends first.
    BroughtCertificate,
    /// A connector's client certificate.
    ConnectorCertificate,
    /// The client certificate this role shows to the broker.
    BrokerCertificate,
    /// The authority the broker's certificate chains to; the one that ends first.
    BrokerAuthority,
}

impl What {
    pub const ALL: [Self; 9] = [
        Self::ControllerCertificate,
        Self::OwnerCredential,
        Self::Authority,
        Self::PublicCertificate,
        Self::OrderedCertificate,
        Self::BroughtCertificate,
        Self::ConnectorCertificate,
        Self::BrokerCertificate,
        Self::BrokerAuthority,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ControllerCertificate => "controller_certificate",
            Self::OwnerCredential => "owner_credential",
            Self::Authority => "authority",
            Self::PublicCertificate => "public_certificate",
            Self::OrderedCertificate => "ordered_certificate",
            Self::BroughtCertificate => "brought_certificate",
            Self::ConnectorCertificate => "connector_certificate",
            Self::BrokerCertificate => "broker_certificate",
            Self::BrokerAuthority => "broker_authority",
        }
    }
}

/// Ends in seconds since 1970; none if there is no such thing now.
type Question = Box<dyn Fn() -> Option<i64> + Send + Sync>;

#[derive(Clone, Default)]
pub struct Endings(Arc<Mutex<BTreeMap<What, Vec<Question>>>>);

impl Endings {
    pub fn register(metrics: &Metrics) -> Self {
        let ours = Self::default();
        metrics.register_collector(Box::new(ours.clone()));
        ours
    }

    pub fn tell(&self, what: What, ends_s: impl Fn() -> Option<i64> + Send + Sync + 'static) {
        let mut questions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        questions.entry(what).or_default().push(Box::new(ends_s));
    }

    /// The first certificate of a PEM file that ends.
    pub fn tell_file(&self, what: What, path: PathBuf) {
        self.tell(what, move || {
            let ders = tls::pem_certificates(&std::fs::read(&path).ok()?).ok()?;
            ders.iter().filter_map(|der| tls::validity_s(der)).map(|(_, end_s)| end_s).min()
        });
    }

    /// Of each kind the one that ends first.
    fn all(&self) -> Vec<(What, i64)> {
        let questions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let soonest = |(what, asked): (&What, &Vec<Question>)| Some((*what, asked.iter().filter_map(|it| it()).min()?));
        questions.iter().filter_map(soonest).collect()
    }
}

impl fmt::Debug for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endings")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    what: &'static str,
}

impl Collector for Endings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.all();
        if all.is_empty() {
            return Ok(());
        }
        let help = "Until it ends, unless it is renewed before; negative when it has";
        let mut family: MetricEncoder<'_> =
            encoder.encode_descriptor("expires_seconds", help, None, MetricType::Gauge)?;
        let now_s = Clock::default().now_ms() / 1000;
        for (what, end_s) in all {
            let labels = Labels { what: what.name() };
            ConstGauge::new(end_s - now_s).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_shows_the_one_that_ends_first() {
        let metrics = Metrics::default();
        let endings = Endings::register(&metrics);
        assert!(!metrics.text().contains("expires_seconds"));
        let now_s = Clock::default().now_ms() / 1000;
        endings.tell(What::Authority, move || Some(now_s + 100_000));
        endings.tell(What::Authority, move || Some(now_s - 100_000));
        endings.tell(What::OwnerCredential, || None);
        let text = metrics.text();
        let line = text.lines().find(|it| it.starts_with("postern_expires_seconds{what=\"authority\"} -")).unwrap();
        let left: i64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((-100_002..=-100_000).contains(&left), "{line}");
        assert!(!text.contains("owner_credential"), "{text}");
        assert_eq!(What::ALL.map(What::name).iter().collect::<std::collections::BTreeSet<_>>().len(), 9);
    }
}
