//! Assignment of an application to a user, a group or everyone.

use std::{fmt, sync::Arc};

use crate::{
    directory::Principal,
    event::Stream,
    ids::AppId,
    kinds::{
        ObjectKey,
        kind::{Bond, Indexes, Kind, Rank, Reference, Touch},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub app: AppId,
    pub principal: Principal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentKey {
    pub app: AppId,
    pub principal: Principal,
}

impl fmt::Display for AssignmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.app, self.principal.token())
    }
}

impl Kind for Assignment {
    const NAME: &'static str = "assignment";
    const TITLE: &'static str = "assignment";
    const STREAM: Stream = Stream::Config;
    type Key = AssignmentKey;

    fn key(&self) -> AssignmentKey {
        AssignmentKey { app: self.app, principal: self.principal }
    }

    fn refers_to(&self) -> Vec<Reference> {
        let app = Reference::part_of(ObjectKey::App(self.app));
        std::iter::once(app).chain(Reference::to_principal(self.principal, Bond::PartOf)).collect()
    }

    fn index(at: &mut Indexes<'_>, before: Option<&Self>, after: Option<&Self>) {
        let assigned = &mut at.tenant.assigned;
        if let Some(it) = before.filter(|_| after.is_none())
            && let Some(principals) = assigned.get_mut(&it.app)
        {
            Arc::make_mut(principals).remove(&it.principal);
            if principals.is_empty() {
                assigned.remove(&it.app);
            }
        }
        if let Some(it) = after {
            Arc::make_mut(assigned.entry(it.app).or_default()).insert(it.principal);
        }
    }

    fn touches(&self) -> Touch {
        Touch::App(self.app)
    }

    fn rank(_before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after {
            Some(_) => Rank::Opens,
            None => Rank::Closes,
        }
    }
}
