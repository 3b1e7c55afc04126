//! Linked identities on the wire.

use model::{LinkedIdentity, kinds::IdentityKey};
use proto::v1;

use super::{Happened, Link, Parsed, Words, parse};

impl Words for LinkedIdentity {
    type Message = v1::LinkedIdentity;
    const PAST: &'static [(&'static str, Happened)] = &[];

    fn to_wire(&self) -> v1::LinkedIdentity {
        v1::LinkedIdentity { user: self.user.to_string(), ..Self::key_to_wire(&self.identity) }
    }

    fn from_wire(wire: v1::LinkedIdentity) -> Parsed<Self> {
        Ok(Self { identity: Self::key_from_wire(&wire)?, user: parse("user", &wire.user)? })
    }

    fn key_to_wire(key: &Self::Key) -> v1::LinkedIdentity {
        v1::LinkedIdentity { issuer: key.issuer.to_string(), subject: key.subject.to_string(), user: String::new() }
    }

    fn key_from_wire(wire: &v1::LinkedIdentity) -> Parsed<Self::Key> {
        Ok(IdentityKey { issuer: wire.issuer.as_str().into(), subject: wire.subject.as_str().into() })
    }

    fn links(wire: &mut v1::LinkedIdentity) -> Vec<Link<'_>> {
        vec![Link::user("user", &mut wire.user)]
    }
}
