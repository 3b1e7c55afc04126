//! Header fields on their way to the application and back.
//!
//! Order matters: first what `Connection` names goes, then every spelling of
//! what we say ourselves, and only then do we say it (attack class R1).

use std::{fmt::Write, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use model::{
    App, Origin,
    app::{Claim, HostHeader, Scheme},
    http_rules::{HeaderAction, HeaderRule, Translate},
    session::SessionClaims,
    url_map::UrlMap,
};
use strict::{
    canonical::Canonical,
    fields::{OF_CONNECTION, names, weighted},
};
use tunnel::fields::Builder;

use crate::{refusal::Refusal, sessions::session::COOKIE_PREFIX};

/// What the relay adds for one request.
pub struct Added<'a> {
    /// Where the request goes.
    pub origin: &'a Origin,
    /// The protocols it may be upgraded to.
    pub upgrade: Option<&'a str>,
    pub peer: IpAddr,
    pub request_id: &'a str,
    pub traceparent: &'a str,
    pub user: Option<&'a SessionClaims>,
    pub assertion: Option<&'a str>,
    /// The user's certificate, where the application asked for one (RFC 9440).
    pub client_cert: Option<&'a str>,
    /// The Authorization field was a token of ours and ends here.
    pub took_authorization: bool,
}

/// Never forwarded: about this connection, or about what only we may say.
const ENDS_HERE: [&str; 23] = [
    "client-cert",
    "client-cert-chain",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
    "host",
    "cookie",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "postern-assertion",
];

/// Fields that servers and frameworks believe as if a proxy of theirs had said
/// them, and who does: about the path, the method, the client, its certificate or
/// its name. A user's are dropped unless the application asks for one
/// (`passed_fields`). Sorted; a `*` stands for the rest of a name. The table in
/// docs/fields.md is this one.
pub const BELIEVED: [(&str, &str); 68] = [
    ("base-url", "path: ASP.NET Core samples, Grafana set-ups"),
    ("cf-*", "client, name: Cloudflare and Cloudflare Access"),
    ("client-cert*", "certificate: RFC 9440"),
    ("client-ip", "client: PHP frameworks (HTTP_CLIENT_IP)"),
    ("fastly-*", "client: Fastly"),
    ("front-end-https", "scheme: Exchange, Outlook Web App"),
    ("http-client-ip", "client: PHP frameworks"),
    ("incap-client-ip", "client: Imperva"),
    ("iv-*", "name: IBM WebSEAL"),
    ("proxy", "outgoing proxy: CGI and PHP (httpoxy, CVE-2016-5385)"),
    ("proxy-*", "client, name: WebLogic, CGI"),
    ("remote-*", "client, name: Authelia, Authentik, CGI"),
    ("script-name", "path: WSGI middleware"),
    ("sm-*", "name: SiteMinder"),
    ("ssl-*", "certificate: Apache and nginx set-ups, Keycloak"),
    ("surrogate-capability", "rendering: Symfony, Drupal (edge-side includes)"),
    ("tailscale-*", "name: Tailscale Serve"),
    ("true-client-ip", "client: Akamai, Cloudflare"),
    ("wl-*", "client, certificate: WebLogic"),
    ("x-accel-*", "files: Rack::Sendfile"),
    ("x-amzn-mtls-*", "certificate: AWS load balancer"),
    ("x-amzn-oidc-*", "name: AWS load balancer"),
    ("x-appengine-*", "client, name: Google App Engine"),
    ("x-arr-*", "certificate, scheme: IIS with ARR"),
    ("x-auth-request-*", "name: oauth2-proxy"),
    ("x-authenticated-*", "name: many gateways"),
    ("x-authentik-*", "name: Authentik"),
    ("x-azure-*", "client: Azure Front Door"),
    ("x-base-url", "path: frameworks behind proxies"),
    ("x-client-cert*", "certificate: Java and nginx set-ups"),
    ("x-client-dn", "certificate: Java set-ups"),
    ("x-client-ip", "client: Apache mod_remoteip, Node.js"),
    ("x-client-verify", "certificate: nginx set-ups"),
    ("x-cluster-client-ip", "client: Rackspace, Riverbed, Node.js"),
    ("x-consumer-*", "name: Kong"),
    ("x-credential-*", "name: Kong"),
    ("x-envoy-*", "path, client, retries: Envoy, Istio"),
    ("x-forwarded", "client: Node.js"),
    ("x-forwarded-*", "client, host, scheme, port, path, method: nearly all"),
    ("x-goog-*", "name: Google Identity-Aware Proxy"),
    ("x-host", "host: frameworks behind proxies"),
    ("x-http-host-override", "host: Symfony, Zend"),
    ("x-http-method", "method: Microsoft OData"),
    ("x-http-method-override", "method: Rails, Express, Spring, Symfony"),
    ("x-https", "scheme: frameworks behind proxies"),
    ("x-iisnode-*", "name: iisnode"),
    ("x-method-override", "method: Express, IBM"),
    ("x-middleware-*", "path: Next.js (CVE-2025-29927)"),
    ("x-ms-*", "name: Azure App Service, Entra application proxy"),
    ("x-original-*", "path, host, method, client: IIS, Symfony, Zend, nginx ingress"),
    ("x-originating-ip", "client: mail gateways"),
    ("x-override-url", "path: Symfony, Zend"),
    ("x-pomerium-*", "name: Pomerium"),
    ("x-proxy-*", "client, path: proxies"),
    ("x-proxyuser-ip", "client: Google services"),
    ("x-real-ip", "client: nginx set-ups"),
    ("x-remote-*", "client, name: Kubernetes, Jenkins, many"),
    ("x-rewrite-url", "path: IIS URL Rewrite, Zend"),
    ("x-scheme", "scheme: nginx ingress, WSGI"),
    ("x-script-name", "path: WSGI middleware"),
    ("x-sendfile-type", "files: Rack::Sendfile"),
    ("x-ssl-*", "certificate: nginx and HAProxy set-ups"),
    ("x-tls-*", "certificate: HAProxy set-ups"),
    ("x-token-*", "name: Teleport, gateways"),
    ("x-url-scheme", "scheme: WSGI"),
    ("x-vouch-*", "name: Vouch Proxy"),
    ("x-waws-*", "path: Azure App Service"),
    ("x-webauth-*", "name: Grafana, Gitea"),
];

