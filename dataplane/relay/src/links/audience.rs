//! What each link is told: the applications of its group as the controller
//! signed them, the keys of user statements, where relays are, and whether its
//! connector is still welcome.
//!
//! One task compares each view with the one before it. Both share what did not
//! change, so a change costs what it touches, however many applications and
//! links there are, and the links of other groups are not woken.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use eventlog::{SignedKeys, View};
use imbl::{OrdMap, ordmap::DiffItem};
use model::{AppId, ConnectorGroupId, ConnectorId, Snapshot, Tenant, TenantId};
use tokio::sync::watch;

/// Signed events by application.
pub type Signed = OrdMap<AppId, Bytes>;

/// All that follow the news, and what they were told last.
#[derive(Default)]
pub struct Audience {
    told: Mutex<Announced>,
}

#[derive(Default)]
struct Announced {
    snapshot: Arc<Snapshot>,
    /// The last event about each tenant, signed: where its relays are.
    tenants: OrdMap<TenantId, Bytes>,
    /// The last events about keys that sign session tokens.
    keys: OrdMap<TenantId, SignedKeys>,
    groups: BTreeMap<(TenantId, ConnectorGroupId), watch::Sender<GroupNews>>,
    connectors: BTreeMap<(TenantId, ConnectorId), watch::Sender<Option<ConnectorGroupId>>>,
}

/// What the links of one group are told.
#[derive(Clone, Default)]
pub struct GroupNews {
    apps: Signed,
    /// Of all groups: an application that has gone is in its last event.
    signed_apps: Arc<Signed>,
    tenant: Bytes,
    /// Keys that sign user statements.
    keys: SignedKeys,
}

impl GroupNews {
    /// What is new for a link that knows `told`: definitions of its group's
    /// applications, and the last word about those that are not its group's now.
    pub fn apps_since(&self, told: &Self) -> Vec<Bytes> {
        let new = |change| match change {
            DiffItem::Add(_, signed) | DiffItem::Update { new: (_, signed), .. } => Some(signed),
            DiffItem::Remove(id, _) => self.signed_apps.get(id),
        };
        told.apps.diff(&self.apps).filter_map(new).cloned().collect()
    }

    /// The tenant's last event, if a link that knows `told` has not seen it.
    pub fn tenant_since(&self, told: &Self) -> Option<Bytes> {
        (self.tenant != told.tenant).then(|| self.tenant.clone())
    }

    /// The last events about keys that a link that knows `told` has not seen.
    pub fn keys_since(&self, told: &Self) -> Vec<Bytes> {
        let new = |change| match change {
            DiffItem::Add(_, signed) | DiffItem::Update { new: (_, signed), .. } => Some(signed),
            // A key that is retired has a last event.
            DiffItem::Remove(..) => None,
        };
        told.keys.diff(&self.keys).filter_map(new).cloned().collect()
    }
}

impl Audience {
    /// Tells each group and connector what of this view is new for it.
    pub fn tell(&self, view: &View) {
        let mut told = self.lock();
        let before = std::mem::replace(&mut told.snapshot, view.snapshot.clone());
        let nothing = Arc::default();
        for (id, tenant) in &view.snapshot.tenants {
            let before = before.tenant(id).unwrap_or(&nothing);
            if !Arc::ptr_eq(before, tenant) {
                told.tell_groups(id, before, tenant, view);
                told.tell_connectors(id, before, tenant);
            }
        }
        let tenants = std::mem::replace(&mut told.tenants, view.signed_tenants.as_ref().clone());
        for change in tenants.diff(&view.signed_tenants) {
            if let DiffItem::Add(id, signed) | DiffItem::Update { new: (id, signed), .. } = change {
                told.tell_tenant(id, signed);
            }
        }
        let keys = std::mem::replace(&mut told.keys, view.signed_keys.as_ref().clone());
        for change in keys.diff(&view.signed_keys) {
            if let DiffItem::Add(id, keys) | DiffItem::Update { new: (id, keys), .. } = change {
                told.tell_keys(id, keys);
            }
        }
    }

