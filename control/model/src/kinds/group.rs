//! A group of people, who have it in assignments and policies.

use crate::{
    directory::Principal,
    event::Stream,
    ids::GroupId,
    kinds::{
        MembershipKey, ObjectKey, Tenant,
        kind::{Broken, Concern, InField, Kind, Rank},
    },
    text::{Labels, Name},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub id: GroupId,
    pub name: Name,
    pub labels: Labels,
}

impl Kind for Group {
    const NAME: &'static str = "group";
    const TITLE: &'static str = "group";
    const STREAM: Stream = Stream::Directory;
    type Key = GroupId;

    fn key(&self) -> GroupId {
        self.id
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn check(&self) -> Result<(), Broken> {
        Name::parse(self.name.as_str()).in_field("name").map(|_| ())
    }

    fn rank(_before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after {
            Some(_) => Rank::Names,
            None => Rank::Forgets,
        }
    }

    /// Its members, who are remembered for what may have to follow the removal.
    fn lapsed_with(group: &GroupId, tenant: &Tenant) -> Vec<ObjectKey> {
        let members = tenant.members.get(group).into_iter().flat_map(|it| it.iter());
        members.map(|member| ObjectKey::Membership(MembershipKey { group: *group, member: *member })).collect()
    }

    /// A token names the groups of its user.
    fn concerns(group: &GroupId, _before: Option<&Self>, after: Option<&Self>) -> Concern {
        match after {
            Some(_) => Concern::Nobody,
            None => Concern::Tokens(Principal::Group(*group)),
        }
    }
}