fn is_believed(name: &str) -> bool {
    // Nearly all names of browsers end here.
    if !matches!(
        name.as_bytes().first(),
        Some(b'x' | b'c' | b'f' | b'p' | b'r' | b's' | b't' | b'b' | b'h' | b'i' | b'w')
    ) {
        return false;
    }
    BELIEVED.iter().any(|(believed, _)| match believed.strip_suffix('*') {
        Some(front) => name.starts_with(front),
        None => *believed == name,
    })
}

/// The fields for the application, as a block.
pub fn forward(headers: &HeaderMap, app: &App, canonical: &Canonical, added: &Added<'_>) -> Result<Bytes, Refusal> {
    let mut block = Builder::with_capacity(1024);
    block.push("host", host_header(app, added.origin, canonical).as_bytes());
    let named: Vec<&str> = names(headers, &header::CONNECTION).collect();
    let is_guarded =
        |name: &str| is_ours(name) || app.identity_headers.iter().any(|it| it.name.as_str().eq_ignore_ascii_case(name));
    for (name, value) in headers {
        let name = name.as_str();
        if ends_here(name, &named, added.took_authorization) {
            continue;
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            match is_guarded(&as_variable(name)) {
                true => return Err(Refusal::BadRequest("a field whose name imitates one that the relay sets")),
                false => continue,
            }
        }
        let is_passed = || app.http_rules.passed_fields.iter().any(|it| it.covers(name));
        if is_guarded(name) || replaced_by_rule(app, name) || is_believed(name) && !is_passed() {
            continue;
        }
        match inside(name, value, app, added.origin, canonical) {
            Some(inside) => block.push(name, inside.as_bytes()),
            None => block.push(name, value.as_bytes()),
        }
    }
    if app.http_rules.translate != Translate::Headers {
        block.push("accept-encoding", translate::accepted_encoding(takes_gzip(headers)).as_bytes());
    }
    for rule in &app.http_rules.request_headers {
        match &rule.action {
            HeaderAction::Set(value) | HeaderAction::Add(value) => block.push(rule.name.as_str(), value.as_bytes()),
            HeaderAction::Remove => {}
        }
    }
    push_cookies(&mut block, headers);
    if let Some(upgrade) = added.upgrade {
        block.push("connection", b"upgrade");
        block.push("upgrade", upgrade.as_bytes());
    }
    // gRPC servers refuse calls that do not accept trailers.
    if names(headers, &header::TE).any(|it| it == "trailers") {
        block.push("te", b"trailers");
    }
    push_forwarded(&mut block, headers, app, canonical, added.peer);
    push_identity(&mut block, app, added);
    if let Some(client_cert) = added.client_cert {
        block.push("client-cert", client_cert.as_bytes());
    }
    block.push("x-request-id", added.request_id.as_bytes());
    block.push("traceparent", added.traceparent.as_bytes());
    Ok(block.finish())
}

