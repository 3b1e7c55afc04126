//! Conditional access: who may enter which application, under what conditions.
//!
//! Assignments and conditions are ANDed, exclusions win, every policy that
//! applies must be satisfied, and a block beats any grant (CA rows of the
//! parity table). `evaluate` is the only judge: at sign-in, at the relay and in
//! what-if. A new kind of condition is a new arm of `Policy::obstacle`; a new
//! control is a new variant of `Control`.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;
use ipnet::IpNet;

use crate::{
    app::Name,
    directory::Principal,
    ids::{AppId, GroupId, PolicyId, UserId},
    snapshot::Tenant,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub id: PolicyId,
    pub name: Name,
    pub state: State,
    /// Empty means everyone.
    pub include: Vec<Principal>,
    pub exclude: Vec<Principal>,
    /// Empty means all applications.
    pub apps: BTreeSet<AppId>,
    pub exclude_apps: BTreeSet<AppId>,
    /// Empty means anywhere.
    pub networks: Vec<IpNet>,
    pub exclude_networks: Vec<IpNet>,
    pub grant: Grant,
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
    RequireAll(BTreeSet<Control>),
    RequireAny(BTreeSet<Control>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Control {
    Mfa,
}

/// What is known about one request. `user` is `None` on passthrough.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub app: AppId,
    pub user: Option<UserId>,
    pub groups: &'a BTreeSet<GroupId>,
    pub address: IpAddr,
    pub satisfied: &'a BTreeSet<Control>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Grant,
    /// What is still missing, so the user can be asked for it.
    Challenge(BTreeSet<Control>),
    Deny(PolicyId),
}

/// A decision and the policies behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    /// Policies that were on and applied.
    pub applied: Vec<PolicyId>,
    /// Report-only policies that would have challenged or denied.
    pub would_refuse: Vec<PolicyId>,
}

/// Proof that policy let a request pass. Only `authorize` makes one, and the
/// forwarder takes one, so it cannot be reached around the policies.
#[derive(Debug)]
#[non_exhaustive]
pub struct Authorized {
    pub applied: Vec<PolicyId>,
    pub would_refuse: Vec<PolicyId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    NotAssigned,
    Policy(Verdict),
}

/// May this request pass? Assignment first, then every policy.
pub fn authorize(tenant: &Tenant, facts: &Facts<'_>) -> Result<Authorized, Denied> {
    if let Some(user) = facts.user
        && !is_assigned(tenant, facts.app, user, facts.groups)
    {
        return Err(Denied::NotAssigned);
    }
    let verdict = evaluate(tenant.policies.for_app(facts.app), facts);
    match verdict.decision {
        Decision::Grant => Ok(Authorized { applied: verdict.applied, would_refuse: verdict.would_refuse }),
        Decision::Challenge(_) | Decision::Deny(_) => Err(Denied::Policy(verdict)),
    }
}

pub fn is_assigned(tenant: &Tenant, app: AppId, user: UserId, groups: &BTreeSet<GroupId>) -> bool {
    tenant.assigned(app).is_some_and(|assigned| {
        assigned.contains(&Principal::Everyone)
            || assigned.contains(&Principal::User(user))
            || groups.iter().any(|group| assigned.contains(&Principal::Group(*group)))
    })
}

pub fn evaluate<'a>(policies: impl IntoIterator<Item = &'a Arc<Policy>>, facts: &Facts<'_>) -> Verdict {
    let mut missing = BTreeSet::new();
    let mut blocked_by = None;
    let mut applied = Vec::new();
    let mut would_refuse = Vec::new();
    for policy in policies {
        if policy.state == State::Off || policy.obstacle(facts).is_some() {
            continue;
        }
        let unmet = policy.grant.unmet(facts.satisfied);
        match policy.state {
            State::On => {
                applied.push(policy.id);
                match unmet {
                    Unmet::Nothing => {}
                    Unmet::Controls(controls) => missing.extend(controls),
                    Unmet::Never => blocked_by = blocked_by.or(Some(policy.id)),
                }
            }
            State::ReportOnly => {
                if unmet != Unmet::Nothing {
                    would_refuse.push(policy.id);
                }
            }
            State::Off => {}
        }
    }
    let decision = match (blocked_by, missing.is_empty()) {
        (Some(policy), _) => Decision::Deny(policy),
        (None, true) => Decision::Grant,
        (None, false) => Decision::Challenge(missing),
    };
    Verdict { decision, applied, would_refuse }
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

#[derive(Debug, PartialEq, Eq)]
enum Unmet {
    Nothing,
    Controls(BTreeSet<Control>),
    Never,
}

impl Policy {
    pub fn obstacle(&self, facts: &Facts<'_>) -> Option<Obstacle> {
        if self.exclude_apps.contains(&facts.app) {
            return Some(Obstacle::ExcludedApplication);
        }
        if !self.apps.is_empty() && !self.apps.contains(&facts.app) {
            return Some(Obstacle::OtherApplication);
        }
        if self.exclude.iter().any(|principal| speaks_of(principal, facts)) {
            return Some(Obstacle::ExcludedUser);
        }
        if !self.include.is_empty() && !self.include.iter().any(|principal| speaks_of(principal, facts)) {
            return Some(Obstacle::OtherUser);
        }
        let address = facts.address.to_canonical();
        if self.exclude_networks.iter().any(|network| network.contains(&address)) {
            return Some(Obstacle::ExcludedNetwork);
        }
        if !self.networks.is_empty() && !self.networks.iter().any(|network| network.contains(&address)) {
            return Some(Obstacle::OtherNetwork);
        }
        None
    }

