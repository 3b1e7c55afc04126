//! What lies between two steps of a sign-in, sealed into the page: nothing is
//! kept here, and nothing in it can be changed or used in another browser.

use std::collections::BTreeSet;

use model::{Requirement, SessionId, UserId};
use serde::{Deserialize, Serialize};
use tokens::cookies::{Attributes, cookie_text};
pub(crate) use tokens::random_text::{hash, random_token};

/// A page may lie open for this long.
pub(crate) const FLOW_LIFE_S: i64 = 900;

/// What was asked for, checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub client: String,
    pub redirect_uri: String,
    pub state: String,
    pub nonce: String,
    pub challenge: String,
    /// What the client wants shown, beside what policies ask.
    pub requirements: BTreeSet<Requirement>,
    /// A device waits for this sign-in, by its user code.
    pub device: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub asked: Asked,
    /// SHA-256 of the browser's cookie.
    pub browser: String,
    pub exp: i64,
    /// Who has shown the right password.
    pub user: Option<UserId>,
    /// A session that is made stronger, not begun.
    pub session: Option<SsoSession>,
    /// A TOTP secret that is being set up, base64url.
    pub new_totp: Option<String>,
}

/// A signed-in browser.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct SsoSession {
    pub user: UserId,
    pub session: SessionId,
    pub started_ms: i64,
    pub amr: Vec<String>,
}

pub(crate) const SSO_COOKIE: &str = "__Host-sso";
pub(crate) const BROWSER_COOKIE: &str = "__Host-signin";

pub(crate) fn set_cookie(name: &str, value: &str, life_s: Option<i64>) -> String {
    cookie_text(name, value, &Attributes { life_s, ..Attributes::default() })
}
