//! The sign-in service: an OpenID provider with its own directory, its pages,
//! and the portal. Reached through relays like any application.
//!
//! Must never know: how a request is routed.
//!
//! Read: `clients` (who may ask for tokens), `authorize` (one sign-in),
//! `credentials` (proof), `tokens` (what comes of it), `endpoints`, `portal`.
//!
//! Choices. It keeps nothing that two instances would have to share: what lies
//! between two steps is sealed into the page. Three things are in memory and
//! bounded: failed attempts, codes that were used (they live a minute), and
//! device codes; with several instances each counts for itself.

mod authorize;
mod clients;
mod controller;
mod credentials;
mod device;
mod endpoints;
mod flow;
mod keys;
mod pages;
mod portal;
pub mod settings;
mod throttle;
mod tokens;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ::tokens::{SigningKey, TokenFaults};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::Router;
use eventlog::{Activity, Draft, Fact, Journal, Projection};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Tenant, TenantId, Timestamp};
use proto::{signed::key_id, v1::SignInAttempt};
use runtime::{
    Clock,
    clock::fresh_id,
    hashing::{Hashing, HashingError},
    sealing::SealingKey,
    secret::SharedSecret,
    telemetry::chain,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::{credentials::Credentials, device::Devices, throttle::Throttle, tokens::UsedCodes};
pub use settings::Settings;

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("listening on {path}")]
    Listen { path: String, source: std::io::Error },
    #[error("the signing key cannot be read")]
    SigningKey,
    #[error("preparing to check passwords")]
    Hashing(#[from] HashingError),
}

/// What identity is given.
pub struct Surroundings {
    pub projection: Projection,
    pub journal: Journal,
    /// Opens credentials and signing keys.
    pub sealing: Arc<SealingKey>,
    /// Signs calls to controllers (Ed25519, PKCS#8).
    pub signing: Vec<u8>,
    /// Where passwords are checked.
    pub hashing: Hashing,
    pub clock: Clock,
    /// Counts tokens that are refused.
    pub token_faults: TokenFaults,
}

pub(crate) struct Identity {
    settings: Settings,
    tenant_id: TenantId,
    projection: Projection,
    sealing: Arc<SealingKey>,
    signing: SigningKey,
    token_faults: TokenFaults,
    clock: Clock,
    /// Seals what lies between two steps of a sign-in.
    between: SharedSecret,
    credentials: Credentials,
    throttle: Mutex<Throttle>,
    used_codes: Mutex<UsedCodes>,
    devices: Mutex<Devices>,
    attempts: mpsc::Sender<SignInAttempt>,
}

/// Attempts waiting to be recorded. Past this a sign-in waits: an attempt that
/// nobody could see afterwards must not succeed.
const WAITING_ATTEMPTS_MAX: usize = 1024;
const CONNECTIONS_MAX: usize = 4096;

/// Opens the socket, so that others may be told of it.
pub fn listen(settings: &Settings) -> Result<UnixListener, IdentityError> {
    let failed = |source| IdentityError::Listen { path: settings.socket.display().to_string(), source };
    // A socket left by a process that was killed.
    match std::fs::remove_file(&settings.socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(&settings.socket).map_err(failed)
}

/// Identity without a socket: it serves the connections it is given.
pub struct Service {
    socket: PathBuf,
    routes: Router,
    /// Connections, and the writing down of attempts.
    tasks: TaskTracker,
}

impl Service {
    pub fn start(settings: Settings, surroundings: Surroundings) -> Result<Self, IdentityError> {
        let (attempts, waiting) = mpsc::channel(WAITING_ATTEMPTS_MAX);
        let Surroundings { projection, journal, sealing, signing, hashing, clock, token_faults } = surroundings;
        let tenant_id = TenantId::default_tenant();
        let pair = Ed25519KeyPair::from_pkcs8(&signing).map_err(|_| IdentityError::SigningKey)?;
        let signing = SigningKey::ed25519(&key_id(pair.public_key().as_ref()), &signing);
        let socket = settings.socket.clone();
        let identity = Arc::new(Identity {
            between: SharedSecret::new(&sealing.derive("identity-between")),
            credentials: Credentials::new(sealing.clone(), hashing)?,
            settings,
            tenant_id: tenant_id.clone(),
            projection,
            sealing,
            signing,
            token_faults,
            clock,
            throttle: Mutex::default(),
            used_codes: Mutex::default(),
            devices: Mutex::default(),
            attempts,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(record(journal, tenant_id, clock, waiting));
        Ok(Self { socket, routes: endpoints::routes(identity), tasks })
    }

    /// Serves until `stop`.
    pub async fn run(self, listener: UnixListener, stop: CancellationToken) {
        info!(socket = %self.socket.display(), "identity listens");
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let Ok((stream, _)) = accepted else { continue };
            if self.tasks.len() > CONNECTIONS_MAX {
                continue;
            }
            self.tasks.spawn(self.serve_on(stream, stop.clone()));
        }
        let tasks = self.tasks.clone();
        // Attempts are written down until nobody is left who could make one.
        drop(self);
        tasks.close();
        tasks.wait().await;
    }

    /// Serves one connection to its end.
    pub fn serve_on<S>(&self, io: S, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let routes = self.routes.clone();
        async move {
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                routes.clone().oneshot(request.map(axum::body::Body::new))
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            let connection = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(io), service);
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                debug!(%error, "a connection ended early");
            }
        }
    }
}

async fn record(journal: Journal, tenant: TenantId, clock: Clock, mut waiting: mpsc::Receiver<SignInAttempt>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, eventlog::APPEND_MAX).await > 0 {
        let drafts: Vec<Draft> = batch
            .drain(..)
            .map(|attempt| Draft {
                id: fresh_id(),
                tenant: tenant.clone(),
                time: Timestamp(clock.now_ms()),
                actor: "identity".into(),
                cause: String::new(),
                fact: Fact::Activity(Activity::SignIn(attempt)),
            })
            .collect();
        if let Err(error) = journal.record(&drafts).await {
            warn!(error = %chain(&error), "sign-in attempts are not recorded");
        }
    }
}

impl Identity {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    pub(crate) fn tenant(&self) -> Arc<Tenant> {
        self.projection.snapshot().tenant(&self.tenant_id).cloned().unwrap_or_default()
    }

    pub(crate) async fn attempt(&self, attempt: SignInAttempt) {
        // Closed only when the process stops.
        let _stopping = self.attempts.send(attempt).await;
    }
}
