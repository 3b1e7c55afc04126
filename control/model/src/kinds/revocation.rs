//! Revocations of sessions, users and tokens, as objects. `risk` says what they
//! mean.

use crate::{
    event::Stream,
    ids::{SessionId, Timestamp, UserId},
    kinds::{
        Singleton,
        kind::{Indexes, Kind, Rank, Touch},
    },
    risk::{OutdatedTokens, SessionRevocation, UserRevocation},
};

impl Kind for SessionRevocation {
    const NAME: &'static str = "session-revocation";
    const TITLE: &'static str = "revocation of a session";
    const STREAM: Stream = Stream::Risk;
    const SUBJECT: &'static str = "session";
    type Key = SessionId;

    fn key(&self) -> SessionId {
        self.session
    }

    /// Over is over: the first end counts.
    fn settled(self, before: Option<&Self>) -> Self {
        before.cloned().unwrap_or(self)
    }

    fn touches(&self) -> Touch {
        Touch::Session(self.session)
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::Revokes
    }
}

impl Kind for UserRevocation {
    const NAME: &'static str = "user-revocation";
    const TITLE: &'static str = "revocation of a user";
    const STREAM: Stream = Stream::Risk;
    const SUBJECT: &'static str = "user";
    type Key = UserId;

    fn key(&self) -> UserId {
        self.user
    }

    /// Revocations only ever grow: an older one never opens what a newer closed.
    fn settled(self, before: Option<&Self>) -> Self {
        Self {
            user: self.user,
            sessions_before: self.sessions_before.max(before.map_or(Timestamp(0), |it| it.sessions_before)),
            directory: self.directory.max(before.map_or(0, |it| it.directory)),
        }
    }

    fn touches(&self) -> Touch {
        Touch::User(self.user)
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::Revokes
    }
}

impl Kind for OutdatedTokens {
    const NAME: &'static str = "outdated-tokens";
    const TITLE: &'static str = "outdated tokens";
    const STREAM: Stream = Stream::Risk;
    const SUBJECT: &'static str = "outdated";
    type Key = u8;

    fn key(&self) -> u8 {
        self.slot
    }

    fn index(at: &mut Indexes<'_>, _before: Option<&Self>, after: Option<&Self>) {
        after.cloned().into_iter().for_each(|it| at.tenant.outdated.insert(it));
    }

    fn touches(&self) -> Touch {
        Touch::Outdated
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::Revokes
    }
}

/// Of all people: sessions begun before are over. What was known of some of them
/// may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllSessionsEnded {
    pub before: Timestamp,
}

impl Kind for AllSessionsEnded {
    const NAME: &'static str = "sessions-ended";
    const TITLE: &'static str = "end of all sessions";
    const STREAM: Stream = Stream::Risk;
    const SUBJECT: &'static str = "sessions";
    type Key = Singleton;

    fn key(&self) -> Singleton {
        Singleton("all")
    }

    fn settled(self, before: Option<&Self>) -> Self {
        Self { before: self.before.max(before.map_or(self.before, |it| it.before)) }
    }

    fn index(at: &mut Indexes<'_>, _before: Option<&Self>, after: Option<&Self>) {
        at.tenant.sessions_before = after.map_or(Timestamp(0), |it| it.before);
    }

    fn touches(&self) -> Touch {
        Touch::Everybody
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::Revokes
    }
}
