//! Passwords: hashed with Argon2id, and the hash sealed to identity.

use std::sync::Arc;

use model::{Proof, Tenant, User};
use runtime::{
    hashing::{Area, Hashing, HashingError},
    sealing::SealingKey,
};

use super::ProofFault;

pub(crate) struct Passwords {
    sealing: Arc<SealingKey>,
    hashing: Hashing,
    /// Checked when there is nobody of that name, so that it takes as long.
    nobody: String,
}

impl Passwords {
    pub(crate) fn new(sealing: Arc<SealingKey>, hashing: Hashing) -> Result<Self, HashingError> {
        let nobody = Area::default().hash(&runtime::clock::random_bytes::<32>())?;
        Ok(Self { sealing, hashing, nobody })
    }

    /// The user whose password it is. Takes the same time whatever is wrong.
    pub(crate) async fn check<'a>(
        &self,
        tenant: &Tenant,
        user: Option<&'a User>,
        password: String,
    ) -> Result<&'a User, ProofFault> {
        let known = user.ok_or(ProofFault::UnknownUser).and_then(|user| Ok((user, self.hash_of(tenant, user)?)));
        let hash = known.as_ref().map_or(&self.nobody, |(_, hash)| hash).clone();
        let right = self.hashing.verify(password, hash).await.map_err(|_| ProofFault::Busy)?;
        match known? {
            _ if !right => Err(ProofFault::Wrong),
            (user, _) if user.disabled => Err(ProofFault::Disabled),
            (user, _) => Ok(user),
        }
    }

    fn hash_of(&self, tenant: &Tenant, user: &User) -> Result<String, ProofFault> {
        let sealed = tenant.credential(user.id, Proof::Password).ok_or(ProofFault::NotRegistered)?;
        let hash = self.sealing.open("password", sealed).map_err(|_| ProofFault::Unreadable)?;
        String::from_utf8(hash).map_err(|_| ProofFault::Unreadable)
    }
}
