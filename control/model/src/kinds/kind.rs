//! What a kind of object is: its name, its key, what it refers to, the rules it
//! keeps, and what follows from a change of it.
//!
//! Everything else (append, fold, look-up by name, references, API, roles, files,
//! history) is written once, over this trait. The list of kinds is in `kinds`.

use std::{fmt, hash::Hash};

pub use crate::text::{Broken, InField};
use crate::{
    directory::Principal,
    event::Stream,
    ids::{AppId, SessionId, TenantId, UserId},
    kinds::{ObjectKey, Rejection, Tenant},
    route::Routes,
    text::Labels,
};

pub trait Kind: Clone + fmt::Debug + PartialEq + Send + Sync + 'static {
    /// In files, commands and the table of roles.
    const NAME: &'static str;
    /// For people.
    const TITLE: &'static str;
    const STREAM: Stream;
    /// The word in subjects: `postern.<stream>.<tenant>.<SUBJECT>.<key>`.
    const SUBJECT: &'static str = Self::NAME;
    /// Two objects of a kind never have the same name, unless this says so.
    const NAMES_REPEAT: bool = false;
    /// Displayed as it stands in subjects.
    type Key: Clone + fmt::Debug + fmt::Display + Ord + Hash + Send + Sync + 'static;

    fn key(&self) -> Self::Key;

    /// What people call it. Compared without case.
    fn name(&self) -> Option<&str> {
        None
    }

    fn labels(&self) -> Option<&Labels> {
        None
    }

    /// What has to exist as long as this does.
    fn refers_to(&self) -> Vec<Reference> {
        vec![]
    }

    /// Today's rules for what it says by itself; those for labels are asked of every kind.
    fn check(&self) -> Result<(), Broken> {
        Ok(())
    }

    /// Rules that look at others; `after` is `None` where it is removed.
    fn check_change(_before: Option<&Self>, _after: Option<&Self>, _change: &Change<'_>) -> Result<(), Rejection> {
        Ok(())
    }

    /// Is it there? Not after what it lapses with was removed: see [`Bond::Lapses`].
    fn counts(&self, _tenant: &Tenant) -> bool {
        true
    }

    /// What lapsed with an earlier object of this key, and must not come back with it.
    fn lapsed_with(_key: &Self::Key, _tenant: &Tenant) -> Vec<ObjectKey> {
        vec![]
    }

    /// What is recorded when this is wished and `before` is there.
    fn settled(self, _before: Option<&Self>) -> Self {
        self
    }

    /// Keeps what is derived from objects of this kind. In the order of events
    /// that do not change each other, it must come to the same.
    fn index(_at: &mut Indexes<'_>, _before: Option<&Self>, _after: Option<&Self>) {}

    /// Where its change stands among others that happen together.
    fn rank(before: Option<&Self>, after: Option<&Self>) -> Rank;

    /// A change that is recorded in two steps, so that nothing opens between:
    /// what to record first.
    fn stricter_first(_before: &Self, _after: &Self) -> Option<Self> {
        None
    }

    /// Whose open exchanges have to be judged again when it changes.
    fn touches(&self) -> Touch {
        Touch::Nobody
    }

    /// Whose tokens say something that is not so any more. Without `before` and
    /// `after`: it was removed, and what it said is not known any more.
    fn concerns(_key: &Self::Key, _before: Option<&Self>, _after: Option<&Self>) -> Concern {
        Concern::Nobody
    }
}

/// An object that another one names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub to: ObjectKey,
    pub bond: Bond,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bond {
    /// What is named cannot be removed.
    Needs,
    /// It is removed together with what is named, by an event of its own.
    PartOf,
    /// It counts as removed while what is named is not there, without an event:
    /// there may be many of them. It lies in its table until its subject, or what
    /// it names, is recorded again.
    Lapses,
}

impl Reference {
    pub fn needs(to: ObjectKey) -> Self {
        Self { to, bond: Bond::Needs }
    }

    pub fn part_of(to: ObjectKey) -> Self {
        Self { to, bond: Bond::PartOf }
    }

    /// `None` for everyone, who always exists.
    pub fn to_principal(principal: Principal, bond: Bond) -> Option<Self> {
        let to = match principal {
            Principal::Everyone => return None,
            Principal::User(id) => ObjectKey::User(id),
            Principal::Group(id) => ObjectKey::Group(id),
        };
        Some(Self { to, bond })
    }
}

/// What is true before a change, and what would be after the whole of it.
pub struct Change<'a> {
    pub tenant_id: &'a TenantId,
    pub before: &'a Tenant,
    pub after: &'a Tenant,
    /// Of all tenants, after it.
    pub routes: &'a Routes,
}

/// What derived state is kept in.
pub struct Indexes<'a> {
    pub tenant_id: &'a TenantId,
    pub tenant: &'a mut Tenant,
    pub routes: &'a mut Routes,
}

/// The order in which changes that belong together are recorded. Every beginning
/// of it is safe: who could not enter before, and cannot enter after, can never
/// enter in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Tokens are taken away before anything else happens.
    Revokes,
    /// Names that others refer to, and what opens and closes nothing.
    Names,
    Closes,
    People,
    Applications,
    Opens,
    Loosens,
    /// What others may have referred to until now.
    Forgets,
}

/// Whose open exchanges a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    Nobody,
    Everybody,
    App(AppId),
    User(UserId),
    Session(SessionId),
    /// Those that changed in [`crate::risk::Outdated`].
    Outdated,
}

/// Who has to get new tokens, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    Nobody,
    /// What tokens say of them may be wrong now.
    Tokens(Principal),
    /// Whoever is signed in as this user has to prove it again.
    SignedOut(UserId),
}
