//! What a user signs in with: a password, a second factor, each an object.
//!
//! Sealed to identity: neither the model nor the log can open them. An empty one
//! says that there is none, also where [`Credentials`] knew one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    event::Stream,
    ids::UserId,
    kinds::{
        ObjectKey, Tenant,
        kind::{Kind, Rank, Reference},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    Password,
    Totp,
}

impl Proof {
    pub const ALL: [Self; 2] = [Self::Password, Self::Totp];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Totp => "totp",
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub user: UserId,
    pub proof: Proof,
    pub sealed: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, {:?}, ..)", self.user, self.proof)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialKey {
    pub user: UserId,
    pub proof: Proof,
}

impl fmt::Display for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.user, self.proof.as_str())
    }
}

impl Kind for Credential {
    const NAME: &'static str = "credential";
    const TITLE: &'static str = "credential";
    const STREAM: Stream = Stream::Directory;
    type Key = CredentialKey;

    fn key(&self) -> CredentialKey {
        CredentialKey { user: self.user, proof: self.proof }
    }

    fn refers_to(&self) -> Vec<Reference> {
        vec![Reference::part_of(ObjectKey::User(self.user))]
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::People
    }
}

/// All that a user had, as one object: how it was recorded at first. It is read,
/// and never written.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: UserId,
    pub password: Vec<u8>,
    pub totp: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ..)", self.user)
    }
}

impl Kind for Credentials {
    const NAME: &'static str = "credentials";
    const TITLE: &'static str = "credentials";
    const STREAM: Stream = Stream::Directory;
    type Key = UserId;

    fn key(&self) -> UserId {
        self.user
    }

    fn refers_to(&self) -> Vec<Reference> {
        vec![Reference::part_of(ObjectKey::User(self.user))]
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::People
    }
}

impl Tenant {
    /// What is sealed of a user's proof, if the user has it.
    pub fn credential(&self, user: UserId, proof: Proof) -> Option<&[u8]> {
        let sealed = match self.credentials.get(&CredentialKey { user, proof }) {
            Some(it) => it.sealed.as_slice(),
            None => {
                let both = self.credentials_before.get(&user)?;
                match proof {
                    Proof::Password => both.password.as_slice(),
                    Proof::Totp => both.totp.as_slice(),
                }
            }
        };
        Some(sealed).filter(|it| !it.is_empty())
    }
}
