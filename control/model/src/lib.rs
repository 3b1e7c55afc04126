//! The pure middle: what is published, who may reach it, and how both change.
//!
//! Plain functions over plain data. It knows no clock, no chance, no network,
//! no protobuf: facts come in as arguments, answers go out as values.
//!
//! Read in this order: `event` (what can have happened), `snapshot` (what is
//! true now), `command` (what may be wished, and why not), `batch`, `route`, `policy`,
//! `session` (what a relay asks on each request).

pub mod activity;
pub mod app;
pub mod batch;
pub mod branding;
pub mod command;
pub mod connector;
pub mod directory;
pub mod edge;
pub mod event;
pub mod hosts;
pub mod ids;
pub mod keys;
pub mod kind;
pub mod kinds;
pub mod links;
pub mod policy;
pub mod risk;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod table;
pub mod text;

#[cfg(test)]
mod tests;

pub use app::{App, ExternalUrl, Origin};
pub use batch::{Refused, Step, decide, decide_all, foresee};
pub use command::{Command, Rejection};
pub use directory::{Principal, Role};
pub use event::{Event, Stream, Subject};
pub use ids::*;
pub use kind::Kind;
pub use kinds::{
    Assignment, Connector, ConnectorGroup, Credential, Group, JoinToken, KindName, LinkedIdentity, Membership, Object,
    ObjectKey, Proof, RoleAssignment, Tenant, User,
};
pub use policy::{Decision, Facts, Policy, Requirement};
pub use snapshot::Snapshot;
