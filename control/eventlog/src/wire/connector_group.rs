//! Connector groups on the wire.

use model::{ConnectorGroup, text::Name};
use proto::v1;

use super::{Happened, Parsed, Words, parse};

impl Words for ConnectorGroup {
    type Message = v1::ConnectorGroup;
    const PAST: &'static [(&'static str, Happened)] = &[
        ("ConnectorGroupCreated", Happened::Put),
        ("ConnectorGroupChanged", Happened::Put),
        ("ConnectorGroupRetired", Happened::Removed),
    ];

    fn to_wire(&self) -> v1::ConnectorGroup {
        v1::ConnectorGroup { id: self.id.to_string(), name: self.name.to_string(), labels: self.labels.clone() }
    }

    fn from_wire(wire: v1::ConnectorGroup) -> Parsed<Self> {
        Ok(Self { id: parse("id", &wire.id)?, name: Name::recorded(&wire.name), labels: wire.labels })
    }

    fn key_to_wire(key: &Self::Key) -> v1::ConnectorGroup {
        v1::ConnectorGroup { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::ConnectorGroup) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn id(wire: &mut v1::ConnectorGroup) -> Option<&mut String> {
        Some(&mut wire.id)
    }
}
