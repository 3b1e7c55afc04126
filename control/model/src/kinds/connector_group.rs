//! A set of connectors that reach the same applications.

use crate::{
    event::Stream,
    ids::ConnectorGroupId,
    kinds::kind::{Broken, InField, Kind, Rank},
    text::{Labels, Name},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorGroup {
    pub id: ConnectorGroupId,
    pub name: Name,
    pub labels: Labels,
}

impl Kind for ConnectorGroup {
    const NAME: &'static str = "connector-group";
    const TITLE: &'static str = "connector group";
    const STREAM: Stream = Stream::Config;
    type Key = ConnectorGroupId;

    fn key(&self) -> ConnectorGroupId {
        self.id
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn check(&self) -> Result<(), Broken> {
        Name::parse(self.name.as_str()).in_field("name").map(|_| ())
    }

    fn rank(_before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after {
            Some(_) => Rank::Names,
            None => Rank::Forgets,
        }
    }
}
