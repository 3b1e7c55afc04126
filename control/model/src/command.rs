//! Commands, and the events they come to: `decide_all` turns commands into
//! events or a rejection, looking only at the snapshot.
//!
//! A command whose effect already holds yields no events; repeating it is safe.
//! Most commands put or remove one object; the few that are more are verbs of
//! their own. The rules of a kind are in its file in `kinds`.

use std::collections::BTreeSet;

use crate::{
    event::Stream,
    ids::*,
    kinds::{Connector, Event, KindName, Object, ObjectKey, Rejection, Tenant},
};

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Makes the object, or changes the one with its key.
    Put(Object),
    /// Makes it; rejected when there is another with its key.
    Create(Object),
    /// Changes it; rejected when there is none.
    Change(Object),
    /// Removes it, and with it what is only a part of it.
    Remove(ObjectKey),
    /// Uses a join token up.
    Enrol {
        connector: Connector,
        now: Timestamp,
    },
    RevokeConnector(ConnectorId),
    /// What the key signed or sealed counts no more.
    RetireKey {
        id: String,
        now: Timestamp,
    },
    /// Makes tokens of many people stale that were minted before they changed.
    OutdateTokens {
        users: BTreeSet<UserId>,
        directory: Position,
        now: Timestamp,
    },
}

impl Command {
    /// Where its events are.
    pub fn stream(&self) -> Stream {
        match self {
            Self::Put(it) | Self::Create(it) | Self::Change(it) => it.key().kind().stream(),
            Self::Remove(key) => key.kind().stream(),
            Self::Enrol { .. } | Self::RevokeConnector(_) | Self::RetireKey { .. } => Stream::Config,
            Self::OutdateTokens { .. } => Stream::Risk,
        }
    }

    /// The object it is about, if it is about one.
    pub fn key(&self) -> Option<ObjectKey> {
        match self {
            Self::Put(it) | Self::Create(it) | Self::Change(it) => Some(it.key()),
            Self::Remove(key) => Some(key.clone()),
            Self::Enrol { connector, .. } => Some(ObjectKey::Connector(connector.id)),
            Self::RevokeConnector(id) => Some(ObjectKey::Connector(*id)),
            Self::RetireKey { id, .. } => Some(ObjectKey::Key(id.clone())),
            Self::OutdateTokens { .. } => None,
        }
    }
}

/// What one command comes to by itself. Rules that look at other objects are
/// asked when the whole change is known.
pub(crate) fn wished(tenant: &Tenant, command: Command) -> Result<Vec<Event>, Rejection> {
    let one = |event: Option<Event>| Ok(event.into_iter().collect());
    match command {
        Command::Put(object) => one(tenant.settled(object).map(Event::Put)),
        Command::Create(object) => {
            let (key, settled) = (object.key(), tenant.settled(object));
            require(settled.is_none() || !tenant.contains(&key), Rejection::Exists(key.kind()))?;
            one(settled.map(Event::Put))
        }
        Command::Change(object) => {
            let key = object.key();
            require(tenant.contains(&key), Rejection::NotFound(key.kind()))?;
            one(tenant.settled(object).map(Event::Put))
        }
        Command::Remove(key) => one(tenant.contains(&key).then_some(Event::Removed(key))),
        Command::Enrol { connector, now } => one(enrol(tenant, connector, now)?),
        Command::RevokeConnector(id) => {
            let connector = tenant.connectors.get(&id).ok_or(Rejection::NotFound(KindName::Connector))?;
            let revoked = Connector { revoked: true, ..connector.clone() };
            one(tenant.settled(revoked.into()).map(Event::Put))
        }
        Command::RetireKey { id, now } => one(retire_key(tenant, id, now)?),
        Command::OutdateTokens { users, directory, now } => {
            Ok(tenant.outdated.outdate(users, directory, now).into_iter().map(Event::put).collect())
        }
    }
}

fn require(holds: bool, otherwise: Rejection) -> Result<(), Rejection> {
    holds.then_some(()).ok_or(otherwise)
}

fn enrol(tenant: &Tenant, connector: Connector, now: Timestamp) -> Result<Option<Event>, Rejection> {
    if tenant.connectors.get(&connector.id) == Some(&connector) {
        return Ok(None);
    }
    let token = tenant.join_tokens.get(&connector.join_token).ok_or(Rejection::TokenSpent)?;
    let usable = now < token.expires && token.group == connector.group && !tenant.is_spent(token.id);
    require(usable, Rejection::TokenSpent)?;
    require(!tenant.connectors.contains_key(&connector.id), Rejection::Exists(KindName::Connector))?;
    Ok(Some(Event::put(connector)))
}

fn retire_key(tenant: &Tenant, id: String, now: Timestamp) -> Result<Option<Event>, Rejection> {
    let Some(key) = tenant.keys.get(&id) else { return Ok(None) };
    let in_use = tenant.key_in_use(key.purpose, now).is_some_and(|it| it.id == id);
    let by = || "those who sign with it now; rotate first".into();
    match in_use {
        true => Err(Rejection::InUse { what: KindName::Key, by: by() }),
        false => Ok(Some(Event::Removed(ObjectKey::Key(id)))),
    }
}
