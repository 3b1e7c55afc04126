//! Join tokens on the wire.

use model::{JoinToken, Timestamp};
use proto::v1;

use super::{Happened, Link, Parsed, Words, parse};

impl Words for JoinToken {
    type Message = v1::JoinToken;
    const PAST: &'static [(&'static str, Happened)] = &[("JoinTokenIssued", Happened::Put)];

    fn to_wire(&self) -> v1::JoinToken {
        v1::JoinToken {
            id: self.id.to_string(),
            group: self.group.to_string(),
            secret_hash: self.secret_hash.clone(),
            expires_ms: self.expires.0,
        }
    }

    fn from_wire(wire: v1::JoinToken) -> Parsed<Self> {
        Ok(Self {
            id: parse("id", &wire.id)?,
            group: parse("group", &wire.group)?,
            secret_hash: wire.secret_hash,
            expires: Timestamp(wire.expires_ms),
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::JoinToken {
        v1::JoinToken { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::JoinToken) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn links(wire: &mut v1::JoinToken) -> Vec<Link<'_>> {
        vec![Link::connector_group("group", &mut wire.group)]
    }
}
