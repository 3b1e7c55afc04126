//! A request that belongs to a published application: what was asked, by whom,
//! and what it is judged by.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use eventlog::View;
use http::{HeaderMap, Method, StatusCode, request::Parts};
use model::{
    App, Origin, Tenant, TenantId, Timestamp, app::Spot, http_rules::Translate, snapshot::Published, url_map::UrlMap,
};
use strict::canonical::Canonical;
use translate::Translator;

use crate::{
    forward::headers, keys::TenantKeys, open::user_connection::UserConnection, sessions::identity::IdentityRequest,
};

/// A request that belongs to a published application.
pub(crate) struct Routed<'a> {
    pub connection: &'a UserConnection,
    pub parts: &'a Parts,
    pub canonical: &'a Canonical,
    pub view: &'a View,
    pub keys: &'a TenantKeys,
    pub tenant_id: &'a TenantId,
    pub tenant: &'a Arc<Tenant>,
    pub published: &'a Published,
    pub spot: Spot<'a>,
    /// What is behind the address that was asked for.
    pub origin: Cow<'a, Origin>,
    /// Protocols that are asked for and that the application may switch to.
    pub upgrade: Option<String>,
    pub now: Timestamp,
}

impl Routed<'_> {
    pub(crate) fn app(&self) -> &App {
        &self.published.object
    }

    pub(crate) fn links(&self) -> UrlMap {
        UrlMap::new(self.tenant.clone(), self.app().id, &self.canonical.authority)
    }

    /// For a response whose body is to be translated.
    pub(crate) fn translator(&self, status: StatusCode, headers: &mut HeaderMap) -> Option<Translator> {
        let depth = self.app().http_rules.translate;
        if depth == Translate::Headers || self.parts.method == Method::HEAD {
            return None;
        }
        let takes_gzip = headers::takes_gzip(&self.parts.headers);
        Translator::begin(status, headers, takes_gzip, depth, &self.links())
    }

    /// The address policy judges.
    pub(crate) fn address(&self) -> IpAddr {
        headers::client_address(&self.parts.headers, self.app(), self.connection.peer)
    }

    /// For a question to identity about this user.
    pub(crate) fn asking(&self) -> IdentityRequest {
        let (tenant, app) = (self.tenant_id.clone(), self.app().id);
        IdentityRequest { tenant, app, address: self.address(), thread: self.connection.thread }
    }
}
