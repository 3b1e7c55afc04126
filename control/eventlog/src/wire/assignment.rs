//! Assignments on the wire.

use model::{Assignment, kinds::AssignmentKey};
use proto::v1;

use super::{Happened, Link, Parsed, Words, parse};

impl Words for Assignment {
    type Message = v1::Assignment;
    const PAST: &'static [(&'static str, Happened)] = &[("Assigned", Happened::Put), ("Unassigned", Happened::Removed)];

    fn to_wire(&self) -> v1::Assignment {
        v1::Assignment { app: self.app.to_string(), principal: self.principal.to_string() }
    }

    fn from_wire(wire: v1::Assignment) -> Parsed<Self> {
        Ok(Self { app: parse("app", &wire.app)?, principal: parse("principal", &wire.principal)? })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Assignment {
        v1::Assignment { app: key.app.to_string(), principal: key.principal.to_string() }
    }

    fn key_from_wire(wire: &v1::Assignment) -> Parsed<Self::Key> {
        Ok(AssignmentKey { app: parse("app", &wire.app)?, principal: parse("principal", &wire.principal)? })
    }

    fn links(wire: &mut v1::Assignment) -> Vec<Link<'_>> {
        vec![Link::app("app", &mut wire.app), Link::principal("principal", &mut wire.principal)]
    }
}
