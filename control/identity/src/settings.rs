//! Settings of identity, in TOML, environment (`POSTERN_IDENTITY_…`) or flags.

use std::path::PathBuf;

use model::session::TOKEN_LIFE_S;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the connector beside it finds it: a unix socket.
    pub socket: PathBuf,
    /// `https://HOST:PORT` of controllers, for what users change about themselves.
    pub controllers: Vec<String>,
    /// Life of a session token; each use past half of it renews it silently.
    pub token_life_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let controllers = vec!["https://127.0.0.1:8444".into()];
        Self { socket: "./identity.sock".into(), controllers, token_life_s: TOKEN_LIFE_S as u32 }
    }
}