    /// The news of a group, from now on.
    pub fn of_group(&self, tenant: &TenantId, group: ConnectorGroupId) -> watch::Receiver<GroupNews> {
        self.lock().group(tenant, group).subscribe()
    }

    /// Which group a connector may serve, if any, from now on.
    pub(crate) fn of_connector(self: &Arc<Self>, tenant: &TenantId, id: ConnectorId) -> Membership {
        let mut told = self.lock();
        let known = told.snapshot.tenant(tenant).and_then(|tenant| group_of(tenant, id));
        let key = (tenant.clone(), id);
        let sender = told.connectors.entry(key.clone()).or_insert_with(|| watch::Sender::new(known));
        Membership { group: sender.subscribe(), key, audience: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Announced> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announced {
    fn group(&mut self, tenant: &TenantId, group: ConnectorGroupId) -> &watch::Sender<GroupNews> {
        let signed = self.tenants.get(tenant).cloned().unwrap_or_default();
        let keys = self.keys.get(tenant).cloned().unwrap_or_default();
        self.groups
            .entry((tenant.clone(), group))
            .or_insert_with(|| watch::Sender::new(GroupNews { tenant: signed, keys, ..Default::default() }))
    }

    fn tell_groups(&mut self, id: &TenantId, before: &Tenant, now: &Tenant, view: &View) {
        let mut changes: BTreeMap<ConnectorGroupId, Vec<(AppId, Option<Bytes>)>> = BTreeMap::new();
        let mut change = |group, app, signed| changes.entry(group).or_default().push((app, signed));
        for app in before.apps.differing(&now.apps) {
            let [before, now] = [before, now].map(|it| it.app(app).map(|it| it.group));
            if let Some(before) = before.filter(|it| Some(*it) != now) {
                change(before, app, None);
            }
            if let Some(now) = now {
                change(now, app, view.signed_apps.get(&app).cloned());
            }
        }
        for (group, changes) in changes {
            self.group(id, group).send_modify(|news| {
                for (app, signed) in changes {
                    match signed {
                        Some(signed) => news.apps.insert(app, signed),
                        None => news.apps.remove(&app),
                    };
                }
                news.signed_apps = view.signed_apps.clone();
            });
        }
    }

    fn tell_connectors(&self, id: &TenantId, before: &Tenant, now: &Tenant) {
        for connector in before.connectors.differing(&now.connectors) {
            if let Some(links) = self.connectors.get(&(id.clone(), connector)) {
                links.send_replace(group_of(now, connector));
            }
        }
    }

    fn tell_tenant(&self, id: &TenantId, signed: &Bytes) {
        for (_, news) in self.groups.iter().filter(|((tenant, _), _)| tenant == id) {
            news.send_modify(|it| it.tenant = signed.clone());
        }
    }

    fn tell_keys(&self, id: &TenantId, keys: &SignedKeys) {
        for (_, news) in self.groups.iter().filter(|((tenant, _), _)| tenant == id) {
            news.send_modify(|it| it.keys = keys.clone());
        }
    }
}

fn group_of(tenant: &Tenant, connector: ConnectorId) -> Option<ConnectorGroupId> {
    tenant.connectors.get(&connector).filter(|it| !it.revoked).map(|it| it.group)
}

/// Whether a connector is welcome, for as long as one of its links is up.
pub(crate) struct Membership {
    group: watch::Receiver<Option<ConnectorGroupId>>,
    key: (TenantId, ConnectorId),
    audience: Arc<Audience>,
}

impl Membership {
    /// Returns when the connector is not one of this group, or not any more.
    pub(crate) async fn ends(&mut self, group: ConnectorGroupId) {
        // An error would mean that the audience is gone, and the relay with it.
        let _ended = self.group.wait_for(|it| *it != Some(group)).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut told = self.audience.lock();
        // This one still counts.
        if told.connectors.get(&self.key).is_some_and(|it| it.receiver_count() <= 1) {
            told.connectors.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
