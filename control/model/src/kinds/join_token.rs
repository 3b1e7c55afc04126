//! A one-time invitation into a connector group. The secret itself is never kept.

use crate::{
    event::Stream,
    ids::{ConnectorGroupId, JoinTokenId, Timestamp},
    kinds::{
        ObjectKey,
        kind::{Kind, Rank, Reference},
    },
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    pub id: JoinTokenId,
    pub group: ConnectorGroupId,
    pub secret_hash: Vec<u8>,
    pub expires: Timestamp,
}

impl Kind for JoinToken {
    const NAME: &'static str = "join-token";
    const TITLE: &'static str = "join token";
    const STREAM: Stream = Stream::Config;
    type Key = JoinTokenId;

    fn key(&self) -> JoinTokenId {
        self.id
    }

    fn refers_to(&self) -> Vec<Reference> {
        vec![Reference::part_of(ObjectKey::ConnectorGroup(self.group))]
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::Names
    }
}
