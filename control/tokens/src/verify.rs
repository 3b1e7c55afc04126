//! The one place that verifies a token: its form, key, signature, audience,
//! tenant, issuer and time, in this order, with the first fault as the reason.

use jsonwebtoken::{Validation, errors::ErrorKind};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{PublicKeys, TokenFault};

/// Longer than any token of ours, and no work for whoever is shown it.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a token must say to be believed.
pub(crate) struct Expected<'a> {
    pub audience: &'a str,
    pub tenant: Option<&'a str>,
    pub is_issuer: Option<&'a dyn Fn(&str) -> bool>,
    /// Nothing where somebody else judges time.
    pub time: Option<Time>,
}

/// Now, and by how much the clock of whoever signed may differ.
pub(crate) struct Time {
    pub now_s: i64,
    pub leeway_s: i64,
}

/// A token that was verified: its claims, and the id of the key that signed it.
#[derive(Debug)]
pub struct Verified<C> {
    pub claims: C,
    pub key: String,
}

/// Claims that are checked here. Ours have one audience each.
#[derive(Deserialize)]
struct Registered {
    aud: String,
    exp: i64,
    nbf: Option<i64>,
    iss: Option<String>,
    tenant: Option<String>,
}

pub(crate) fn verify<C: DeserializeOwned>(
    token: &str,
    keys: &PublicKeys,
    expected: &Expected<'_>,
) -> Result<Verified<C>, TokenFault> {
    let id = named_key(token)?;
    let key = keys.find(&id)?;
    let mut signature_only = Validation::new(key.algorithm);
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    let claims = jsonwebtoken::decode::<Value>(token, &key.decoding, &signature_only).map_err(|error| fault(&error))?;
    let registered = Registered::deserialize(&claims.claims).map_err(|_| TokenFault::Malformed)?;
    registered.check(expected)?;
    let claims = C::deserialize(claims.claims).map_err(|_| TokenFault::Malformed)?;
    Ok(Verified { claims, key: id })
}

/// The id of the key that a token says it is signed with. Nothing is verified by
/// this: it is for choosing who verifies.
pub fn named_key(token: &str) -> Result<String, TokenFault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenFault::TooLong);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Malformed)?;
    header.kid.ok_or(TokenFault::UnknownKey)
}

impl Registered {
    fn check(&self, expected: &Expected<'_>) -> Result<(), TokenFault> {
        if self.aud != expected.audience {
            return Err(TokenFault::WrongAudience);
        }
        if expected.tenant.is_some_and(|tenant| self.tenant.as_deref() != Some(tenant)) {
            return Err(TokenFault::WrongTenant);
        }
        if expected.is_issuer.is_some_and(|is_issuer| !self.iss.as_deref().is_some_and(is_issuer)) {
            return Err(TokenFault::WrongIssuer);
        }
        expected.time.as_ref().map_or(Ok(()), |time| time.check(self.nbf, self.exp))
    }
}

impl Time {
    /// Is it between `nbf` and `exp`, as far as clocks agree?
    pub(crate) fn check(&self, nbf: Option<i64>, exp: i64) -> Result<(), TokenFault> {
        if nbf.is_some_and(|from_s| self.now_s.saturating_add(self.leeway_s) < from_s) {
            return Err(TokenFault::NotYetValid);
        }
        match self.now_s.saturating_sub(self.leeway_s) >= exp {
            true => Err(TokenFault::Expired),
            false => Ok(()),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add kinds; all others are about the token's form")]
fn fault(error: &jsonwebtoken::errors::Error) -> TokenFault {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenFault::BadSignature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenFault::WrongAlgorithm,
        _ => TokenFault::Malformed,
    }
}
