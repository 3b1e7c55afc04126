//! HTTP rules of an application (CORS, HSTS, robots.txt, response fields):
//! requests the relay answers itself, and what every answer of it carries.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use model::{
    App, Tenant,
    app::PreAuthentication,
    http_rules::{CorsRule, HeaderAction, HeaderRule, HttpRules},
};

/// Nobody has a session here but people; crawlers are told so (PUB-41).
const ROBOTS: &str = "User-agent: *\nDisallow: /\n";

/// A request that is answered before anybody is asked who they are.
pub(crate) fn answer(app: &App, parts: &Parts, path: &str) -> Option<Response<Bytes>> {
    if is_preflight(parts) && !app.http_rules.cors.is_empty() {
        return Some(preflight(&app.http_rules, parts, path));
    }
    let crawler = path == "/robots.txt" && matches!(parts.method, Method::GET | Method::HEAD);
    (crawler && app.pre_authentication == PreAuthentication::SignIn).then(robots)
}

fn robots() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(ROBOTS.as_bytes()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Fetch standard, section 3.2.2: browsers ask without credentials (PUB-22).
fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight(http_rules: &HttpRules, parts: &Parts, path: &str) -> Response<Bytes> {
    let text = |name: HeaderName| parts.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let method = text(header::ACCESS_CONTROL_REQUEST_METHOD);
    let names = text(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let allowed = rule(http_rules, &parts.headers, path).filter(|rule| {
        let mut names = names.split(',').map(str::trim).filter(|it| !it.is_empty());
        rule.allows_method(method) && names.all(|it| rule.allows_header(it))
    });
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = if allowed.is_some() { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(rule) = allowed {
        let echo = |headers: &mut HeaderMap, name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        echo(headers, header::ACCESS_CONTROL_ALLOW_METHODS, method);
        if !names.is_empty() {
            echo(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(rule.max_age_s));
    }
    response
}

fn rule<'a>(http_rules: &'a HttpRules, headers: &HeaderMap, path: &str) -> Option<&'a CorsRule> {
    let origin = headers.get(header::ORIGIN)?.to_str().ok()?;
    http_rules.cors.iter().find(|it| it.covers(path) && it.allows_origin(origin))
}

/// For every answer in the name of an application, a refusal too: a script must
/// be able to read that it has to sign in (PUB-23).
pub(crate) fn finish(headers: &mut HeaderMap, app: &App, parts: &Parts) {
    let http_rules = &app.http_rules;
    if let Some(hsts) = &http_rules.hsts {
        let subdomains = if hsts.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if hsts.preload { "; preload" } else { "" };
        let value = format!("max-age={}{subdomains}{preload}", hsts.max_age_s);
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
        }
    }
    if !http_rules.cors.is_empty() {
        allow_origin(headers, http_rules, parts);
    }
    for rule in &http_rules.response_headers {
        apply(headers, rule);
    }
}

/// Tells users of other versions where this one is (RFC 7838).
pub(crate) fn advertise(headers: &mut HeaderMap, tenant: &Tenant) {
    let port = if tenant.public_port == 0 { 443 } else { tenant.public_port };
    if let Ok(value) = HeaderValue::from_str(&format!("h3=\":{port}\"; ma=86400")) {
        headers.insert(header::ALT_SVC, value);
    }
}

/// Where there are rules, they are all that counts.
fn allow_origin(headers: &mut HeaderMap, http_rules: &HttpRules, parts: &Parts) {
    headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(rule) = rule(http_rules, &parts.headers, parts.uri.path()) else { return };
    if rule.allows_any_origin() {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else if let Some(origin) = parts.headers.get(header::ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

fn apply(headers: &mut HeaderMap, rule: &HeaderRule) {
    // Both were judged when the rule was made.
    let Ok(name) = HeaderName::from_bytes(rule.name.as_str().as_bytes()) else { return };
    match &rule.action {
        HeaderAction::Remove => {
            headers.remove(name);
        }
        HeaderAction::Set(value) => {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        HeaderAction::Add(value) => {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(name, value);
            }
        }
    }
}
