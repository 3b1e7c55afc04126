//! Making the keys of an installation: who may open each, and from when it is
//! in use. A key is known to everybody before anything is signed with it.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use model::{
    Timestamp,
    keys::{Key, KeyHolder, KeyPurpose},
};
use runtime::{
    clock::{fresh_id, random_bytes},
    sealing::SealTo,
};

use crate::{ControllerError, Peers, authority::Authority};

/// `seal_to_self` is the controller's own key; only authorities are sealed to it.
pub(crate) fn make(
    purpose: KeyPurpose,
    peers: &Peers,
    seal_to_self: &SealTo,
    domain: &str,
    now: Timestamp,
    active_from: Timestamp,
) -> Result<Key, ControllerError> {
    let (relays, identity) = (&peers.seal_to_relays, &peers.seal_to_identity);
    let (public_key, sealed) = match purpose {
        KeyPurpose::Session => {
            let (public, secret) = p256()?;
            (public, vec![(KeyHolder::Identity, identity.seal("session-key", &secret)?)])
        }
        KeyPurpose::Assertion => {
            let (public, secret) = p256()?;
            (public, vec![(KeyHolder::Relay, relays.seal("assertion-key", &secret)?)])
        }
        KeyPurpose::RelaySecret => {
            let secret: [u8; 32] = random_bytes();
            let to_relays = (KeyHolder::Relay, relays.seal("relay-secret", &secret)?);
            (vec![], vec![to_relays, (KeyHolder::Identity, identity.seal("relay-secret", &secret)?)])
        }
        // Only an ACME server gives one.
        KeyPurpose::AcmeAccount => return Err(ControllerError::NoAuthority),
        KeyPurpose::Authority => {
            let (certificate, secret) = Authority::generate(domain, now)?;
            (certificate, vec![(KeyHolder::Controller, seal_to_self.seal("authority-key", &secret)?)])
        }
    };
    Ok(Key { id: fresh_id().simple().to_string(), purpose, active_from, public_key, sealed })
}

/// The public point, and PKCS#8.
fn p256() -> Result<(Vec<u8>, Vec<u8>), ControllerError> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
        .map_err(|_| aws_lc_rs::error::Unspecified)?;
    Ok((pair.public_key().as_ref().to_vec(), pkcs8.as_ref().to_vec()))
}
