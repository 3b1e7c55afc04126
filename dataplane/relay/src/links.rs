//! Connections to connectors: the streams parked on them, and what each is told.

pub mod audience;
pub(crate) mod connectors;
pub mod link;
