//! The words on the wire: messages and services of `postern.v1`, how an event is
//! signed, and what is said while a connector joins. Knows no rule.
//!
//! Read `postern/v1/*.proto` first, then `signed`, then `enrolment`.

pub mod enrolment;
pub mod hex;
pub mod names;
pub mod signed;

/// Messages, clients and servers generated from `postern/v1/*.proto`.
pub mod v1 {
    #![allow(
        unreachable_pub,
        clippy::all,
        clippy::unwrap_used,
        clippy::wildcard_enum_match_arm,
        clippy::too_many_lines,
        reason = "generated"
    )]
    tonic::include_proto!("postern.v1");
}

/// The compiled descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The kind of a signed [`v1::AppTestPermit`], which is for no stream.
pub const APP_TEST_PERMIT: &str = "AppTestPermit";

pub use prost::Message;
