//! What relays do themselves with the HTTP of an application: maintenance,
//! cookies, CORS, header rules, HSTS, translated links, upgrades.
//!
//! Everything here is off, or at its safest, until an administrator says
//! otherwise; `Edge::default()` changes nothing on the wire.

use std::{fmt, num::NonZeroU32, sync::Arc};

use crate::text::{HeaderName, Invalid, is_token, is_under};

/// Rules of each kind per application. More would be a program, not a setting.
pub const RULES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 2048;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRules {
    /// Everybody is told to come back later (PUB-09).
    pub maintenance: bool,
    /// Where the portal leads, below the external URL (PUB-10).
    pub home_path: LocalPath,
    /// Strict-Transport-Security on every answer (PUB-40, RFC 6797).
    pub hsts: Option<Hsts>,
    pub cookie: CookieRules,
    /// First match counts; without any, CORS is the application's own matter.
    pub cors: Vec<CorsRule>,
    pub request_headers: Vec<HeaderRule>,
    pub response_headers: Vec<HeaderRule>,
    pub translate: Translate,
    /// Of one user, or of one address where nobody signs in (ERR-07).
    pub requests_per_minute: Option<NonZeroU32>,
    /// What a connection may be upgraded to, beside WebSockets.
    pub upgrades: Vec<UpgradeProtocol>,
    /// Fields of users that servers believe and that end at the relay otherwise.
    pub passed_fields: Vec<FieldPattern>,
}

impl HttpRules {
    /// May a connection be upgraded to a protocol of this name?
    pub fn allows_upgrade(&self, protocol: &str) -> bool {
        protocol.eq_ignore_ascii_case("websocket")
            || self.upgrades.iter().any(|it| it.as_str().eq_ignore_ascii_case(protocol))
    }
}

/// The name of a protocol in an Upgrade field (RFC 9110, section 7.8). Never one
/// of HTTP itself: after such a switch requests would flow that nobody judges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeProtocol(Arc<str>);

