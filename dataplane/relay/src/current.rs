//! What everything is judged by: the current view of the log, the keys derived
//! from it, and the clock.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use eventlog::View;
use model::{TenantId, Timestamp};
use runtime::{Clock, sealing::SealingKey};
use tokio::sync::watch;

use crate::keys::Keys;

pub(crate) struct Current {
    pub clock: Clock,
    view: ArcSwap<View>,
    keys: Arc<ArcSwap<Keys>>,
    /// Tells that `view` is another.
    followed: watch::Sender<()>,
}

impl Current {
    pub(crate) fn new(view: View, sealing: &SealingKey, clock: Clock) -> Self {
        let keys = Arc::new(ArcSwap::from_pointee(Keys::derive(&view.snapshot, sealing)));
        Self { clock, view: ArcSwap::from_pointee(view), keys, followed: watch::Sender::new(()) }
    }

    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    pub(crate) fn keys(&self) -> Guard<Arc<Keys>> {
        self.keys.load()
    }

    /// For TLS, which asks for a certificate in each handshake.
    pub(crate) fn shared_keys(&self) -> Arc<ArcSwap<Keys>> {
        self.keys.clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    /// Tells after each change that requests are judged by it.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.followed.subscribe()
    }

    /// Takes over a newer view; keys are derived again when they changed.
    pub(crate) fn follow(&self, view: &View, sealing: &SealingKey) {
        if keys_changed(&self.view.load(), view) {
            let keys = self.keys().derive_again(&view.snapshot, sealing);
            self.keys.store(Arc::new(keys));
        }
        self.view.store(Arc::new(view.clone()));
    }

    /// After `follow` and what else follows the view.
    pub(crate) fn tell(&self) {
        self.followed.send_replace(());
    }
}

fn keys_changed(before: &View, after: &View) -> bool {
    let same = |id: &TenantId| match (before.snapshot.tenant(id), after.snapshot.tenant(id)) {
        (Some(a), Some(b)) => {
            let same_address = a.domain == b.domain && a.public_port == b.public_port;
            Arc::ptr_eq(a, b) || same_address && a.keys == b.keys && a.certificates == b.certificates
        }
        (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
    };
    before.snapshot.tenants.len() != after.snapshot.tenants.len() || !after.snapshot.tenants.keys().all(same)
}
