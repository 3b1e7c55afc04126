//! Keys identity signs and checks tokens with, from the snapshot.

use model::{
    Tenant, TenantId, Timestamp, UserId,
    keys::{Key, KeyHolder, KeyPurpose},
    session::SessionClaims,
};
use runtime::{sealing::SealingKey, secret::SharedSecret};
use serde_json::{Value, json};
use tokens::{ADMIN_AUDIENCE, PublicKeys, SigningFault, SigningKey, TokenFault, assertion, jwk, session};

/// Signs with the key in use; older ones go on verifying until they are retired.
pub(crate) fn sign(tenant: &Tenant, sealing: &SealingKey, claims: &SessionClaims) -> Result<String, SigningFault> {
    let key = session_key(tenant, sealing, Timestamp::from_seconds(claims.iat))?;
    match claims.aud.as_str() {
        // No connector stands before the admin API.
        ADMIN_AUDIENCE => session::sign(&key, claims),
        _ => session::sign_with_statement(&key, claims),
    }
}

fn session_key(tenant: &Tenant, sealing: &SealingKey, now: Timestamp) -> Result<SigningKey, SigningFault> {
    let key = tenant.key_in_use(KeyPurpose::Session, now).ok_or(SigningFault::NoKey)?;
    let sealed = key.sealed_for(KeyHolder::Identity).ok_or(SigningFault::Sealed)?;
    let secret = sealing.open("session-key", sealed).map_err(|_| SigningFault::Sealed)?;
    Ok(SigningKey::es256(&key.id, &secret))
}

/// A token of ours for one audience. Whether it still holds is asked elsewhere.
pub(crate) fn verify(
    (id, tenant): (&TenantId, &Tenant),
    audience: &str,
    token: &str,
) -> Result<SessionClaims, TokenFault> {
    let is_issuer = |iss: &str| tenant.is_issuer(iss);
    let expected = session::Session { audience, tenant: &id.to_string(), is_issuer: &is_issuer };
    Ok(session::verify(token, &public_keys(tenant, KeyPurpose::Session), &expected)?.claims)
}

/// Who a relay says the portal's user is. Its audience is the portal's URL.
pub(crate) fn verify_assertion(
    tenant: &Tenant,
    audience: &str,
    assertion: &str,
    now: Timestamp,
) -> Result<UserId, TokenFault> {
    let keys = public_keys(tenant, KeyPurpose::Assertion);
    let user = assertion::verify(assertion, &keys, audience, now.seconds())?;
    user.sub.parse().map_err(|_| TokenFault::Malformed)
}

fn public_keys(tenant: &Tenant, purpose: KeyPurpose) -> PublicKeys {
    let keys = tenant.keys_for(purpose);
    PublicKeys::es256(keys.iter().map(|(_, key)| (key.id.as_str(), key.public_key.as_slice())))
}

/// What relays and identity share: one secret, and beside it those that come or go.
pub(crate) fn relay_secrets(tenant: &Tenant, sealing: &SealingKey) -> Vec<SharedSecret> {
    let open = |key: &Key| {
        let secret = sealing.open("relay-secret", key.sealed_for(KeyHolder::Identity)?).ok()?;
        Some(SharedSecret::new(&secret))
    };
    tenant.keys_for(KeyPurpose::RelaySecret).into_iter().filter_map(|(_, key)| open(key)).collect()
}

/// RFC 7517.
pub(crate) fn key_set(tenant: &Tenant) -> Value {
    let keys: Vec<Value> = tenant
        .keys_for(KeyPurpose::Session)
        .iter()
        .filter_map(|(_, key)| jwk::p256(&key.id, &key.public_key))
        .collect();
    json!({ "keys": keys })
}
