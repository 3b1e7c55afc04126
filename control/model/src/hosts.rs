//! The hosts of an installation under its domain, its issuer, and authorities
//! (`HOST[:PORT]`) taken apart.
//!
//! Not here: the host at which connectors come in (`proto::enrolment`), and the
//! hosts that applications are published at.

/// Where identity sends a browser back to, on every published host.
pub const CALLBACK_PATH: &str = "/.postern/callback";

/// The hosts of our own under the domain of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a> {
    domain: &'a str,
}

impl<'a> Hosts<'a> {
    pub fn of(domain: &'a str) -> Self {
        Self { domain }
    }

    /// The sign-in pages and the OpenID provider.
    pub fn login(self) -> String {
        format!("login.{}", self.domain)
    }

    /// The portal.
    pub fn portal(self) -> String {
        format!("apps.{}", self.domain)
    }

    /// Who signs tokens, reached at a port (OpenID Connect Core, section 2).
    pub fn issuer(self, public_port: u16) -> String {
        format!("https://{}{}", self.login(), port_suffix(public_port))
    }

    /// Is it the issuer, at any port? It is the key that proves a token, and
    /// tokens from before the port changed go on.
    pub fn is_issuer(self, iss: &str) -> bool {
        let authority = iss.strip_prefix("https://").and_then(split_authority);
        authority
            .is_some_and(|(host, port)| host == self.login() && port.is_none_or(|port| port.parse::<u16>().is_ok()))
    }
}

/// `:PORT` behind the host of an https URL; nothing for the usual port and for 0.
pub fn port_suffix(port: u16) -> String {
    if matches!(port, 0 | 443) { String::new() } else { format!(":{port}") }
}

/// Splits `HOST[:PORT]` into host and port as they are written. An IPv6 address
/// keeps its brackets. `None` where something else follows it.
pub fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None => rest.is_empty().then_some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_its_own_issuer_at_any_port() {
        let ours = Hosts::of("example.com");
        assert_eq!((ours.login(), ours.portal()), ("login.example.com".into(), "apps.example.com".into()));
        assert_eq!(ours.issuer(443), "https://login.example.com");
        assert_eq!(ours.issuer(0), "https://login.example.com");
        assert_eq!(ours.issuer(8443), "https://login.example.com:8443");
        for port in [0, 443, 8443] {
            assert!(ours.is_issuer(&ours.issuer(port)));
        }
        for other in [
            "http://login.example.com",
            "https://login.example.com.evil.example",
            "https://login.example.com:",
            "https://login.example.com:99999",
            "https://login.example.com/",
            "https://apps.example.com",
            "https://alice@login.example.com",
            "",
        ] {
            assert!(!ours.is_issuer(other), "{other}");
        }
    }

    #[test]
    fn authorities_are_a_host_and_perhaps_a_port() {
        assert_eq!(split_authority("a.example:8443"), Some(("a.example", Some("8443"))));
        assert_eq!(split_authority("a.example"), Some(("a.example", None)));
        assert_eq!(split_authority("[::1]:80"), Some(("[::1]", Some("80"))));
        assert_eq!(split_authority("[::1]"), Some(("[::1]", None)));
        assert_eq!(split_authority("a:b:c"), Some(("a", Some("b:c"))));
        assert_eq!(split_authority("[::1]80"), None);
        assert_eq!(split_authority("[::1"), None);
    }
}
