//! `Postern-Assertion`: a relay tells an application who the user is.

use serde::{Deserialize, Serialize};

use crate::{
    PublicKeys, SigningFault, SigningKey, TokenFault,
    verify::{Expected, Time, verify as verify_token},
};

/// The clock of a relay may differ from the application's by so much.
const CLOCK_LEEWAY_S: i64 = 60;

/// Claims of an assertion. Its audience is the application's external URL.
#[derive(Serialize)]
pub struct Assertion<'a> {
    pub iss: &'a str,
    pub aud: &'a str,
    pub sub: String,
    pub sid: String,
    pub iat: i64,
    pub exp: i64,
    pub amr: &'a [String],
    pub preferred_username: &'a str,
    pub name: &'a str,
    pub email: &'a str,
    pub groups: &'a [String],
}

/// Who a relay says the user is.
#[derive(Deserialize)]
pub struct AssertedUser {
    pub sub: String,
}

pub fn sign(key: &SigningKey, claims: &Assertion<'_>) -> Result<String, SigningFault> {
    key.sign(claims)
}

/// The user that a relay asserts to the application at this URL.
pub fn verify(assertion: &str, keys: &PublicKeys, external_url: &str, now_s: i64) -> Result<AssertedUser, TokenFault> {
    let time = Some(Time { now_s, leeway_s: CLOCK_LEEWAY_S });
    let expected = Expected { audience: external_url, tenant: None, is_issuer: None, time };
    verify_token(assertion, keys, &expected).map(|it| it.claims)
}
