//! Memberships on the wire.

use model::{Membership, kinds::MembershipKey};
use proto::v1;

use super::{Happened, Link, Parsed, Words, parse};

impl Words for Membership {
    type Message = v1::Membership;
    const PAST: &'static [(&'static str, Happened)] =
        &[("MemberAdded", Happened::Put), ("MemberRemoved", Happened::Removed)];

    fn to_wire(&self) -> v1::Membership {
        v1::Membership { group: self.group.to_string(), member: self.member.to_string() }
    }

    fn from_wire(wire: v1::Membership) -> Parsed<Self> {
        Ok(Self { group: parse("group", &wire.group)?, member: parse("member", &wire.member)? })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Membership {
        v1::Membership { group: key.group.to_string(), member: key.member.to_string() }
    }

    fn key_from_wire(wire: &v1::Membership) -> Parsed<Self::Key> {
        Ok(MembershipKey { group: parse("group", &wire.group)?, member: parse("member", &wire.member)? })
    }

    fn links(wire: &mut v1::Membership) -> Vec<Link<'_>> {
        vec![Link::group("group", &mut wire.group), Link::principal("member", &mut wire.member)]
    }
}