/// CGI, WSGI, PHP, Rack and ASP.NET make `_` of all that is no letter or digit
/// (RFC 3875, section 4.1.18), so `X_User`, `X.User` and `X-User` are one to them.
/// The name that is guarded in that form has hyphens.
fn as_variable(name: &str) -> String {
    name.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect()
}

/// What a rule sets or removes does not come from the user.
fn replaced_by_rule(app: &App, name: &str) -> bool {
    let translated = app.http_rules.translate != Translate::Headers && name == "accept-encoding";
    let ruled = |rule: &HeaderRule| {
        !matches!(rule.action, HeaderAction::Add(_)) && rule.name.as_str().eq_ignore_ascii_case(name)
    };
    translated || app.http_rules.request_headers.iter().any(ruled)
}

/// Does the user take gzip? A weight of nothing says no (RFC 9110, 12.5.3).
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    weighted(headers, &header::ACCEPT_ENCODING)
        .any(|(coding, weight)| coding.eq_ignore_ascii_case("gzip") && weight > 0.0)
}

/// An application that is told its inside name compares these with it: CSRF
/// checks read Origin and Referer, WebDAV's MOVE and COPY read Destination.
fn inside(name: &str, value: &HeaderValue, app: &App, origin: &Origin, canonical: &Canonical) -> Option<String> {
    if app.host_header != HostHeader::Origin || !matches!(name, "origin" | "referer" | "destination") {
        return None;
    }
    let scheme = match origin.scheme {
        Scheme::Http | Scheme::H2c => "http",
        Scheme::Https => "https",
        Scheme::Unix => return None,
    };
    let rest = value.to_str().ok()?.strip_prefix("https://")?.strip_prefix(canonical.authority.as_str())?;
    let whole = rest.is_empty() || rest.starts_with('/');
    whole.then(|| format!("{scheme}://{}{rest}", host_header(app, origin, canonical)))
}

fn ends_here(name: &str, named: &[&str], took_authorization: bool) -> bool {
    ENDS_HERE.contains(&name)
        || named.iter().any(|it| it.eq_ignore_ascii_case(name))
        || (took_authorization && name == "authorization")
}

fn is_ours(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name.starts_with("postern-") || ENDS_HERE.contains(&name)
}

fn host_header(app: &App, origin: &Origin, canonical: &Canonical) -> String {
    match (app.host_header, origin.scheme) {
        (HostHeader::External, _) | (HostHeader::Origin, Scheme::Unix) => canonical.authority.clone(),
        (HostHeader::Origin, Scheme::Https) if origin.port == 443 => origin.host.to_string(),
        (HostHeader::Origin, Scheme::Http | Scheme::H2c) if origin.port == 80 => origin.host.to_string(),
        (HostHeader::Origin, Scheme::Http | Scheme::Https | Scheme::H2c) => format!("{}:{}", origin.host, origin.port),
    }
}

/// Crumbs become one field again (RFC 9113, section 8.2.3); our own stay here.
fn push_cookies(block: &mut Builder, headers: &HeaderMap) {
    let mut cookies = Vec::new();
    for value in headers.get_all(header::COOKIE) {
        for pair in value.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            if !pair.is_empty() && !pair.starts_with(COOKIE_PREFIX.as_bytes()) {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(pair);
            }
        }
    }
    if !cookies.is_empty() {
        block.push("cookie", &cookies);
    }
}

