//! Session tokens: identity signs one for a user and an application (or the
//! admin API); relays, the controller and identity itself believe them.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    PublicKeys, SigningFault, SigningKey, TokenFault,
    statement::{SessionFacts, UserStatement},
    verify::{Expected, Verified, verify as verify_token},
};

/// A token for an application is no longer: with name and attributes it fits into
/// a cookie of 4 KiB, which is what browsers keep.
pub const COOKIE_TOKEN_BYTES_MAX: usize = 3900;

/// The claim that holds the signature of the user's statement for connectors.
const STATEMENT_CLAIM: &str = "statement";

/// Who may have issued a session token, and for whom.
pub struct Session<'a> {
    /// An application's id, or [`crate::ADMIN_AUDIENCE`].
    pub audience: &'a str,
    pub tenant: &'a str,
    pub is_issuer: &'a dyn Fn(&str) -> bool,
}

/// A session token that was verified.
#[derive(Debug)]
pub struct VerifiedSession<C> {
    pub claims: C,
    /// The id of the key that signed it.
    pub key: String,
    /// The user's statement for connectors; none in tokens without one.
    pub statement: Option<String>,
}

/// A token for the admin API.
pub fn sign(key: &SigningKey, claims: &impl Serialize) -> Result<String, SigningFault> {
    key.sign(claims)
}

/// A token for an application, with a statement of who the user is for its connectors.
pub fn sign_with_statement(key: &SigningKey, claims: &impl Serialize) -> Result<String, SigningFault> {
    let mut claims = serde_json::to_value(claims).map_err(SigningFault::Claims)?;
    let facts = SessionFacts::deserialize(&claims).map_err(SigningFault::Claims)?;
    let signature = UserStatement::from(facts).sign(key)?;
    if let Value::Object(claims) = &mut claims {
        claims.insert(STATEMENT_CLAIM.to_owned(), signature.into());
    }
    key.sign(&claims)
}

/// The claims of a token that was signed for this audience. Whether the session
/// still holds, and has not expired, is for the model to say.
pub fn verify<C: DeserializeOwned>(
    token: &str,
    keys: &PublicKeys,
    session: &Session<'_>,
) -> Result<VerifiedSession<C>, TokenFault> {
    let Session { audience, tenant, is_issuer } = session;
    let expected = Expected { audience, tenant: Some(tenant), is_issuer: Some(is_issuer), time: None };
    let Verified { claims, key } = verify_token::<Value>(token, keys, &expected)?;
    let statement = match claims.get(STATEMENT_CLAIM).and_then(Value::as_str) {
        Some(signature) => {
            let facts = SessionFacts::deserialize(&claims).map_err(|_| TokenFault::Malformed)?;
            Some(UserStatement::from(facts).with_signature(&key, signature).map_err(|_| TokenFault::Malformed)?)
        }
        None => None,
    };
    Ok(VerifiedSession { claims: C::deserialize(claims).map_err(|_| TokenFault::Malformed)?, key, statement })
}
