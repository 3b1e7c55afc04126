//! Keys identity signs and checks tokens with, from the snapshot.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use model::{
    Tenant, Timestamp,
    keys::{KeyHolder, KeyPurpose},
    session::SessionClaims,
};
use runtime::{jwk, sealing::SealingKey, secret::SharedSecret};
use serde_json::{Value, json};

/// Signs with the key in use; older ones go on verifying until they are retired.
pub(crate) fn sign(tenant: &Tenant, sealing: &SealingKey, claims: &SessionClaims) -> Option<String> {
    let key = tenant.key_in_use(KeyPurpose::Session, Timestamp::from_seconds(claims.iat))?;
    let secret = sealing.open("session-key", key.sealed_for(KeyHolder::Identity)?).ok()?;
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&secret)).ok()
}

/// A token of ours for one audience. Whether it still holds is asked elsewhere.
pub(crate) fn verify(tenant: &Tenant, audience: &str, token: &str) -> Option<SessionClaims> {
    let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
    let key = tenant.keys.get(&kid).filter(|key| key.purpose == KeyPurpose::Session)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.validate_exp = false;
    let decoded = jsonwebtoken::decode(token, &DecodingKey::from_ec_der(&key.public_key), &validation);
    let claims: SessionClaims = decoded.ok()?.claims;
    tenant.is_issuer(&claims.iss).then_some(claims)
}

/// Who a relay says the portal's user is. Its audience is the portal's URL.
pub(crate) fn verify_assertion(tenant: &Tenant, audience: &str, assertion: &str) -> Option<model::UserId> {
    #[derive(serde::Deserialize)]
    struct Assertion {
        sub: model::UserId,
    }
    let kid = jsonwebtoken::decode_header(assertion).ok()?.kid?;
    let key = tenant.keys.get(&kid).filter(|key| key.purpose == KeyPurpose::Assertion)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    let decoded = jsonwebtoken::decode::<Assertion>(assertion, &DecodingKey::from_ec_der(&key.public_key), &validation);
    Some(decoded.ok()?.claims.sub)
}

/// What relays and identity share: one secret, and beside it those that come or go.
pub(crate) fn relay_secrets(tenant: &Tenant, sealing: &SealingKey) -> Vec<SharedSecret> {
    let open = |key: &model::keys::Key| {
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
