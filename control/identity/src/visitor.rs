//! The browser or program that asks, as far as the relay before us tells.

use http::HeaderMap;
use model::hosts::split_authority;

pub(crate) struct Visitor {
    pub headers: HeaderMap,
    pub address: String,
    pub user_agent: String,
    /// The port users reach us on.
    pub port: Option<u16>,
}

impl Visitor {
    pub(crate) fn of(headers: HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
        // Only relays reach us, and the last address is the one they saw.
        let address = text("x-forwarded-for").rsplit(',').next().unwrap_or_default().trim().to_owned();
        let port = split_authority(&text("host")).and_then(|(_, port)| port?.parse().ok());
        let user_agent = text("user-agent").chars().take(256).collect();
        Self { address, user_agent, port, headers }
    }
}
