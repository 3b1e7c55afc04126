//! Identity: the service, and the socket its connector finds it at.

use anyhow::Context;
use identity::{Faults, ProofFaults, Service, Settings, Surroundings, UpstreamFaults};
use runtime::hashing::Hashing;
use tokio::net::UnixListener;

use super::Base;

/// Identity without a socket.
pub fn assemble(base: &Base<'_>, settings: Settings, hashing: Hashing) -> anyhow::Result<Service> {
    let surroundings = Surroundings {
        projection: base.projection.clone(),
        journal: base.journal()?,
        sealing: base.keys.sealing.clone(),
        signing: base.keys.signing.clone(),
        hashing,
        clock: base.clock,
        faults: Faults {
            tokens: base.token_faults.clone(),
            proofs: ProofFaults::register(&base.metrics),
            upstream: UpstreamFaults::register(&base.metrics),
        },
    };
    Ok(Service::start(settings, surroundings)?)
}

/// Identity at its socket.
pub fn listen(base: &Base<'_>, settings: Settings) -> anyhow::Result<(Service, UnixListener)> {
    let listener = identity::listen(&settings)?;
    Ok((assemble(base, settings, hashing()?)?, listener))
}

/// Threads that hash passwords.
pub fn hashing() -> anyhow::Result<Hashing> {
    Hashing::start().context("starting the threads that hash passwords")
}
