//! The steps of a sign-in: what is asked next, as one pure table.

use std::collections::BTreeSet;

use model::{
    Proof, ProviderId, Requirement, SessionId, Timestamp, UserId, activity::ProofMethod, session::satisfied_by,
};
use serde::{Deserialize, Serialize};

use crate::{proofs::method, sessions::SsoSession, upstream::Asks};

/// What a user has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Say who they are.
    Identify,
    /// Show a proof they have.
    Prove(Proof),
    /// Have an identity provider vouch for them.
    Visit(ProviderId, Asks),
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
    /// A provider's word in this sign-in.
    pub vouched: Option<VouchedBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VouchedBy {
    pub provider: ProviderId,
    pub asks: Asks,
    pub mfa: bool,
    /// When the user signed in there.
    pub at: Timestamp,
}

/// The provider a user comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HomeProvider {
    pub provider: ProviderId,
    /// Can it be asked for a second factor?
    pub asks_mfa: bool,
}

impl Evidence {
    /// As they came.
    pub(crate) fn before(session: Option<SsoSession>) -> Self {
        Self { user: session.as_ref().map(|it| it.user), session, ..Self::default() }
    }

    /// A right password is a whole new sign-in, whoever was signed in before.
    pub(crate) fn by_password(user: UserId) -> Self {
        Self { user: Some(user), proofs: vec![Proof::Password], ..Self::default() }
    }

    /// So is a provider's word.
    pub(crate) fn by_provider(user: UserId, vouched: VouchedBy) -> Self {
        Self { user: Some(user), vouched: Some(vouched), ..Self::default() }
    }

    pub(crate) fn has(&self, proof: Proof) -> bool {
        self.proofs.contains(&proof)
    }

    /// The provider they came by, in this sign-in or with the session.
    pub(crate) fn provider(&self) -> Option<ProviderId> {
        let of_session = || self.session.as_ref().and_then(|it| it.provider);
        self.vouched.map(|it| it.provider).or_else(of_session)
    }

    /// Authentication methods, of the session and of now.
    pub(crate) fn amr(&self) -> Vec<String> {
        let mut amr = self.session.as_ref().map_or(vec![], |it| it.amr.clone());
        let vouched = self.vouched.iter().flat_map(|it| {
            [Some(ProofMethod::Federated), it.mfa.then_some(ProofMethod::MultiFactor)].into_iter().flatten()
        });
        for word in vouched.chain(self.proofs.iter().map(|it| method(*it))).map(String::from) {
            if !amr.contains(&word) {
                amr.push(word);
            }
        }
        amr
    }

    pub(crate) fn satisfied(&self) -> BTreeSet<Requirement> {
        satisfied_by(&self.amr())
    }

    /// When they signed in: with the session, at the provider, or now.
    pub(crate) fn at(&self, now: Timestamp) -> Timestamp {
        let of_session = self.session.as_ref().map(|it| Timestamp(it.started_ms));
        of_session.or(self.vouched.map(|it| it.at)).unwrap_or(now)
    }

    /// The session as this sign-in leaves it; `fresh` is the id of a new one.
    pub(crate) fn into_session(self, user: UserId, fresh: SessionId, now: Timestamp) -> SsoSession {
        let (amr, started_ms, provider) = (self.amr(), self.at(now).0, self.provider());
        SsoSession { user, session: self.session.map_or(fresh, |it| it.session), started_ms, amr, provider }
    }
}

/// What comes next for a user who has `registered` proofs, while `missing` is
/// asked for beyond what was shown. Every answer but `Done` asks for something
/// that was not shown yet, so a sign-in ends.
pub(crate) fn next(
    evidence: &Evidence,
    registered: &BTreeSet<Proof>,
    missing: &BTreeSet<Requirement>,
    home: Option<HomeProvider>,
) -> Step {
    if evidence.user.is_none() {
        return Step::Identify;
    }
    let asks_mfa = home.is_some_and(|it| it.asks_mfa);
    // A first factor: the user's password, or the word of the provider they come by.
    let show_first = |again| match home {
        Some(it) => {
            let mfa = asks_mfa && missing.contains(&Requirement::Mfa);
            Step::Visit(it.provider, Asks { mfa, again })
        }
        None => Step::Prove(Proof::Password),
    };
    let begins = evidence.session.is_none();
    let has_first = evidence.has(Proof::Password) || evidence.vouched.is_some();
    let recent = missing.iter().any(|it| matches!(it, Requirement::SignInWithin(_)));
    let asked_again = evidence.has(Proof::Password) || evidence.vouched.is_some_and(|it| it.asks.again);
    if (recent && !asked_again) || (begins && !has_first) {
        return show_first(recent);
    }
    let vouched_mfa = evidence.vouched.is_some_and(|it| it.mfa);
    let lacks_second =
        missing.contains(&Requirement::Mfa) || (begins && registered.contains(&Proof::Totp) && !vouched_mfa);
    if !lacks_second || evidence.has(Proof::Totp) {
        return Step::Done;
    }
    let provider_said_no = evidence.vouched.is_some_and(|it| it.asks.mfa);
    match registered.contains(&Proof::Totp) {
        _ if asks_mfa && missing.contains(&Requirement::Mfa) && !provider_said_no => show_first(false),
        true => Step::Prove(Proof::Totp),
        // Whoever may set up a second factor has just shown the first.
        false if has_first => Step::Enrol(Proof::Totp),
        false => show_first(true),
    }
}

#[cfg(test)]
mod tests;
