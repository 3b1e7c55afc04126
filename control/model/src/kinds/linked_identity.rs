//! Who somebody is elsewhere: the subject of an identity provider, and the user
//! it stands for here.
//!
//! Issuer and subject together are the only claims of a provider that never mean
//! somebody else later (OpenID Connect Core 5.7). A name or an e-mail address may
//! be given to another person, so nobody is found by one.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use crate::{
    event::Stream,
    ids::UserId,
    kinds::{
        ObjectKey, Rejection, Tenant,
        kind::{Broken, Change, Concern, Kind, Rank, Reference},
    },
};

/// OpenID Connect Core 2: a subject has at most 255 ASCII characters.
const TEXT_BYTES_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedIdentity {
    /// Both are compared byte for byte.
    pub identity: IdentityKey,
    pub user: UserId,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityKey {
    /// `iss` of OpenID Connect, the entity id of SAML.
    pub issuer: Arc<str>,
    /// `sub` of OpenID Connect, a persistent NameID of SAML.
    pub subject: Arc<str>,
}

/// Two tokens of a subject: letters, digits, `-` and `_` as they are, any other
/// byte as `=` and two hexadecimal digits.
impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_token(f, &self.issuer)?;
        f.write_char('.')?;
        write_token(f, &self.subject)
    }
}

fn write_token(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.bytes().try_for_each(|byte| match byte {
        b'-' | b'_' => f.write_char(byte.into()),
        _ if byte.is_ascii_alphanumeric() => f.write_char(byte.into()),
        _ => write!(f, "={byte:02X}"),
    })
}

impl Kind for LinkedIdentity {
    const NAME: &'static str = "linked-identity";
    const TITLE: &'static str = "linked identity";
    const STREAM: Stream = Stream::Directory;
    type Key = IdentityKey;

    fn key(&self) -> IdentityKey {
        self.identity.clone()
    }

    fn refers_to(&self) -> Vec<Reference> {
        vec![Reference::part_of(ObjectKey::User(self.user))]
    }

    fn check(&self) -> Result<(), Broken> {
        let fits = |text: &str| (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if !fits(&self.identity.issuer) {
            return Err(Broken::new("issuer", "has 1 to 255 bytes and no control characters"));
        }
        if !fits(&self.identity.subject) {
            return Err(Broken::new("subject", "has 1 to 255 bytes and no control characters"));
        }
        Ok(())
    }

    fn check_change(before: Option<&Self>, after: Option<&Self>, _change: &Change<'_>) -> Result<(), Rejection> {
        match (before, after) {
            // Moved, it would sign one person in as another.
            (Some(before), Some(after)) if before.user != after.user => {
                Err(Broken::new("user", "is another than it is linked to: remove the linked identity first").into())
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::People
    }

    fn concerns(_key: &IdentityKey, before: Option<&Self>, after: Option<&Self>) -> Concern {
        match (before, after) {
            // It may have been the way by which they came in.
            (Some(before), None) => Concern::SignedOut(before.user),
            (Some(_) | None, _) => Concern::Nobody,
        }
    }
}

impl Tenant {
    /// The user whom a subject of a provider stands for.
    pub fn linked_user(&self, identity: &IdentityKey) -> Option<UserId> {
        self.linked_identities.get(identity).map(|it| it.user)
    }
}
