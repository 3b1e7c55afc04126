//! ID tokens of a provider (OpenID Connect Core 2 and 3.1.3.7): believed only
//! when every rule holds.

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use model::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{fault::UpstreamFault, keys::ProviderKeys};

/// No provider's clock is further away than this.
const LEEWAY_S: i64 = 60;
pub(crate) const TOKEN_BYTES_MAX: usize = 64 * 1024;
const SUBJECT_BYTES_MAX: usize = 255;

/// What a token has to say.
pub(crate) struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
    /// The access token that came with it.
    pub access_token: Option<&'a str>,
    /// The user had to sign in at the provider after this moment.
    pub signed_in_after: Option<Timestamp>,
    pub now: Timestamp,
}

/// A token's claims: those that are checked, and all.
#[derive(Debug)]
pub(crate) struct IdToken {
    pub subject: String,
    /// When the user signed in at the provider (`auth_time`).
    pub signed_in: Option<Timestamp>,
    pub claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct Checked {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    nonce: Option<String>,
    azp: Option<String>,
    at_hash: Option<String>,
    auth_time: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The key a token names, before anything of it is believed.
pub(crate) fn header_of(token: &str) -> Result<(Option<String>, Algorithm), UpstreamFault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(UpstreamFault::TokenTooLong);
    }
    if token.split('.').count() != 3 {
        return Err(UpstreamFault::TokenMalformed);
    }
    let raw = token.split('.').next().and_then(|it| URL_SAFE_NO_PAD.decode(it).ok());
    let raw: Map<String, Value> =
        raw.and_then(|it| serde_json::from_slice(&it).ok()).ok_or(UpstreamFault::TokenMalformed)?;
    // What we do not understand and must (RFC 7515, section 4.1.11).
    if raw.contains_key("crit") {
        return Err(UpstreamFault::TokenMalformed);
    }
    // `none`, and whatever is no algorithm.
    let header = decode_header(token).map_err(|_| match raw.get("alg") {
        Some(Value::String(_)) => UpstreamFault::TokenAlgorithm,
        Some(_) | None => UpstreamFault::TokenMalformed,
    })?;
    Ok((header.kid, header.alg))
}

/// Everything of a token, or the first rule it breaks. Keys are the provider's own;
/// what the token says about keys (`jku`, `x5u`, `jwk`) is not looked at.
pub(crate) fn verify(token: &str, keys: &ProviderKeys, expected: &Expected<'_>) -> Result<IdToken, UpstreamFault> {
    let (kid, algorithm) = header_of(token)?;
    let key = keys.find(kid.as_deref(), algorithm)?;
    let mut validation = Validation::new(algorithm);
    // Claims are looked at below, each with its own fault.
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud, validation.validate_nbf) = (false, false, false);
    let claims = decode::<Map<String, Value>>(token, &key, &validation);
    let claims = claims.map_err(|error| match matches!(error.kind(), ErrorKind::InvalidSignature) {
        true => UpstreamFault::TokenSignature,
        false => UpstreamFault::TokenMalformed,
    })?;
    let claims = claims.claims;
    let checked: Checked =
        serde_json::from_value(Value::Object(claims.clone())).map_err(|_| UpstreamFault::TokenMalformed)?;
    check(&checked, algorithm, expected)?;
    let signed_in = checked.auth_time.map(|at| Timestamp::from_seconds(at as i64));
    Ok(IdToken { subject: checked.sub, signed_in, claims })
}

fn check(it: &Checked, algorithm: Algorithm, expected: &Expected<'_>) -> Result<(), UpstreamFault> {
    let holds = |rule: bool, fault| if rule { Ok(()) } else { Err(fault) };
    let now = expected.now.seconds() as f64;
    let leeway = LEEWAY_S as f64;
    holds(it.iss == expected.issuer, UpstreamFault::TokenIssuer)?;
    let (ours, alone) = match &it.aud {
        Audience::One(aud) => (aud == expected.client_id, true),
        Audience::Many(all) => (all.iter().any(|aud| aud == expected.client_id), all.len() == 1),
    };
    holds(ours, UpstreamFault::TokenAudience)?;
    let party = match &it.azp {
        Some(azp) => azp == expected.client_id,
        None => alone,
    };
    holds(party, UpstreamFault::TokenParty)?;
    holds(it.exp.is_finite() && now < it.exp + leeway, UpstreamFault::TokenExpired)?;
    holds(it.iat.is_finite() && it.iat <= now + leeway, UpstreamFault::TokenEarly)?;
    holds(it.nbf.is_none_or(|nbf| nbf <= now + leeway), UpstreamFault::TokenEarly)?;
    holds(it.nonce.as_deref() == Some(expected.nonce), UpstreamFault::TokenNonce)?;
    let subject = (1..=SUBJECT_BYTES_MAX).contains(&it.sub.len()) && !it.sub.chars().any(char::is_control);
    holds(subject, UpstreamFault::TokenSubject)?;
    if let (Some(hash), Some(access)) = (&it.at_hash, expected.access_token) {
        holds(*hash == at_hash(access, algorithm), UpstreamFault::TokenAccess)?;
    }
    match expected.signed_in_after {
        Some(after) => {
            let at = it.auth_time.ok_or(UpstreamFault::TokenAge)?;
            holds(at + leeway >= after.seconds() as f64, UpstreamFault::TokenAge)
        }
        None => Ok(()),
    }
}

/// The left half of the hash that goes with the signature's algorithm.
fn at_hash(access_token: &str, algorithm: Algorithm) -> String {
    let hash = match algorithm == Algorithm::ES384 {
        true => &SHA384,
        false if algorithm == Algorithm::EdDSA => &SHA512,
        false => &SHA256,
    };
    let hash = digest(hash, access_token.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2])
}
