//! Calls from identity to a controller, signed with identity's own key.

use serde::{Deserialize, Serialize};

use crate::{
    PublicKeys, SigningFault, SigningKey, TokenFault,
    verify::{Expected, Time, verify as verify_token},
};

/// The audience of calls between our own processes.
const INTERNAL_AUDIENCE: &str = "postern-internal";
const CALL_LIFE_S: i64 = 60;
/// The clock of identity may differ from the controller's by so much.
const CLOCK_LEEWAY_S: i64 = 60;

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    tenant: &'a str,
    exp: i64,
}

/// A call of one of our own processes.
#[derive(Debug, Deserialize)]
pub struct InternalCall {
    /// On whose behalf.
    pub tenant: String,
}

pub fn sign(key: &SigningKey, tenant: &str, now_s: i64) -> Result<String, SigningFault> {
    key.sign(&Claims { aud: INTERNAL_AUDIENCE, tenant, exp: now_s + CALL_LIFE_S })
}

pub fn verify(token: &str, keys: &PublicKeys, now_s: i64) -> Result<InternalCall, TokenFault> {
    let time = Some(Time { now_s, leeway_s: CLOCK_LEEWAY_S });
    let expected = Expected { audience: INTERNAL_AUDIENCE, tenant: None, is_issuer: None, time };
    verify_token(token, keys, &expected).map(|it| it.claims)
}
