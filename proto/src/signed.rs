//! How an event is signed, and how a reader checks it.
//!
//! A writer hashes the bodies of a batch into a Merkle tree and signs its root
//! once (Ed25519). Each event carries the root's signature and the path from
//! its body to the root, so that every event stands alone and yet a reader pays
//! for one signature per batch: [`Verifier`] remembers the root it saw last.
//!
//! Leaf and node hashes have different prefixes (RFC 6962, section 2.1), so a
//! node can never be passed off as a body.

use std::collections::BTreeMap;

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use crate::v1::{EventBody, SignedEvent};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// More bodies than this are signed in several batches: it bounds a path to ten hashes.
pub const BATCH_MAX: usize = 1024;

const SIGNATURE_CONTEXT: &[u8] = b"postern-event-v1";

/// Why a reader refuses an event.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Untrusted {
    #[error("the event is not readable")]
    Malformed,
    #[error("no key {0:?} is trusted to write here")]
    UnknownKey(String),
    #[error("the signature does not fit the event")]
    Forged,
}

/// Signs batches with one writer's key.
pub struct Signer {
    key_id: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub fn new(pair: Ed25519KeyPair) -> Self {
        Self { key_id: key_id(pair.public_key().as_ref()), pair }
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Signs at most `BATCH_MAX` encoded bodies.
    pub fn sign(&self, bodies: Vec<Vec<u8>>) -> Vec<SignedEvent> {
        debug_assert!(bodies.len() <= BATCH_MAX);
        let mut levels = vec![bodies.iter().map(|body| leaf(body)).collect::<Vec<_>>()];
        while levels[levels.len() - 1].len() > 1 {
            let below = &levels[levels.len() - 1];
            levels.push(below.chunks(2).map(|pair| if let [a, b] = pair { node(a, b) } else { pair[0] }).collect());
        }
        let Some(root) = levels[levels.len() - 1].first() else { return vec![] };
        let signature = Bytes::copy_from_slice(self.pair.sign(&signed_bytes(root)).as_ref());
        let count = bodies.len() as u32;
        bodies
            .into_iter()
            .enumerate()
            .map(|(index, body)| SignedEvent {
                body: body.into(),
                key_id: self.key_id.clone(),
                signature: signature.clone(),
                index: index as u32,
                count,
                path: path(&levels, index),
            })
            .collect()
    }
}

/// The name of a key: the first 8 bytes of its SHA-256, in hexadecimal.
pub fn key_id(public_key: &[u8]) -> String {
    crate::hex::encode(&digest(&SHA256, public_key).as_ref()[..8])
}

/// The hash by which the next event on a subject names its predecessor.
pub fn body_hash(body: &[u8]) -> Hash {
    leaf(body)
}

/// Checks events against the keys a reader trusts.
#[derive(Clone, Default)]
pub struct Verifier {
    keys: BTreeMap<String, Vec<u8>>,
    last: Option<(String, Bytes, Hash)>,
}

impl Verifier {
    pub fn trusting(keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { keys: keys.into_iter().map(|key| (key_id(&key), key)).collect(), last: None }
    }

    /// Trust of a reader that was given keys by name (a connector at enrolment).
    pub fn keys(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.keys.iter()
    }

    /// The body, and its hash, if a trusted writer wrote it.
    pub fn verify(&mut self, event: &SignedEvent) -> Result<(EventBody, Hash), Untrusted> {
        let hash = self.verify_proof(event)?;
        let body = EventBody::decode(event.body.clone()).map_err(|_| Untrusted::Malformed)?;
        Ok((body, hash))
    }

    fn verify_proof(&mut self, event: &SignedEvent) -> Result<Hash, Untrusted> {
        let key = self.keys.get(&event.key_id).ok_or_else(|| Untrusted::UnknownKey(event.key_id.clone()))?;
        let hash = leaf(&event.body);
        let root = climb(hash, event).ok_or(Untrusted::Malformed)?;
        let seen = self
            .last
            .as_ref()
            .is_some_and(|(id, signature, last)| *id == event.key_id && *signature == event.signature && *last == root);
        if !seen {
            UnparsedPublicKey::new(&ED25519, key)
                .verify(&signed_bytes(&root), &event.signature)
                .map_err(|_| Untrusted::Forged)?;
            self.last = Some((event.key_id.clone(), event.signature.clone(), root));
        }
        Ok(hash)
    }
}

fn signed_bytes(root: &Hash) -> Vec<u8> {
    [SIGNATURE_CONTEXT, root].concat()
}

fn leaf(body: &[u8]) -> Hash {
    hash_parts(0, &[body])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    hash_parts(1, &[left, right])
}

fn hash_parts(prefix: u8, parts: &[&[u8]]) -> Hash {
    let mut context = aws_lc_rs::digest::Context::new(&SHA256);
    context.update(&[prefix]);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn path(levels: &[Vec<Hash>], mut index: usize) -> Vec<Bytes> {
    let mut path = Vec::with_capacity(levels.len());
    for level in levels {
        if let Some(sibling) = level.get(index ^ 1) {
            path.push(Bytes::copy_from_slice(sibling));
        }
        index /= 2;
    }
    path
}

/// From a leaf to the root it claims; `None` when the path has the wrong length.
fn climb(mut hash: Hash, event: &SignedEvent) -> Option<Hash> {
    let (mut index, mut width) = (event.index, event.count);
    if index >= width || width as usize > BATCH_MAX {
        return None;
    }
    let mut siblings = event.path.iter();
    while width > 1 {
        if index ^ 1 < width {
            let sibling: Hash = siblings.next()?.as_ref().try_into().ok()?;
            hash = if index & 1 == 0 { node(&hash, &sibling) } else { node(&sibling, &hash) };
        }
        index /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::Ed25519KeyPair;

    use super::*;

    fn signer() -> Signer {
        Signer::new(Ed25519KeyPair::generate().unwrap())
    }

    fn body(n: usize) -> Vec<u8> {
        EventBody { subject: format!("s{n}"), ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn every_event_of_every_batch_size_stands_alone() {
        let signer = signer();
        for size in 1..=33 {
            for event in signer.sign((0..size).map(body).collect()) {
                let mut verifier = Verifier::trusting([signer.public_key().to_vec()]);
                assert!(verifier.verify(&event).is_ok(), "batch of {size}, index {}", event.index);
            }
        }
    }

    #[test]
    fn any_changed_bit_is_refused() {
        let signer = signer();
        let mut verifier = Verifier::trusting([signer.public_key().to_vec()]);
        let event = signer.sign((0..5).map(body).collect()).swap_remove(2);
        verifier.verify(&event).unwrap();
        for at in 0..event.body.len() {
            let mut forged = event.clone();
            let mut body = forged.body.to_vec();
            body[at] ^= 1;
            forged.body = body.into();
            assert_eq!(verifier.verify(&forged), Err(Untrusted::Forged));
        }
        let mut moved = event.clone();
        moved.index = 3;
        assert!(verifier.verify(&moved).is_err());
        let mut longer = event.clone();
        longer.path.push(vec![0; 32].into());
        assert_eq!(verifier.verify(&longer), Err(Untrusted::Malformed));
    }

    #[test]
    fn a_stranger_is_refused() {
        let mut verifier = Verifier::trusting([signer().public_key().to_vec()]);
        let event = signer().sign(vec![body(0)]).remove(0);
        assert!(matches!(verifier.verify(&event), Err(Untrusted::UnknownKey(_))));
    }
}
