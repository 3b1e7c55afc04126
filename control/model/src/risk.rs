//! Revocations: what takes access away before a token ends by itself.

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;

use crate::ids::{Position, SessionId, Timestamp, UserId};

/// A token lives this long; every use past half of it renews it silently.
pub const TOKEN_LIFE_S: i64 = 600;
/// A relay's clock may be this far behind identity's.
pub const CLOCK_LEEWAY_S: i64 = 60;
/// Subjects that [`OutdatedTokens`] share. The last event of each is all that a
/// reader sees who starts late, so this also bounds what such a reader loads.
pub const OUTDATED_SLOTS: u8 = 32;
/// People one event names: 16 bytes each, and the event has to fit into the
/// million that the log takes, with its envelope.
pub const OUTDATED_USERS_MAX: usize = 60_000;
/// Events one change may become. Beyond it everybody is meant, and nobody named.
pub const OUTDATED_PARTS_MAX: usize = 4;
/// The oldest living token is younger than this, as far as clocks agree.
pub const OUTDATED_LIFE_S: i64 = TOKEN_LIFE_S + CLOCK_LEEWAY_S;

/// One session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRevocation {
    pub session: SessionId,
    pub at: Timestamp,
}

/// What of a user's access ended when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRevocation {
    pub user: UserId,
    /// Sessions begun before this are over.
    pub sessions_before: Timestamp,
    /// Tokens minted from an older DIRECTORY must be renewed: the user changed.
    /// A position and not a time, so no clock can hide the change.
    pub directory: Position,
}

/// Many people changed at once: somebody touched a group that they are in. It
/// says of each of them what [`UserRevocation::directory`] says of one.
///
/// Choices. One event in place of thousands, so it cannot have a person as its
/// subject; one subject for all would forget what the event before said of other
/// people. So there are a few subjects, slots, and whoever takes one that is in
/// use keeps its truth: `everyone` then says of all people what the event before
/// said of some. That asks too much of others, never too little, and in the
/// usual case nothing: the tokens it speaks of have ended by themselves. So the
/// clock behind `at` decides what is cheap, not what is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutdatedTokens {
    pub slot: u8,
    /// Tokens of `users` minted from an older DIRECTORY must be renewed.
    pub directory: Position,
    /// In order, each once.
    pub users: Arc<[UserId]>,
    /// The same for all people: what slots said before they were taken again.
    pub everyone: Position,
    pub at: Timestamp,
}

/// All slots of a tenant, and what follows from them.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Outdated {
    slots: OrdMap<u8, Arc<OutdatedTokens>>,
    everyone: Position,
    /// No slot speaks of a later DIRECTORY, so a newer token need not look.
    newest: Position,
}

impl Outdated {
    pub(crate) fn insert(&mut self, event: OutdatedTokens) {
        self.slots.insert(event.slot, Arc::new(event));
        // From the slots alone: whoever starts late has not seen what was before.
        self.everyone = self.slots.values().map(|it| it.everyone).max().unwrap_or(0);
        self.newest = self.slots.values().map(|it| it.directory).max().unwrap_or(0);
    }

    /// Is a token of this user, minted from this DIRECTORY, older than a change?
    pub fn concerns(&self, user: UserId, minted: Position) -> bool {
        minted < self.everyone || (minted < self.newest && minted < self.directory_for(user))
    }

    /// The DIRECTORY that a token of this user has to be minted from, or a later one.
    pub fn directory_for(&self, user: UserId) -> Position {
        let names = |it: &&Arc<OutdatedTokens>| it.users.binary_search(&user).is_ok();
        let named = self.slots.values().filter(names).map(|it| it.directory).max();
        self.everyone.max(named.unwrap_or(0))
    }

    /// Who is concerned by what was recorded since; `None` means everybody.
    pub fn named_since(&self, before: &Self) -> Option<BTreeSet<UserId>> {
        if self.everyone != before.everyone {
            return None;
        }
        let is_new = |(slot, it): &(&u8, &Arc<OutdatedTokens>)| before.slots.get(*slot) != Some(*it);
        Some(self.slots.iter().filter(is_new).flat_map(|(_, it)| it.users.iter().copied()).collect())
    }

    /// Slots in the order to take them: whose tokens have ended, the free, and
    /// then the oldest.
    fn to_take(&self, now: Timestamp) -> impl Iterator<Item = (u8, Option<&Arc<OutdatedTokens>>)> {
        let mut slots: Vec<_> = (0..OUTDATED_SLOTS).map(|slot| (slot, self.slots.get(&slot))).collect();
        slots.sort_by_key(|(slot, taken)| match taken {
            Some(it) if it.at.plus_seconds(OUTDATED_LIFE_S) <= now => (0, it.at, *slot),
            None => (1, Timestamp(0), *slot),
            Some(it) => (2, it.at, *slot),
        });
        slots.into_iter()
    }

    /// Events that make tokens of these users stale: one for each
    /// `OUTDATED_USERS_MAX` people, and none when it is so already.
    pub(crate) fn outdate(
        &self,
        users: impl IntoIterator<Item = UserId>,
        directory: Position,
        now: Timestamp,
    ) -> Vec<OutdatedTokens> {
        let users: Vec<UserId> = users.into_iter().filter(|user| self.directory_for(*user) < directory).collect();
        let everyone = users.len() > OUTDATED_PARTS_MAX * OUTDATED_USERS_MAX;
        let parts: Vec<&[UserId]> = match everyone {
            true => vec![&[]],
            false => users.chunks(OUTDATED_USERS_MAX).collect(),
        };
        let event = |(users, (slot, before)): (&[UserId], (u8, Option<&Arc<OutdatedTokens>>))| OutdatedTokens {
            slot,
            directory,
            users: users.into(),
            everyone: match everyone {
                true => directory,
                false => before.map_or(0, |it| it.everyone.max(it.directory)),
            },
            at: now,
        };
        parts.into_iter().zip(self.to_take(now)).map(event).collect()
    }
}
