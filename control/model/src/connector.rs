//! Connectors, their groups, and the invitations that make them.

use crate::{
    app::Name,
    ids::{ConnectorGroupId, ConnectorId, JoinTokenId, Timestamp},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorGroup {
    pub id: ConnectorGroupId,
    pub name: Name,
}

/// A one-time invitation into a group. The secret itself is never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    pub id: JoinTokenId,
    pub group: ConnectorGroupId,
    pub secret_hash: Vec<u8>,
    pub expires: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connector {
    pub id: ConnectorId,
    pub name: Name,
    pub group: ConnectorGroupId,
    /// SubjectPublicKeyInfo (DER) of the key it made; renewal must prove it.
    pub public_key: Vec<u8>,
    /// The invitation it used up.
    pub join_token: JoinTokenId,
    pub revoked: bool,
}
