//! Fresh tokens for sessions that go on, without the user noticing.
//!
//! Past half its life a token is renewed beside the request; a token that has
//! ended, or that an event made stale, is renewed before it. Many requests with
//! one token cause one renewal.

use std::{net::IpAddr, sync::Arc};

use model::{AppId, TenantId, Timestamp};
use quick_cache::sync::Cache;
use tokio::sync::OnceCell;
use tracing::debug;

use crate::{
    Relay, refusal::Refusal, request::Routed, session::Session, settings::SESSION_CACHE_ENTRIES, signin::renewal_form,
};

type Fresh = Arc<OnceCell<Arc<Session>>>;

/// Keyed by the token that is renewed, and the position of DIRECTORY that made
/// it stale: a change of the user makes an earlier answer useless.
pub(crate) struct Renewals {
    fresh: Cache<(String, u64), Fresh>,
}

impl Default for Renewals {
    fn default() -> Self {
        Self { fresh: Cache::new(SESSION_CACHE_ENTRIES) }
    }
}

/// Whose session, and from where it is asked.
#[derive(Clone)]
pub(crate) struct Asking {
    pub tenant: TenantId,
    pub app: AppId,
    pub address: IpAddr,
    pub thread: usize,
}

impl Asking {
    pub(crate) fn of(routed: &Routed<'_>) -> Self {
        let (tenant, app) = (routed.tenant_id.clone(), routed.app().id);
        Self { tenant, app, address: routed.address(), thread: routed.visitor.thread }
    }
}

impl Relay {
    /// The fresh session if it is there; else it is asked for beside the
    /// request, and a later response carries it.
    pub(crate) fn renew_soon(self: &Arc<Self>, asking: Asking, session: &Arc<Session>) -> Option<Arc<Session>> {
        let cell = self.renewal_of(&asking.tenant, session);
        if let Some(fresh) = cell.get() {
            return Some(fresh.clone());
        }
        let (relay, session) = (self.clone(), session.clone());
        self.tasks.spawn(async move {
            if let Err(refusal) = relay.renew_now(asking, &session).await {
                debug!(?refusal, "a session is not renewed yet");
            }
        });
        None
    }

    /// The fresh session, waited for. An error is not remembered.
    pub(crate) async fn renew_now(
        self: &Arc<Self>,
        asking: Asking,
        session: &Arc<Session>,
    ) -> Result<Arc<Session>, Refusal> {
        let cell = self.renewal_of(&asking.tenant, session);
        cell.get_or_try_init(|| self.renew(asking, session)).await.cloned()
    }

    fn renewal_of(&self, tenant: &TenantId, session: &Session) -> Fresh {
        let view = self.view();
        let revoked = view.snapshot.tenant(tenant).and_then(|it| it.revoked_users.get(&session.claims.sub));
        let key = (session.token.clone(), revoked.map_or(0, |it| it.directory));
        if let Some(cell) = self.renewals.fresh.get(&key) {
            return cell;
        }
        let cell = Fresh::default();
        self.renewals.fresh.insert(key, cell.clone());
        cell
    }

    async fn renew(self: &Arc<Self>, asking: Asking, session: &Session) -> Result<Arc<Session>, Refusal> {
        let form = {
            let keys = self.keys();
            let now = Timestamp(self.clock.now_ms());
            let secret = keys.tenants.get(&asking.tenant).and_then(|it| it.secret(now)).ok_or(Refusal::NotReady)?;
            renewal_form(secret, asking.app, &session.token)
        };
        let token = self.ask_identity(&asking, "/token", form).await?;
        let (keys, view) = (self.keys(), self.view());
        let keys = keys.tenants.get(&asking.tenant).ok_or(Refusal::NotReady)?;
        let tenant = view.snapshot.tenant(&asking.tenant).ok_or(Refusal::NotReady)?;
        let fresh = self.sessions.verify(&token, asking.app, &asking.tenant, keys);
        let fresh = fresh.ok_or(Refusal::SignInFailed("a token that does not verify"))?;
        match fresh.claims.check(tenant, Timestamp(self.clock.now_ms())) {
            Ok(()) => Ok(fresh),
            Err(_) => Err(Refusal::SignInRequired),
        }
    }
}
