//! The steps of a sign-in: what is asked next, as one pure table.

use std::collections::BTreeSet;

use model::{Proof, Requirement, SessionId, Timestamp, UserId, session::satisfied_by};
use serde::{Deserialize, Serialize};

use crate::{proofs::method, sessions::SsoSession};

/// What a user has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Say who they are.
    Identify,
    /// Show a proof they have.
    Prove(Proof),
    /// Set up a proof they lack, and show it.
    Enrol(Proof),
    Done,
}

/// What a user has shown: by the session they came with, and in this sign-in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Evidence {
    pub user: Option<UserId>,
    /// The session that is made stronger. Without one, a new one begins.
    pub session: Option<SsoSession>,
    /// Proofs of this sign-in.
    pub proofs: Vec<Proof>,
}

impl Evidence {
    /// As they came.
    pub(crate) fn before(session: Option<SsoSession>) -> Self {
        Self { user: session.as_ref().map(|it| it.user), session, proofs: vec![] }
    }

    /// A right password is a whole new sign-in, whoever was signed in before.
    pub(crate) fn by_password(user: UserId) -> Self {
        Self { user: Some(user), session: None, proofs: vec![Proof::Password] }
    }

    pub(crate) fn has(&self, proof: Proof) -> bool {
        self.proofs.contains(&proof)
    }

    /// Authentication methods, of the session and of now.
    pub(crate) fn amr(&self) -> Vec<String> {
        let mut amr = self.session.as_ref().map_or(vec![], |it| it.amr.clone());
        for word in self.proofs.iter().map(|it| String::from(method(*it))) {
            if !amr.contains(&word) {
                amr.push(word);
            }
        }
        amr
    }

    pub(crate) fn satisfied(&self) -> BTreeSet<Requirement> {
        satisfied_by(&self.amr())
    }

    /// When they signed in: with the session, or now.
    pub(crate) fn at(&self, now: Timestamp) -> Timestamp {
        self.session.as_ref().map_or(now, |it| Timestamp(it.started_ms))
    }

    /// The session as this sign-in leaves it; `fresh` is the id of a new one.
    pub(crate) fn into_session(self, user: UserId, fresh: SessionId, now: Timestamp) -> SsoSession {
        let (amr, started_ms) = (self.amr(), self.at(now).0);
        SsoSession { user, session: self.session.map_or(fresh, |it| it.session), started_ms, amr }
    }
}

/// The proof that satisfies a requirement.
fn satisfying(requirement: &Requirement) -> Proof {
    match requirement {
        Requirement::Mfa => Proof::Totp,
        Requirement::SignInWithin(_) => Proof::Password,
    }
}

/// What comes next for a user who has `registered` proofs, while `missing` is
/// asked for beyond what was shown. Every answer but `Done` asks for something
/// that was not shown yet, so a sign-in ends.
pub(crate) fn next(evidence: &Evidence, registered: &BTreeSet<Proof>, missing: &BTreeSet<Requirement>) -> Step {
    if evidence.user.is_none() {
        return Step::Identify;
    }
    let begins = evidence.session.is_none();
    let asked: BTreeSet<Proof> = missing.iter().map(satisfying).collect();
    let wanted = |proof| !evidence.has(proof) && (asked.contains(&proof) || begins && registered.contains(&proof));
    match (wanted(Proof::Password), wanted(Proof::Totp)) {
        (true, _) => Step::Prove(Proof::Password),
        (false, true) if registered.contains(&Proof::Totp) => Step::Prove(Proof::Totp),
        // Whoever may set up a second factor has just shown the first.
        (false, true) if evidence.has(Proof::Password) => Step::Enrol(Proof::Totp),
        (false, true) => Step::Prove(Proof::Password),
        (false, false) => Step::Done,
    }
}

#[cfg(test)]
mod tests;
