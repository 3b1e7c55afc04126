//! Exchanges that are still open, so that each can be judged again when what is
//! known changes, and cut when it no longer passes.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Context,
};

use futures_util::task::AtomicWaker;
use model::{AppId, TenantId};

use crate::session::Session;

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

/// One open exchange.
#[derive(Debug)]
pub(crate) struct Open {
    pub admission: Admission,
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Open {
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.waker.wake();
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

/// All open exchanges of one relay thread.
#[derive(Default)]
pub(crate) struct OpenExchanges {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Open>>>,
}

impl OpenExchanges {
    pub(crate) fn enter(self: &Arc<Self>, admission: Admission) -> Place {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let open = Arc::new(Open { admission, cut: AtomicBool::new(false), waker: AtomicWaker::new() });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, open.clone());
        Place { id, open, among: self.clone() }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// An exchange is open for as long as this lives.
pub(crate) struct Place {
    id: u64,
    pub open: Arc<Open>,
    among: Arc<OpenExchanges>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.among.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
