//! What a session token says, and whether it still holds.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use crate::risk::{CLOCK_LEEWAY_S, TOKEN_LIFE_S};
use crate::{
    activity::ProofMethod,
    ids::{GroupId, Position, SessionId, TenantId, Timestamp, UserId},
    policy::{Requirement, known_requirements},
    snapshot::Tenant,
};

/// A session ends this long after its sign-in, however often it was renewed.
pub const SESSION_LIFE_S: i64 = 12 * 3600;
/// Groups that fit into a token; beyond it only those that configuration names.
pub const TOKEN_GROUPS_MAX: usize = 64;

/// Claims of a session token (JWT, RFC 7519 names). `aud` is one application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionClaims {
    pub iss: String,
    pub aud: String,
    pub sub: UserId,
    pub sid: SessionId,
    pub iat: i64,
    pub exp: i64,
    /// When the user proved who they are, in milliseconds.
    pub started_ms: i64,
    /// Position of DIRECTORY the groups and names were read at.
    pub directory: Position,
    /// Authentication methods, RFC 8176: `pwd`, `otp`, `mfa`; and `fed`.
    pub amr: Vec<String>,
    /// Requirements that hold until the session ends. How recent the sign-in is
    /// follows from `started_ms`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "known_requirements")]
    pub satisfied: BTreeSet<Requirement>,
    pub tenant: TenantId,
    pub preferred_username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub email: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupId>,
    /// The user is in more groups than fit; `groups` are those that decide about
    /// this application. An identity before this field did not say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub groups_left_out: bool,
    /// Names of `groups`, for identity headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// Why a token with a good signature does not open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFault {
    /// Too old, or the user changed: a fresh one may be had without the user.
    Renew,
    /// Revoked, or at the end of its life: the user signs in again.
    Over,
}

impl SessionClaims {
    /// Expiry is checked at use, never by a sweeper.
    pub fn check(&self, tenant: &Tenant, now: Timestamp) -> Result<(), SessionFault> {
        let from_the_future = self.iat > now.seconds() + CLOCK_LEEWAY_S;
        if from_the_future || tenant.session_is_over(self.sub, self.sid, Timestamp(self.started_ms), now) {
            return Err(SessionFault::Over);
        }
        if self.is_behind(tenant) {
            return Err(SessionFault::Renew);
        }
        match now.seconds() >= self.exp {
            true => Err(SessionFault::Renew),
            false => Ok(()),
        }
    }

    /// Could it have been made just now? If not, although it was, this clock and
    /// identity's differ by more than a token forgives.
    pub fn is_of_now(&self, now: Timestamp) -> bool {
        self.iat <= now.seconds() + CLOCK_LEEWAY_S && now.seconds() < self.exp
    }

    /// Made before the last change of its user, alone or with others.
    pub fn is_behind(&self, tenant: &Tenant) -> bool {
        tenant.user_revocations.get(&self.sub).is_some_and(|it| self.directory < it.directory)
            || tenant.outdated.concerns(self.sub, self.directory)
    }

    /// Past half its life a token is replaced while it still works.
    pub fn wants_renewal(&self, now: Timestamp) -> bool {
        now.seconds() >= self.iat + (self.exp - self.iat) / 2
    }
}

impl Tenant {
    /// Was a session revoked, alone, with its user's or with everybody's, or is it
    /// at the end of its life?
    pub fn session_is_over(&self, user: UserId, session: SessionId, started: Timestamp, now: Timestamp) -> bool {
        let ended_for_all = self.user_revocations.get(&user).is_some_and(|it| started < it.sessions_before);
        ended_for_all
            || started < self.sessions_before
            || now >= started.plus_seconds(SESSION_LIFE_S)
            || self.session_revocations.contains_key(&session)
    }
}

/// What authentication methods satisfy for as long as a session lasts.
pub fn satisfied_by(amr: &[String]) -> BTreeSet<Requirement> {
    match amr.iter().filter_map(|it| ProofMethod::parse(it)).any(ProofMethod::is_second_factor) {
        true => BTreeSet::from([Requirement::Mfa]),
        false => BTreeSet::new(),
    }
}
