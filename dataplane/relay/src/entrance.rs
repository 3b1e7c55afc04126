//! How people and connectors come in: one port, TLS, HTTP/1, HTTP/2 and HTTP/3,
//! and what of it gets through to the HTTP libraries.

pub(crate) mod gate;
pub(crate) mod http3;
pub(crate) mod http3_body;
pub(crate) mod http3_gate;
pub(crate) mod listener;
pub(crate) mod plain;
pub(crate) mod tls;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use model::TenantId;
use rustls::{ServerConfig, server::Accepted};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{
    current::Current, entrance::tls::UserTls, life::Life, links::Links, open::connection_permits::ConnectionPermits,
    record::metrics::RelayMetrics, request::Requests,
};

#[derive(Debug, Error)]
pub enum RelayError {
    #[error("listening on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("preparing TLS")]
    Tls(#[from] rustls::Error),
    #[error("starting a worker")]
    Worker(#[source] io::Error),
}

/// What accepting connections takes.
pub(crate) struct Entrance {
    pub requests: Arc<Requests>,
    pub links: Arc<Links>,
    pub current: Arc<Current>,
    pub metrics: Arc<RelayMetrics>,
    pub permits: Arc<ConnectionPermits>,
    pub user_tls: UserTls,
    pub challenge_tls: Arc<ServerConfig>,
    /// By thread.
    pub link_queues: Vec<mpsc::Sender<ComingLink>>,
    /// Links on their way to each thread.
    pub coming: Vec<AtomicUsize>,
    pub life: Life,
}

/// A connection to the connector endpoint, before its handshake.
pub(crate) struct ComingLink {
    pub start: Accepted,
    pub stream: std::net::TcpStream,
    pub tenant: TenantId,
    pub config: Arc<ServerConfig>,
}
