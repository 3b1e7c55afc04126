//! Internal URLs to external ones: where a link to the inside leads from outside
//! (PUB-25, PUB-26).
//!
//! An application knows itself and its neighbours by inside addresses. Paths
//! are the same on both sides, so only the front of a URL is ever replaced.

use std::{collections::BTreeSet, sync::Arc};

use crate::{app::ExternalUrl, hosts::split_authority, ids::AppId, kinds::Tenant, origins::Address};

/// What is needed to translate the links of one response.
#[derive(Clone)]
pub struct UrlMap {
    tenant: Arc<Tenant>,
    app: AppId,
    /// What the user has in the address bar: host and port.
    authority: Arc<str>,
}

/// What stands at the front of a URL, and what should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Bytes of scheme and authority.
    pub len: usize,
    pub becomes: String,
}

/// How a URL begins, taken apart.
struct Begin<'a> {
    /// `None` for `//HOST`, which takes the scheme of the page.
    scheme: Option<&'a str>,
    authority: &'a str,
    /// Bytes of both.
    len: usize,
    path: &'a str,
}

impl UrlMap {
    pub fn new(tenant: Arc<Tenant>, app: AppId, authority: &str) -> Self {
        Self { tenant, app, authority: authority.into() }
    }

    /// What to write in place of the front of an absolute URL; `None` where it
    /// leads to nothing that is published.
    pub fn front(&self, url: &str) -> Option<Front> {
        let begin = Begin::of(url)?;
        let becomes = self.outside(&begin)?;
        let scheme = match begin.scheme {
            None => "",
            Some(it) if it.len() <= 3 && it.as_bytes()[0].eq_ignore_ascii_case(&b'w') => "wss:",
            Some(_) => "https:",
        };
        let becomes = format!("{scheme}//{becomes}");
        (becomes != url[..begin.len]).then_some(Front { len: begin.len, becomes })
    }

    /// The whole URL as it is from outside.
    pub fn external(&self, url: &str) -> Option<String> {
        self.front(url).map(|front| format!("{}{}", front.becomes, &url[front.len..]))
    }

    /// Host and port outside.
    fn outside(&self, begin: &Begin<'_>) -> Option<String> {
        if begin.authority.eq_ignore_ascii_case(&self.authority) {
            // Applications behind a proxy often believe they speak plain HTTP.
            return Some(self.authority.to_string());
        }
        let host = match begin.scheme {
            Some(scheme) => self.host_outside(is_tls(scheme), begin),
            None => self.host_outside(false, begin).or_else(|| self.host_outside(true, begin)),
        }?;
        let own_host = self.authority.split_once(':').map_or(self.authority.as_ref(), |(host, _)| host);
        Some(format!("{host}{}", &self.authority[own_host.len()..]))
    }

    /// By the address itself, or by the wildcard it is under.
    fn host_outside(&self, tls: bool, begin: &Begin<'_>) -> Option<String> {
        let (host, port) = split_port(begin.authority, tls)?;
        let host = host.to_ascii_lowercase();
        let named = |host: &str| {
            let address = Address { tls, host: host.into(), port };
            self.owner(self.tenant.by_origin.at(&address)?, begin.path)
        };
        if let Some(found) = named(&host) {
            return Some(found.host.to_string());
        }
        let (label, parent) = host.split_once('.')?;
        let found = named(&format!("*.{parent}"))?;
        Some(found.host.replacen('*', label, 1))
    }

    /// The outside address of what covers a path: the longest counts, and the
    /// application that answered keeps what nobody else has.
    fn owner(&self, apps: &BTreeSet<(AppId, u16)>, path: &str) -> Option<&ExternalUrl> {
        let url = |(id, segment): &(AppId, u16)| {
            let (external, _) = self.tenant.app(*id)?.addresses().nth(usize::from(*segment))?;
            Some((*id == self.app, external))
        };
        let covering = apps.iter().filter_map(url).filter(|(_, external)| external.covers(path));
        let best = covering.max_by_key(|(own, external)| (external.path.len(), *own));
        let best = best.or_else(|| apps.iter().filter_map(url).find(|(own, _)| *own));
        best.map(|(_, external)| external)
    }
}

fn is_tls(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
}

