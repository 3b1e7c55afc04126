//! Membership of a user or a group in a group, directly.

use std::{collections::BTreeSet, fmt, sync::Arc};

use imbl::OrdMap;

use crate::{
    directory::Principal,
    event::Stream,
    ids::GroupId,
    kinds::{
        ObjectKey, Rejection, Tenant,
        kind::{Bond, Broken, Change, Concern, Indexes, Kind, Rank, Reference},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub group: GroupId,
    pub member: Principal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MembershipKey {
    pub group: GroupId,
    pub member: Principal,
}

impl fmt::Display for MembershipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.group, self.member.token())
    }
}

impl Kind for Membership {
    const NAME: &'static str = "membership";
    const TITLE: &'static str = "membership";
    const STREAM: Stream = Stream::Directory;
    const SUBJECT: &'static str = "member";
    type Key = MembershipKey;

    fn key(&self) -> MembershipKey {
        MembershipKey { group: self.group, member: self.member }
    }

    fn refers_to(&self) -> Vec<Reference> {
        let group = Reference { to: ObjectKey::Group(self.group), bond: Bond::Lapses };
        std::iter::once(group).chain(Reference::to_principal(self.member, Bond::PartOf)).collect()
    }

    fn check(&self) -> Result<(), Broken> {
        match self.member {
            Principal::Everyone => Err(Broken::new("member", "is user:NAME or group:NAME; assign to everyone instead")),
            Principal::User(_) | Principal::Group(_) => Ok(()),
        }
    }

    fn check_change(_before: Option<&Self>, after: Option<&Self>, change: &Change<'_>) -> Result<(), Rejection> {
        match after {
            Some(Self { group, member: Principal::Group(inner) }) if contains_group(change.after, *inner, *group) => {
                Err(Rejection::Cycle)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn counts(&self, tenant: &Tenant) -> bool {
        tenant.groups.contains_key(&self.group)
    }

    fn index(at: &mut Indexes<'_>, before: Option<&Self>, after: Option<&Self>) {
        if let Some(it) = before.filter(|_| after.is_none()) {
            take_out(&mut at.tenant.members, it.group, it.member);
            take_out(&mut at.tenant.member_of, it.member, it.group);
        }
        if let Some(it) = after {
            Arc::make_mut(at.tenant.members.entry(it.group).or_default()).insert(it.member);
            Arc::make_mut(at.tenant.member_of.entry(it.member).or_default()).insert(it.group);
        }
    }

    fn rank(before: Option<&Self>, after: Option<&Self>) -> Rank {
        match (before, after) {
            // Before the group that it lapsed with is made again.
            (None, None) => Rank::Names,
            (Some(_), _) | (None, Some(_)) => Rank::People,
        }
    }

    fn concerns(key: &MembershipKey, _before: Option<&Self>, _after: Option<&Self>) -> Concern {
        Concern::Tokens(key.member)
    }
}

fn take_out<K: Ord + Copy, V: Ord + Copy>(map: &mut OrdMap<K, Arc<BTreeSet<V>>>, key: K, value: V) {
    let Some(values) = map.get_mut(&key) else { return };
    Arc::make_mut(values).remove(&value);
    if values.is_empty() {
        map.remove(&key);
    }
}

/// Is `inner` the group `outer`, or somewhere inside it?
fn contains_group(tenant: &Tenant, outer: GroupId, inner: GroupId) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![outer];
    while let Some(group) = open.pop() {
        if group == inner {
            return true;
        }
        if !seen.insert(group) {
            continue;
        }
        for member in tenant.members.get(&group).into_iter().flat_map(|it| it.iter()) {
            if let Principal::Group(id) = member {
                open.push(*id);
            }
        }
    }
    false
}
