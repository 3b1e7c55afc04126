//! Who the user is: tokens and their verification, sign-in, renewal, and what an
//! application is told.

pub(crate) mod assertion;
pub(crate) mod identity;
pub(crate) mod renewal;
pub mod session;
pub mod signin;

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::{
    current::Current,
    sessions::{identity::Identity, renewal::Renewals, session::Sessions},
};

/// Sessions of users: verified, renewed, and asked of identity.
pub(crate) struct UserSessions {
    pub verified: Sessions,
    pub identity: Identity,
    pub renewals: Renewals,
    pub current: Arc<Current>,
    pub tasks: TaskTracker,
}
