//! Judging open exchanges again: a long download, an event stream or a
//! WebSocket ends when its user may not have it any more, or does not take it.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use eventlog::View;
use model::{AppId, Facts, SessionId, Snapshot, UserId, app::PreAuthentication, kind::Touch, session::SessionFault};
use tokio::time::{interval, timeout};
use tracing::info;

use crate::{
    current::Current,
    life::Life,
    open::exchanges::{Admission, OpenExchange, OpenExchanges, OpenGuard},
    record::metrics::RelayMetrics,
    sessions::{UserSessions, identity::IdentityRequest, renewal::RENEWAL_WAIT, session::Session},
    settings::WRITE_STALL_TIMEOUT,
};

/// All open exchanges, by thread, and what judging them takes.
pub(crate) struct Rejudge {
    pub by_thread: Vec<Arc<OpenExchanges>>,
    pub current: Arc<Current>,
    pub sessions: Arc<UserSessions>,
    pub metrics: Arc<RelayMetrics>,
    pub life: Life,
}

/// Sessions end by themselves too; this often somebody looks.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

enum Judgement {
    Passes,
    Ends,
    /// The user changed: a fresh token must say who they are now.
    AskIdentity(Arc<Session>),
}

/// Whose open exchanges a change may concern.
#[derive(Debug, PartialEq, Eq)]
enum Scope {
    Everybody,
    Of { apps: BTreeSet<AppId>, users: BTreeSet<UserId>, sessions: BTreeSet<SessionId> },
}

impl Scope {
    fn between(before: &Snapshot, now: &Snapshot) -> Self {
        if before.tenants.len() != now.tenants.len() {
            return Self::Everybody;
        }
        let (mut apps, mut users, mut sessions) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (id, now) in &now.tenants {
            let Some(before) = before.tenant(id) else { return Self::Everybody };
            if Arc::ptr_eq(before, now) {
                continue;
            }
            for touch in before.touched(now) {
                match touch {
                    Touch::Nobody => {}
                    Touch::Everybody => return Self::Everybody,
                    Touch::App(app) => _ = apps.insert(app),
                    Touch::User(user) => _ = users.insert(user),
                    Touch::Session(session) => _ = sessions.insert(session),
                    Touch::Outdated => match now.outdated.named_since(&before.outdated) {
                        Some(named) => users.extend(named),
                        None => return Self::Everybody,
                    },
                }
            }
        }
        Self::Of { apps, users, sessions }
    }

    fn of(&self, exchanges: &OpenExchanges) -> Vec<Arc<OpenExchange>> {
        let (apps, users, sessions) = match self {
            Self::Everybody => return exchanges.all(),
            Self::Of { apps, users, sessions } => (apps, users, sessions),
        };
        if users.is_empty() && sessions.is_empty() {
            return apps.iter().flat_map(|app| exchanges.of(*app)).collect();
        }
        let mut concerned = exchanges.all();
        concerned.retain(|open| {
            let session = open.admission.session.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = |it: &Arc<Session>| users.contains(&it.claims.sub) || sessions.contains(&it.claims.sid);
            apps.contains(&open.admission.app) || session.as_ref().is_some_and(changed)
        });
        concerned
    }
}

impl Rejudge {
    pub(crate) fn count(&self) -> usize {
        self.by_thread.iter().map(|it| it.count()).sum()
    }

    /// Judges open exchanges whenever what is known of them changes, and all of
    /// them from time to time.
    pub(crate) async fn run(self: Arc<Self>) {
        // What requests are judged by, and not what is about to be.
        let mut followed = self.current.changes();
        let mut look_again = interval(LOOK_AGAIN);
        let mut judged = self.current.view().snapshot.clone();
        loop {
            let everybody = tokio::select! {
                changed = followed.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                _ = look_again.tick() => true,
                () = self.life.ended.cancelled() => return,
            };
            let view = self.current.view().clone();
            let scope = if everybody { Scope::Everybody } else { Scope::between(&judged, &view.snapshot) };
            for (thread, exchanges) in self.by_thread.iter().enumerate() {
                for open in scope.of(exchanges) {
                    if everybody && open.untaken(self.current.clock.instant()) >= WRITE_STALL_TIMEOUT {
                        open.abandon();
                    }
                    self.judge(&view, open, thread);
                }
            }
            judged = view.snapshot.clone();
        }
    }

    /// A new open exchange. The view that let it in may be an older one by now.
    pub(crate) fn enter(self: &Arc<Self>, admission: Admission, by: &View, thread: usize) -> OpenGuard {
        let guard = self.by_thread[thread].enter(admission);
        let view = self.current.view().clone();
        if !Arc::ptr_eq(&by.snapshot, &view.snapshot) {
            self.judge(&view, guard.open.clone(), thread);
        }
        guard
    }

    pub(crate) fn judge(self: &Arc<Self>, view: &View, open: Arc<OpenExchange>, thread: usize) {
        match self.judgement(view, &open) {
            Judgement::Passes => {}
            Judgement::Ends => self.end(&open),
            Judgement::AskIdentity(session) => {
                if open.begins_renewal() {
                    let judge = self.clone();
                    self.life.tasks.spawn(async move {
                        let renewed = timeout(RENEWAL_WAIT, judge.renew_open(&open, session, thread)).await;
                        open.renewed();
                        if renewed != Ok(true) {
                            judge.end(&open);
                        }
                    });
                }
            }
        }
    }

    /// Does it pass with a fresh token? Asked again when the user changes meanwhile.
    async fn renew_open(self: &Arc<Self>, open: &OpenExchange, mut session: Arc<Session>, thread: usize) -> bool {
        let admission = &open.admission;
        loop {
            let (tenant, app, address) = (admission.tenant.clone(), admission.app, admission.address());
            let asking = IdentityRequest { tenant, app, address, thread };
            let Ok(fresh) = self.sessions.renew_now(asking, &session).await else { return false };
            *admission.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
            let view = self.current.view().clone();
            match self.judgement(&view, open) {
                Judgement::Passes => return true,
                Judgement::Ends => return false,
                Judgement::AskIdentity(stale) => session = stale,
            }
        }
    }

    fn judgement(&self, view: &View, open: &OpenExchange) -> Judgement {
        let admission = &open.admission;
        let tenant = view.snapshot.tenant(&admission.tenant);
        let Some(tenant) = tenant else { return Judgement::Ends };
        let Some(app) = tenant.app(admission.app) else { return Judgement::Ends };
        let session = admission.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if session.is_none() && app.pre_authentication == PreAuthentication::SignIn {
            return Judgement::Ends;
        }
        if let Some(session) = &session {
            let now = self.current.now();
            match session.claims.check(tenant, now) {
                Err(SessionFault::Over) => return Judgement::Ends,
                Err(SessionFault::Renew) if session.claims.is_behind(tenant) => {
                    return Judgement::AskIdentity(session.clone());
                }
                // The token's own end matters to the next request, not to this.
                Err(SessionFault::Renew) | Ok(()) => {}
            }
        }
        let who = session.as_ref().map(|it| it.signed_in());
        let facts = Facts::new(admission.app, admission.address(), who, self.current.now());
        match tenant.authorize(&facts) {
            Ok(_) => Judgement::Passes,
            Err(_) => Judgement::Ends,
        }
    }

    fn end(&self, open: &OpenExchange) {
        if !open.is_cut() {
            self.metrics.cuts.inc();
            info!(app = %open.admission.app, "an open exchange is cut");
            open.cut();
        }
    }
}

#[cfg(test)]
mod tests;
