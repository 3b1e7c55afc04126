//! One connection of a user, and whether anything is open on it.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtime::clock::random_bytes;
use tokio::time::Instant;

use crate::open::{client_certificate::ClientCertificate, connection_permits::ConnectionPermit};

pub(crate) struct UserConnection {
    /// No other connection has it, here or at another relay.
    pub id: u64,
    pub peer: IpAddr,
    pub sni: Option<String>,
    pub thread: usize,
    /// The user's certificate, if one was asked for and shown.
    pub certificate: ClientCertificate,
    usage: Mutex<Usage>,
    /// Taken until the connection and everything on it has ended, also what it
    /// was switched to.
    _permit: ConnectionPermit,
}

struct Usage {
    open: usize,
    /// When `open` last changed.
    since: Instant,
}

impl UserConnection {
    pub(crate) fn new(peer: IpAddr, sni: Option<String>, thread: usize, permit: ConnectionPermit) -> Arc<Self> {
        Self::showing(peer, sni, thread, permit, ClientCertificate::default())
    }

    pub(crate) fn showing(
        peer: IpAddr,
        sni: Option<String>,
        thread: usize,
        permit: ConnectionPermit,
        certificate: ClientCertificate,
    ) -> Arc<Self> {
        let usage = Mutex::new(Usage { open: 0, since: Instant::now() });
        let id = u64::from_be_bytes(random_bytes());
        Arc::new(Self { id, peer, sni, thread, certificate, usage, _permit: permit })
    }

    fn change(&self, by: isize) {
        let mut now = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        *now = Usage { open: now.open.saturating_add_signed(by), since: Instant::now() };
    }

    /// Waits until nothing has been open for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let deadline = {
                let now = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
                if now.open == 0 { now.since + limit } else { Instant::now() + limit }
            };
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// One exchange on a connection.
pub(crate) struct ExchangeGuard(Arc<UserConnection>);

impl ExchangeGuard {
    pub(crate) fn begin(user: Arc<UserConnection>) -> Self {
        user.change(1);
        Self(user)
    }
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::connection_permits::ConnectionPermits;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_nothing_was_open_for_the_whole_time() {
        const LIMIT: Duration = Duration::from_secs(300);
        let started = Instant::now();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let permits = ConnectionPermits::new(1, 1);
        let user = UserConnection::new(peer, None, 0, ConnectionPermit::take(&permits, peer).unwrap());
        let visit = ExchangeGuard::begin(user.clone());
        let ended = async {
            tokio::time::sleep(LIMIT * 10).await;
            drop(visit);
        };
        tokio::join!(ended, user.idle(LIMIT));
        assert!(started.elapsed() >= LIMIT * 11, "{:?}", started.elapsed());
        let switched = ExchangeGuard::begin(user.clone());
        drop(user);
        assert_eq!(permits.taken(), 1, "what goes on after a switch counts");
        drop(switched);
        assert_eq!(permits.taken(), 0);
    }
}
