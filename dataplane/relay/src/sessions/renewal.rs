//! Fresh tokens for sessions that go on, without the user noticing.
//!
//! Past half its life a token is renewed beside the request; a token that has
//! ended, or that an event made stale, is renewed before it. Many requests and
//! open exchanges with one token cause one renewal. None of them waits for it
//! longer than `RENEWAL_WAIT`, and a renewal that failed is remembered for
//! `FAILURE_LIFE`: with identity away everybody is answered at once.

use std::{convert::Infallible, sync::Arc, time::Duration};

use model::{TenantId, session::SessionFault};
use quick_cache::sync::Cache;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    current::Current,
    refusal::Refusal,
    sessions::{
        identity::{Identity, IdentityRequest},
        session::{Session, Sessions},
        signin::renewal_form,
    },
    settings::SESSION_CACHE_ENTRIES,
};

/// Nobody waits longer for a fresh token, counted from when it was asked for.
pub(crate) const RENEWAL_WAIT: Duration = Duration::from_secs(1);
/// Identity may take this long: an answer after `RENEWAL_WAIT` still serves the
/// next request. Then it is asked again.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(2);
/// A renewal that failed is not tried again for this long.
const FAILURE_LIFE: Duration = Duration::from_secs(1);
/// Renewals on their way at once: when thousands of people change together,
/// other requests need streams to connectors too.
const RENEWALS_AT_ONCE: usize = 64;
/// Identity may read of a change a moment after the relay has.
const LATE_IDENTITY_PAUSE: Duration = Duration::from_millis(50);

/// Sessions of users: verified, and renewed by identity.
pub(crate) struct UserSessions {
    pub verified: Sessions,
    pub identity: Identity,
    pub renewals: Renewals,
    pub current: Arc<Current>,
    pub tasks: TaskTracker,
}

/// Keyed by the token that is renewed, and the position of DIRECTORY that made
/// it stale: a change of the user makes an earlier answer useless.
pub(crate) struct Renewals {
    by_token: Cache<(String, u64), Arc<Renewal>>,
    at_once: Semaphore,
}

impl Default for Renewals {
    fn default() -> Self {
        Self { by_token: Cache::new(SESSION_CACHE_ENTRIES), at_once: Semaphore::new(RENEWALS_AT_ONCE) }
    }
}

impl UserSessions {
    /// The fresh session if it is there; else it is asked for beside the
    /// request, and a later response carries it.
    pub(crate) fn renew_soon(
        self: &Arc<Self>,
        asking: IdentityRequest,
        session: &Arc<Session>,
    ) -> Option<Arc<Session>> {
        match self.join_renewal(asking, session) {
            Joined::Known(fresh) => fresh.ok(),
            Joined::Waiting { .. } => None,
        }
    }

    /// The fresh session, waited for, but not long.
    pub(crate) async fn renew_now(
        self: &Arc<Self>,
        asking: IdentityRequest,
        session: &Arc<Session>,
    ) -> Result<Arc<Session>, Refusal> {
        self.join_renewal(asking, session).outcome().await
    }

    fn join_renewal(self: &Arc<Self>, asking: IdentityRequest, session: &Arc<Session>) -> Joined {
        let renewal = self.renewal_of(&asking.tenant, session);
        let (sessions, old) = (self.clone(), session.clone());
        let renew = || async move {
            let Ok(_place) = sessions.renewals.at_once.acquire().await else { return Err(Refusal::NotReady) };
            sessions.renew(&asking, &old).await
        };
        renewal.join(&self.tasks, renew)
    }

    fn renewal_of(&self, tenant: &TenantId, session: &Session) -> Arc<Renewal> {
        let view = self.current.view();
        let directory = view.snapshot.tenant(tenant).map_or(0, |it| it.directory_for(session.claims.sub));
        let key = (session.token.clone(), directory);
        let Ok(renewal) = self.renewals.by_token.get_or_insert_with(&key, || Ok::<_, Infallible>(Arc::default()));
        renewal
    }

