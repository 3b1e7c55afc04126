//! The fold: activity in, the newest sessions and missing URLs out. Pure, and
//! bounded: when a part is full, what was touched longest ago is forgotten.

use std::{cmp::Reverse, collections::BTreeMap};

use eventlog::Activity;
use model::{
    AppId, ConnectorId, TenantId, Timestamp,
    activity::{ConnectorEvent, RefusalCode, SignInOutcome},
    session::SESSION_LIFE_S,
};
use proto::v1;

/// Sessions that are remembered, about 400 bytes each.
pub(super) const SESSIONS_MAX: usize = 100_000;
/// Missing URLs that are remembered, about 200 bytes each. Strangers choose them.
pub(super) const MISSING_URLS_MAX: usize = 10_000;
/// Connectors that are remembered.
const CONNECTORS_MAX: usize = 10_000;
/// A longer URL is not remembered.
const URL_BYTES_MAX: usize = 2048;
/// A URL nobody asked for as long as this is not missing any more.
const MISSING_URL_LIFE_S: i64 = 7 * 24 * 3600;

pub(super) struct RecentActivity {
    sessions: Newest<(TenantId, String), v1::Session>,
    missing: Newest<(TenantId, String, String), v1::MissingPath>,
    links: Newest<(TenantId, String), Links>,
}

/// Where a connector is linked, as relays told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    /// Relays it is linked to.
    pub(crate) relays: BTreeMap<String, AtRelay>,
    pub(crate) last_ms: i64,
}

/// A connector with a new certificate links anew before the old link ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AtRelay {
    pub(crate) since_ms: i64,
    links: u32,
}

#[cfg(test)]
impl AtRelay {
    pub(crate) fn since(since_ms: i64) -> Self {
        Self { since_ms, links: 1 }
    }
}

impl Default for RecentActivity {
    fn default() -> Self {
        Self {
            sessions: Newest::keeping(SESSIONS_MAX),
            missing: Newest::keeping(MISSING_URLS_MAX),
            links: Newest::keeping(CONNECTORS_MAX),
        }
    }
}

impl RecentActivity {
    pub(super) fn apply(&mut self, tenant: &TenantId, time: Timestamp, activity: Activity) {
        match activity {
            Activity::SignIn(it) => self.sign_in(tenant, time, it),
            Activity::Access(it) => self.access(tenant, v1::Access { time_ms: time.0, ..it }),
            Activity::Accesses(all) => all.accesses.into_iter().for_each(|it| self.access(tenant, it)),
            Activity::Connector(it) => self.connector(tenant, time, it),
            Activity::Gap(_) => {}
        }
    }

    /// By session. The last sign-in of a session (a step up) stands for it.
    pub(super) fn sessions(&self, tenant: &TenantId, now: Timestamp) -> Vec<v1::Session> {
        let all = self.sessions.entries.range((tenant.clone(), String::new())..);
        let of_tenant = all.take_while(|((of, _), _)| of == tenant).map(|(_, (_, session))| session);
        of_tenant.filter(|it| it.started_ms > now.plus_seconds(-SESSION_LIFE_S).0).cloned().collect()
    }

    pub(super) fn missing_paths(&self, tenant: &TenantId, app: AppId, now: Timestamp) -> Vec<v1::MissingPath> {
        let app = app.to_string();
        let all = self.missing.entries.range((tenant.clone(), app.clone(), String::new())..);
        let of_app = all.take_while(|((of, at, _), _)| of == tenant && *at == app).map(|(_, (_, path))| path);
        let since = now.plus_seconds(-MISSING_URL_LIFE_S).0;
        let mut paths: Vec<_> = of_app.filter(|it| it.last_ms > since).cloned().collect();
        paths.sort_by_key(|it| Reverse(it.requests));
        paths
    }

    pub(super) fn links(&self, tenant: &TenantId) -> Vec<(ConnectorId, Links)> {
        let all = self.links.entries.range((tenant.clone(), String::new())..);
        let of_tenant = all.take_while(|((of, _), _)| of == tenant);
        of_tenant.filter_map(|((_, id), (_, links))| Some((id.parse().ok()?, links.clone()))).collect()
    }

    fn connector(&mut self, tenant: &TenantId, time: Timestamp, it: v1::ConnectorActivity) {
        let links = self.links.touch((tenant.clone(), it.connector));
        links.last_ms = links.last_ms.max(time.0);
        match ConnectorEvent::parse(&it.what) {
            Some(ConnectorEvent::Linked) => {
                let first = AtRelay { since_ms: time.0, links: 0 };
                links.relays.entry(it.relay).or_insert(first).links += 1;
            }
            Some(ConnectorEvent::Unlinked) => {
                let left = links.relays.get_mut(&it.relay).map(|at| {
                    at.links -= 1;
                    at.links
                });
                if left == Some(0) {
                    links.relays.remove(&it.relay);
                }
            }
            Some(_) | None => {}
        }
    }

    fn sign_in(&mut self, tenant: &TenantId, time: Timestamp, it: v1::SignInAttempt) {
        if SignInOutcome::parse(&it.outcome) != Some(SignInOutcome::Success) {
            return;
        }
        let session = self.sessions.touch((tenant.clone(), it.session.clone()));
        *session = v1::Session {
            id: it.session,
            user: it.user,
            username: it.username,
            started_ms: time.0,
            address: it.address,
            user_agent: it.user_agent,
            methods: it.methods,
            revoked: false,
        };
    }

    fn access(&mut self, tenant: &TenantId, it: v1::Access) {
        // With this refusal, `app` is the application whose page asked.
        if it.app.is_empty() || RefusalCode::parse(&it.refusal) != Some(RefusalCode::NotPublished) {
            return;
        }
        let url = format!("https://{}{}/", it.host, it.path_class.trim_end_matches('/'));
        if url.len() > URL_BYTES_MAX {
            return;
        }
        let path = self.missing.touch((tenant.clone(), it.app, url.clone()));
        path.url = url;
        path.requests += 1;
        path.last_ms = path.last_ms.max(it.time_ms);
    }
}

/// A map that forgets the entry that was touched longest ago when it is full.
struct Newest<K, V> {
    max: usize,
    touches: u64,
    entries: BTreeMap<K, (u64, V)>,
    by_touch: BTreeMap<u64, K>,
}

impl<K: Ord + Clone, V: Default> Newest<K, V> {
    fn keeping(max: usize) -> Self {
        Self { max, touches: 0, entries: BTreeMap::new(), by_touch: BTreeMap::new() }
    }

    /// The entry, made if missing, and now the newest.
    fn touch(&mut self, key: K) -> &mut V {
        if let Some((touch, _)) = self.entries.get(&key) {
            self.by_touch.remove(touch);
        } else if self.entries.len() >= self.max
            && let Some((_, oldest)) = self.by_touch.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.touches += 1;
        self.by_touch.insert(self.touches, key.clone());
        let (touch, value) = self.entries.entry(key).or_default();
        *touch = self.touches;
        value
    }
}

#[cfg(test)]
impl RecentActivity {
    pub(super) fn sizes(&self) -> (usize, usize) {
        assert_eq!(self.sessions.entries.len(), self.sessions.by_touch.len());
        assert_eq!(self.missing.entries.len(), self.missing.by_touch.len());
        (self.sessions.entries.len(), self.missing.entries.len())
    }
}
