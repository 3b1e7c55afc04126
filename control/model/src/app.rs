//! What is published: an application, its external URL and its origin.

use std::{borrow::Cow, fmt, net::Ipv6Addr, sync::Arc, time::Duration};

use ipnet::IpNet;
use thiserror::Error;

use crate::{
    edge::{Edge, LocalPath},
    hosts::split_authority,
    ids::{AppId, ConnectorGroupId, is_label},
};

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Entra's default for the back end is 85 s (NUM rows of the parity table).
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(85);
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(85);
/// Older configuration than this refuses, unless the application opts in to more.
pub const STALENESS_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    pub id: AppId,
    pub name: Name,
    pub external: ExternalUrl,
    pub origin: Origin,
    pub group: ConnectorGroupId,
    pub pre_authentication: PreAuthentication,
    pub identity_headers: Vec<IdentityHeader>,
    /// Send `Postern-Assertion`, a signed JWT about the user.
    pub assertion: bool,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    pub idle_timeout: Duration,
    pub origin_ca_pem: String,
    /// Whose certificates users must show; empty asks for none (PUB-43).
    pub client_ca_pem: Arc<str>,
    pub origin_server_name: String,
    pub staleness_max: Duration,
    pub serve_when_stale: bool,
    pub hidden: bool,
    /// From here an incoming `X-Forwarded-For` is believed and continued.
    pub trusted_addresses: Vec<IpNet>,
    pub host_header: HostHeader,
    /// Let `%2F` and `%5C` in paths pass; they are refused otherwise.
    pub encoded_slashes: bool,
    pub edge: Edge,
    /// More addresses of a complex application: one sign-in, one policy (PUB-19).
    pub segments: Vec<Segment>,
    /// More places that serve what `origin` serves.
    pub more_origins: Vec<Origin>,
    /// Asked every few seconds where there are several origins; empty asks nothing.
    pub health_path: Option<LocalPath>,
    /// A session stays with one of several origins while that is up.
    pub sticky: bool,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) of an https origin; one
    /// must match, beside the usual verification.
    pub origin_pins: Vec<Pin>,
}

/// An outside address and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub external: ExternalUrl,
    pub origin: Origin,
}

/// Where a request for an application goes: which of its addresses, and the
/// label that stands for `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot<'a> {
    pub segment: u16,
    pub label: &'a str,
}

impl App {
    /// With everything that has a default at its default.
    pub fn new(id: AppId, name: Name, external: ExternalUrl, origin: Origin, group: ConnectorGroupId) -> Self {
        Self {
            id,
            name,
            external,
            origin,
            group,
            pre_authentication: PreAuthentication::SignIn,
            identity_headers: vec![],
            assertion: false,
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            origin_ca_pem: String::new(),
            client_ca_pem: Arc::default(),
            origin_server_name: String::new(),
            staleness_max: STALENESS_MAX,
            serve_when_stale: false,
            hidden: false,
            trusted_addresses: vec![],
            host_header: HostHeader::External,
            encoded_slashes: false,
            edge: Edge::default(),
            segments: vec![],
            more_origins: vec![],
            health_path: None,
            sticky: false,
            origin_pins: vec![],
        }
    }

    /// Every outside address and what is behind it, in the order of their
    /// segment numbers: the application's own is 0.
    pub fn addresses(&self) -> impl Iterator<Item = (&ExternalUrl, &Origin)> {
        let own = (&self.external, &self.origin);
        std::iter::once(own).chain(self.segments.iter().map(|it| (&it.external, &it.origin)))
    }

