//! Keys on the wire.

use model::{
    Timestamp,
    keys::{Key, KeyHolder, KeyPurpose},
};
use proto::v1;

use super::{Happened, Parsed, Words, bad};

impl Words for Key {
    type Message = v1::Key;
    const PAST: &'static [(&'static str, Happened)] =
        &[("KeyPublished", Happened::Put), ("KeyRetired", Happened::Removed)];

    fn to_wire(&self) -> v1::Key {
        let purpose = match self.purpose {
            KeyPurpose::Session => v1::KeyPurpose::Session,
            KeyPurpose::Assertion => v1::KeyPurpose::Assertion,
            KeyPurpose::Authority => v1::KeyPurpose::Authority,
            KeyPurpose::RelaySecret => v1::KeyPurpose::RelaySecret,
            KeyPurpose::AcmeAccount => v1::KeyPurpose::AcmeAccount,
        };
        let sealed = |(holder, ciphertext): &(KeyHolder, Vec<u8>)| {
            let holder = match holder {
                KeyHolder::Relay => v1::KeyHolder::Relay,
                KeyHolder::Identity => v1::KeyHolder::Identity,
                KeyHolder::Controller => v1::KeyHolder::Controller,
            };
            v1::SealedKey { holder: holder.into(), ciphertext: ciphertext.clone() }
        };
        v1::Key {
            id: self.id.clone(),
            purpose: purpose.into(),
            public_key: self.public_key.clone(),
            sealed: self.sealed.iter().map(sealed).collect(),
            active_from_ms: self.active_from.0,
        }
    }

    fn from_wire(wire: v1::Key) -> Parsed<Self> {
        let purpose = match wire.purpose() {
            v1::KeyPurpose::Session => KeyPurpose::Session,
            v1::KeyPurpose::Assertion => KeyPurpose::Assertion,
            v1::KeyPurpose::Authority => KeyPurpose::Authority,
            v1::KeyPurpose::RelaySecret => KeyPurpose::RelaySecret,
            v1::KeyPurpose::AcmeAccount => KeyPurpose::AcmeAccount,
            v1::KeyPurpose::Unspecified => return Err(bad("purpose", "is unknown")),
        };
        let sealed = |it: v1::SealedKey| {
            let holder = match it.holder() {
                v1::KeyHolder::Relay => KeyHolder::Relay,
                v1::KeyHolder::Identity => KeyHolder::Identity,
                v1::KeyHolder::Controller => KeyHolder::Controller,
                v1::KeyHolder::Unspecified => return Err(bad("sealed.holder", "is unknown")),
            };
            Ok((holder, it.ciphertext))
        };
        let sealed = wire.sealed.into_iter().map(sealed).collect::<Parsed<_>>()?;
        Ok(Self {
            id: wire.id,
            purpose,
            active_from: Timestamp(wire.active_from_ms),
            public_key: wire.public_key,
            sealed,
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Key {
        v1::Key { id: key.clone(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::Key) -> Parsed<Self::Key> {
        Ok(wire.id.clone())
    }
}
