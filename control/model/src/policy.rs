//! Conditional access: who may enter which application, under what conditions.
//!
//! Assignments and conditions are ANDed, exclusions win, every policy that
//! applies must be satisfied, and a block beats any grant (CA rows of the
//! parity table). `evaluate` is the only judge: at sign-in, at the relay and in
//! what-if. A new kind of condition is a new arm of `Policy::obstacle`; a new
//! requirement is a new variant of `Requirement`.

mod facts;
mod index;
mod requirement;
mod selection;

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;

pub(crate) use self::requirement::known as known_requirements;
use self::requirement::{least, reduced};
pub use self::{
    facts::{Facts, RecordedFacts, SignedIn},
    index::Policies,
    requirement::{Minutes, Requirement},
    selection::{Miss, Scope, Selection},
};
use crate::{
    directory::Principal,
    ids::{AppId, GroupId, PolicyId, UserId},
    text::{Invalid, Labels, Name},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub id: PolicyId,
    pub name: Name,
    pub state: State,
    pub people: Selection<Principal>,
    pub apps: Selection<AppId>,
    pub networks: Selection<IpNet>,
    pub grant: Grant,
    pub labels: Labels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    On,
    Off,
    ReportOnly,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    Block,
    /// All of these; none means that the policy only records.
    RequireAll(BTreeSet<Requirement>),
    RequireAny(BTreeSet<Requirement>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Grant,
    /// All of these are still missing: a user who shows them is let in.
    Challenge(BTreeSet<Requirement>),
    Deny(PolicyId),
}

/// The policies behind a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Involved {
    /// Policies that were on and applied.
    pub applied: Vec<PolicyId>,
    /// Report-only policies that would have challenged or denied.
    pub would_refuse: Vec<PolicyId>,
}

/// A decision and the policies behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub involved: Involved,
}

/// Proof that policy let a request pass. Only `authorize` makes one, and the
/// forwarder takes one, so it cannot be reached around the policies.
#[derive(Debug)]
#[non_exhaustive]
pub struct Authorized {
    pub involved: Involved,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    NotAssigned,
    Challenged { missing: BTreeSet<Requirement>, involved: Involved },
    Blocked { by: PolicyId, involved: Involved },
}

/// May this request pass? Assignment first, then every policy. Asked as
/// `Tenant::authorize`.
pub(crate) fn authorize(
    assigned: Option<&BTreeSet<Principal>>,
    policies: &Policies,
    facts: &Facts<'_>,
) -> Result<Authorized, Denied> {
    if let Some(user) = facts.user
        && !assigned.is_some_and(|it| is_assigned(it, user, facts.groups))
    {
        return Err(Denied::NotAssigned);
    }
    let Verdict { decision, involved } = evaluate(policies.for_app(facts.app), facts);
    match decision {
        Decision::Grant => Ok(Authorized { involved }),
        Decision::Challenge(missing) => Err(Denied::Challenged { missing, involved }),
        Decision::Deny(by) => Err(Denied::Blocked { by, involved }),
    }
}

pub(crate) fn is_assigned(assigned: &BTreeSet<Principal>, user: UserId, groups: &BTreeSet<GroupId>) -> bool {
    assigned.contains(&Principal::Everyone)
        || assigned.contains(&Principal::User(user))
        || groups.iter().any(|group| assigned.contains(&Principal::Group(*group)))
}

/// The one judge. A request that is granted costs no copy of a requirement.
pub fn evaluate<'a>(policies: impl IntoIterator<Item = &'a Arc<Policy>>, facts: &Facts<'_>) -> Verdict {
    let mut missing = BTreeSet::new();
    let mut any_of = Vec::new();
    let mut blocked_by = None;
    let mut involved = Involved::default();
    for policy in policies {
        if policy.state == State::Off || policy.obstacle(facts).is_some() {
            continue;
        }
        let unmet = policy.grant.unmet(facts);
        match policy.state {
            State::On => {
                involved.applied.push(policy.id);
                match unmet {
                    Unmet::Nothing => {}
                    Unmet::All(all) => missing.extend(all.iter().filter(|it| !it.is_met(facts))),
                    Unmet::OneOf(any) => any_of.push(any),
                    Unmet::Never => blocked_by = blocked_by.or(Some(policy.id)),
                }
            }
            State::ReportOnly => {
                if !matches!(unmet, Unmet::Nothing) {
                    involved.would_refuse.push(policy.id);
                }
            }
            State::Off => {}
        }
    }
    let decision = match (blocked_by, missing.is_empty() && any_of.is_empty()) {
        (Some(policy), _) => Decision::Deny(policy),
        (None, true) => Decision::Grant,
        (None, false) => Decision::Challenge(least(missing, &any_of)),
    };
    Verdict { decision, involved }
}

