//! Signed tokens (JWT, RFC 7519) of our own processes: who signs them, who may
//! believe them, and the reason when one is not believed. And what a browser or
//! a client holds beside them: cookies, random text, client secrets.
//!
//! Must never know: whether a session still holds (the model judges that), and
//! what is signed for the log (`proto::signed`).
//!
//! Read: `fault` (why a token is refused), `verify` (the one place that checks),
//! `session`, `assertion`, `internal`, `statement` (one token each).

pub mod assertion;
pub mod clients;
pub mod cookies;
pub mod fault;
pub mod internal;
pub mod jwk;
pub mod keys;
pub mod random_text;
pub mod session;
pub mod statement;
mod verify;

pub use fault::{TokenFault, TokenFaults, TokenKind};
pub use keys::{PublicKeys, SigningFault, SigningKey};
pub use verify::named_key;

/// The audience of session tokens for the admin API.
pub const ADMIN_AUDIENCE: &str = "postern-admin";

#[cfg(test)]
mod tests;