impl<'a> Begin<'a> {
    fn of(url: &'a str) -> Option<Self> {
        const SCHEMES: [&str; 4] = ["https", "http", "wss", "ws"];
        let scheme = match url.starts_with("//") {
            true => None,
            false => {
                let scheme = &url[..url.find("://")?];
                SCHEMES.iter().find(|it| it.eq_ignore_ascii_case(scheme))?;
                Some(scheme)
            }
        };
        let before = scheme.map_or(2, |it| it.len() + 3);
        let rest = &url[before..];
        let end = rest.find(|it: char| !(it.is_ascii_alphanumeric() || "-._:[]".contains(it))).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // A user name before the host, or a host that is no plain name, is not ours to read.
        let ends = !path.starts_with(|it: char| it == '@' || it == '%' || !it.is_ascii());
        (!authority.is_empty() && ends).then_some(Self { scheme, authority, len: before + end, path })
    }
}

fn split_port(authority: &str, tls: bool) -> Option<(&str, u16)> {
    let default = if tls { 443 } else { 80 };
    let (host, port) = split_authority(authority)?;
    Some((host, port.map_or(Some(default), |it| it.parse().ok())?))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        App, Event, Origin, Snapshot,
        app::Name,
        ids::{ConnectorGroupId, TenantId},
    };

    fn links(apps: &[(u8, &str, &str)]) -> UrlMap {
        let tenant = TenantId::default_tenant();
        let mut snapshot = Snapshot::default();
        for (n, external, origin) in apps {
            let app = App::new(
                AppId(Uuid::from_u128((*n).into())),
                Name::parse(&format!("app {n}")).unwrap(),
                crate::ExternalUrl::parse(external).unwrap(),
                Origin::parse(origin).unwrap(),
                ConnectorGroupId(Uuid::from_u128(9)),
            );
            snapshot.apply(&tenant, Event::put(app), 1);
        }
        UrlMap::new(snapshot.tenant(&tenant).unwrap().clone(), AppId(Uuid::from_u128(1)), "wiki.example.com:8443")
    }

    #[test]
    fn only_what_is_published_is_translated() {
        let links = links(&[
            (1, "https://wiki.example.com/", "http://wiki.corp:8080"),
            (2, "https://hr.example.com/", "https://hr.corp"),
            (3, "https://tools.example.com/git/", "http://tools.corp"),
            (4, "https://tools.example.com/ci/", "http://tools.corp"),
            (5, "https://*.dev.example.com/", "http://*.dev.corp"),
        ]);
        let cases = [
            ("http://wiki.corp:8080/a?b#c", Some("https://wiki.example.com:8443/a?b#c")),
            ("HTTP://Wiki.Corp:8080", Some("https://wiki.example.com:8443")),
            ("ws://wiki.corp:8080/live", Some("wss://wiki.example.com:8443/live")),
            ("//wiki.corp:8080/a", Some("//wiki.example.com:8443/a")),
            ("https://hr.corp/pay", Some("https://hr.example.com:8443/pay")),
            ("https://hr.corp:443/pay", Some("https://hr.example.com:8443/pay")),
            ("//hr.corp/pay", Some("//hr.example.com:8443/pay")),
            ("http://tools.corp/git/x", Some("https://tools.example.com:8443/git/x")),
            ("http://tools.corp/ci", Some("https://tools.example.com:8443/ci")),
            ("http://wiki.example.com:8443/there", Some("https://wiki.example.com:8443/there")),
            ("https://wiki.example.com:8443/there", None),
            ("http://a1.dev.corp/x", Some("https://a1.dev.example.com:8443/x")),
            ("http://a1.b.dev.corp/x", None),
            ("http://tools.corp/other", None),
            ("http://wiki.corp/", None),
            ("https://wiki.corp:8080/", None),
            ("http://wiki.corp:8080.evil.test/", None),
            ("http://wiki.corp:8080@evil.test/", None),
            ("http://user@wiki.corp:8080/", None),
            ("http://wiki.corp:80800/", None),
            ("http://elsewhere.test/http://wiki.corp:8080/", None),
            ("/relative", None),
            ("javascript://wiki.corp:8080/", None),
            ("http://", None),
            ("", None),
        ];
        for (inside, outside) in cases {
            assert_eq!(links.external(inside).as_deref(), outside, "{inside}");
        }
    }

    #[test]
    fn the_answering_application_keeps_what_nobody_else_has() {
        let links = links(&[
            (1, "https://wiki.example.com/wiki/", "http://all.corp"),
            (2, "https://shop.example.com/shop/", "http://all.corp"),
        ]);
        assert_eq!(links.external("http://all.corp/shop/1").unwrap(), "https://shop.example.com:8443/shop/1");
        assert_eq!(links.external("http://all.corp/style.css").unwrap(), "https://wiki.example.com:8443/style.css");
    }
}
