//! A process and its surroundings: clock and chance, settings, keys in files,
//! TLS and calls to services of ours, telemetry, probes, signals.
//! Knows nothing of what the process does.

pub mod clock;
pub mod dial;
pub mod endings;
pub mod files;
pub mod hashing;
pub mod metrics;
pub mod probes;
pub mod sealing;
pub mod secret;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod verifier;

pub use clock::Clock;

/// Chooses the one cryptographic library for TLS and JOSE. Every binary calls
/// this first; a second call does nothing.
pub fn install_crypto() {
    let _installed = tls::provider().install_default();
    let _installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}
