//! A join token: who may join, through which relays, and whom to trust there.
//!
//! `postern1.` and base64url of JSON. It is a secret until it is used.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::ConnectorError;

const PREFIX: &str = "postern1.";

#[derive(Clone, Serialize, Deserialize)]
pub struct JoinToken {
    /// `HOST:PORT` of each relay.
    pub relays: Vec<String>,
    /// The name relays present on their connector endpoint.
    pub endpoint: String,
    /// SHA-256 of the authority's certificate, hexadecimal.
    pub authority: String,
}

impl JoinToken {
    /// The part a connector reads. The controller reads the rest.
    pub fn parse(token: &str) -> Result<Self, ConnectorError> {
        let encoded = token.trim().strip_prefix(PREFIX).ok_or(ConnectorError::Token)?;
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| ConnectorError::Token)?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| ConnectorError::Token)?;
        (!token.relays.is_empty()).then_some(token).ok_or(ConnectorError::Token)
    }
}
