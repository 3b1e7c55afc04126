//! Branding on the wire.

use model::kinds::{Branding, Singleton};
use proto::v1;

use super::{Happened, Parsed, Words};

impl Words for Branding {
    type Message = v1::Branding;
    const PAST: &'static [(&'static str, Happened)] = &[("BrandingChanged", Happened::Put)];

    fn to_wire(&self) -> v1::Branding {
        v1::Branding { name: self.name.clone(), accent: self.accent.clone(), support_url: self.support_url.clone() }
    }

    fn from_wire(wire: v1::Branding) -> Parsed<Self> {
        Ok(Self::recorded(&wire.name, &wire.accent, &wire.support_url))
    }

    fn key_to_wire(key: &Self::Key) -> v1::Branding {
        let Singleton(_) = key;
        v1::Branding::default()
    }

    fn key_from_wire(wire: &v1::Branding) -> Parsed<Self::Key> {
        let v1::Branding { .. } = wire;
        Ok(Singleton("branding"))
    }
}
