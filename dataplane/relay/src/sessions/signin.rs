//! Signing a user in: to identity and back, as an OpenID client (authorization
//! code, PKCE S256, sealed state), and silent renewal.
//!
//! `state` seals the application and the way back, so a return address cannot
//! be chosen by anybody but us. It is bound to the browser by a cookie, from
//! which any relay can make the PKCE verifier again: relays keep nothing.

use std::collections::BTreeSet;

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use model::{
    App, AppId, Requirement, Timestamp,
    http_rules::{CookieRules, SameSite},
    session::SESSION_LIFE_S,
};
use runtime::secret::SharedSecret;
use serde::{Deserialize, Serialize};
use strict::canonical::Canonical;
use tokens::{
    clients::client_secret,
    cookies::{Attributes, cookie, cookie_text},
    random_text::{hash, random_token},
};
use url::form_urlencoded;

use crate::{
    keys::TenantKeys,
    refusal::Refusal,
    sessions::session::{COOKIE_PREFIX, Session, cookie_name},
    settings::SIGN_IN_LIFE_S,
};

/// Paths of ours on every published host.
pub const OUR_PATHS: &str = "/.postern/";
pub use model::hosts::CALLBACK_PATH as CALLBACK;
pub const SIGN_OUT: &str = "/.postern/signout";
pub const ASSERTION_KEYS: &str = "/.postern/keys";
pub const TEST: &str = "/.postern/test";

/// Holds what binds a sign-in to this browser.
const BROWSER_COOKIE: &str = "__Host-postern-browser";

/// What `state` is sealed for.
const STATE: &str = "sign-in state";

#[derive(Serialize, Deserialize)]
struct State {
    id: String,
    app: AppId,
    /// SHA-256 of the browser's cookie.
    browser: String,
    /// Path and query on the application's own host.
    back: String,
    exp: i64,
    /// What identity is asked to have the user show.
    asked: BTreeSet<Requirement>,
}

/// Sends the user to identity, for what their session has not shown.
pub fn begin(
    keys: &TenantKeys,
    app: &App,
    canonical: &Canonical,
    headers: &HeaderMap,
    now: Timestamp,
    missing: BTreeSet<Requirement>,
) -> Result<Response<Bytes>, Refusal> {
    let secret = keys.secret(now).ok_or(Refusal::NotReady)?;
    let held = cookie(headers, BROWSER_COOKIE).filter(|it| it.len() == 43);
    let browser = held.map_or_else(random_token, str::to_owned);
    let state = State {
        id: random_token(),
        app: app.id,
        browser: hash(&browser),
        back: canonical.target.clone(),
        exp: now.seconds() + SIGN_IN_LIFE_S,
        asked: missing.clone(),
    };
    let challenge = hash(&verifier(secret, &browser, &state.id));
    let sealed = secret.seal(STATE, &state).ok_or(Refusal::NotReady)?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &app.id.to_string())
        .append_pair("redirect_uri", &callback_url(canonical))
        .append_pair("scope", "openid")
        .append_pair("state", &sealed)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .append_pair("nonce", &state.id);
    if !missing.is_empty() {
        query.append_pair("acr_values", &Requirement::list(&missing));
    }
    // The port users came through is the port identity is reached on.
    let port =
        canonical.authority.strip_prefix(&canonical.host).filter(|_| canonical.authority.len() > canonical.host.len());
    let location = format!("https://{}{}/authorize?{}", keys.login_host, port.unwrap_or(""), query.finish());
    let mut response = redirect(&location)?;
    // Identity's redirect back comes from another site, which Strict would hide.
    let same_site = match app.http_rules.cookie.same_site {
        SameSite::Strict => SameSite::Lax,
        same @ (SameSite::Lax | SameSite::None) => same,
    };
    let rules = CookieRules { same_site, ..app.http_rules.cookie };
    set_cookie(&mut response, BROWSER_COOKIE, &browser, Some(SIGN_IN_LIFE_S), rules)?;
    Ok(response)
}

/// What the token endpoint is asked.
#[derive(Debug)]
pub struct CodeExchange {
    pub form: String,
    pub back: String,
    pub nonce: String,
    pub asked: BTreeSet<Requirement>,
}

/// Reads what identity sent the browser back with.
pub fn callback(
    keys: &TenantKeys,
    canonical: &Canonical,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<(AppId, CodeExchange), Refusal> {
    const FAILED: fn(&'static str) -> Refusal = Refusal::SignInFailed;
    let query = canonical.target.split_once('?').map_or("", |(_, query)| query);
    let value = |name: &str| {
        let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(it, _)| it == name);
        let first = found.next()?.1.into_owned();
        found.next().is_none().then_some(first)
    };
    let sealed = value("state").ok_or(FAILED("no state"))?;
    let (state, secret): (State, _) = keys.open(STATE, &sealed).ok_or(FAILED("a state that is not ours"))?;
    let browser = cookie(headers, BROWSER_COOKIE).ok_or(FAILED("another browser began"))?;
    if hash(browser) != state.browser {
        return Err(FAILED("another browser began"));
    }
    if now.seconds() > state.exp {
        return Err(FAILED("it took too long"));
    }
    if value("iss").is_some_and(|iss| !keys.is_issuer(&iss)) {
        return Err(FAILED("another issuer answered"));
    }
    let code = value("code").ok_or(FAILED("identity refused"))?;
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "authorization_code")
        .append_pair("code", &code)
        .append_pair("redirect_uri", &callback_url(canonical))
        .append_pair("code_verifier", &verifier(secret, browser, &state.id))
        .append_pair("client_id", &state.app.to_string())
        .append_pair("client_secret", &client_secret(secret, &state.app.to_string()))
        .finish();
    Ok((state.app, CodeExchange { form, back: state.back, nonce: state.id, asked: state.asked }))
}

