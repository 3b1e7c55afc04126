//! A person who may sign in.

use std::sync::Arc;

use crate::{
    directory::{Principal, Username},
    event::Stream,
    ids::UserId,
    kinds::{
        Rejection,
        kind::{Broken, Change, Concern, InField, Kind, Rank},
    },
    text::Labels,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub username: Username,
    pub display_name: Arc<str>,
    pub email: Arc<str>,
    pub disabled: bool,
    pub labels: Labels,
}

impl Kind for User {
    const NAME: &'static str = "user";
    const TITLE: &'static str = "user";
    const STREAM: Stream = Stream::Directory;
    type Key = UserId;

    fn key(&self) -> UserId {
        self.id
    }

    fn name(&self) -> Option<&str> {
        Some(self.username.as_str())
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn check(&self) -> Result<(), Broken> {
        let fits = |text: &str| text.len() <= 256 && !text.chars().any(char::is_control);
        if !fits(&self.display_name) {
            return Err(Broken::new("display_name", "has at most 256 bytes and no control characters"));
        }
        if !fits(&self.email) || !(self.email.is_empty() || self.email.contains('@')) {
            return Err(Broken::new("email", "is not an address such as alice@example.com"));
        }
        Username::parse(self.username.as_str()).in_field("username").map(|_| ())
    }

    fn check_change(_before: Option<&Self>, _after: Option<&Self>, change: &Change<'_>) -> Result<(), Rejection> {
        super::role::keeps_an_owner(change)
    }

    fn rank(before: Option<&Self>, after: Option<&Self>) -> Rank {
        match (before, after) {
            (None, _) => Rank::Names,
            (Some(_), Some(_)) => Rank::People,
            (Some(_), None) => Rank::Forgets,
        }
    }

    fn concerns(id: &UserId, before: Option<&Self>, after: Option<&Self>) -> Concern {
        match (before, after) {
            (_, Some(after)) if after.disabled => Concern::SignedOut(*id),
            (Some(_), Some(_)) => Concern::Tokens(Principal::User(*id)),
            (None, Some(_)) => Concern::Nobody,
            (_, None) => Concern::SignedOut(*id),
        }
    }
}
