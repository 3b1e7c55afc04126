//! Public keys of a provider (JWK Set, RFC 7517), and which of them may have
//! signed a token.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};

use super::fault::UpstreamFault;

/// What a provider may sign with. Each belongs to one type of key, so that none
/// is taken for another; nothing symmetric, and nothing of SHA-1.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
const KEYS_MAX: usize = 64;
/// A shorter modulus can be factored.
const RSA_BYTES_MIN: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct ProviderKeys(Vec<Jwk>);

impl ProviderKeys {
    /// Keys that may sign. Others in the set are passed over, as RFC 7517 says.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, UpstreamFault> {
        let value: serde_json::Value = serde_json::from_slice(json).map_err(|_| UpstreamFault::NotJson)?;
        let keys = value.get("keys").and_then(|it| it.as_array()).ok_or(UpstreamFault::NotJson)?;
        let read = |key: &serde_json::Value| serde_json::from_value::<Jwk>(key.clone()).ok();
        let set = JwkSet { keys: keys.iter().take(KEYS_MAX).filter_map(read).collect() };
        Ok(Self(set.keys.into_iter().filter(may_sign).collect()))
    }

    /// The key of a token by its `kid`, or the only one that fits when it has none.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, UpstreamFault> {
        if !ALGORITHMS.contains(&algorithm) {
            return Err(UpstreamFault::TokenAlgorithm);
        }
        let named: Vec<&Jwk> =
            self.0.iter().filter(|key| kid.is_none_or(|kid| key.common.key_id.as_deref() == Some(kid))).collect();
        if named.is_empty() {
            return Err(UpstreamFault::TokenKey);
        }
        let mut fitting = named.into_iter().filter(|key| fits(key, algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => DecodingKey::from_jwk(key).map_err(|_| UpstreamFault::TokenKey),
            (None, _) => Err(UpstreamFault::TokenAlgorithm),
            // Two of one name: which was meant cannot be known.
            (Some(_), Some(_)) => Err(UpstreamFault::TokenKey),
        }
    }
}

fn may_sign(key: &Jwk) -> bool {
    let for_signatures = match &key.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => true,
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => false,
    };
    let verifies =
        key.common.key_operations.as_ref().is_none_or(|it| it.contains(&jsonwebtoken::jwk::KeyOperations::Verify));
    for_signatures && verifies
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let of_key = match &key.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            matches!(algorithm, Algorithm::RS256 | Algorithm::PS256) && rsa.n.len() * 3 / 4 >= RSA_BYTES_MIN
        }
        AlgorithmParameters::EllipticCurve(it) => match it.curve {
            EllipticCurve::P256 => algorithm == Algorithm::ES256,
            EllipticCurve::P384 => algorithm == Algorithm::ES384,
            EllipticCurve::P521 | EllipticCurve::Ed25519 | _ => false,
        },
        AlgorithmParameters::OctetKeyPair(it) => it.curve == EllipticCurve::Ed25519 && algorithm == Algorithm::EdDSA,
        AlgorithmParameters::OctetKey(_) | _ => false,
    };
    let said = key.common.key_algorithm.is_none_or(|it| it.to_string() == format!("{algorithm:?}"));
    of_key && said
}