fn push_forwarded(block: &mut Builder, headers: &HeaderMap, app: &App, canonical: &Canonical, peer: IpAddr) {
    let peer = peer.to_canonical();
    let mut chain = String::new();
    if app.trusted_addresses.iter().any(|it| it.contains(&peer)) {
        for address in names(headers, &HeaderName::from_static("x-forwarded-for")) {
            // Only addresses are believed, even from a trusted proxy.
            if address.parse::<IpAddr>().is_ok() {
                chain.push_str(address);
                chain.push_str(", ");
            }
        }
    }
    // Writing into a String does not fail.
    let _written = write!(chain, "{peer}");
    block.push("x-forwarded-for", chain.as_bytes());
    block.push("x-forwarded-host", canonical.authority.as_bytes());
    block.push("x-forwarded-proto", b"https");
    let node = match peer {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    block.push("forwarded", format!("for={node};host=\"{}\";proto=https", canonical.authority).as_bytes());
}

/// The address policy judges: the socket's, or the last one a trusted proxy
/// of this application added.
pub fn client_address(headers: &HeaderMap, app: &App, peer: IpAddr) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| app.trusted_addresses.iter().any(|it| it.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let chain: Vec<&str> = names(headers, &HeaderName::from_static("x-forwarded-for")).collect();
    for address in chain.iter().rev() {
        match address.parse::<IpAddr>() {
            Ok(address) if is_trusted(&address) => continue,
            Ok(address) => return address.to_canonical(),
            // What cannot be read cannot be believed.
            Err(_) => return peer,
        }
    }
    peer
}

fn push_identity(block: &mut Builder, app: &App, added: &Added<'_>) {
    for identity in &app.identity_headers {
        let value = added.user.map_or(String::new(), |user| match identity.claim {
            Claim::Username => user.preferred_username.clone(),
            Claim::Email => user.email.clone(),
            Claim::DisplayName => user.name.clone(),
            Claim::UserId => user.sub.to_string(),
            Claim::Groups => user.group_names.join(","),
        });
        // Present even when empty, so that an application cannot mistake
        // "nobody said" for "somebody else may say".
        block.push(identity.name.as_str(), plain(&value).as_bytes());
    }
    if let Some(assertion) = added.assertion {
        block.push("postern-assertion", assertion.as_bytes());
    }
}

/// Names of people are UTF-8; control characters never leave.
fn plain(value: &str) -> String {
    value.chars().filter(|it| !it.is_control()).collect()
}

/// What comes back: nothing about connections, no cookie in our name, and no
/// address of the inside (PUB-25).
pub fn back(headers: &mut HeaderMap, authority: &str, links: impl FnOnce() -> UrlMap) {
    // Also where else the application can be reached (RFC 7838).
    for name in OF_CONNECTION.into_iter().chain([header::ALT_SVC, HeaderName::from_static("postern-refusal")]) {
        headers.remove(name);
    }
    if let header::Entry::Occupied(cookies) = headers.entry(header::SET_COOKIE)
        && cookies.iter().any(is_our_cookie)
    {
        let (_, values) = cookies.remove_entry_mult();
        let kept: Vec<HeaderValue> = values.filter(|it| !is_our_cookie(it)).collect();
        for value in kept {
            headers.append(header::SET_COOKIE, value);
        }
    }
    let has_links = URLS.iter().chain(&TEXTS).any(|it| headers.contains_key(it));
    if has_links || headers.contains_key(header::SET_COOKIE) {
        let links = links();
        translate_urls(headers, &links);
        own_cookies(headers, authority);
    }
}

/// One URL and nothing else.
const URLS: [HeaderName; 3] = [header::LOCATION, header::CONTENT_LOCATION, header::ACCESS_CONTROL_ALLOW_ORIGIN];

/// URLs among other things.
const TEXTS: [HeaderName; 4] =
    [header::REFRESH, header::LINK, header::CONTENT_SECURITY_POLICY, header::CONTENT_SECURITY_POLICY_REPORT_ONLY];

fn translate_urls(headers: &mut HeaderMap, links: &UrlMap) {
    let rewrite = |headers: &mut HeaderMap, name: &HeaderName, change: &dyn Fn(&str) -> Option<String>| {
        let header::Entry::Occupied(mut values) = headers.entry(name) else { return };
        for value in values.iter_mut() {
            let changed = value.to_str().ok().and_then(change);
            if let Some(changed) = changed.and_then(|it| HeaderValue::from_str(&it).ok()) {
                *value = changed;
            }
        }
    };
    for name in &URLS {
        rewrite(headers, name, &|value| links.external(value));
    }
    for name in &TEXTS {
        rewrite(headers, name, &|value| translate::text(links, value));
    }
}

/// A cookie for a domain of the inside becomes one for this host alone; the
/// browser would refuse it otherwise.
fn own_cookies(headers: &mut HeaderMap, authority: &str) {
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    let header::Entry::Occupied(mut cookies) = headers.entry(header::SET_COOKIE) else { return };
    for cookie in cookies.iter_mut() {
        let changed = cookie.to_str().ok().and_then(|it| without_foreign_domain(it, host));
        if let Some(changed) = changed.and_then(|it| HeaderValue::from_str(&it).ok()) {
            *cookie = changed;
        }
    }
}

fn without_foreign_domain(cookie: &str, host: &str) -> Option<String> {
    let is_foreign = |attribute: &&str| {
        let domain = attribute.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("domain"));
        domain.is_some_and(|(_, domain)| {
            let domain = domain.trim().trim_start_matches('.').to_ascii_lowercase();
            host != domain && !host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
        })
    };
    let mut parts = cookie.split(';');
    let pair = parts.next()?;
    let attributes: Vec<&str> = parts.collect();
    attributes.iter().any(&is_foreign).then(|| {
        let kept = attributes.iter().filter(|it| !is_foreign(it));
        kept.fold(pair.to_owned(), |all, it| all + ";" + it)
    })
}

fn is_our_cookie(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii_start().starts_with(COOKIE_PREFIX.as_bytes())
}

#[cfg(test)]
mod tests;
