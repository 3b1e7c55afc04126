//! `Postern-Assertion`: who the user is, signed for the application, and the
//! public keys to check it with (`/.postern/keys` on the application's host).

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use model::{Timestamp, session::SessionClaims};
use runtime::telemetry::chain;
use serde_json::json;
use tokens::assertion::Assertion;
use tracing::warn;

use crate::{
    keys::TenantKeys,
    sessions::session::{Session, SignedAssertion},
};

/// Long enough for one request, short enough to be of no use in a log.
const ASSERTION_LIFE_S: i64 = 60;

/// A signature costs more than the rest of a request, so one serves a session
/// for a while and still lives at least this much less than its whole life.
const REUSED_S: i64 = 20;

/// `audience` is the application's external URL.
pub(crate) fn sign(keys: &TenantKeys, session: &Session, audience: &str, now: Timestamp) -> Option<Arc<str>> {
    let key = keys.assertion_key(now)?;
    let mut signed = session.signed.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(it) = &*signed
        && (0..REUSED_S).contains(&(now.seconds() - it.iat))
        && it.key == key.id()
        && it.audience == audience
    {
        return Some(it.text.clone());
    }
    let text: Arc<str> = fresh(keys, &session.claims, audience, now)?.into();
    let (key, audience) = (key.id().to_owned(), audience.to_owned());
    *signed = Some(SignedAssertion { text: text.clone(), key, audience, iat: now.seconds() });
    Some(text)
}

fn fresh(keys: &TenantKeys, user: &SessionClaims, audience: &str, now: Timestamp) -> Option<String> {
    let claims = Assertion {
        iss: &keys.issuer,
        aud: audience,
        sub: user.sub.to_string(),
        sid: user.sid.to_string(),
        iat: now.seconds(),
        exp: now.seconds() + ASSERTION_LIFE_S,
        amr: &user.amr,
        preferred_username: &user.preferred_username,
        name: &user.name,
        email: &user.email,
        groups: &user.group_names,
    };
    let signed = tokens::assertion::sign(keys.assertion_key(now)?, &claims);
    signed.inspect_err(|error| warn!(error = %chain(error), "no assertion is signed")).ok()
}

/// RFC 7517.
pub(crate) fn key_set(keys: &TenantKeys) -> Response<Bytes> {
    let keys: Vec<_> = keys.assertion_keys.iter().filter_map(|(id, point)| tokens::jwk::p256(id, point)).collect();
    let mut response = Response::new(Bytes::from(json!({ "keys": keys }).to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    response
}
