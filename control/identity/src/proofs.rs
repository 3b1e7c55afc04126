//! Proofs: what a user shows to sign in, a password or a one-time code. One file
//! each: how it is checked, and how a new one is set up.
//!
//! A check answers with a [`ProofFault`]. Operators see it in the debug log and
//! in a metric; the user is told the same whatever was wrong.

pub(crate) mod password;
pub(crate) mod totp;

use std::collections::BTreeSet;

use model::{
    Proof, Tenant, UserId,
    activity::{ProofMethod, SignInOutcome},
};
use prometheus_client::encoding::EncodeLabelSet;
use runtime::metrics::{Counter, Family, Metrics};
use thiserror::Error;
use tracing::debug;

/// Why a proof is not accepted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum ProofFault {
    #[error("there is no user of that name")]
    UnknownUser,
    #[error("the user has no such proof")]
    NotRegistered,
    #[error("the proof is not the user's")]
    Wrong,
    #[error("the code was used before")]
    UsedBefore,
    #[error("the proof is sealed to another key than identity has")]
    Unreadable,
    #[error("the proof is right, and the account is disabled")]
    Disabled,
    #[error("too many passwords are being checked; this one was not")]
    Busy,
    #[error("the new proof is right, and no controller recorded it")]
    NotRecorded,
}

impl ProofFault {
    pub const ALL: [Self; 8] = [
        Self::UnknownUser,
        Self::NotRegistered,
        Self::Wrong,
        Self::UsedBefore,
        Self::Unreadable,
        Self::Disabled,
        Self::Busy,
        Self::NotRecorded,
    ];

    /// As the metric calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::NotRegistered => "not_registered",
            Self::Wrong => "wrong",
            Self::UsedBefore => "used_before",
            Self::Unreadable => "unreadable",
            Self::Disabled => "disabled",
            Self::Busy => "busy",
            Self::NotRecorded => "not_recorded",
        }
    }

    /// How the attempt is recorded.
    pub(crate) fn outcome(self, proof: Proof) -> SignInOutcome {
        match self {
            Self::Disabled => SignInOutcome::Disabled,
            Self::Busy => SignInOutcome::Busy,
            Self::NotRecorded => SignInOutcome::Unavailable,
            Self::UnknownUser | Self::NotRegistered | Self::Wrong | Self::UsedBefore | Self::Unreadable => {
                match proof {
                    Proof::Password => SignInOutcome::WrongPassword,
                    Proof::Totp => SignInOutcome::WrongCode,
                }
            }
        }
    }

    /// Is it our own fault? Then it says nothing of the proof, and does not count
    /// against the user.
    pub(crate) fn is_ours(self) -> bool {
        match self {
            Self::Busy | Self::NotRecorded => true,
            Self::UnknownUser
            | Self::NotRegistered
            | Self::Wrong
            | Self::UsedBefore
            | Self::Unreadable
            | Self::Disabled => false,
        }
    }
}

/// Counts proofs that are not accepted.
#[derive(Clone, Debug, Default)]
pub struct ProofFaults(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    proof: &'static str,
    fault: &'static str,
}

impl ProofFaults {
    pub fn register(metrics: &Metrics) -> Self {
        let ours = Self::default();
        metrics.register("proof_faults", "Proofs of users that were not accepted, and why", ours.0.clone());
        ours
    }

    /// Passes a check's outcome on, and tells the log and the metric of its fault.
    pub(crate) fn noted<T>(&self, proof: Proof, outcome: Result<T, ProofFault>) -> Result<T, ProofFault> {
        outcome.inspect_err(|fault| {
            debug!(proof = proof.as_str(), fault = fault.name(), "{fault}");
            self.0.get_or_create(&Labels { proof: proof.as_str(), fault: fault.name() }).inc();
        })
    }
}

/// The proofs a user has.
pub(crate) fn registered(tenant: &Tenant, user: UserId) -> BTreeSet<Proof> {
    Proof::ALL.into_iter().filter(|proof| tenant.credential(user, *proof).is_some()).collect()
}

/// What a session says of how its user signed in (`amr`).
pub(crate) fn method(proof: Proof) -> ProofMethod {
    match proof {
        Proof::Password => ProofMethod::Password,
        Proof::Totp => ProofMethod::OneTimeCode,
    }
}

#[cfg(test)]
mod tests;
