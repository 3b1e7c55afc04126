//! Keys everybody may know the public half of.

use std::fmt;

use crate::{
    event::Stream,
    ids::Timestamp,
    kinds::kind::{Kind, Rank},
};

#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    pub id: String,
    pub purpose: KeyPurpose,
    /// It signs from then on, and is known to everybody before.
    pub active_from: Timestamp,
    pub public_key: Vec<u8>,
    /// The secret half, once for each role that may use it.
    pub sealed: Vec<(KeyHolder, Vec<u8>)>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {:?}, ..)", self.id, self.purpose)
    }
}

impl KeyPurpose {
    /// What every installation has from the beginning.
    pub const ALL: [Self; 4] = [Self::Session, Self::Assertion, Self::RelaySecret, Self::Authority];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// ES256; identity signs session and id tokens with it.
    Session,
    /// ES256; relays sign `Postern-Assertion` with it.
    Assertion,
    /// The certificate (DER) that connector certificates chain to.
    Authority,
    /// Symmetric; relays and identity share it.
    RelaySecret,
    /// The controllers' account at an ACME server; the public half is the
    /// address of that server's directory.
    AcmeAccount,
}

/// Of keys in the order they become active, the one that is in use: the last
/// that is active, or the first where none is yet.
pub fn in_use<T>(keys: &[(Timestamp, T)], now: Timestamp) -> Option<&T> {
    let active = keys.iter().rev().find(|(active_from, _)| *active_from <= now);
    active.or(keys.first()).map(|(_, key)| key)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHolder {
    Relay,
    Identity,
    Controller,
}

impl Key {
    pub fn sealed_for(&self, holder: KeyHolder) -> Option<&[u8]> {
        self.sealed.iter().find(|(it, _)| *it == holder).map(|(_, ciphertext)| ciphertext.as_slice())
    }
}

impl Kind for Key {
    const NAME: &'static str = "key";
    const TITLE: &'static str = "key";
    const STREAM: Stream = Stream::Config;
    type Key = String;

    fn key(&self) -> String {
        self.id.clone()
    }

    fn rank(_before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after {
            Some(_) => Rank::Names,
            None => Rank::Loosens,
        }
    }
}
