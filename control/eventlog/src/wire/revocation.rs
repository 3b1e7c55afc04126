//! What takes access away, on the wire.

use model::{
    Timestamp, UserId,
    kinds::{AllSessionsEnded, Singleton},
    risk::{self, OutdatedTokens, SessionRevocation, UserRevocation},
};
use proto::v1;

use super::{Happened, Link, Parsed, Words, bad, parse};

impl Words for SessionRevocation {
    type Message = v1::SessionRevocation;
    const PAST: &'static [(&'static str, Happened)] = &[("SessionRevoked", Happened::Put)];

    fn to_wire(&self) -> v1::SessionRevocation {
        v1::SessionRevocation { session: self.session.to_string(), at_ms: self.at.0 }
    }

    fn from_wire(wire: v1::SessionRevocation) -> Parsed<Self> {
        Ok(Self { session: parse("session", &wire.session)?, at: Timestamp(wire.at_ms) })
    }

    fn key_to_wire(key: &Self::Key) -> v1::SessionRevocation {
        v1::SessionRevocation { session: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::SessionRevocation) -> Parsed<Self::Key> {
        parse("session", &wire.session)
    }
}

impl Words for UserRevocation {
    type Message = v1::UserRevocation;
    const PAST: &'static [(&'static str, Happened)] = &[("UserRevoked", Happened::Put)];

    fn to_wire(&self) -> v1::UserRevocation {
        v1::UserRevocation {
            user: self.user.to_string(),
            sessions_before_ms: self.sessions_before.0,
            directory: self.directory,
        }
    }

    fn from_wire(wire: v1::UserRevocation) -> Parsed<Self> {
        Ok(Self {
            user: parse("user", &wire.user)?,
            sessions_before: Timestamp(wire.sessions_before_ms),
            directory: wire.directory,
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::UserRevocation {
        v1::UserRevocation { user: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::UserRevocation) -> Parsed<Self::Key> {
        parse("user", &wire.user)
    }

    fn links(wire: &mut v1::UserRevocation) -> Vec<Link<'_>> {
        vec![Link::user("user", &mut wire.user)]
    }
}

impl Words for OutdatedTokens {
    type Message = v1::OutdatedTokens;
    const PAST: &'static [(&'static str, Happened)] = &[("TokensOutdated", Happened::Put)];

    fn to_wire(&self) -> v1::OutdatedTokens {
        v1::OutdatedTokens {
            slot: self.slot.into(),
            directory: self.directory,
            users: self.users.iter().flat_map(|user| user.0.into_bytes()).collect(),
            count: self.users.len() as u32,
            everyone: self.everyone,
            at_ms: self.at.0,
        }
    }

    fn from_wire(wire: v1::OutdatedTokens) -> Parsed<Self> {
        const ID_BYTES: usize = 16;
        let slot = u8::try_from(wire.slot).ok().filter(|slot| *slot < risk::OUTDATED_SLOTS);
        let (ids, rest) = wire.users.as_chunks::<ID_BYTES>();
        let in_order = ids.is_sorted_by(|one, next| one < next);
        if !rest.is_empty() || !in_order || ids.len() != wire.count as usize {
            return Err(bad("users", "are ids in order, each once, as many as count says"));
        }
        Ok(Self {
            slot: slot.ok_or(bad("slot", "is one of the slots"))?,
            directory: wire.directory,
            users: ids.iter().map(|id| UserId(uuid::Uuid::from_bytes(*id))).collect(),
            everyone: wire.everyone,
            at: Timestamp(wire.at_ms),
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::OutdatedTokens {
        v1::OutdatedTokens { slot: (*key).into(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::OutdatedTokens) -> Parsed<Self::Key> {
        u8::try_from(wire.slot).map_err(|_| bad("slot", "is one of the slots"))
    }
}

impl Words for AllSessionsEnded {
    type Message = v1::AllSessionsEnded;
    const PAST: &'static [(&'static str, Happened)] = &[("AllSessionsEnded", Happened::Put)];

    fn to_wire(&self) -> v1::AllSessionsEnded {
        v1::AllSessionsEnded { before_ms: self.before.0 }
    }

    fn from_wire(wire: v1::AllSessionsEnded) -> Parsed<Self> {
        Ok(Self { before: Timestamp(wire.before_ms) })
    }

    fn key_to_wire(key: &Self::Key) -> v1::AllSessionsEnded {
        let Singleton(_) = key;
        v1::AllSessionsEnded::default()
    }

    fn key_from_wire(wire: &v1::AllSessionsEnded) -> Parsed<Self::Key> {
        let v1::AllSessionsEnded { .. } = wire;
        Ok(Singleton("all"))
    }
}
