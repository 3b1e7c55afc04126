//! A policy as an object: whom and what it names, and how it is recorded.

use crate::{
    event::Stream,
    ids::PolicyId,
    kinds::{
        ObjectKey,
        kind::{Bond, Broken, InField, Indexes, Kind, Rank, Reference, Touch},
    },
    policy::{Policy, State},
    text::{Labels, Name},
};

impl Kind for Policy {
    const NAME: &'static str = "policy";
    const TITLE: &'static str = "policy";
    const STREAM: Stream = Stream::Config;
    type Key = PolicyId;

    fn key(&self) -> PolicyId {
        self.id
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    /// A policy that names what is gone would silently stop applying.
    fn refers_to(&self) -> Vec<Reference> {
        let apps = self.apps.named().map(|app| Reference::needs(ObjectKey::App(*app)));
        apps.chain(self.people.named().filter_map(|it| Reference::to_principal(*it, Bond::Needs))).collect()
    }

    fn check(&self) -> Result<(), Broken> {
        Name::parse(self.name.as_str()).in_field("name")?;
        self.people.check().in_field("include")?;
        self.apps.check().in_field("apps")?;
        self.networks.check().in_field("networks")?;
        self.grant.check().in_field("require")
    }

    fn index(at: &mut Indexes<'_>, before: Option<&Self>, after: Option<&Self>) {
        before.into_iter().for_each(|policy| at.tenant.by_app.remove(policy));
        after.cloned().into_iter().for_each(|policy| at.tenant.by_app.insert(policy));
    }

    fn touches(&self) -> Touch {
        Touch::Everybody
    }

    fn rank(before: Option<&Self>, after: Option<&Self>) -> Rank {
        match (before, after) {
            (_, None) => Rank::Loosens,
            (Some(before), Some(after)) if !strict(before, after).same_conditions(after) => Rank::Loosens,
            (_, Some(_)) => Rank::Closes,
        }
    }

    /// As strict as both first, as wished last; once where that is the same.
    fn stricter_first(before: &Self, after: &Self) -> Option<Self> {
        let both = strict(before, after);
        (!both.same_conditions(after) && !both.same_conditions(before)).then_some(both)
    }
}

/// Refuses whatever either of two refuses. Only a policy that is on refuses.
fn strict(before: &Policy, after: &Policy) -> Policy {
    match (before.state == State::On, after.state == State::On) {
        (true, true) => before.and(after),
        (true, false) => before.clone(),
        (false, _) => after.clone(),
    }
}
