//! How pages for people who were refused look.

use crate::{
    branding::Branding,
    event::Stream,
    kinds::{
        Singleton,
        kind::{Broken, Indexes, Kind, Rank},
    },
};

impl Kind for Branding {
    const NAME: &'static str = "branding";
    const TITLE: &'static str = "branding";
    const STREAM: Stream = Stream::Config;
    const SUBJECT: &'static str = "tenant";
    type Key = Singleton;

    fn key(&self) -> Singleton {
        Singleton("branding")
    }

    fn check(&self) -> Result<(), Broken> {
        Self::check(self)
    }

    fn index(at: &mut Indexes<'_>, _before: Option<&Self>, after: Option<&Self>) {
        at.tenant.branding = after.cloned().unwrap_or_default();
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::Names
    }
}
