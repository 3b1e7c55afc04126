//! Many commands as one change: what they come to, in an order in which nothing
//! opens before it closes.
//!
//! The rules are asked once, of what would be true after all of it: objects of
//! one change may refer to each other in any order, and two may swap an address.
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
//! Whoever removes pays: what names the removed is found by looking at all
//! references once a change, and no index of them is kept by every reader.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{
    command::{Command, wished},
    event::Stream,
    ids::TenantId,
    kinds::{
        Event, ObjectKey, Rejection, Tenant, check_change,
        kind::{Bond, Change, Rank},
        rank, stricter_first,
    },
    snapshot::Snapshot,
};

/// Events that are appended together.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub stream: Stream,
    pub events: Vec<Event>,
}

/// A change that does not happen: which object, and why.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("{why}")]
pub struct Refused {
    /// `None` where the command is about no single object.
    pub object: Option<ObjectKey>,
    /// How the object is called, in the change or before it.
    pub name: Option<String>,
    pub why: Rejection,
}

impl From<Refused> for Rejection {
    fn from(refused: Refused) -> Self {
        refused.why
    }
}

/// The events of one command.
pub fn decide(snapshot: &Snapshot, tenant: &TenantId, command: Command) -> Result<Vec<Event>, Rejection> {
    let steps = decide_all(snapshot, tenant, [command])?;
    Ok(steps.into_iter().flat_map(|step| step.events).collect())
}

/// The events of all commands, each as if those before it had happened. Nothing
/// comes of them when one is rejected; a subject gets its last event only.
pub fn decide_all(
    snapshot: &Snapshot,
    tenant_id: &TenantId,
    commands: impl IntoIterator<Item = Command>,
) -> Result<Vec<Step>, Refused> {
    foresee(snapshot, tenant_id, commands).map(|(steps, _)| steps)
}

/// As [`decide_all`], and what would be true afterwards.
pub fn foresee(
    snapshot: &Snapshot,
    tenant_id: &TenantId,
    commands: impl IntoIterator<Item = Command>,
) -> Result<(Vec<Step>, Snapshot), Refused> {
    let mut draft = PlannedChange::new(snapshot, tenant_id);
    for command in commands {
        draft.add(command)?;
    }
    draft.remove_parts()?;
    draft.check()?;
    Ok(draft.steps())
}

/// The change as far as it is known.
struct PlannedChange<'a> {
    tenant_id: &'a TenantId,
    before: std::sync::Arc<Tenant>,
    after: Snapshot,
    /// The last event of each object, and its turn.
    events: BTreeMap<ObjectKey, (usize, Event)>,
    turns: usize,
    /// What is removed, and its parts perhaps not yet.
    gone: BTreeSet<ObjectKey>,
}

impl<'a> PlannedChange<'a> {
    fn new(snapshot: &Snapshot, tenant_id: &'a TenantId) -> Self {
        let before = snapshot.tenant(tenant_id).cloned().unwrap_or_default();
        Self { tenant_id, before, after: snapshot.clone(), events: BTreeMap::new(), turns: 0, gone: BTreeSet::new() }
    }

    fn tenant(&self) -> &Tenant {
        self.after.tenant(self.tenant_id).unwrap_or(&self.before)
    }

    fn add(&mut self, command: Command) -> Result<(), Refused> {
        let object = command.key();
        let events = wished(self.tenant(), command).map_err(|why| self.refused(object, why))?;
        for event in events {
            // What is made again begins without the parts it had.
            if self.gone.contains(&event.key()) {
                self.remove_parts()?;
            }
            self.remove_lapsed(&event.key());
            self.happen(event);
        }
        Ok(())
    }

    /// What is about to be made has none of the parts that lapsed with an earlier
    /// one of its key; only those that this change made since.
    fn remove_lapsed(&mut self, key: &ObjectKey) {
        if self.tenant().contains(key) {
            return;
        }
        let since = self.events.get(key).map_or(0, |(turn, _)| *turn);
        let is_new = |part: &ObjectKey| matches!(self.events.get(part), Some((turn, Event::Put(_))) if *turn > since);
        let lapsed: Vec<_> = self.tenant().lapsed_with(key).into_iter().filter(|part| !is_new(part)).collect();
        lapsed.into_iter().for_each(|part| self.happen(Event::Removed(part)));
    }

