//! Heartbeats: which processes are live, what they have applied, and which
//! connectors are linked to relays. Not in the log: a process that is gone has
//! nothing to say about the past.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use model::Position;
use proto::v1::LinkedConnector;

/// A process not heard of for this long does not count as live.
const PRESENCE_LIFE: Duration = Duration::from_secs(5);
/// What was said of links counts this long: relays say it more seldom.
const LINKED_LIFE: Duration = Duration::from_secs(10);

/// What a process has applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    pub role: String,
    pub id: String,
    pub config: Position,
    pub risk: Position,
}

/// By role and id.
type Heard = BTreeMap<(String, String), (Presence, Instant)>;

/// By relay.
type Linked = BTreeMap<String, (Vec<LinkedConnector>, Instant)>;

#[derive(Clone, Default)]
pub(crate) struct Presences {
    heard: Arc<Mutex<Heard>>,
    linked: Arc<Mutex<Linked>>,
}

impl Presences {
    pub(crate) fn hear(&self, presence: Presence) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, (_, at)| at.elapsed() < PRESENCE_LIFE);
        heard.insert((presence.role.clone(), presence.id.clone()), (presence, now()));
    }

    pub(crate) fn live(&self, role: &str) -> Vec<Presence> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let live = |(presence, at): &&(Presence, Instant)| presence.role == role && at.elapsed() < PRESENCE_LIFE;
        heard.values().filter(live).map(|(presence, _)| presence.clone()).collect()
    }

    pub(crate) fn hear_linked(&self, relay: String, connectors: Vec<LinkedConnector>) {
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.retain(|_, (_, at)| at.elapsed() < LINKED_LIFE);
        linked.insert(relay, (connectors, now()));
    }

    pub(crate) fn linked(&self) -> Vec<LinkedConnector> {
        let linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        let live = linked.values().filter(|(_, at)| at.elapsed() < LINKED_LIFE);
        live.flat_map(|(connectors, _)| connectors.iter().cloned()).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long ago something was seen; decides nothing")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
