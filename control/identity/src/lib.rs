//! The sign-in service: an OpenID provider with its own directory, its pages,
//! and the portal. Reached through relays like any application.
//!
//! Must never know: how a request is routed.
//!
//! Read: `endpoints` (which address does what), `provider/authorize` (a browser
//! is sent here), `sign_in` (what it is asked, by the table in `sign_in/step`),
//! `proofs` (passwords and codes), `provider/grants` (tokens), `portal`.
//!
//! Choices. It keeps nothing that two instances would have to share: what lies
//! between two steps is sealed into the page. Three things are in memory and
//! bounded: failed attempts, codes that were used (they live a minute), and
//! device codes; with several instances each counts for itself.

mod attempts;
mod controller;
mod current;
mod endpoints;
mod keys;
mod pages;
mod portal;
mod proofs;
mod provider;
mod sessions;
pub mod settings;
mod sign_in;
mod throttle;
mod upstream;
mod visitor;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ::tokens::{SigningKey, TokenFaults};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::Router;
use eventlog::{Journal, Projection};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::TenantId;
use proto::signed::key_id;
use runtime::{
    Clock,
    hashing::{Hashing, HashingError},
    sealing::SealingKey,
    secret::SharedSecret,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tracing::{debug, info};

use crate::{
    attempts::Attempts,
    controller::Controller,
    current::Current,
    endpoints::Identity,
    portal::Portal,
    proofs::{password::Passwords, totp::Codes},
    provider::{AuthorizationCodes, Devices, Provider, Tokens},
    sessions::Sessions,
    sign_in::SignIn,
    throttle::Throttle,
    upstream::Upstream,
};
pub use crate::{
    proofs::{ProofFault, ProofFaults},
    settings::Settings,
    upstream::fault::{UpstreamFault, UpstreamFaults},
};

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
    pub faults: Faults,
}

/// Counters of what is refused.
#[derive(Clone, Default)]
pub struct Faults {
    pub tokens: TokenFaults,
    pub proofs: ProofFaults,
    pub upstream: UpstreamFaults,
}

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
        let Surroundings { projection, journal, sealing, signing, hashing, clock, faults } = surroundings;
        let tenant_id = TenantId::default_tenant();
        let pair = Ed25519KeyPair::from_pkcs8(&signing).map_err(|_| IdentityError::SigningKey)?;
        let signing = SigningKey::ed25519(&key_id(pair.public_key().as_ref()), &signing);
        let seal = || SharedSecret::new(&sealing.derive("identity-between"));
        let current = Current::new(tenant_id.clone(), projection, clock);
        let sessions = Arc::new(Sessions::new(current.clone(), seal(), faults.tokens.clone()));
        let throttle = Arc::new(Throttle::default());
        let controller = Controller { current: current.clone(), addresses: settings.controllers, signing };
        let controller = Arc::new(controller);
        let (attempts, written_down) = Attempts::recorded_in(journal, tenant_id, clock);
        let sign_in = SignIn {
            current: current.clone(),
            seal: seal(),
            passwords: Passwords::new(sealing.clone(), hashing)?,
            codes: Codes::new(sealing.clone()),
            faults: faults.proofs,
            throttle: throttle.clone(),
            attempts,
            controller: controller.clone(),
            upstream: Upstream {
                current: current.clone(),
                sealing: sealing.clone(),
                faults: faults.upstream,
                known: Mutex::default(),
            },
        };
        let tokens = Tokens {
            current: current.clone(),
            sessions: sessions.clone(),
            seal: seal(),
            sealing: sealing.clone(),
            faults: faults.tokens.clone(),
            life_s: settings.token_life_s,
        };
        let provider = Provider {
            current: current.clone(),
            sessions,
            sign_in,
            codes: AuthorizationCodes::new(current.clone(), seal()),
            devices: Devices::new(current.clone()),
            tokens,
            throttle,
            controller,
        };
        let portal = Portal { current: current.clone(), faults: faults.tokens };
        let tasks = TaskTracker::new();
        tasks.spawn(written_down);
        let routes = endpoints::routes(Arc::new(Identity { current, provider, portal }));
        Ok(Self { socket: settings.socket, routes, tasks })
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