    async fn renew(self: &Arc<Self>, asking: &IdentityRequest, session: &Session) -> Result<Arc<Session>, Refusal> {
        loop {
            let form = {
                let keys = self.current.keys();
                let now = self.current.now();
                let secret = keys.tenants.get(&asking.tenant).and_then(|it| it.secret(now)).ok_or(Refusal::NotReady)?;
                renewal_form(secret, asking.app, &session.token)
            };
            let token = self.identity.ask(asking, "/token", form).await?;
            let (keys, view) = (self.current.keys(), self.current.view().clone());
            let keys = keys.tenants.get(&asking.tenant).ok_or(Refusal::NotReady)?;
            let tenant = view.snapshot.tenant(&asking.tenant).ok_or(Refusal::NotReady)?;
            let fresh = self.verified.verify(&token, asking.app, &asking.tenant, keys);
            let fresh = fresh.map_err(|_| Refusal::SignInFailed("a token that does not verify"))?;
            match fresh.claims.check(tenant, self.current.now()) {
                Ok(()) => return Ok(fresh),
                Err(SessionFault::Renew) if fresh.claims.is_behind(tenant) => {}
                Err(SessionFault::Renew | SessionFault::Over) => return Err(Refusal::SignInRequired),
            }
            sleep(LATE_IDENTITY_PAUSE).await;
        }
    }
}

/// The renewal of one token, for all who wait for it.
#[derive(Default)]
struct Renewal {
    state: watch::Sender<State>,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unasked,
    /// On its way since.
    Asked(Instant),
    Fresh(Arc<Session>),
    Failed(Instant, Refusal),
}

/// The state of a renewal as one request that joins it sees it.
enum Joined {
    Known(Result<Arc<Session>, Refusal>),
    Waiting { state: watch::Receiver<State>, until: Instant },
}

impl Joined {
    async fn outcome(self) -> Result<Arc<Session>, Refusal> {
        let (mut state, until) = match self {
            Self::Known(outcome) => return outcome,
            Self::Waiting { state, until } => (state, until),
        };
        let settled = state.wait_for(|it| it.outcome().is_some());
        let settled = timeout_at(until, settled).await;
        let outcome = settled.ok().and_then(|it| it.ok()?.outcome());
        outcome.unwrap_or(Err(Refusal::SignInUnavailable))
    }
}

impl State {
    fn outcome(&self) -> Option<Result<Arc<Session>, Refusal>> {
        match self {
            Self::Unasked | Self::Asked(_) => None,
            Self::Fresh(session) => Some(Ok(session.clone())),
            Self::Failed(_, refusal) => Some(Err(refusal.clone())),
        }
    }

    /// Must identity be asked, now?
    fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::Unasked => true,
            Self::Fresh(_) => false,
            Self::Asked(since) => now >= *since + RENEWAL_TIMEOUT,
            Self::Failed(at, _) => now >= *at + FAILURE_LIFE,
        }
    }
}

impl Renewal {
    /// Begins `renew` as a task of its own if nobody has lately.
    fn join<F>(self: Arc<Self>, tasks: &TaskTracker, renew: impl FnOnce() -> F) -> Joined
    where
        F: Future<Output = Result<Arc<Session>, Refusal>> + Send + 'static,
    {
        let now = Instant::now();
        let begins = self.state.send_if_modified(|state| {
            let due = state.is_due(now);
            if due {
                *state = State::Asked(now);
            }
            due
        });
        let state = self.state.subscribe();
        if begins {
            let asked = renew();
            tasks.spawn(async move {
                let answered = timeout(RENEWAL_TIMEOUT, asked).await;
                self.state.send_replace(match answered {
                    Ok(Ok(fresh)) => State::Fresh(fresh),
                    Ok(Err(refusal)) => State::Failed(Instant::now(), refusal),
                    // Who waited was told long ago; the next who comes asks again.
                    Err(_) => State::Unasked,
                });
            });
        }
        let now_known = state.borrow().clone();
        match now_known {
            State::Asked(since) if now < since + RENEWAL_WAIT => Joined::Waiting { state, until: since + RENEWAL_WAIT },
            State::Unasked | State::Asked(_) => Joined::Known(Err(Refusal::SignInUnavailable)),
            State::Fresh(session) => Joined::Known(Ok(session)),
            State::Failed(_, refusal) => Joined::Known(Err(refusal)),
        }
    }
}

#[cfg(test)]
mod tests;