    /// The origin of one of its addresses; `None` where there is no such one.
    pub fn origin_at(&self, spot: Spot<'_>) -> Option<Cow<'_, Origin>> {
        let (_, origin) = self.addresses().nth(spot.segment.into())?;
        match origin.is_wildcard() {
            true => origin.named(spot.label).map(Cow::Owned),
            false => Some(Cow::Borrowed(origin)),
        }
    }
}

/// Which host the application sees. Most build links and check WebSocket
/// origins from it, so the external one is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    External,
    Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreAuthentication {
    /// Nobody passes without a session (PUB-07: "pre-authentication").
    SignIn,
    /// Everybody passes; policies without a user still hold.
    Passthrough,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeader {
    pub name: HeaderName,
    pub claim: Claim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Username,
    Email,
    DisplayName,
    UserId,
    Groups,
}

/// Why a text is not what it should be: the field's rule, in one sentence.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// A display name: 1 to 64 characters, none of them a control character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let valid = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        valid.then(|| Self(text.into())).ok_or(Invalid("a name has 1 to 64 characters and no control characters"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

const TAKEN: Invalid = Invalid("this header belongs to HTTP or to Postern; choose another name, such as X-Remote-User");

/// A header the administrator chose for a fact about the user, or for a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderName(Arc<str>);

impl HeaderName {
    /// Letters, digits and hyphens, and nothing that HTTP or Postern itself uses.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const ALSO_HTTP: [&str; 2] = ["authorization", "content-type"];
        match ALSO_HTTP.iter().any(|it| text.eq_ignore_ascii_case(it)) {
            true => Err(TAKEN),
            false => Self::parse_rule(text),
        }
    }

    /// Rules may also touch fields with a meaning of their own, such as
    /// Content-Type.
    pub fn parse_rule(text: &str) -> Result<Self, Invalid> {
        const OURS: [&str; 15] = [
            "host",
            "connection",
            "content-length",
            "transfer-encoding",
            "upgrade",
            "te",
            "trailer",
            "keep-alive",
            "expect",
            "cookie",
            "set-cookie",
            "forwarded",
            "proxy-authorization",
            "proxy-connection",
            "x-request-id",
        ];
        let lower = text.to_ascii_lowercase();
        let grammar = (1..=64).contains(&text.len())
            && lower.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !grammar {
            return Err(Invalid("a header name has 1 to 64 letters, digits and hyphens"));
        }
        let prefixed = lower.starts_with("x-forwarded-") || lower.starts_with("postern-");
        match OURS.contains(&lower.as_str()) || prefixed {
            true => Err(TAKEN),
            false => Ok(Self(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SHA-256, written in base64 (as RFC 7469 writes pins).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

/// `https://HOST[/PATH/]`: host in lower case, or `*.HOST` for every label
/// before it (PUB-15); path beginning and ending in `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalUrl {
    pub host: Arc<str>,
    pub path: Arc<str>,
}

impl ExternalUrl {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let rest = text.strip_prefix("https://").ok_or(Invalid("an external URL begins with https://"))?;
        let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
        let host = host.split_once(':').map_or(host, |(host, _port)| host).to_ascii_lowercase();
        let wildcard = host.strip_prefix("*.");
        if !is_host(wildcard.unwrap_or(&host)) {
            return Err(Invalid("an external URL has a DNS host name or *.NAME, without user or address"));
        }
        if wildcard.is_some() && !path.is_empty() {
            return Err(Invalid("a wildcard is published with all its paths"));
        }
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let plain = |segment: &&str| {
            *segment != "."
                && *segment != ".."
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        if path.starts_with('/') || path.contains("//") || !segments.iter().all(plain) {
            return Err(Invalid("the path of an external URL has segments of letters, digits, '-', '.', '_' and '~'"));
        }
        let path = match segments.is_empty() {
            true => "/".into(),
            false => format!("/{}/", segments.join("/")).into(),
        };
        Ok(Self { host: host.into(), path })
    }
}

impl ExternalUrl {
    pub fn is_wildcard(&self) -> bool {
        self.host.starts_with("*.")
    }

    /// The label that stands for `*` in a host; empty for the host itself.
    pub fn label<'a>(&self, host: &'a str) -> Option<&'a str> {
        match self.host.strip_prefix('*') {
            None => (*self.host == *host).then_some(""),
            Some(suffix) => host.strip_suffix(suffix).filter(|it| is_label(it)),
        }
    }

    /// `/wiki` and `/wiki/x` are under `/wiki/`; `/wikipedia` is not. `path` may
    /// carry a query.
    pub fn covers(&self, path: &str) -> bool {
        is_under(path, &self.path)
    }
}

/// Whole segments: `/wiki` and `/wiki/x` are under `/wiki/`, and under `/wiki`.
pub(crate) fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

impl fmt::Display for ExternalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.host, self.path)
    }
}

/// At least one label, at most 253 bytes, all labels valid.
pub fn is_host(host: &str) -> bool {
    host.len() <= 253 && host.split('.').all(is_label)
}

/// Where an application really is: exact scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub scheme: Scheme,
    /// Name, `*.NAME`, IPv4, `[IPv6]`, or the path of a unix socket.
    pub host: Arc<str>,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    Http,
    Https,
    /// HTTP/2 without TLS, as gRPC servers speak it.
    H2c,
    Unix,
}

impl Origin {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = text.strip_prefix("unix:") {
            let absolute = path.starts_with('/') && !path.contains('\0') && path.len() <= 107;
            return match absolute {
                true => Ok(Self { scheme: Scheme::Unix, host: path.into(), port: 0 }),
                false => Err(Invalid("a unix origin is unix:/ABSOLUTE/PATH of at most 107 bytes")),
            };
        }
        let (scheme, rest) =
            text.split_once("://").ok_or(Invalid("an origin begins with http://, https://, h2c:// or unix:/"))?;
        let (scheme, default_port) = match scheme {
            "http" => (Scheme::Http, 80),
            "https" => (Scheme::Https, 443),
            "h2c" => (Scheme::H2c, 80),
            _ => return Err(Invalid("an origin begins with http://, https://, h2c:// or unix:/")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split_port(authority, default_port)?;
        Ok(Self { scheme, host: host.to_ascii_lowercase().into(), port })
    }
}

impl Origin {
    pub fn is_wildcard(&self) -> bool {
        self.host.starts_with("*.")
    }

    /// What `*` stands for this time.
    pub fn named(&self, label: &str) -> Option<Self> {
        let suffix = self.host.strip_prefix('*')?;
        is_label(label).then(|| Self { host: format!("{label}{suffix}").into(), ..self.clone() })
    }
}

fn split_port(authority: &str, default_port: u16) -> Result<(&str, u16), Invalid> {
    const BAD: Invalid =
        Invalid("an origin is SCHEME://HOST[:PORT] and nothing after it; paths are added by the user's request");
    let (host, port) = split_authority(authority).ok_or(BAD)?;
    let port = match port {
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or(BAD)?,
        None => default_port,
    };
    let valid = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => is_origin_host(host),
    };
    valid.then_some((host, port)).ok_or(BAD)
}

/// Internal names may have underscores and capitals; nothing else is different.
fn is_origin_host(host: &str) -> bool {
    let host = host.to_ascii_lowercase().replace('_', "-");
    is_host(host.strip_prefix("*.").unwrap_or(&host))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Http => write!(f, "http://{}:{}", self.host, self.port),
            Scheme::Https => write!(f, "https://{}:{}", self.host, self.port),
            Scheme::H2c => write!(f, "h2c://{}:{}", self.host, self.port),
            Scheme::Unix => write!(f, "unix:{}", self.host),
        }
    }
}
