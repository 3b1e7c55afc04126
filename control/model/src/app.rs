//! What is published: an application, its external URL and its origin.

use std::{borrow::Cow, fmt, net::Ipv6Addr, sync::Arc, time::Duration};

use ipnet::IpNet;

pub use crate::text::{HeaderName, Invalid, Name, Pin, is_host};
use crate::{
    directory::Principal,
    hosts::split_authority,
    http_rules::{HttpRules, LocalPath},
    ids::{AppId, ConnectorGroupId, is_label},
    text::{Labels, is_under},
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
    pub http_rules: HttpRules,
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
    /// Who may change it and its assignments, without a role.
    pub owners: Vec<Principal>,
    pub labels: Labels,
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
            http_rules: HttpRules::default(),
            segments: vec![],
            more_origins: vec![],
            health_path: None,
            sticky: false,
            origin_pins: vec![],
            owners: vec![],
            labels: Labels::new(),
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

/// `https://HOST[/PATH/]`: host in lower case, or `*.HOST` for every label
/// before it (PUB-15); path beginning and ending in `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalUrl {
    pub host: Arc<str>,
    pub path: Arc<str>,
}

impl ExternalUrl {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let url = Self::recorded(text)?;
        let wildcard = url.host.strip_prefix("*.");
        if !is_host(wildcard.unwrap_or(&url.host)) {
            return Err(Invalid("an external URL has a DNS host name or *.NAME, without user or address"));
        }
        if wildcard.is_some() && &*url.path != "/" {
            return Err(Invalid("a wildcard is published with all its paths"));
        }
        let plain = |segment: &str| {
            segment != "."
                && segment != ".."
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        if url.path.contains("//") || !url.path.split('/').all(plain) {
            return Err(Invalid("the path of an external URL has segments of letters, digits, '-', '.', '_' and '~'"));
        }
        Ok(url)
    }

    /// Host and path, without the port: where users reach relays is the same for all.
    pub fn recorded(text: &str) -> Result<Self, Invalid> {
        let rest = text.strip_prefix("https://").ok_or(Invalid("an external URL begins with https://"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.split_once(':').map_or(host, |(host, _port)| host).to_ascii_lowercase();
        let path = match path.is_empty() {
            true => "/".into(),
            false => format!("/{}/", path.strip_suffix('/').unwrap_or(path)).into(),
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

impl fmt::Display for ExternalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.host, self.path)
    }
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
        let origin = Self::recorded(text)?;
        let valid = match origin.host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => origin.scheme == Scheme::Unix || is_origin_host(&origin.host),
        };
        let short = origin.scheme != Scheme::Unix || origin.host.len() <= 107 && !origin.host.contains('\0');
        match (valid, short) {
            (true, true) => Ok(origin),
            (false, _) => Err(BAD_ORIGIN),
            (true, false) => Err(BAD_SOCKET),
        }
    }

    /// Scheme, host and port.
    pub fn recorded(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self { scheme: Scheme::Unix, host: path.into(), port: 0 }),
                false => Err(BAD_SOCKET),
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

const BAD_ORIGIN: Invalid =
    Invalid("an origin is SCHEME://HOST[:PORT] and nothing after it; paths are added by the user's request");
const BAD_SOCKET: Invalid = Invalid("a unix origin is unix:/ABSOLUTE/PATH of at most 107 bytes");

fn split_port(authority: &str, default_port: u16) -> Result<(&str, u16), Invalid> {
    let (host, port) = split_authority(authority).ok_or(BAD_ORIGIN)?;
    let port = match port {
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or(BAD_ORIGIN)?,
        None => default_port,
    };
    Ok((host, port))
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
