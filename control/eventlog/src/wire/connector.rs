//! Connectors on the wire.

use model::{Connector, text::Name};
use proto::v1;

use super::{Happened, Link, Parsed, Words, parse};

impl Words for Connector {
    type Message = v1::Connector;
    const PAST: &'static [(&'static str, Happened)] =
        &[("ConnectorEnrolled", Happened::Put), ("ConnectorRevoked", Happened::Put)];

    fn to_wire(&self) -> v1::Connector {
        v1::Connector {
            id: self.id.to_string(),
            name: self.name.to_string(),
            group: self.group.to_string(),
            public_key: self.public_key.clone(),
            join_token: self.join_token.to_string(),
            revoked: self.revoked,
        }
    }

    fn from_wire(wire: v1::Connector) -> Parsed<Self> {
        Ok(Self {
            id: parse("id", &wire.id)?,
            name: Name::recorded(&wire.name),
            group: parse("group", &wire.group)?,
            public_key: wire.public_key,
            join_token: parse("join_token", &wire.join_token)?,
            revoked: wire.revoked,
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Connector {
        v1::Connector { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::Connector) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn id(wire: &mut v1::Connector) -> Option<&mut String> {
        Some(&mut wire.id)
    }

    fn links(wire: &mut v1::Connector) -> Vec<Link<'_>> {
        vec![Link::connector_group("group", &mut wire.group)]
    }
}
