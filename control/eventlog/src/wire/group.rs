//! Groups of people on the wire.

use model::{Group, text::Name};
use proto::v1;

use super::{Happened, Parsed, Words, parse};

impl Words for Group {
    type Message = v1::Group;
    const PAST: &'static [(&'static str, Happened)] =
        &[("GroupCreated", Happened::Put), ("GroupChanged", Happened::Put), ("GroupRemoved", Happened::Removed)];

    fn to_wire(&self) -> v1::Group {
        v1::Group { id: self.id.to_string(), name: self.name.to_string(), labels: self.labels.clone() }
    }

    fn from_wire(wire: v1::Group) -> Parsed<Self> {
        Ok(Self { id: parse("id", &wire.id)?, name: Name::recorded(&wire.name), labels: wire.labels })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Group {
        v1::Group { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::Group) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn id(wire: &mut v1::Group) -> Option<&mut String> {
        Some(&mut wire.id)
    }
}
