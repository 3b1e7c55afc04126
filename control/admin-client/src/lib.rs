//! Client of the admin API, for whoever administers from outside the controller:
//! the command line, a console, the tests.
//!
//! Must never know: how the answers are shown, and any rule of the model.
//!
//! Read: `credential` (which controller, and who calls), `admin` (the typed
//! clients), `lists` (every page of a list), `sign_in` (tokens, and their
//! renewal), `web` (the HTTPS client that signs in).

pub mod admin;
pub mod credential;
pub mod lists;
pub mod sign_in;
pub mod web;

pub use admin::Admin;
pub use credential::{Credential, Tokens};
