//! What can have happened. Each event states the whole new truth about its
//! subject, so the last event on a subject is its present state.

use super::{Object, ObjectKey};
use crate::event::Subject;

/// What happened to one object. An event says the whole new truth about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Put(Object),
    Removed(ObjectKey),
}

impl Event {
    pub fn put(object: impl Into<Object>) -> Self {
        Self::Put(object.into())
    }

    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Put(object) => object.key(),
            Self::Removed(key) => key.clone(),
        }
    }

    pub fn subject(&self) -> Subject {
        self.key().subject()
    }
}
