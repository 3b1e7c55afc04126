//! Settings of a controller, in TOML, environment (`POSTERN_CONTROLLER_…`) or flags.

use std::net::SocketAddr;

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Admin API, and enrolment for relays to pass on.
    pub listen: SocketAddr,
    /// Hosts are published under this domain.
    pub domain: String,
    /// `HOST:PORT` of relays, written into join tokens and told to connectors,
    /// which follow changes. The same for every controller.
    pub relay_addresses: Vec<String>,
    /// Port users reach relays on, for the URLs that are printed.
    pub public_port: u16,
    /// Life of connector certificates; each is renewed at two thirds of it.
    pub connector_certificate_life_s: u32,
    /// Where certificates are ordered.
    pub acme: crate::acme::Settings,
    /// Whose the domains are that applications are published under.
    pub domains: crate::domains::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8444)),
            domain: "postern.localhost".into(),
            relay_addresses: vec!["127.0.0.1:8443".into()],
            public_port: 8443,
            connector_certificate_life_s: 24 * 3600,
            acme: crate::acme::Settings::default(),
            domains: crate::domains::Settings::default(),
        }
    }
}
