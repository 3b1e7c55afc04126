//! Why a token is refused, told to a debug log line and a metric: an operator
//! sees a retired key apart from a wrong audience, and strangers see neither.

use prometheus_client::encoding::EncodeLabelSet;
use runtime::metrics::{Counter, Family, Metrics};
use thiserror::Error;
use tracing::debug;

/// Why a token, or a client's secret, is not believed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum TokenFault {
    #[error("the token is longer than any of ours")]
    TooLong,
    #[error("the token is no signed JWT, or lacks a claim it must have")]
    Malformed,
    #[error("the token is signed with another algorithm than its key's")]
    WrongAlgorithm,
    #[error("the token names no key, or one that was never known for this")]
    UnknownKey,
    #[error("the key that signed the token is retired")]
    RetiredKey,
    #[error("the signature does not fit the token")]
    BadSignature,
    #[error("the token is for another audience")]
    WrongAudience,
    #[error("the token is from another issuer")]
    WrongIssuer,
    #[error("the token is of another tenant")]
    WrongTenant,
    #[error("the statement is about the user of another application")]
    WrongApplication,
    #[error("the token is not valid yet: the clocks differ")]
    NotYetValid,
    #[error("the token has expired")]
    Expired,
    #[error("the secret is not the client's")]
    WrongSecret,
    #[error("the code was asked for with another redirect URI")]
    WrongRedirect,
    #[error("the code was asked for by another program: the verifier does not fit (PKCE)")]
    WrongVerifier,
    #[error("the code was used before")]
    UsedBefore,
    #[error("the session is over: revoked, ended for all, 12 hours old, or its user is gone")]
    SessionOver,
}

impl TokenFault {
    pub const ALL: [Self; 17] = [
        Self::TooLong,
        Self::Malformed,
        Self::WrongAlgorithm,
        Self::UnknownKey,
        Self::RetiredKey,
        Self::BadSignature,
        Self::WrongAudience,
        Self::WrongIssuer,
        Self::WrongTenant,
        Self::WrongApplication,
        Self::NotYetValid,
        Self::Expired,
        Self::WrongSecret,
        Self::WrongRedirect,
        Self::WrongVerifier,
        Self::UsedBefore,
        Self::SessionOver,
    ];

    /// As the metric calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::RetiredKey => "retired_key",
            Self::BadSignature => "bad_signature",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongTenant => "wrong_tenant",
            Self::WrongApplication => "wrong_application",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::WrongSecret => "wrong_secret",
            Self::WrongRedirect => "wrong_redirect",
            Self::WrongVerifier => "wrong_verifier",
            Self::UsedBefore => "used_before",
            Self::SessionOver => "session_over",
        }
    }
}

/// What was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Session,
    Assertion,
    Internal,
    Statement,
    ClientSecret,
    Code,
    Refresh,
    /// The cookie of a signed-in browser at identity.
    SignedIn,
}

impl TokenKind {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Assertion => "assertion",
            Self::Internal => "internal",
            Self::Statement => "statement",
            Self::ClientSecret => "client_secret",
            Self::Code => "code",
            Self::Refresh => "refresh",
            Self::SignedIn => "signed_in",
        }
    }
}

/// Counts refused tokens of a process, all roles of it together.
#[derive(Clone, Debug, Default)]
pub struct TokenFaults(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    token: &'static str,
    fault: &'static str,
}

impl TokenFaults {
    pub fn register(metrics: &Metrics) -> Self {
        let ours = Self::default();
        metrics.register("token_faults", "Tokens that were refused, and why", ours.0.clone());
        ours
    }

    /// Tells the log and the metric of a fault.
    pub fn note(&self, kind: TokenKind, fault: TokenFault) {
        debug!(token = kind.name(), fault = fault.name(), "{fault}");
        self.0.get_or_create(&Labels { token: kind.name(), fault: fault.name() }).inc();
    }

    /// Passes an outcome on, and notes its fault.
    pub fn noted<T>(&self, kind: TokenKind, outcome: Result<T, TokenFault>) -> Result<T, TokenFault> {
        outcome.inspect_err(|fault| self.note(kind, *fault))
    }
}
