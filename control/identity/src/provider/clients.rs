//! Who may ask for tokens, and where an answer may go.
//!
//! Every published application is a client, with its id. Relays act for it and
//! prove so with a secret; native programs come with PKCE alone and get their
//! answer on loopback (RFC 8252). The command line is a client of the admin API.

use std::collections::BTreeSet;

use model::{App, AppId, Requirement, Tenant, hosts::CALLBACK_PATH};
use tokens::ADMIN_AUDIENCE;
use url::Url;

use crate::sign_in::flow::{SignInRequest, Then};

pub(crate) const CLI: &str = "postern-cli";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    App(AppId),
    Cli,
}

impl Client {
    pub(crate) fn find(tenant: &Tenant, id: &str) -> Option<Self> {
        if id == CLI {
            return Some(Self::Cli);
        }
        let app = id.parse().ok()?;
        tenant.apps.contains_key(&app).then_some(Self::App(app))
    }

    pub(crate) fn id(&self) -> String {
        match self {
            Self::App(app) => app.to_string(),
            Self::Cli => CLI.to_owned(),
        }
    }

    /// What tokens for this client are good for.
    pub(crate) fn audience(&self) -> String {
        match self {
            Self::App(app) => app.to_string(),
            Self::Cli => ADMIN_AUDIENCE.to_owned(),
        }
    }

    /// A sign-in for this client.
    pub(crate) fn asks_for(&self, requirements: BTreeSet<Requirement>, then: Then) -> SignInRequest {
        let app = match self {
            Self::App(app) => Some(*app),
            Self::Cli => None,
        };
        // A device is somebody else's until the user proves it.
        let fresh = matches!(then, Then::ApproveDevice(_));
        SignInRequest { client: self.id(), app, requirements, choose: false, fresh, then }
    }

    pub(crate) fn app<'a>(&self, tenant: &'a Tenant) -> Option<&'a App> {
        match self {
            Self::App(app) => tenant.app(*app),
            Self::Cli => None,
        }
    }

    /// Compared part by part as URLs, never as text (attack class R6). `port`
    /// is the one the user reached us on.
    pub(crate) fn may_return_to(&self, tenant: &Tenant, redirect: &str, port: Option<u16>) -> Option<Return> {
        let url = Url::parse(redirect).ok()?;
        let plain =
            url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        if !plain || url.as_str() != redirect {
            return None;
        }
        let loopback = url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "[::1]"));
        if loopback && url.path() == "/callback" {
            return Some(Return::Loopback);
        }
        let app = self.app(tenant)?;
        let same = url.scheme() == "https"
            && app.addresses().any(|(it, _)| url.host_str().is_some_and(|host| it.label(host).is_some()))
            && url.path() == CALLBACK_PATH
            && url.port() == port.filter(|it| *it != 443);
        same.then_some(Return::Relay)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// To a relay, which must show the client's secret for the code.
    Relay,
    /// To a program on the user's machine.
    Loopback,
}