    /// A policy that refuses whatever either of two refuses that are on, and
    /// perhaps more. It has the name and the id of the second.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            id: other.id,
            name: other.name.clone(),
            state: State::On,
            include: either(&self.include, &other.include),
            exclude: common(&self.exclude, &other.exclude),
            apps: match self.apps.is_empty() || other.apps.is_empty() {
                true => BTreeSet::new(),
                false => self.apps.union(&other.apps).copied().collect(),
            },
            exclude_apps: self.exclude_apps.intersection(&other.exclude_apps).copied().collect(),
            networks: either(&self.networks, &other.networks),
            exclude_networks: common(&self.exclude_networks, &other.exclude_networks),
            grant: self.grant.and(&other.grant),
        }
    }

    /// Two policies that no request can tell apart.
    pub fn same_conditions(&self, other: &Self) -> bool {
        let set = |principals: &[Principal]| principals.iter().copied().collect::<BTreeSet<_>>();
        let nets = |networks: &[IpNet]| networks.iter().copied().collect::<BTreeSet<_>>();
        self.state == other.state
            && set(&self.include) == set(&other.include)
            && set(&self.exclude) == set(&other.exclude)
            && self.apps == other.apps
            && self.exclude_apps == other.exclude_apps
            && nets(&self.networks) == nets(&other.networks)
            && nets(&self.exclude_networks) == nets(&other.exclude_networks)
            && self.grant == other.grant
    }

    /// Groups the policy names; a token must carry them to be judged by it.
    pub fn named_groups(&self) -> impl Iterator<Item = GroupId> {
        self.include.iter().chain(&self.exclude).filter_map(|principal| match principal {
            Principal::Group(group) => Some(*group),
            Principal::User(_) | Principal::Everyone => None,
        })
    }
}

impl Grant {
    fn unmet(&self, satisfied: &BTreeSet<Control>) -> Unmet {
        match self {
            Self::Block => Unmet::Never,
            Self::RequireAll(controls) => match controls.is_subset(satisfied) {
                true => Unmet::Nothing,
                false => Unmet::Controls(controls.difference(satisfied).copied().collect()),
            },
            Self::RequireAny(controls) => match controls.is_empty() || !controls.is_disjoint(satisfied) {
                true => Unmet::Nothing,
                false => Unmet::Controls(controls.clone()),
            },
        }
    }

    /// What satisfies this satisfies both.
    fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one.clone(),
            (Self::Block, _) | (_, Self::Block) => Self::Block,
            (Self::RequireAll(one) | Self::RequireAny(one), Self::RequireAll(other) | Self::RequireAny(other)) => {
                Self::RequireAll(one.union(other).copied().collect())
            }
        }
    }

    /// What the policy asks, in words for what-if.
    pub fn asks(&self) -> String {
        match self {
            Self::Block => "blocks".into(),
            Self::RequireAll(controls) => format!("requires all of {controls:?}").to_lowercase(),
            Self::RequireAny(controls) => format!("requires any of {controls:?}").to_lowercase(),
        }
    }
}

/// Both lists; an empty one already means all.
fn either<T: Copy + Ord>(one: &[T], other: &[T]) -> Vec<T> {
    match one.is_empty() || other.is_empty() {
        true => vec![],
        false => one.iter().chain(other).copied().collect::<BTreeSet<_>>().into_iter().collect(),
    }
}

fn common<T: Copy + PartialEq>(one: &[T], other: &[T]) -> Vec<T> {
    one.iter().filter(|it| other.contains(it)).copied().collect()
}

fn speaks_of(principal: &Principal, facts: &Facts<'_>) -> bool {
    match principal {
        Principal::Everyone => true,
        Principal::User(user) => facts.user == Some(*user),
        Principal::Group(group) => facts.groups.contains(group),
    }
}

/// All policies of a tenant, filed by application, so that a request looks only
/// at those that may concern it.
#[derive(Clone, Default, Debug)]
pub struct Policies {
    by_id: OrdMap<PolicyId, Arc<Policy>>,
    everywhere: Arc<Vec<Arc<Policy>>>,
    by_app: Arc<HashMap<AppId, Vec<Arc<Policy>>>>,
}

/// The files are derived from `by_id`.
impl PartialEq for Policies {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl Policies {
    pub(crate) fn insert(&mut self, policy: Policy) {
        self.remove(policy.id);
        let policy = Arc::new(policy);
        self.by_id.insert(policy.id, policy.clone());
        if policy.apps.is_empty() {
            file(Arc::make_mut(&mut self.everywhere), &policy);
        } else {
            let by_app = Arc::make_mut(&mut self.by_app);
            for app in &policy.apps {
                file(by_app.entry(*app).or_default(), &policy);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: PolicyId) {
        let Some(policy) = self.by_id.remove(&id) else { return };
        if policy.apps.is_empty() {
            Arc::make_mut(&mut self.everywhere).retain(|it| it.id != id);
        } else {
            let by_app = Arc::make_mut(&mut self.by_app);
            for app in &policy.apps {
                if let Some(filed) = by_app.get_mut(app) {
                    filed.retain(|it| it.id != id);
                }
            }
        }
    }

    pub fn for_app(&self, app: AppId) -> impl Iterator<Item = &Arc<Policy>> {
        self.everywhere.iter().chain(self.by_app.get(&app).into_iter().flatten())
    }

    pub fn get(&self, id: PolicyId) -> Option<&Arc<Policy>> {
        self.by_id.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_id.values()
    }
}

/// Sorted by id, so the order of events does not show.
fn file(policies: &mut Vec<Arc<Policy>>, policy: &Arc<Policy>) {
    let at = policies.partition_point(|it| it.id < policy.id);
    policies.insert(at, policy.clone());
}
