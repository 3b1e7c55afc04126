//! A requirement: what a policy can ask of a user before it lets them in.
//!
//! Its text is the same in `acr_values` of a sign-in, in a session token, on the
//! command line and in what people are told. A new requirement is a variant here;
//! the compiler then asks how it is written, what satisfies it, and how identity
//! has the user satisfy it.

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Facts;
use crate::text::Invalid;

/// In the order in which a policy that takes any of several asks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// A second factor beside the password.
    Mfa,
    /// A sign-in not longer ago than this (sign-in frequency).
    SignInWithin(Minutes),
}

/// How long ago a sign-in may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minutes(u32);

impl Minutes {
    /// Shorter, and two clocks that differ a little would ask again and again.
    pub const MIN: u32 = 5;
    /// A session ends by then however it is used (`SESSION_LIFE_S`).
    pub const MAX: u32 = 720;

    pub fn recorded(minutes: u32) -> Self {
        Self(minutes)
    }

    pub fn parse(minutes: u32) -> Result<Self, Invalid> {
        let valid = (Self::MIN..=Self::MAX).contains(&minutes);
        valid.then_some(Self(minutes)).ok_or(Invalid("a sign-in may be asked for within 5 minutes to 12 hours"))
    }

    pub fn get(self) -> u32 {
        self.0
    }

    fn seconds(self) -> u64 {
        u64::from(self.0) * 60
    }
}

impl Requirement {
    /// Has the user of a request satisfied it?
    pub fn is_met(self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Mfa => facts.satisfied.contains(&self),
            Self::SignInWithin(within) => facts.signed_in_ago_s.is_some_and(|ago| u64::from(ago) <= within.seconds()),
        }
    }

    /// Whatever satisfies the first satisfies the second.
    fn implies(self, other: Self) -> bool {
        match (self, other) {
            (Self::Mfa, Self::Mfa) => true,
            (Self::SignInWithin(one), Self::SignInWithin(other)) => one <= other,
            (Self::Mfa, Self::SignInWithin(_)) | (Self::SignInWithin(_), Self::Mfa) => false,
        }
    }

    pub(crate) fn check(self) -> Result<(), Invalid> {
        match self {
            Self::Mfa => Ok(()),
            Self::SignInWithin(within) => Minutes::parse(within.0).map(|_| ()),
        }
    }

    /// The list of an `acr_values` parameter. An unknown word is an error that
    /// names it: ignored, the user would be sent to and fro.
    pub fn parse_list(text: &str) -> Result<BTreeSet<Self>, String> {
        text.split_ascii_whitespace().map(|word| word.parse().map_err(|_| word.to_owned())).collect()
    }

    /// Such a list.
    pub fn list(requirements: &BTreeSet<Self>) -> String {
        requirements.iter().fold(String::new(), |mut text, it| {
            let space = if text.is_empty() { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(text, "{space}{it}");
            text
        })
    }

    /// As people read several: `mfa, sign-in-within:4h`.
    pub fn named(requirements: &BTreeSet<Self>) -> String {
        Self::list(requirements).replace(' ', ", ")
    }
}

/// As few as say the same: none that another one implies.
pub(crate) fn reduced(requirements: BTreeSet<Requirement>) -> BTreeSet<Requirement> {
    let implied = |it: &Requirement| requirements.iter().any(|other| other != it && other.implies(*it));
    requirements.iter().filter(|it| !implied(it)).copied().collect()
}

/// The least that satisfies `all`, and of each of `any_of` at least one: the fewest
/// requirements, and of as many the ones that come first and leave most time.
pub(crate) fn least(all: BTreeSet<Requirement>, any_of: &[&BTreeSet<Requirement>]) -> BTreeSet<Requirement> {
    let all = reduced(all);
    let satisfies = |any: &BTreeSet<Requirement>| any.iter().any(|it| all.iter().any(|asked| asked.implies(*it)));
    let Some((open, rest)) = any_of.iter().position(|any| !satisfies(any)).map(|at| (any_of[at], &any_of[at + 1..]))
    else {
        return all;
    };
    // One that implies another of them asks for more than that.
    let easiest = open.iter().filter(|it| !open.iter().any(|other| other != *it && it.implies(*other)));
    let with = |it: &Requirement| least(all.iter().chain([it]).copied().collect(), rest);
    easiest.map(with).min_by_key(BTreeSet::len).unwrap_or_default()
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mfa => f.write_str("mfa"),
            // Releases before wrote hours in minutes too, and read both.
            Self::SignInWithin(within) if within.0.is_multiple_of(60) => write!(f, "sign-in-within:{}h", within.0 / 60),
            Self::SignInWithin(within) => write!(f, "sign-in-within:{}m", within.0),
        }
    }
}

impl FromStr for Requirement {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const BAD: Invalid = Invalid("a requirement is mfa or sign-in-within:TIME, such as 30m or 8h");
        match text.split_once(':') {
            None if text == "mfa" => Ok(Self::Mfa),
            Some(("sign-in-within", time)) => {
                let (count, unit) = match (time.strip_suffix('m'), time.strip_suffix('h')) {
                    (Some(count), _) => (count, 1),
                    (None, Some(count)) => (count, 60),
                    (None, None) => return Err(BAD),
                };
                let count = count.bytes().all(|it| it.is_ascii_digit()).then(|| count.parse::<u32>().ok()).flatten();
                let minutes = count.and_then(|it| it.checked_mul(unit)).ok_or(BAD)?;
                Minutes::parse(minutes).map(Self::SignInWithin)
            }
            None | Some(_) => Err(BAD),
        }
    }
}

impl Serialize for Requirement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Requirement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A list in a token. What a newer identity says that is not known here is left
/// out: it satisfies nothing.
pub(crate) fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Requirement>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    Ok(words.iter().filter_map(|it| it.parse().ok()).collect())
}
