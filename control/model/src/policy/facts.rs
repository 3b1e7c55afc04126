//! Facts: everything a policy may ask about one request. Relays (for a request
//! and for an open exchange), identity (for a sign-in), and what-if make them in
//! one place, `Facts::new`, so that they cannot judge by different facts.
//!
//! `Facts` borrows and copies nothing, for the path of a request.
//! `RecordedFacts` owns the same, read from a recorded access to be judged again.

use std::{collections::BTreeSet, net::IpAddr};

use super::Requirement;
use crate::ids::{AppId, GroupId, Timestamp, UserId};

/// What is known about one request. Made by `Facts::new` alone.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Facts<'a> {
    pub app: AppId,
    /// `None` on passthrough.
    pub user: Option<UserId>,
    pub groups: &'a BTreeSet<GroupId>,
    /// Canonical: IPv4 inside IPv6 is IPv4.
    pub address: IpAddr,
    /// What the sign-in has satisfied for as long as its session lasts.
    pub satisfied: &'a BTreeSet<Requirement>,
    pub signed_in_ago_s: Option<u32>,
}

/// The user of a request, and what their sign-in has shown.
#[derive(Clone, Copy, Debug)]
pub struct SignedIn<'a> {
    pub user: UserId,
    pub groups: &'a BTreeSet<GroupId>,
    pub satisfied: &'a BTreeSet<Requirement>,
    /// When they last proved who they are; `None` while they still have to.
    pub at: Option<Timestamp>,
}

static NO_GROUPS: BTreeSet<GroupId> = BTreeSet::new();
static NOTHING_SATISFIED: BTreeSet<Requirement> = BTreeSet::new();

impl<'a> Facts<'a> {
    pub fn new(app: AppId, address: IpAddr, who: Option<SignedIn<'a>>, now: Timestamp) -> Self {
        Self {
            app,
            user: who.map(|it| it.user),
            groups: who.map_or(&NO_GROUPS, |it| it.groups),
            address: address.to_canonical(),
            satisfied: who.map_or(&NOTHING_SATISFIED, |it| it.satisfied),
            signed_in_ago_s: who.and_then(|it| it.at).map(|at| seconds_between(at, now)),
        }
    }

    /// An owned copy.
    pub fn record(&self) -> RecordedFacts {
        RecordedFacts {
            app: self.app,
            user: self.user,
            groups: self.groups.clone(),
            address: self.address,
            satisfied: self.satisfied.clone(),
            signed_in_ago_s: self.signed_in_ago_s,
        }
    }
}

/// Rounded up; a sign-in by a clock that is ahead was just now.
fn seconds_between(at: Timestamp, now: Timestamp) -> u32 {
    let ago_ms = now.0.saturating_sub(at.0).max(0);
    u32::try_from(ago_ms.saturating_add(999) / 1000).unwrap_or(u32::MAX)
}

/// Owned facts: of a recorded access, to be judged again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFacts {
    pub app: AppId,
    pub user: Option<UserId>,
    pub groups: BTreeSet<GroupId>,
    pub address: IpAddr,
    pub satisfied: BTreeSet<Requirement>,
    pub signed_in_ago_s: Option<u32>,
}

impl RecordedFacts {
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            app: self.app,
            user: self.user,
            groups: &self.groups,
            address: self.address,
            satisfied: &self.satisfied,
            signed_in_ago_s: self.signed_in_ago_s,
        }
    }
}
