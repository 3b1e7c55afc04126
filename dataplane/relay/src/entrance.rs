//! How people and connectors come in: one port, TLS, HTTP/1, HTTP/2 and HTTP/3,
//! and what of it gets through to the HTTP libraries.

pub(crate) mod gate;
pub(crate) mod http3;
pub(crate) mod http3_gate;
pub(crate) mod listener;
pub(crate) mod plain;
