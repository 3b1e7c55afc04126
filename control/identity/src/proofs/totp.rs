//! One-time codes of an authenticator app (TOTP, RFC 6238).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Proof, Tenant, Timestamp, UserId};
use runtime::{clock::random_bytes, sealing::SealingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use totp_rs::{Builder, Totp};

use super::ProofFault;

/// A clock may be one step of 30 s away.
const SKEW_STEPS: u16 = 1;

pub(crate) struct Codes {
    sealing: Arc<SealingKey>,
    /// The last step each user's code was accepted for: a code works once.
    last_steps: Mutex<HashMap<UserId, u64>>,
}

impl Codes {
    pub(crate) fn new(sealing: Arc<SealingKey>) -> Self {
        Self { sealing, last_steps: Mutex::default() }
    }

    /// Is this the user's code of now, for the first time?
    pub(crate) fn check(&self, tenant: &Tenant, user: UserId, code: &str, now: Timestamp) -> Result<(), ProofFault> {
        let sealed = tenant.credential(user, Proof::Totp).ok_or(ProofFault::NotRegistered)?;
        let secret = self.sealing.open("totp", sealed).map_err(|_| ProofFault::Unreadable)?;
        let step = step_of(&secret, code, now).ok_or(ProofFault::Wrong)?;
        let mut last = self.last_steps.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get(&user).is_none_or(|before| *before < step) {
            true => last.insert(user, step),
            false => return Err(ProofFault::UsedBefore),
        };
        Ok(())
    }

    /// A new authenticator's secret, sealed to be recorded, once a code shows that
    /// the user has it.
    pub(crate) fn check_new(&self, new: &NewSecret, code: &str, now: Timestamp) -> Result<Vec<u8>, ProofFault> {
        step_of(&new.0, code, now).ok_or(ProofFault::Wrong)?;
        self.sealing.public().seal("totp", &new.0).map_err(|_| ProofFault::NotRecorded)
    }
}

/// The secret of an authenticator that is being set up.
#[derive(Clone)]
pub(crate) struct NewSecret([u8; 20]);

impl NewSecret {
    pub(crate) fn generate() -> Self {
        Self(random_bytes())
    }

    /// The address behind a QR code, and the secret to type in its place.
    pub(crate) fn to_show(&self, account: &str) -> Option<(String, String)> {
        let totp = totp(&self.0, account)?;
        Some((totp.to_url().ok()?, totp.secret().to_base32()))
    }
}

impl Serialize for NewSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for NewSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(String::deserialize(deserializer)?).ok();
        let secret = bytes.and_then(|it| it.try_into().ok());
        secret.map(Self).ok_or_else(|| serde::de::Error::custom("20 bytes in base64url"))
    }
}

/// The step a code belongs to.
fn step_of(secret: &[u8], code: &str, now: Timestamp) -> Option<u64> {
    let code: String = code.chars().filter(|it| !it.is_whitespace()).collect();
    totp(secret, "user")?.check(&code, now.seconds() as u64)
}

/// What authenticator apps expect: SHA-1, 6 digits, 30 s.
fn totp(secret: &[u8], account: &str) -> Option<Totp> {
    Builder::new()
        .with_secret(secret.to_vec())
        .with_skew(SKEW_STEPS)
        .with_account_name(account)
        .with_issuer(Some("Postern"))
        .build()
        .ok()
}
