//! `Postern-Assertion`: who the user is, signed for the application, and the
//! public keys to check it with (`/.postern/keys` on the application's host).

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use model::{Timestamp, session::SessionClaims};
use serde::Serialize;
use serde_json::json;

use crate::keys::TenantKeys;

/// Long enough for one request, short enough to be of no use in a log.
const ASSERTION_LIFE_S: i64 = 60;

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    sid: String,
    iat: i64,
    exp: i64,
    amr: &'a [String],
    preferred_username: &'a str,
    name: &'a str,
    email: &'a str,
    groups: &'a [String],
}

/// `audience` is the application's external URL.
pub(crate) fn sign(keys: &TenantKeys, user: &SessionClaims, audience: &str, now: Timestamp) -> Option<String> {
    keys.sign_assertion(
        &Assertion {
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
        },
        now,
    )
}

/// RFC 7517.
pub(crate) fn key_set(keys: &TenantKeys) -> Response<Bytes> {
    let keys: Vec<_> = keys.assertion_keys.iter().filter_map(|(id, point)| runtime::jwk::p256(id, point)).collect();
    let mut response = Response::new(Bytes::from(json!({ "keys": keys }).to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    response
}
