//! Settings of a tenant on the wire.

use model::kinds::{Singleton, TenantSettings};
use proto::v1;

use super::{Happened, Parsed, Words, bad};

impl Words for TenantSettings {
    type Message = v1::Tenant;
    const PAST: &'static [(&'static str, Happened)] = &[("TenantChanged", Happened::Put)];

    fn to_wire(&self) -> v1::Tenant {
        v1::Tenant { domain: self.domain.clone(), public_port: self.public_port.into(), relays: self.relays.clone() }
    }

    fn from_wire(wire: v1::Tenant) -> Parsed<Self> {
        let public_port = u16::try_from(wire.public_port).map_err(|_| bad("public_port", "is a port"))?;
        Ok(Self { domain: wire.domain, public_port, relays: wire.relays })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Tenant {
        let Singleton(_) = key;
        v1::Tenant::default()
    }

    fn key_from_wire(wire: &v1::Tenant) -> Parsed<Self::Key> {
        let v1::Tenant { .. } = wire;
        Ok(Singleton("settings"))
    }
}
