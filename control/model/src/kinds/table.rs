//! All objects of one kind: by key, and by name.

use std::{borrow::Borrow, sync::Arc};

use imbl::{HashMap, OrdMap, ordmap::DiffItem};

use crate::kinds::kind::Kind;

/// An object and how often its subject has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<K> {
    pub object: K,
    /// Version of the event that recorded it, so a connector can wait for it.
    pub version: u64,
}

#[derive(Clone, Debug)]
pub struct Table<K: Kind> {
    by_key: OrdMap<K::Key, Arc<Stored<K>>>,
    /// In lower case; empty where names may repeat.
    by_name: HashMap<Arc<str>, K::Key>,
}

impl<K: Kind> Default for Table<K> {
    fn default() -> Self {
        Self { by_key: OrdMap::new(), by_name: HashMap::new() }
    }
}

/// Names are derived from the objects.
impl<K: Kind> PartialEq for Table<K> {
    fn eq(&self, other: &Self) -> bool {
        self.by_key == other.by_key
    }
}

impl<K: Kind> Table<K> {
    /// Returns what was there before.
    pub(crate) fn put(&mut self, object: K, version: u64) -> Option<Arc<Stored<K>>> {
        let key = object.key();
        let before = self.by_key.get(&key).cloned();
        self.forget_name(&key, before.as_deref());
        if let Some(name) = object.name().filter(|_| !K::NAMES_REPEAT) {
            self.by_name.insert(name.to_lowercase().into(), key.clone());
        }
        self.by_key.insert(key, Arc::new(Stored { object, version }));
        before
    }

    pub(crate) fn remove(&mut self, key: &K::Key) -> Option<Arc<Stored<K>>> {
        let before = self.by_key.remove(key);
        self.forget_name(key, before.as_deref());
        before
    }

    /// The name may be another object's by now: subjects arrive in any order.
    fn forget_name(&mut self, key: &K::Key, before: Option<&Stored<K>>) {
        let Some(name) = before.and_then(|it| it.object.name()).filter(|_| !K::NAMES_REPEAT) else { return };
        let name = name.to_lowercase();
        if self.by_name.get(name.as_str()) == Some(key) {
            self.by_name.remove(name.as_str());
        }
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&K>
    where
        K::Key: Borrow<Q>,
    {
        self.stored(key).map(|it| &it.object)
    }

    pub fn stored<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<Stored<K>>>
    where
        K::Key: Borrow<Q>,
    {
        self.by_key.get(key)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K::Key: Borrow<Q>,
    {
        self.by_key.contains_key(key)
    }

    /// The key of the object with this name, in any case. Where names repeat:
    /// only if one alone has it.
    pub fn named(&self, name: &str) -> Option<K::Key> {
        let name = name.to_lowercase();
        if !K::NAMES_REPEAT {
            return self.by_name.get(name.as_str()).cloned();
        }
        let mut same = self.values().filter(|it| it.name().is_some_and(|it| it.to_lowercase() == name));
        same.next().filter(|_| same.next().is_none()).map(Kind::key)
    }

    pub fn by_name(&self, name: &str) -> Option<&K> {
        self.named(name).and_then(|key| self.get(&key))
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.by_key.values().map(|it| &it.object)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Stored<K>>> {
        self.by_key.values()
    }

    /// In the order of keys, from the one after `key` on.
    pub fn after<'a>(&'a self, key: &K::Key) -> impl Iterator<Item = &'a Arc<Stored<K>>> + use<'a, K> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_key.range((Excluded(key.clone()), Unbounded)).map(|(_, stored)| stored)
    }

    /// Keys of what is not the same in another table.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = K::Key> + 'a {
        self.by_key.diff(&other.by_key).map(|it| match it {
            DiffItem::Add(key, _) | DiffItem::Update { new: (key, _), .. } | DiffItem::Remove(key, _) => key.clone(),
        })
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
