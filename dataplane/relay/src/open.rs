//! What is open: connections of users, of which there may be so many, and
//! exchanges with applications, which are judged again when what is known changes.

pub(crate) mod client_certificate;
pub(crate) mod connection_permits;
pub(crate) mod exchanges;
pub(crate) mod rejudge;
pub(crate) mod user_connection;
