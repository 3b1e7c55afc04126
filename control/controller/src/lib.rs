//! Decides and records: the admin API, enrolment of connectors, the
//! certificate authority. The only writer of CONFIG, DIRECTORY and RISK.
//!
//! Must never know: a user's request.
//!
//! Read: `writer` (the ritual every change goes through), `callers` (who may
//! call what), `admin` (the API), `activity` (answers about what users did),
//! `enrolment`, `authority`, `bootstrap`, `first_owner`, `server_certificate`.

pub mod acme;
mod activity;
pub mod admin;
pub mod authority;
pub mod bootstrap;
pub mod callers;
mod certificates;
pub mod domains;
pub mod enrolment;
mod errors;
pub mod first_owner;
pub mod passwords;
pub mod permits;
mod resolve;
pub mod server;
pub mod server_certificate;
pub mod settings;
mod signing_keys;
pub mod writer;

use std::{collections::BTreeMap, sync::Arc};

use eventlog::{Journal, Projection};
use proto::signed::Verifier;
use runtime::{
    Clock,
    hashing::Hashing,
    sealing::{SealTo, SealingKey},
};
use thiserror::Error;
use tokens::TokenFaults;

pub use settings::Settings;

#[derive(Debug, Error)]
pub enum ControllerError {
    #[error("listening on {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("making a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("preparing TLS")]
    Tls(#[from] rustls::Error),
    #[error("sealing a secret")]
    Sealing(#[from] runtime::sealing::SealingError),
    #[error("making a key")]
    Key(#[from] aws_lc_rs::error::Unspecified),
    #[error(transparent)]
    Write(#[from] writer::WriteError),
    #[error("hashing a password")]
    Password(#[from] passwords::PasswordError),
    #[error("keeping the first owner's password in a file")]
    FirstOwner(#[source] std::io::Error),
    #[error(
        "the installation has no certificate authority this controller can open: every controller needs the same keys \
         folder, the one that `postern keys` made before the first start"
    )]
    NoAuthority,
    #[error("the role table is wrong at {0:?}")]
    RoleTable(String),
    #[error("preparing server reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Public keys of the other roles: whom secrets are sealed to, and whose calls
/// are believed.
#[derive(Clone)]
pub struct Peers {
    pub seal_to_relays: SealTo,
    pub seal_to_identity: SealTo,
    /// Ed25519, raw; identity signs its calls with the other half.
    pub identity_key: Vec<u8>,
    /// Whose events of ACTIVITY are believed: every role that writes it.
    pub activity: Verifier,
    /// Keys that sign application definitions, by id: given to connectors.
    pub writers: BTreeMap<String, Vec<u8>>,
}

/// What a controller is given.
#[derive(Clone)]
pub struct Surroundings {
    pub projection: Projection,
    pub journal: Journal,
    pub sealing: Arc<SealingKey>,
    pub peers: Peers,
    /// Where passwords are hashed.
    pub hashing: Arc<Hashing>,
    pub clock: Clock,
    /// Counts tokens that are refused.
    pub token_faults: TokenFaults,
}
