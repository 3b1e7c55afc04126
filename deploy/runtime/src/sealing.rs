//! Secrets for one reader: HPKE (RFC 9180), DHKEM(P-256), HKDF-SHA256, AES-256-GCM.
//!
//! `purpose` is bound into the ciphertext: what was sealed as a password cannot
//! be opened as a key.

use std::fmt;

use aws_lc_rs::hmac;
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};
use thiserror::Error;

/// Length of an uncompressed P-256 point, which begins every sealed value.
const ENCAPSULATED_BYTES: usize = 65;
const PRIVATE_BYTES: usize = 32;

const SUITE: &dyn Hpke = DH_KEM_P256_HKDF_SHA256_AES_256;

#[derive(Debug, Error)]
#[error("a sealed value of {purpose:?} cannot be {attempted}")]
pub struct SealingError {
    purpose: String,
    attempted: &'static str,
}

/// The public half of a reader's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealTo(pub Vec<u8>);

/// The secret half.
pub struct SealingKey {
    private: Vec<u8>,
    public: Vec<u8>,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

impl SealTo {
    pub fn seal(&self, purpose: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealingError> {
        let sealed = SUITE.seal(purpose.as_bytes(), &[], plaintext, &HpkePublicKey(self.0.clone()));
        let (secret, ciphertext) = sealed.map_err(|_| failed(purpose, "sealed"))?;
        Ok([secret.0, ciphertext].concat())
    }
}

impl SealingKey {
    pub fn generate() -> Self {
        let (public, private) = SUITE.generate_key_pair().expect("the operating system gives random bytes");
        Self { private: private.secret_bytes().to_vec(), public: public.0 }
    }

    /// Private and public half, as they lie in a file.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (private, public) = bytes.split_at_checked(PRIVATE_BYTES)?;
        (public.len() == ENCAPSULATED_BYTES).then(|| Self { private: private.to_vec(), public: public.to_vec() })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        [self.private.as_slice(), &self.public].concat()
    }

    pub fn public(&self) -> SealTo {
        SealTo(self.public.clone())
    }

    /// A symmetric key only the holder of this key can make.
    pub fn derive(&self, purpose: &str) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.private);
        hmac::sign(&key, purpose.as_bytes()).as_ref().to_vec()
    }

    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SealingError> {
        let (secret, ciphertext) =
            sealed.split_at_checked(ENCAPSULATED_BYTES).ok_or_else(|| failed(purpose, "opened"))?;
        let secret = EncapsulatedSecret(secret.to_vec());
        SUITE
            .open(&secret, purpose.as_bytes(), &[], ciphertext, &HpkePrivateKey::from(self.private.clone()))
            .map_err(|_| failed(purpose, "opened"))
    }
}

fn failed(purpose: &str, attempted: &'static str) -> SealingError {
    SealingError { purpose: purpose.to_owned(), attempted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reader_opens_and_only_for_the_purpose() {
        let key = SealingKey::from_bytes(&SealingKey::generate().to_bytes()).unwrap();
        let sealed = key.public().seal("password", b"secret").unwrap();
        assert_eq!(key.open("password", &sealed).unwrap(), b"secret");
        assert!(key.open("totp", &sealed).is_err());
        assert!(SealingKey::generate().open("password", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut tampered = sealed.clone();
            tampered[at] ^= 1;
            assert!(key.open("password", &tampered).is_err());
        }
        assert!(key.open("password", &sealed[..10]).is_err());
    }
}
