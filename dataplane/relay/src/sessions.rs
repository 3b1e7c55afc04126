//! Who the user is: tokens and their verification, sign-in, renewal, and what an
//! application is told.

pub(crate) mod assertion;
pub(crate) mod identity;
pub(crate) mod renewal;
pub mod session;
pub mod signin;

pub(crate) use renewal::UserSessions;
