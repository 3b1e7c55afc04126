//! One enrolled connector.

use crate::{
    event::Stream,
    ids::{ConnectorGroupId, ConnectorId, JoinTokenId},
    kinds::{
        ObjectKey,
        kind::{Kind, Rank, Reference},
    },
    text::Name,
};

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

impl Kind for Connector {
    const NAME: &'static str = "connector";
    const TITLE: &'static str = "connector";
    const STREAM: Stream = Stream::Config;
    /// They are called after their machines.
    const NAMES_REPEAT: bool = true;
    type Key = ConnectorId;

    fn key(&self) -> ConnectorId {
        self.id
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    /// A revoked one keeps nobody, and goes with its group.
    fn refers_to(&self) -> Vec<Reference> {
        let group = ObjectKey::ConnectorGroup(self.group);
        match self.revoked {
            true => vec![Reference::part_of(group)],
            false => vec![Reference::needs(group)],
        }
    }

    fn rank(_before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after {
            Some(connector) if !connector.revoked => Rank::Names,
            Some(_) | None => Rank::Closes,
        }
    }
}
