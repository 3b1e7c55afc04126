//! Judging open exchanges again: a long download, an event stream or a
//! WebSocket ends when its user may not have it any more, or does not take it.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use eventlog::View;
use model::{Facts, Timestamp, app::PreAuthentication, policy, session::SessionFault};
use tokio::time::timeout;
use tracing::info;

use crate::{
    Relay,
    renewal::{Asking, RENEWAL_WAIT},
    session::Session,
    settings::WRITE_STALL_TIMEOUT,
    streams::Open,
};

/// Sessions end by themselves too; this often somebody looks.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

enum Judgement {
    Passes,
    Ends,
    /// The user changed: a fresh token must say who they are now.
    AskIdentity(Arc<Session>),
}

impl Relay {
    /// Judges all open exchanges whenever what is known changes.
    pub(crate) async fn judge_open_exchanges(self: Arc<Self>) {
        // What requests are judged by, and not what is about to be.
        let mut followed = self.followed.subscribe();
        loop {
            followed.borrow_and_update();
            let view = self.view().clone();
            for (thread, exchanges) in self.open.iter().enumerate() {
                for open in exchanges.all() {
                    if open.untaken(self.clock.instant()) >= WRITE_STALL_TIMEOUT {
                        open.abandon();
                    }
                    self.judge(&view, open, thread);
                }
            }
            tokio::select! {
                changed = followed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.ended.cancelled() => return,
            }
        }
    }

    pub(crate) fn judge(self: &Arc<Self>, view: &View, open: Arc<Open>, thread: usize) {
        match self.judgement(view, &open) {
            Judgement::Passes => {}
            Judgement::Ends => self.end(&open),
            Judgement::AskIdentity(session) => {
                if open.begins_renewal() {
                    let relay = self.clone();
                    self.tasks.spawn(async move {
                        let renewed = timeout(RENEWAL_WAIT, relay.renew_open(&open, session, thread)).await;
                        open.renewed();
                        if renewed != Ok(true) {
                            relay.end(&open);
                        }
                    });
                }
            }
        }
    }

    /// Does it pass with a fresh token? Asked again when the user changes meanwhile.
    async fn renew_open(self: &Arc<Self>, open: &Open, mut session: Arc<Session>, thread: usize) -> bool {
        let admission = &open.admission;
        loop {
            let (tenant, app, address) = (admission.tenant.clone(), admission.app, admission.address());
            let asking = Asking { tenant, app, address, thread };
            let Ok(fresh) = self.renew_now(asking, &session).await else { return false };
            *admission.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
            let view = self.view().clone();
            match self.judgement(&view, open) {
                Judgement::Passes => return true,
                Judgement::Ends => return false,
                Judgement::AskIdentity(stale) => session = stale,
            }
        }
    }

    fn judgement(&self, view: &View, open: &Open) -> Judgement {
        let admission = &open.admission;
        let tenant = view.snapshot.tenant(&admission.tenant);
        let Some(tenant) = tenant else { return Judgement::Ends };
        let Some(app) = tenant.app(admission.app) else { return Judgement::Ends };
        let session = admission.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if session.is_none() && app.pre_authentication == PreAuthentication::SignIn {
            return Judgement::Ends;
        }
        if let Some(session) = &session {
            let now = Timestamp(self.clock.now_ms());
            match session.claims.check(tenant, now) {
                Err(SessionFault::Over) => return Judgement::Ends,
                Err(SessionFault::Renew) if session.claims.is_behind(tenant) => {
                    return Judgement::AskIdentity(session.clone());
                }
                // The token's own end matters to the next request, not to this.
                Err(SessionFault::Renew) | Ok(()) => {}
            }
        }
        let (no_groups, no_proof) = (BTreeSet::new(), BTreeSet::new());
        let facts = Facts {
            app: admission.app,
            user: session.as_ref().map(|it| it.claims.sub),
            groups: session.as_ref().map_or(&no_groups, |it| &it.groups),
            address: admission.address(),
            satisfied: session.as_ref().map_or(&no_proof, |it| &it.satisfied),
        };
        match policy::authorize(tenant, &facts) {
            Ok(_) => Judgement::Passes,
            Err(_) => Judgement::Ends,
        }
    }

    fn end(&self, open: &Open) {
        if !open.is_cut() {
            self.metrics.cuts.inc();
            info!(app = %open.admission.app, "an open exchange is cut");
            open.cut();
        }
    }
}
