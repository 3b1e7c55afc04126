//! A kind that only tests have.

use model::{kinds::Toy, text::Name};
use proto::v1;

use super::{Happened, Link, Parsed, Words, parse};

impl Words for Toy {
    type Message = v1::Toy;
    const PAST: &'static [(&'static str, Happened)] = &[];

    fn to_wire(&self) -> v1::Toy {
        v1::Toy {
            id: self.id.to_string(),
            name: self.name.to_string(),
            owner: self.owner.to_string(),
            labels: self.labels.clone(),
        }
    }

    fn from_wire(wire: v1::Toy) -> Parsed<Self> {
        let (id, owner) = (parse("id", &wire.id)?, parse("owner", &wire.owner)?);
        Ok(Self { id, name: Name::recorded(&wire.name), owner, labels: wire.labels })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Toy {
        v1::Toy { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::Toy) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn id(wire: &mut v1::Toy) -> Option<&mut String> {
        Some(&mut wire.id)
    }

    fn links(wire: &mut v1::Toy) -> Vec<Link<'_>> {
        vec![Link::user("owner", &mut wire.owner)]
    }
}
