//! Settings of a connector, in TOML, environment (`POSTERN_CONNECTOR_…`) or flags.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::ConnectorError;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Key, certificate and relays, written by `join`. Mode 0700.
    pub state: PathBuf,
    /// `/livez`, `/readyz` and `/metrics`; none when unset.
    pub admin_listen: Option<SocketAddr>,
    /// HTTP proxy on the way out: `http://HOST:PORT`. Without it the usual
    /// variables count: HTTPS_PROXY, ALL_PROXY, NO_PROXY.
    pub proxy: Option<String>,
    /// A file with `user:password` for the proxy.
    pub proxy_credentials_file: Option<PathBuf>,
    /// Folder of HOST.pem: client certificates for https origins, each with its
    /// chain and key. They stay on this machine.
    pub client_certificates: Option<PathBuf>,
    /// How long exchanges may go on after SIGTERM.
    pub drain_grace_s: u64,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
    pub telemetry: runtime::telemetry::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state: "./postern-connector-state".into(),
            admin_listen: None,
            proxy: None,
            proxy_credentials_file: None,
            client_certificates: None,
            drain_grace_s: 30,
            threads: 0,
            telemetry: runtime::telemetry::Settings::default(),
        }
    }
}

impl Settings {
    /// A file if given, the environment, then flags; and the proxy variables.
    pub fn load(
        file: Option<&Path>,
        environment: &[(String, String)],
        flags: Vec<(String, String)>,
    ) -> Result<Self, ConnectorError> {
        let mut settings: Self =
            runtime::settings::load(file, "POSTERN_CONNECTOR", environment.iter().cloned(), flags)?;
        if settings.proxy.is_none() {
            settings.proxy = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].iter().find_map(|name| {
                environment.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.clone())
            });
        }
        Ok(settings)
    }
}
