//! `owner.json`: the credential of the command line on a controller's machine.
//!
//! Nobody renews it by using it, so the controller that wrote it writes it anew at
//! two thirds of its life.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use admin_client::Credential;
use anyhow::Context;
use controller::{authority::Authority, bootstrap, first_owner, writer::Writer};
use model::{TenantId, Timestamp};
use runtime::Clock;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How soon writing is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(600);

#[derive(Clone)]
pub struct OwnerFile {
    pub writer: Arc<Writer>,
    pub authority: Arc<Authority>,
    /// `https://HOST:PORT`.
    pub controller: String,
    pub path: PathBuf,
    /// When the certificate in it ends, in seconds since 1970; 0 while there is none.
    pub ends_s: Arc<AtomicI64>,
}

impl OwnerFile {
    /// Writes it for the first active owner; returns it and when it is due again.
    pub fn write(&self) -> anyhow::Result<(Credential, Timestamp)> {
        let tenant = TenantId::default_tenant();
        let owner = first_owner::active(&self.writer, &tenant).context("there is no active owner")?;
        let issued = self.authority.owner(&tenant, owner, self.writer.now())?;
        let due = issued.chain.first().map_or(self.writer.now(), |der| bootstrap::renewal(der));
        let credential = Credential {
            controller: self.controller.clone(),
            authority: runtime::tls::pem("CERTIFICATE", self.authority.certificate()),
            certificate: Some(issued.chain.iter().map(|der| runtime::tls::pem("CERTIFICATE", der)).collect()),
            key: Some(runtime::tls::pem("PRIVATE KEY", &issued.key)),
            token: None,
        };
        credential.save(&self.path)?;
        self.ends_s.store(issued.expires.seconds(), Ordering::Relaxed);
        Ok((credential, due))
    }

    pub async fn keep(self, mut due: Timestamp, clock: Clock, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = clock.reach_ms(due.0) => {}
                () = stop.cancelled() => return,
            }
            due = match self.write() {
                Ok((_, due)) => {
                    info!(file = %self.path.display(), "the owner's credential is written");
                    due
                }
                Err(error) => {
                    warn!(file = %self.path.display(), error = format!("{error:#}"), "the owner's credential is not written yet");
                    self.writer.now().plus_seconds(RETRY_INTERVAL.as_secs() as i64)
                }
            };
        }
    }
}
