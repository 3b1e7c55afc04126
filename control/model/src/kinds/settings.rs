//! What an organisation is known by: its domain, and where its relays are.

use std::fmt;

use crate::{
    event::Stream,
    kinds::kind::{Broken, Indexes, Kind, Rank},
    text::is_host,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSettings {
    pub domain: String,
    /// Where users reach relays.
    pub public_port: u16,
    /// Where connectors reach relays, `HOST:PORT`. None leaves them as they are.
    pub relays: Vec<String>,
}

/// The key of a kind of which there is one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Singleton(pub &'static str);

impl fmt::Display for Singleton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Kind for TenantSettings {
    const NAME: &'static str = "tenant";
    const TITLE: &'static str = "tenant";
    const STREAM: Stream = Stream::Config;
    type Key = Singleton;

    fn key(&self) -> Singleton {
        Singleton("settings")
    }

    fn check(&self) -> Result<(), Broken> {
        match is_host(&self.domain) {
            true => Ok(()),
            false => Err(Broken::new("domain", "is a DNS name in lower case")),
        }
    }

    fn settled(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before.filter(|_| self.relays.is_empty()) {
            self.relays.clone_from(&before.relays);
        }
        self
    }

    fn index(at: &mut Indexes<'_>, _before: Option<&Self>, after: Option<&Self>) {
        at.tenant.domain = after.map_or(String::new(), |it| it.domain.clone());
        at.tenant.public_port = after.map_or(0, |it| it.public_port);
        at.tenant.relays = after.map_or_else(Default::default, |it| it.relays.clone().into());
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::Names
    }
}