    fn happen(&mut self, event: Event) {
        if let Event::Removed(key) = &event {
            self.gone.insert(key.clone());
        }
        self.after.apply(self.tenant_id, event.clone(), 0);
        self.turns += 1;
        self.events.insert(event.key(), (self.turns, event));
    }

    fn refused(&self, object: Option<ObjectKey>, why: Rejection) -> Refused {
        let name = object.as_ref().and_then(|key| self.name(key));
        Refused { object, name, why }
    }

    fn name(&self, key: &ObjectKey) -> Option<String> {
        let found = self.tenant().get(key).or_else(|| self.before.get(key));
        found.and_then(|(object, _)| object.name().map(str::to_owned))
    }

    /// What is a part of something removed goes with it; what needs it keeps it.
    fn remove_parts(&mut self) -> Result<(), Refused> {
        while !self.gone.is_empty() {
            let gone = std::mem::take(&mut self.gone);
            let mut parts = BTreeSet::new();
            for (key, references) in self.tenant().all_references() {
                for reference in references.into_iter().filter(|it| gone.contains(&it.to)) {
                    match reference.bond {
                        Bond::PartOf => _ = parts.insert(key.clone()),
                        Bond::Lapses => {}
                        Bond::Needs => {
                            let what = reference.to.kind();
                            let name = self.name(&key).unwrap_or_else(|| key.subject().id);
                            let by = format!("{} {name}", key.kind().title());
                            return Err(self.refused(Some(reference.to), Rejection::InUse { what, by }));
                        }
                    }
                }
            }
            parts.into_iter().for_each(|key| self.happen(Event::Removed(key)));
        }
        Ok(())
    }

    /// Asks every rule of what would be true then.
    fn check(&self) -> Result<(), Refused> {
        let change = Change {
            tenant_id: self.tenant_id,
            before: &self.before,
            after: self.tenant(),
            routes: &self.after.routes,
        };
        for (key, (_, event)) in &self.events {
            self.check_one(key, event, &change).map_err(|why| self.refused(Some(key.clone()), why))?;
        }
        Ok(())
    }

    fn check_one(&self, key: &ObjectKey, event: &Event, change: &Change<'_>) -> Result<(), Rejection> {
        if let Event::Put(object) = event {
            object.check()?;
            for reference in object.refers_to() {
                if !change.after.contains(&reference.to) {
                    let (kind, key) = (reference.to.kind(), reference.to.subject().id);
                    return Err(Rejection::Dangling { kind, key });
                }
            }
            if let Some(name) = object.name()
                && self.is_taken(key, name)
            {
                return Err(Rejection::NameTaken { what: key.kind(), name: name.to_owned() });
            }
        }
        check_change(key, change)
    }

    /// Does another object have the name, one of this change or one from before?
    fn is_taken(&self, key: &ObjectKey, name: &str) -> bool {
        let still = |other: &ObjectKey| {
            let object = self.tenant().get(other);
            object.is_some_and(|(it, _)| it.name().is_some_and(|it| it.to_lowercase() == name.to_lowercase()))
        };
        self.tenant().same_name(key, name).is_some() || self.before.same_name(key, name).is_some_and(|it| still(&it))
    }

    fn steps(self) -> (Vec<Step>, Snapshot) {
        let mut events: Vec<_> = self.events.into_values().collect();
        events.sort_by_key(|(turn, _)| *turn);
        let alone = events.len() == 1;
        let mut ranked: Vec<(Rank, Event)> = Vec::with_capacity(events.len());
        for (_, event) in events {
            // One event alone has nothing in between.
            if let Event::Put(object) = &event
                && !alone
                && let Some(first) = stricter_first(object, &self.before)
            {
                ranked.push((Rank::Closes, Event::Put(first)));
                ranked.push((Rank::Loosens, event));
            } else {
                ranked.push((rank(&event, &self.before), event));
            }
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        (steps(ranked.into_iter().map(|(_, event)| event)), self.after)
    }
}

/// Neighbours of one stream are one step, in which a subject is once.
fn steps(events: impl Iterator<Item = Event>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut keys = BTreeSet::new();
    for event in events {
        let (key, stream) = (event.key(), event.key().kind().stream());
        let new = keys.insert(key.clone());
        match steps.last_mut() {
            Some(step) if step.stream == stream && new => step.events.push(event),
            _ => {
                keys = BTreeSet::from([key]);
                steps.push(Step { stream, events: vec![event] });
            }
        }
    }
    steps
}