impl UpgradeProtocol {
    pub fn recorded(text: &str) -> Self {
        Self(text.into())
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let lower = text.to_ascii_lowercase();
        let name = lower.split('/').next().unwrap_or_default();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
        if !(1..=64).contains(&text.len()) || !text.bytes().all(is_token) {
            return Err(Invalid("a protocol has 1 to 64 letters, digits and marks, such as `SPDY/3.1`"));
        }
        match matches!(name, "h2c" | "h2" | "h3" | "http" | "https" | "tls") {
            true => Err(Invalid("HTTP in HTTP, and TLS, would carry requests that no policy judges")),
            false => Ok(Self(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a field in lower case, or the front of one and `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPattern(Arc<str>);

impl FieldPattern {
    pub fn recorded(text: &str) -> Self {
        Self(text.to_ascii_lowercase().into())
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let lower = text.to_ascii_lowercase();
        // What only Postern says stays its own.
        HeaderName::parse_rule(lower.strip_suffix('*').unwrap_or(&lower))?;
        Ok(Self(lower.into()))
    }

    pub fn covers(&self, lower_case_name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(front) => lower_case_name.starts_with(front),
            None => *self.0 == *lower_case_name,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far links to the inside are replaced in bodies (PUB-26 to PUB-28).
/// Headers are always translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Translate {
    #[default]
    Headers,
    /// HTML and CSS too.
    Pages,
    /// JSON and scripts too, wherever a whole URL is written.
    Everything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    pub max_age_s: u32,
    pub include_subdomains: bool,
    pub preload: bool,
}

/// Attributes of the session cookie. It is always Secure and HttpOnly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieRules {
    pub same_site: SameSite,
    /// Outlives the browser: as long as the session may last (PUB-32).
    pub persistent: bool,
    /// One per embedding site (CHIPS, PUB-33).
    pub partitioned: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    #[default]
    Lax,
    Strict,
    /// For applications inside frames of other sites.
    None,
}

impl SameSite {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}

/// Who may call an application from other sites (PUB-21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsRule {
    /// `/` for all; a prefix of whole segments.
    pub path: LocalPath,
    /// Exact origins; `*` for any, then without credentials.
    pub origins: Vec<Arc<str>>,
    pub methods: Vec<Arc<str>>,
    /// Lower case; `x-app-*` for all that begin so, `*` for any.
    pub headers: Vec<Arc<str>>,
    pub max_age_s: u32,
}

impl CorsRule {
    pub fn covers(&self, path: &str) -> bool {
        is_under(path, self.path.as_str())
    }

    pub fn allows_any_origin(&self) -> bool {
        self.origins.iter().any(|it| it.as_ref() == "*")
    }

    /// Origins are compared byte for byte (RFC 6454, section 6.2).
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.allows_any_origin() || self.origins.iter().any(|it| it.as_ref() == origin)
    }

    pub fn allows_method(&self, method: &str) -> bool {
        // Safe-listed by the Fetch standard, section 2.2.1.
        matches!(method, "GET" | "HEAD" | "POST") || self.methods.iter().any(|it| it.as_ref() == method)
    }

    pub fn allows_header(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.headers.iter().any(|it| match it.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => it.as_ref() == name,
        })
    }
}

impl CorsRule {
    pub fn check(&self) -> Result<(), Invalid> {
        const ORIGIN: Invalid = Invalid("a CORS origin is *, or SCHEME://HOST[:PORT] in lower case and without a path");
        const TOKEN: Invalid = Invalid("a CORS method is a word such as PUT; a header a name, a prefix* or *");
        if self.origins.is_empty() || self.origins.len() > RULES_MAX {
            return Err(ORIGIN);
        }
        if !self.origins.iter().all(|it| is_web_origin(it)) {
            return Err(ORIGIN);
        }
        let is_word = |it: &str| it.len() <= 64 && is_token(it) && !it.contains('*');
        let words = self.methods.iter().all(|it| is_word(it))
            && self.headers.iter().all(|it| &**it == "*" || is_word(it.strip_suffix('*').unwrap_or(it)));
        if !words || self.methods.len() > RULES_MAX || self.headers.len() > RULES_MAX {
            return Err(TOKEN);
        }
        LocalPath::parse(self.path.as_str()).map(|_| ())
    }
}

fn is_web_origin(text: &str) -> bool {
    let authority = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "https" | "http"));
    text == "*"
        || authority.is_some_and(|(_, it)| {
            !it.is_empty() && it.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]_".contains(&b))
        })
}

/// Sets, adds or removes one header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    pub name: HeaderName,
    pub action: HeaderAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderAction {
    /// In place of whatever is there.
    Set(Arc<str>),
    /// Beside what is there.
    Add(Arc<str>),
    Remove,
}

impl HeaderRule {
    /// `name` may be any field that does not frame messages, carry our cookies
    /// or say who the user is.
    pub fn parse(name: &str, action: HeaderAction) -> Result<Self, Invalid> {
        let rule = Self { name: HeaderName::parse_rule(name)?, action };
        rule.check()?;
        Ok(rule)
    }

    pub fn check(&self) -> Result<(), Invalid> {
        HeaderName::parse_rule(self.name.as_str())?;
        let valid = match &self.action {
            HeaderAction::Set(value) | HeaderAction::Add(value) => {
                value.len() <= VALUE_BYTES_MAX && value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
            }
            HeaderAction::Remove => true,
        };
        valid.then_some(()).ok_or(Invalid("a header value has at most 2,048 printable ASCII characters"))
    }
}

/// A path on the application's own host, `/` first and never anything that a
/// browser could read as another host.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalPath(Arc<str>);

impl LocalPath {
    pub fn recorded(text: &str) -> Self {
        if text.is_empty() { Self::default() } else { Self(text.into()) }
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&b));
        let local = text.starts_with('/') && !text.starts_with("//") && text.len() <= 1024;
        (plain && local)
            .then(|| Self(text.into()))
            .ok_or(Invalid("a path begins with one slash and has no spaces, quotes or backslashes"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LocalPath {
    fn default() -> Self {
        Self("/".into())
    }
}

impl fmt::Debug for LocalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
