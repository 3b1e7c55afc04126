//! What a user may do in the admin API.

use crate::{
    directory::Role,
    event::Stream,
    ids::UserId,
    kinds::{
        ObjectKey, Rejection, Tenant,
        kind::{Change, Kind, Rank, Reference},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleAssignment {
    pub user: UserId,
    pub role: Role,
}

impl Kind for RoleAssignment {
    const NAME: &'static str = "role";
    const TITLE: &'static str = "role";
    const STREAM: Stream = Stream::Config;
    type Key = UserId;

    fn key(&self) -> UserId {
        self.user
    }

    fn refers_to(&self) -> Vec<Reference> {
        vec![Reference::part_of(ObjectKey::User(self.user))]
    }

    fn check_change(_before: Option<&Self>, _after: Option<&Self>, change: &Change<'_>) -> Result<(), Rejection> {
        keeps_an_owner(change)
    }

    fn rank(before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after.map(|it| it.role) >= before.map(|it| it.role) {
            true => Rank::Opens,
            false => Rank::Closes,
        }
    }
}

/// An installation without an owner could not be administered any more.
pub(super) fn keeps_an_owner(change: &Change<'_>) -> Result<(), Rejection> {
    match has_owner(change.before) && !has_owner(change.after) {
        true => Err(Rejection::LastOwner),
        false => Ok(()),
    }
}

fn has_owner(tenant: &Tenant) -> bool {
    tenant.roles.values().any(|it| it.role == Role::Owner && tenant.users.get(&it.user).is_some_and(|it| !it.disabled))
}
