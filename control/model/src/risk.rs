//! What takes access away before a token ends by itself.

use crate::ids::{Position, SessionId, Timestamp, UserId};

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
