//! What relay and connector say to each other: gRPC streams that carry one
//! exchange at a time and are used again.
//!
//! The contract is `proto/postern/v1/tunnel.proto`, and an ordinary gRPC peer
//! interoperates. Both of our ends write the wire format straight onto `h2`
//! streams: head and small body in one DATA frame, bulk payload not copied.
//! Knows nothing of applications, policies or users.
//!
//! Read: `frame` (bytes), `stream_halves` (the two directions of a stream), `exchange`
//! (one request, and when a stream may be used again), `upgraded` (after a switch of
//! protocols), `link` (a connection), `io` (what is below it), `fields` (header
//! fields as bytes).
//!
//! Reuse is where one user's bytes could reach another. A stream is used again
//! only after a clean end both ways, under the right exchange id, with nothing
//! left in the decoder. Anything else drops it, which resets it.

pub mod exchange;
pub mod fields;
pub mod frame;
pub mod io;
pub mod link;
pub mod stream_halves;
pub mod upgraded;

#[cfg(test)]
mod tests;

use thiserror::Error;

/// Why an exchange or a link ended early.
#[derive(Debug, Error)]
pub enum TunnelError {
    #[error("the peer reset the exchange: {0:?}")]
    Reset(proto::v1::ResetCode),
    #[error("the stream broke")]
    Broken(#[from] h2::Error),
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the stream ended in the middle of an exchange")]
    Ended,
}