/// The end of a sign-in: the token in a cookie, the user where they wanted to go.
pub fn finish(app: &App, session: &Session, back: &str, now: Timestamp) -> Result<Response<Bytes>, Refusal> {
    // Sealed by us, and still only ever a path.
    let is_path =
        back.starts_with('/') && !back.starts_with("//") && back.bytes().all(|it| it.is_ascii_graphic() && it != b'\\');
    let back = if is_path { back } else { "/" };
    let mut response = match app.http_rules.cookie.same_site {
        // A redirect from another site goes on without Strict cookies, for ever.
        SameSite::Strict => step(back),
        SameSite::Lax | SameSite::None => redirect(back)?,
    };
    let life_s = cookie_life_s(app, session, now);
    set_cookie(&mut response, &cookie_name(app.id), &session.token, life_s, app.http_rules.cookie)?;
    Ok(response)
}

/// As long as the session may be renewed, where it is to outlive the browser.
fn cookie_life_s(app: &App, session: &Session, now: Timestamp) -> Option<i64> {
    let ends_s = session.claims.started_ms / 1000 + SESSION_LIFE_S;
    app.http_rules.cookie.persistent.then(|| (ends_s - now.seconds()).max(0))
}

/// A page of our own that goes on by itself, fragment and all.
fn step(back: &str) -> Response<Bytes> {
    let page = Step { back, script: STEP_SCRIPT };
    // The template is checked when it is compiled.
    let mut response = Response::new(Bytes::from(page.render().unwrap_or_default()));
    let headers = response.headers_mut();
    let hash = STANDARD.encode(digest(&SHA256, STEP_SCRIPT.as_bytes()));
    let policy = format!("default-src 'none'; script-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'self'");
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

const STEP_SCRIPT: &str = "location.replace(document.querySelector('a').href + location.hash)";

#[derive(Template)]
#[template(path = "step.html")]
struct Step<'a> {
    back: &'a str,
    script: &'a str,
}

/// Out of this application and on to identity, which ends the session everywhere.
pub fn sign_out(keys: &TenantKeys, app: &App, canonical: &Canonical) -> Result<Response<Bytes>, Refusal> {
    let port = canonical.authority.strip_prefix(&canonical.host).unwrap_or("");
    let mut response = redirect(&format!("https://{}{port}/signout", keys.login_host))?;
    set_cookie(&mut response, &cookie_name(app.id), "", Some(0), app.http_rules.cookie)?;
    Ok(response)
}

/// The form that asks identity for a fresh token (RFC 8693).
pub fn renewal_form(secret: &SharedSecret, app: AppId, token: &str) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
        .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:id_token")
        .append_pair("subject_token", token)
        .append_pair("client_id", &app.to_string())
        .append_pair("client_secret", &client_secret(secret, &app.to_string()))
        .finish()
}

/// The cookie of a renewed session, for a response that is on its way.
pub fn renewed_cookie(app: &App, session: &Session, now: Timestamp) -> Option<HeaderValue> {
    let life_s = cookie_life_s(app, session, now);
    let attributes = attributes(life_s, app.http_rules.cookie);
    HeaderValue::from_str(&cookie_text(&cookie_name(app.id), &session.token, &attributes)).ok()
}

/// A PKCE verifier that any relay can make again from what the browser holds.
fn verifier(secret: &SharedSecret, browser: &str, state_id: &str) -> String {
    secret.tag("pkce", &format!("{browser}.{state_id}"))
}

/// From `app.example.com.` to `app.example.com`: one name, and one set of cookies.
pub fn to_usual_name(canonical: &Canonical) -> Result<Response<Bytes>, Refusal> {
    let mut response = redirect(&format!("https://{}{}", canonical.authority, canonical.target))?;
    // With its method and body (RFC 9110, section 15.4.8).
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    Ok(response)
}

fn callback_url(canonical: &Canonical) -> String {
    format!("https://{}{CALLBACK}", canonical.authority)
}

fn redirect(location: &str) -> Result<Response<Bytes>, Refusal> {
    let mut response = Response::new(Bytes::new());
    // 303: a POST that had to sign in first is not repeated elsewhere.
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    let location = HeaderValue::from_str(location)
        .map_err(|_| Refusal::BadRequest("the request target cannot be sent as Location"))?;
    headers.insert(header::LOCATION, location);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

fn set_cookie(
    response: &mut Response<Bytes>,
    name: &str,
    value: &str,
    life_s: Option<i64>,
    rules: CookieRules,
) -> Result<(), Refusal> {
    debug_assert!(name.starts_with(COOKIE_PREFIX));
    let value =
        HeaderValue::from_str(&cookie_text(name, value, &attributes(life_s, rules))).map_err(|_| Refusal::NotReady)?;
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(())
}

fn attributes(life_s: Option<i64>, rules: CookieRules) -> Attributes {
    Attributes { same_site: rules.same_site.as_str(), partitioned: rules.partitioned, life_s }
}

#[cfg(test)]
mod tests;
