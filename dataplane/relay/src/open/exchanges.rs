//! Exchanges that are still open, so that each can be judged again when what is
//! known changes, and cut when it no longer passes or its user takes nothing.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Context,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use model::{AppId, TenantId};
use tokio::task::AbortHandle;

use crate::sessions::session::Session;

/// What an open exchange was let in with.
#[derive(Debug)]
pub(crate) struct Admission {
    pub tenant: TenantId,
    pub app: AppId,
    /// Replaced when the session is renewed.
    pub session: Mutex<Option<Arc<Session>>>,
    /// Replaced when the user moves.
    pub address: Mutex<IpAddr>,
}

impl Admission {
    pub(crate) fn address(&self) -> IpAddr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection's other end has a new address; tells whether that was the
    /// one this was judged by.
    pub(crate) fn moved(&self, from: IpAddr, to: IpAddr) -> bool {
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        let matters = *address == from;
        if matters {
            *address = to;
        }
        matters
    }
}

tokio::task_local! {
    static TASK: Arc<OnceLock<AbortHandle>>;
}

/// Runs each stream of a user's HTTP/2 connection as a task that can be ended:
/// hyper asks the body of an answer for nothing while its user takes nothing, so
/// such a body can neither be cut nor know that it waits.
#[derive(Clone)]
pub(crate) struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    #[expect(clippy::disallowed_methods, reason = "owned by its connection, with which it ends")]
    fn execute(&self, stream: F) {
        let task = Arc::new(OnceLock::new());
        let running = tokio::spawn(TASK.scope(task.clone(), stream));
        task.get_or_init(|| running.abort_handle());
    }
}

/// One open exchange.
#[derive(Debug)]
pub(crate) struct OpenExchange {
    pub admission: Admission,
    cut: AtomicBool,
    waker: AtomicWaker,
    /// Odd from when a piece of the answer was handed over until more is asked for.
    turn: AtomicU64,
    /// The turn it was when somebody last looked, and since when.
    seen: Mutex<Option<(u64, Instant)>>,
    /// What takes the answer, where that is a task of its own.
    taker: Option<AbortHandle>,
    /// Waits for a fresh token.
    renewing: AtomicBool,
}

impl OpenExchange {
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.waker.wake();
        if is_odd(self.turn.load(Ordering::Relaxed)) {
            self.abandon();
        }
    }

    /// The body is asked for its next piece. Only the body calls this, and `handed`.
    pub(crate) fn asked(&self) {
        let turn = self.turn.load(Ordering::Relaxed);
        if is_odd(turn) {
            self.turn.store(turn + 1, Ordering::Relaxed);
        }
    }

    pub(crate) fn handed(&self) {
        self.turn.store(self.turn.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How long the last piece of the body has been waiting for its user. Sampled
    /// by whoever asks from time to time, so late by up to their interval.
    pub(crate) fn untaken(&self, now: Instant) -> Duration {
        let turn = self.turn.load(Ordering::Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((same, since)) if same == turn && is_odd(turn) => now.duration_since(since),
            _ => {
                *seen = Some((turn, now));
                Duration::ZERO
            }
        }
    }

    pub(crate) fn abandon(&self) {
        if let Some(taker) = &self.taker {
            taker.abort();
        }
    }

    /// Begins a renewal unless one is under way; tells which.
    pub(crate) fn begins_renewal(&self) -> bool {
        !self.renewing.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn renewed(&self) {
        self.renewing.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// Like `is_cut`, and wakes the caller when it becomes true.
    pub(crate) fn poll_cut(&self, context: &Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.is_cut()
    }
}

fn is_odd(turn: u64) -> bool {
    turn % 2 == 1
}

/// All open exchanges of one relay thread.
#[derive(Default)]
pub(crate) struct OpenExchanges {
    next: AtomicU64,
    /// By application: a change of one walks its own.
    open: Mutex<BTreeMap<(AppId, u64), Arc<OpenExchange>>>,
}

impl OpenExchanges {
    pub(crate) fn enter(self: &Arc<Self>, admission: Admission) -> OpenGuard {
        let id = (admission.app, self.next.fetch_add(1, Ordering::Relaxed));
        let open = Arc::new(OpenExchange {
            admission,
            cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            turn: AtomicU64::new(0),
            seen: Mutex::default(),
            taker: TASK.try_with(|it| it.get().cloned()).ok().flatten(),
            renewing: AtomicBool::new(false),
        });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, open.clone());
        OpenGuard { id, open, among: self.clone() }
    }

    pub(crate) fn all(&self) -> Vec<Arc<OpenExchange>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn of(&self, app: AppId) -> Vec<Arc<OpenExchange>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.range((app, 0)..=(app, u64::MAX)).map(|(_, open)| open.clone()).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// An exchange is open for as long as this lives.
pub(crate) struct OpenGuard {
    id: (AppId, u64),
    pub open: Arc<OpenExchange>,
    among: Arc<OpenExchanges>,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.among.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
