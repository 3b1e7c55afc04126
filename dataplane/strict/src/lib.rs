//! Strict readers of HTTP: one reading of a request or none, where a message of
//! HTTP/1 ends, where frames of HTTP/2 and HTTP/3 begin, and lists in fields.
//!
//! Pure and fuzzed (`tests/fuzz`): bytes and heads go in, a verdict with its
//! reason comes out. Nothing is repaired. Relay and connector both read with it.
//! Must never know: sockets, timers, policies, applications.
//!
//! Read: `canonical` (a request as a whole), `framing` (HTTP/1 before the
//! library reads it), `http2_frames`, `http3_frames`, `fields`, `limits`.

pub mod canonical;
pub mod fields;
pub mod framing;
pub mod http2_frames;
pub mod http3_frames;
pub mod limits;
