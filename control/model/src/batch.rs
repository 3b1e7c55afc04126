//! Many commands as one change: what they come to, in an order in which nothing
//! opens before it closes.
//!
//! The events of one stream are appended together, but readers may see a part of
//! them first, and another stream later. So every beginning of the order must be
//! safe: who could not enter before, and cannot enter after, can never enter in
//! between. A fold looks at one subject at a time, so a policy may come before
//! the application that it speaks of.
//!
//! Choices. A policy that loosens in one way and tightens in another is written
//! twice: first as strict as both, and at the end as wished. Given up: all in one
//! append, for such a change and for one of DIRECTORY and CONFIG together.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    command::{Command, Rejection, decide},
    event::{Event, Stream},
    ids::{PolicyId, TenantId},
    policy::{Policy, State},
    snapshot::Snapshot,
};

/// Events that are appended together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub stream: Stream,
    pub events: Vec<Event>,
}

/// The events of all commands, each decided as if those before it had happened.
/// Nothing comes of them when one is rejected; a subject gets its last event only.
pub fn decide_all(
    snapshot: &Snapshot,
    tenant: &TenantId,
    commands: impl IntoIterator<Item = Command>,
) -> Result<Vec<Step>, Rejection> {
    let mut draft = snapshot.clone();
    let mut last = BTreeMap::new();
    for (turn, command) in commands.into_iter().enumerate() {
        for (part, event) in decide(&draft, tenant, command)?.into_iter().enumerate() {
            draft.apply(tenant, event.clone(), 0);
            last.insert(event.subject().path(tenant), ((turn, part), event));
        }
    }
    let mut events: Vec<_> = last.into_values().collect();
    events.sort_by_key(|(order, _)| *order);
    let alone = events.len() == 1;
    let before = |id: PolicyId| snapshot.tenant(tenant).and_then(|it| it.policy(id));
    let mut ranked: Vec<(Rank, Event)> = Vec::with_capacity(events.len());
    for (_, event) in events {
        // One event alone has nothing in between. A policy that is removed and made
        // again in one change has changed.
        if let Event::PolicyChanged(after) | Event::PolicyCreated(after) = &event
            && !alone
            && let Some(before) = before(after.id)
        {
            ranked.extend(policy_change(before, after.clone()));
        } else {
            ranked.push((rank(&event), event));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    Ok(steps(ranked.into_iter().map(|(_, event)| event), tenant))
}

/// In the order in which things are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Tokens are taken away before anything else happens.
    Revokes,
    /// Names that others refer to, and what opens and closes nothing.
    Names,
    Closes,
    People,
    Applications,
    Opens,
    Loosens,
}

fn rank(event: &Event) -> Rank {
    match event {
        Event::SessionRevoked(_)
        | Event::UserRevoked(_)
        | Event::TokensOutdated(_)
        | Event::AllSessionsEnded { .. } => Rank::Revokes,
        Event::UserCreated(_)
        | Event::GroupCreated(_)
        | Event::GroupChanged(_)
        | Event::TenantChanged { .. }
        | Event::BrandingChanged(_)
        | Event::ConnectorGroupCreated(_)
        | Event::ConnectorGroupChanged(_)
        | Event::JoinTokenIssued(_)
        | Event::ConnectorEnrolled(_)
        | Event::KeyPublished(_)
        | Event::CertificateInstalled(_) => Rank::Names,
        Event::ConnectorRevoked(_)
        | Event::PolicyCreated(_)
        | Event::PolicyChanged(_)
        | Event::Unassigned { .. }
        | Event::AppRetired(_)
        | Event::RoleWithdrawn { .. } => Rank::Closes,
        Event::UserChanged(_)
        | Event::UserRemoved(_)
        | Event::CredentialsChanged(_)
        | Event::GroupRemoved(_)
        | Event::MemberAdded { .. }
        | Event::MemberRemoved { .. } => Rank::People,
        Event::AppPublished(_) | Event::AppChanged(_) => Rank::Applications,
        Event::Assigned { .. } | Event::RoleGranted { .. } => Rank::Opens,
        Event::PolicyRemoved(_)
        | Event::ConnectorGroupRetired(_)
        | Event::KeyRetired(_)
        | Event::CertificateRemoved(_) => Rank::Loosens,
    }
}

/// As strict as both first, as wished last; one event where that is the same.
fn policy_change(before: &Policy, after: Policy) -> Vec<(Rank, Event)> {
    // Only a policy that is on refuses anything.
    let (was_on, is_on) = (before.state == State::On, after.state == State::On);
    let both = match (was_on, is_on) {
        (true, true) => before.and(&after),
        (true, false) => before.clone(),
        (false, _) => after.clone(),
    };
    if both.same_conditions(&after) {
        return vec![(Rank::Closes, Event::PolicyChanged(after))];
    }
    if both.same_conditions(before) {
        return vec![(Rank::Loosens, Event::PolicyChanged(after))];
    }
    vec![(Rank::Closes, Event::PolicyChanged(both)), (Rank::Loosens, Event::PolicyChanged(after))]
}

/// Neighbours of one stream are one step, in which a subject is once.
fn steps(events: impl Iterator<Item = Event>, tenant: &TenantId) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut subjects = BTreeSet::new();
    for event in events {
        let subject = event.subject();
        let new = subjects.insert(subject.path(tenant));
        match steps.last_mut() {
            Some(step) if step.stream == subject.stream && new => step.events.push(event),
            _ => {
                subjects = BTreeSet::from([subject.path(tenant)]);
                steps.push(Step { stream: subject.stream, events: vec![event] });
            }
        }
    }
    steps
}
