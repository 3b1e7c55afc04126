//! A selection of people, applications or networks: all or only some of them,
//! without those excepted.
//!
//! All and none are two values, so a list from which the last entry was taken
//! away never selects everything.

use std::collections::BTreeSet;

use crate::text::Invalid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection<T> {
    pub scope: Scope<T>,
    /// Wins over the scope.
    pub except: BTreeSet<T>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope<T> {
    All,
    /// An empty list selects nothing, and is refused in what is written now.
    Only(BTreeSet<T>),
}

/// Why a selection does not concern a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    Other,
    Excepted,
}

impl<T> Default for Selection<T> {
    fn default() -> Self {
        Self { scope: Scope::All, except: BTreeSet::new() }
    }
}

impl<T: Copy + Ord> Selection<T> {
    pub fn all_except(except: impl IntoIterator<Item = T>) -> Self {
        Self { scope: Scope::All, except: except.into_iter().collect() }
    }

    pub fn only(some: impl IntoIterator<Item = T>) -> Self {
        Self { scope: Scope::Only(some.into_iter().collect()), except: BTreeSet::new() }
    }

    pub fn except(self, except: impl IntoIterator<Item = T>) -> Self {
        Self { except: except.into_iter().collect(), ..self }
    }

    /// `concerns` says whether one entry speaks of the request.
    pub fn miss(&self, concerns: impl Fn(&T) -> bool) -> Option<Miss> {
        if self.except.iter().any(&concerns) {
            return Some(Miss::Excepted);
        }
        match &self.scope {
            Scope::All => None,
            Scope::Only(some) => (!some.iter().any(concerns)).then_some(Miss::Other),
        }
    }

    /// Everything that is listed, selected or excepted.
    pub fn named(&self) -> impl Iterator<Item = &T> {
        self.scope.listed().chain(&self.except)
    }

    /// Selects at least what either of two selects.
    pub(crate) fn either(&self, other: &Self) -> Self {
        let scope = match (&self.scope, &other.scope) {
            (Scope::All, _) | (_, Scope::All) => Scope::All,
            (Scope::Only(one), Scope::Only(other)) => Scope::Only(one | other),
        };
        Self { scope, except: &self.except & &other.except }
    }

    /// The rule for what is written now: a list names something.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match &self.scope {
            Scope::Only(some) if some.is_empty() => Err(Invalid(
                "the list is empty, so the policy would apply to nothing: name something, or set the scope to all",
            )),
            Scope::Only(_) | Scope::All => Ok(()),
        }
    }
}

impl<T> Scope<T> {
    /// What is listed; nothing where all are meant.
    pub fn listed(&self) -> impl Iterator<Item = &T> {
        match self {
            Self::All => None,
            Self::Only(some) => Some(some),
        }
        .into_iter()
        .flatten()
    }
}
