//! Sessions of signed-in browsers: one cookie at our own host, sealed, and
//! whether what it says still holds.

use http::HeaderMap;
use model::{ProviderId, SessionId, Tenant, Timestamp, UserId, session::SESSION_LIFE_S};
use runtime::secret::SharedSecret;
use serde::{Deserialize, Serialize};
use tokens::{
    TokenFault, TokenFaults, TokenKind,
    cookies::{Attributes, cookie, cookie_text},
};

use crate::current::Current;

const SSO_COOKIE: &str = "__Host-sso";

/// A signed-in browser.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct SsoSession {
    pub user: UserId,
    pub session: SessionId,
    pub started_ms: i64,
    pub amr: Vec<String>,
    /// The provider they came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderId>,
}

pub(crate) struct Sessions {
    current: Current,
    seal: SharedSecret,
    /// Counts cookies that are refused.
    faults: TokenFaults,
}

impl Sessions {
    pub(crate) fn new(current: Current, seal: SharedSecret, faults: TokenFaults) -> Self {
        Self { current, seal, faults }
    }

    /// The session of a browser, if it has one that holds.
    pub(crate) fn of_browser(&self, headers: &HeaderMap) -> Option<SsoSession> {
        let opened = self.seal.open("sso", cookie(headers, SSO_COOKIE)?).ok_or(TokenFault::Malformed);
        let checked = opened.and_then(|session| {
            self.check(&self.current.tenant(), &session)?;
            Ok(session)
        });
        self.faults.noted(TokenKind::SignedIn, checked).ok()
    }

    /// Whether a session still is one.
    pub(crate) fn check(&self, tenant: &Tenant, session: &SsoSession) -> Result<(), TokenFault> {
        let (user, started) = (session.user, Timestamp(session.started_ms));
        let over = tenant.session_is_over(user, session.session, started, self.current.now());
        match over || tenant.active_user(user).is_none() {
            true => Err(TokenFault::SessionOver),
            false => Ok(()),
        }
    }

    /// The cookie with which a browser is signed in from now on.
    pub(crate) fn cookie(&self, session: &SsoSession) -> Option<String> {
        Some(set_cookie(SSO_COOKIE, &self.seal.seal("sso", session)?, SESSION_LIFE_S))
    }

    /// The cookie with which it no longer is.
    pub(crate) fn no_cookie() -> String {
        set_cookie(SSO_COOKIE, "", 0)
    }
}

pub(crate) fn set_cookie(name: &str, value: &str, life_s: i64) -> String {
    cookie_text(name, value, &Attributes { life_s: Some(life_s), ..Attributes::default() })
}
