//! Connectors, their groups, and the invitations that make them.

pub use crate::kinds::{Connector, ConnectorGroup, JoinToken};
