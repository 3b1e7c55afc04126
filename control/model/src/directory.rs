//! People: users, groups, who is in which, and what administrators may do.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{
    ids::{GroupId, UserId},
    text::Invalid,
};

/// What a person types to sign in: lower case, 1 to 64 of `a-z 0-9 . _ - @ +`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(Arc<str>);

impl Username {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let lower = text.trim().to_lowercase();
        let valid = (1..=64).contains(&lower.len())
            && lower.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-@+".contains(&b));
        valid
            .then(|| Self(lower.into()))
            .ok_or(Invalid("a username has 1 to 64 of a-z, 0-9, '.', '_', '-', '@' and '+'"))
    }

    pub fn recorded(text: &str) -> Self {
        Self(text.trim().to_lowercase().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whom an assignment or a policy speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    Everyone,
    User(UserId),
    Group(GroupId),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::Group(id) => write!(f, "group:{id}"),
        }
    }
}

impl Principal {
    /// As one token of a subject.
    pub(crate) fn token(self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl FromStr for Principal {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const BAD: Invalid = Invalid("a principal is user:ID, group:ID or everyone");
        match text.split_once(':') {
            None if text == "everyone" => Ok(Self::Everyone),
            Some(("user", id)) => id.parse().map(Self::User).map_err(|_| BAD),
            Some(("group", id)) => id.parse().map(Self::Group).map_err(|_| BAD),
            None | Some(_) => Err(BAD),
        }
    }
}

/// What an administrator may do; each can do all that the one before can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Auditor,
    Admin,
    Owner,
}
