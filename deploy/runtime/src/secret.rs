//! A secret that several processes share, and what they make of it: sealed
//! text for each other, and tags nobody else can make. Every use has a purpose
//! of its own, so that one cannot be passed off as another.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

use crate::clock::random_bytes;

pub struct SharedSecret {
    seal: LessSafeKey,
    tags: hmac::Key,
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

impl SharedSecret {
    pub fn new(secret: &[u8]) -> Self {
        let seal = UnboundKey::new(&AES_256_GCM, &derive(secret, b"seal")).expect("the key has 32 bytes");
        let tags = hmac::Key::new(hmac::HMAC_SHA256, &derive(secret, b"tags"));
        Self { seal: LessSafeKey::new(seal), tags }
    }

    /// A value that only holders of the secret can read, and nobody can change.
    pub fn seal(&self, purpose: &str, value: &impl Serialize) -> Option<String> {
        let mut bytes = serde_json::to_vec(value).ok()?;
        let nonce: [u8; NONCE_LEN] = random_bytes();
        let aad = Aad::from(purpose.as_bytes());
        self.seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &bytes].concat()))
    }

    pub fn open<T: DeserializeOwned>(&self, purpose: &str, sealed: &str) -> Option<T> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, ciphertext) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut ciphertext = ciphertext.to_vec();
        let plaintext = self.seal.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut ciphertext).ok()?;
        serde_json::from_slice(plaintext).ok()
    }

    /// 43 characters of base64url.
    pub fn tag(&self, purpose: &str, text: &str) -> String {
        let tag = hmac::sign(&self.tags, format!("{purpose}\n{text}").as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref())
    }
}

fn derive(secret: &[u8], purpose: &[u8]) -> [u8; 32] {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"postern-shared-secret-v1").extract(secret);
    let info = [purpose];
    let okm = prk.expand(&info, hkdf::HKDF_SHA256).expect("the length is allowed");
    let mut key = [0; 32];
    okm.fill(&mut key).expect("the length is allowed");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_for_one_purpose_opens_for_no_other() {
        let secret = SharedSecret::new(b"0123456789abcdef");
        let sealed = secret.seal("state", &("a", 1)).unwrap();
        assert_eq!(secret.open::<(String, i32)>("state", &sealed), Some(("a".into(), 1)));
        assert_eq!(secret.open::<(String, i32)>("code", &sealed), None);
        assert_eq!(SharedSecret::new(b"other").open::<(String, i32)>("state", &sealed), None);
        let mut tampered = sealed.into_bytes();
        tampered[20] ^= 1;
        assert_eq!(secret.open::<(String, i32)>("state", &String::from_utf8(tampered).unwrap()), None);
    }
}
