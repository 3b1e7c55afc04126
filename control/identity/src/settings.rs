//! Settings of identity, in TOML, environment (`POSTERN_IDENTITY_…`) or flags.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the connector beside it finds it: a unix socket.
    pub socket: PathBuf,
    /// `https://HOST:PORT` of controllers, for what users change about themselves.
    pub controllers: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { socket: "./identity.sock".into(), controllers: vec!["https://127.0.0.1:8444".into()] }
    }
}
