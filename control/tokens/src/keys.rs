//! Keys that sign tokens, and the public halves that verify them, by key id.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::Serialize;
use thiserror::Error;

use crate::TokenFault;

/// Ids of retired keys that are remembered, to tell them from unknown ones.
const RETIRED_REMEMBERED_MAX: usize = 64;

/// Public keys that are trusted for one kind of token.
#[derive(Clone, Default)]
pub struct PublicKeys {
    trusted: BTreeMap<String, PublicKey>,
    retired: BTreeSet<String>,
}

#[derive(Clone)]
pub(crate) struct PublicKey {
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

impl PublicKeys {
    /// Keys for ES256: id, and uncompressed P-256 point.
    pub fn es256<'a>(keys: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let key = |(id, point): (&str, &[u8])| {
            (id.to_owned(), PublicKey { algorithm: Algorithm::ES256, decoding: DecodingKey::from_ec_der(point) })
        };
        Self { trusted: keys.into_iter().map(key).collect(), retired: BTreeSet::new() }
    }

    /// One key for EdDSA: id, and raw Ed25519 key.
    pub fn ed25519(id: &str, raw: &[u8]) -> Self {
        let key = PublicKey { algorithm: Algorithm::EdDSA, decoding: DecodingKey::from_ed_der(raw) };
        Self { trusted: BTreeMap::from([(id.to_owned(), key)]), retired: BTreeSet::new() }
    }

    /// The same keys, with the memory of those that were trusted before.
    pub fn succeeding(mut self, before: &Self) -> Self {
        let gone = before.trusted.keys().chain(&before.retired).filter(|id| !self.trusted.contains_key(*id));
        self.retired = gone.take(RETIRED_REMEMBERED_MAX).cloned().collect();
        self
    }

    /// Is the key of this id still trusted?
    pub fn check(&self, id: &str) -> Result<(), TokenFault> {
        self.find(id).map(|_| ())
    }

    pub(crate) fn find(&self, id: &str) -> Result<&PublicKey, TokenFault> {
        self.trusted.get(id).ok_or_else(|| match self.retired.contains(id) {
            true => TokenFault::RetiredKey,
            false => TokenFault::UnknownKey,
        })
    }
}

/// A key that signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    id: String,
    algorithm: Algorithm,
    encoding: EncodingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, ..)", self.id)
    }
}

/// Why there is no signed token.
#[derive(Debug, Error)]
pub enum SigningFault {
    #[error("no key is in use")]
    NoKey,
    #[error("the key is sealed to another process")]
    Sealed,
    #[error("the key does not sign")]
    Key(#[from] jsonwebtoken::errors::Error),
    #[error("the claims cannot be written")]
    Claims(#[source] serde_json::Error),
}

impl SigningKey {
    /// From a P-256 key in PKCS#8.
    pub fn es256(id: &str, pkcs8: &[u8]) -> Self {
        Self { id: id.to_owned(), algorithm: Algorithm::ES256, encoding: EncodingKey::from_ec_der(pkcs8) }
    }

    /// From an Ed25519 key in PKCS#8.
    pub fn ed25519(id: &str, pkcs8: &[u8]) -> Self {
        Self { id: id.to_owned(), algorithm: Algorithm::EdDSA, encoding: EncodingKey::from_ed_der(pkcs8) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, SigningFault> {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        Ok(jsonwebtoken::encode(&header, claims, &self.encoding)?)
    }

    /// The signature of a text, in base64url.
    pub(crate) fn sign_text(&self, text: &str) -> Result<String, SigningFault> {
        Ok(jsonwebtoken::crypto::sign(text.as_bytes(), &self.encoding, self.algorithm)?)
    }
}
