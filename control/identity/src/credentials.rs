//! Proof: passwords and one-time codes. Opened from their seal only to check.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::{Proof, Tenant, Timestamp, UserId};
use runtime::{
    hashing::{Area, Hashing, HashingError},
    sealing::SealingKey,
};
use totp_rs::{Builder, Totp};
use tracing::warn;

/// A clock may be one step of 30 s away.
const SKEW_STEPS: u16 = 1;

pub(crate) struct Credentials {
    sealing: Arc<SealingKey>,
    hashing: Hashing,
    /// Checked when there is nobody of that name, so that it takes as long.
    nobody: String,
    /// The last step each user's code was accepted for: a code works once.
    last_steps: Mutex<HashMap<UserId, u64>>,
}

impl Credentials {
    pub(crate) fn new(sealing: Arc<SealingKey>, hashing: Hashing) -> Result<Self, HashingError> {
        let nobody = Area::default().hash(&runtime::clock::random_bytes::<32>())?;
        Ok(Self { sealing, hashing, nobody, last_steps: Mutex::default() })
    }

    /// Is this the user's password? Takes the same time for nobody.
    pub(crate) async fn password_is(
        &self,
        tenant: &Tenant,
        user: Option<UserId>,
        password: String,
    ) -> Result<bool, HashingError> {
        let sealed = user.and_then(|id| tenant.credential(id, Proof::Password));
        let hash = sealed.and_then(|it| self.open("password", it));
        let known = hash.is_some();
        let hash = hash.and_then(|it| String::from_utf8(it).ok()).unwrap_or_else(|| self.nobody.clone());
        Ok(self.hashing.verify(password, hash).await? && known)
    }

    pub(crate) fn has_totp(&self, tenant: &Tenant, user: UserId) -> bool {
        tenant.credential(user, Proof::Totp).is_some()
    }

    /// Is this the user's code of now, for the first time?
    pub(crate) fn code_is(&self, tenant: &Tenant, user: UserId, code: &str, now: Timestamp) -> bool {
        let sealed = tenant.credential(user, Proof::Totp);
        let Some(secret) = sealed.and_then(|it| self.open("totp", it)) else { return false };
        let Some(step) = check_code(&secret, code, now) else { return false };
        let mut last = self.last_steps.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = last.get(&user).is_none_or(|before| *before < step);
        if fresh {
            last.insert(user, step);
        }
        fresh
    }

    fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let opened = self.sealing.open(purpose, sealed);
        if opened.is_err() {
            warn!(purpose, "a credential is sealed to another key than identity has");
        }
        opened.ok()
    }
}

/// The step a code belongs to (RFC 6238).
pub(crate) fn check_code(secret: &[u8], code: &str, now: Timestamp) -> Option<u64> {
    let code: String = code.chars().filter(|it| !it.is_whitespace()).collect();
    totp(secret, "user")?.check(&code, now.seconds() as u64)
}

/// What authenticator apps expect: SHA-1, 6 digits, 30 s.
pub(crate) fn totp(secret: &[u8], account: &str) -> Option<Totp> {
    Builder::new()
        .with_secret(secret.to_vec())
        .with_skew(SKEW_STEPS)
        .with_account_name(account)
        .with_issuer(Some("Postern"))
        .build()
        .ok()
}
