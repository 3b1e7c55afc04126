//! The relay, with or without a port.

use std::sync::Arc;

use relay::{Port, Relay, Running, Settings, Surroundings};
use tokio_util::sync::CancellationToken;

use super::{Base, Vitals};

/// A relay on the port of its settings, or on one that is open already.
pub fn assemble(
    base: &Base<'_>,
    settings: Settings,
    port: Option<Port>,
    vitals: &mut Vitals,
    stop: &CancellationToken,
) -> anyhow::Result<Running> {
    let surroundings = surroundings(base, vitals, stop)?;
    let running = match port {
        Some(port) => relay::start_on(port, settings, surroundings)?,
        None => relay::start(settings, surroundings)?,
    };
    let (relay, links) = (running.relay.clone(), running.relay.clone());
    vitals.checks.push(Arc::new(move || relay.readiness()));
    vitals.checks.push(Arc::new(move || links.links_readiness()));
    Ok(running)
}

/// A relay that is handed its connections, on the caller's runtime.
pub fn without_listener(
    base: &Base<'_>,
    settings: Settings,
    vitals: &Vitals,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Relay>> {
    Ok(relay::without_listener(settings, surroundings(base, vitals, stop)?)?)
}

fn surroundings(base: &Base<'_>, vitals: &Vitals, stop: &CancellationToken) -> anyhow::Result<Surroundings> {
    Ok(Surroundings {
        projection: base.projection.clone(),
        journal: base.journal()?,
        trust: base.keys.trust.of_state()?,
        sealing: base.keys.sealing.clone(),
        clock: base.clock,
        token_faults: base.token_faults.clone(),
        metrics: vitals.metrics.clone(),
        stop: stop.clone(),
    })
}
