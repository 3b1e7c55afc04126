//! Session tokens: identity signs one for a user and an application (or the
//! admin API); relays, the controller and identity itself believe them.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    PublicKeys, SigningFault, SigningKey, TokenFault,
    verify::{Expected, verify as verify_token},
};

pub use crate::verify::Verified;

/// Who may have issued a session token, and for whom.
pub struct Session<'a> {
    /// An application's id, or [`crate::ADMIN_AUDIENCE`].
    pub audience: &'a str,
    pub tenant: &'a str,
    pub is_issuer: &'a dyn Fn(&str) -> bool,
}

pub fn sign(key: &SigningKey, claims: &impl Serialize) -> Result<String, SigningFault> {
    key.sign(claims)
}

/// The claims of a token that was signed for this audience. Whether the session
/// still holds, and has not expired, is for the model to say.
pub fn verify<C: DeserializeOwned>(
    token: &str,
    keys: &PublicKeys,
    session: &Session<'_>,
) -> Result<Verified<C>, TokenFault> {
    let Session { audience, tenant, is_issuer } = session;
    let expected = Expected { audience, tenant: Some(tenant), is_issuer: Some(is_issuer), time: None };
    verify_token(token, keys, &expected)
}
