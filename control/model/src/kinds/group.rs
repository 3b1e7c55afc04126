//! A group of people, who have it in assignments and policies.

use crate::{
    event::Stream,
    ids::GroupId,
    kind::{Broken, InField, Kind, Rank},
    text::{Labels, Name},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub id: GroupId,
    pub name: Name,
    pub labels: Labels,
}

impl Kind for Group {
    const NAME: &'static str = "group";
    const TITLE: &'static str = "group";
    const STREAM: Stream = Stream::Directory;
    type Key = GroupId;

    fn key(&self) -> GroupId {
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
