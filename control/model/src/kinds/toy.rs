//! A kind that only tests have: it shows what a new kind takes.

use crate::{
    event::Stream,
    ids::UserId,
    kinds::{
        ObjectKey,
        kind::{Broken, InField, Kind, Rank, Reference},
    },
    text::{Labels, Name},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toy {
    pub id: uuid::Uuid,
    pub name: Name,
    pub owner: UserId,
    pub labels: Labels,
}

impl Kind for Toy {
    const NAME: &'static str = "toy";
    const TITLE: &'static str = "toy";
    const STREAM: Stream = Stream::Directory;
    type Key = uuid::Uuid;

    fn key(&self) -> uuid::Uuid {
        self.id
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn refers_to(&self) -> Vec<Reference> {
        vec![Reference::needs(ObjectKey::User(self.owner))]
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
