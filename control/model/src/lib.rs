//! The pure middle: what is published, who may reach it, and how both change.
//!
//! Plain functions over plain data. It knows no clock, no chance, no network,
//! no protobuf: facts come in as arguments, answers go out as values.
//!
//! Read in this order: `kinds` (what there is, and what can have happened to it),
//! `snapshot` (what is true now), `command` (what may be wished, and why not), `batch`, `route`, `policy`,
//! `session` (what a relay asks on each request).

pub mod activity;
pub mod app;
pub mod arrival;
pub mod batch;
pub mod branding;
pub mod command;
pub mod connector;
pub mod directory;
pub mod event;
pub mod hosts;
pub mod http_rules;
pub mod ids;
pub mod keys;
pub mod kinds;
mod origins;
pub mod policy;
pub mod risk;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod text;
pub mod url_map;

#[cfg(test)]
mod tests;

pub use app::{App, ExternalUrl, Origin};
pub use batch::{Refused, Step, decide, decide_all, foresee};
pub use command::Command;
pub use directory::{Principal, Role};
pub use event::{Stream, Subject};
pub use ids::*;
pub use kinds::{
    Assignment, Connector, ConnectorGroup, Credential, Event, Group, IdentityProvider, JoinToken, Kind, KindName,
    LinkedIdentity, Membership, Object, ObjectKey, Proof, Rejection, RoleAssignment, Tenant, User, kind, table,
};
pub use policy::{Decision, Facts, Policy, Requirement};
pub use snapshot::Snapshot;