/// Why a policy does not apply: the first thing that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    OtherApplication,
    ExcludedApplication,
    OtherUser,
    ExcludedUser,
    OtherNetwork,
    ExcludedNetwork,
}

enum Unmet<'a> {
    Nothing,
    All(&'a BTreeSet<Requirement>),
    OneOf(&'a BTreeSet<Requirement>),
    Never,
}

impl Policy {
    /// Is on, and for everybody, everywhere.
    pub fn new(id: PolicyId, name: Name, grant: Grant) -> Self {
        let (people, apps, networks) = Default::default();
        Self { id, name, state: State::On, people, apps, networks, grant, labels: Labels::new() }
    }

    pub fn obstacle(&self, facts: &Facts<'_>) -> Option<Obstacle> {
        match self.apps.miss(|app| *app == facts.app) {
            Some(Miss::Excepted) => return Some(Obstacle::ExcludedApplication),
            Some(Miss::Other) => return Some(Obstacle::OtherApplication),
            None => {}
        }
        match self.people.miss(|principal| speaks_of(principal, facts)) {
            Some(Miss::Excepted) => return Some(Obstacle::ExcludedUser),
            Some(Miss::Other) => return Some(Obstacle::OtherUser),
            None => {}
        }
        match self.networks.miss(|network| network.contains(&facts.address)) {
            Some(Miss::Excepted) => Some(Obstacle::ExcludedNetwork),
            Some(Miss::Other) => Some(Obstacle::OtherNetwork),
            None => None,
        }
    }

    /// A policy that refuses whatever either of two refuses that are on, and
    /// perhaps more. It has the name and the id of the second.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            id: other.id,
            name: other.name.clone(),
            state: State::On,
            people: self.people.either(&other.people),
            apps: self.apps.either(&other.apps),
            networks: self.networks.either(&other.networks),
            grant: self.grant.and(&other.grant),
            labels: other.labels.clone(),
        }
    }

    /// Two policies that no request can tell apart.
    pub fn same_conditions(&self, other: &Self) -> bool {
        self.state == other.state
            && self.people == other.people
            && self.apps == other.apps
            && self.networks == other.networks
            && self.grant == other.grant
    }

    /// Groups the policy names; a token must carry them to be judged by it.
    pub fn named_groups(&self) -> impl Iterator<Item = GroupId> {
        self.people.named().filter_map(|principal| match principal {
            Principal::Group(group) => Some(*group),
            Principal::User(_) | Principal::Everyone => None,
        })
    }
}

impl Grant {
    pub fn requirements(&self) -> impl Iterator<Item = Requirement> {
        match self {
            Self::Block => None,
            Self::RequireAll(all) | Self::RequireAny(all) => Some(all.iter().copied()),
        }
        .into_iter()
        .flatten()
    }

    fn unmet(&self, facts: &Facts<'_>) -> Unmet<'_> {
        match self {
            Self::Block => Unmet::Never,
            Self::RequireAll(all) => match all.iter().all(|it| it.is_met(facts)) {
                true => Unmet::Nothing,
                false => Unmet::All(all),
            },
            Self::RequireAny(any) => match any.is_empty() || any.iter().any(|it| it.is_met(facts)) {
                true => Unmet::Nothing,
                false => Unmet::OneOf(any),
            },
        }
    }

    /// What satisfies this satisfies both.
    fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one.clone(),
            (Self::Block, _) | (_, Self::Block) => Self::Block,
            (Self::RequireAll(one) | Self::RequireAny(one), Self::RequireAll(other) | Self::RequireAny(other)) => {
                Self::RequireAll(reduced(one | other))
            }
        }
    }

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        self.requirements().try_for_each(Requirement::check)
    }

    /// What the policy asks, in words for what-if.
    pub fn asks(&self) -> String {
        match self {
            Self::Block => "blocks".into(),
            Self::RequireAll(all) => format!("requires all of {}", Requirement::named(all)),
            Self::RequireAny(any) => format!("requires any of {}", Requirement::named(any)),
        }
    }
}

fn speaks_of(principal: &Principal, facts: &Facts<'_>) -> bool {
    match principal {
        Principal::Everyone => true,
        Principal::User(user) => facts.user == Some(*user),
        Principal::Group(group) => facts.groups.contains(group),
    }
}
