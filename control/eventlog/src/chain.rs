//! The hash chain of each subject, and what breaks it.
//!
//! An event names its predecessor on the subject by hash and counts versions
//! from 1. So a reader notices an event that was left out, repeated, reordered
//! or put in the place of another, even if each carries a good signature.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use proto::{signed::Hash, v1::EventBody};
use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum BrokenChain {
    #[error("version {found} of {subject} follows version {before}")]
    Gap { subject: String, before: u64, found: u64 },
    #[error("version {version} of {subject} is not the successor of what was read before")]
    Fork { subject: String, version: u64 },
}

/// What to do with an event whose place in the chain is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    Next,
    /// Delivered before; nothing to do.
    Duplicate,
}

/// A reader that starts from the last event of each subject takes that event on
/// trust in its signature, and chains from there.
#[derive(Default)]
pub struct Chain {
    /// By the first half of the subject's SHA-256: subjects are long, and there
    /// are millions.
    links: HashMap<u128, (u64, Hash)>,
}

fn key(subject: &str) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&digest(&SHA256, subject.as_bytes()).as_ref()[..16]);
    u128::from_be_bytes(half)
}

impl Chain {
    /// Version and previous hash for the next event on a subject.
    pub fn next(&self, subject: &str) -> (u64, Vec<u8>) {
        match self.links.get(&key(subject)) {
            Some((version, hash)) => (version + 1, hash.to_vec()),
            None => (1, vec![]),
        }
    }

    /// The first sight of a subject while loading the last event of each.
    pub fn begin(&mut self, body: &EventBody, hash: Hash) {
        self.links.insert(key(&body.subject), (body.version, hash));
    }

    pub fn follow(&mut self, body: &EventBody, hash: Hash) -> Result<Place, BrokenChain> {
        let key = key(&body.subject);
        let (before, previous) = self.links.get(&key).map_or((0, &[][..]), |(version, it)| (*version, &it[..]));
        if body.version == before && previous == hash {
            return Ok(Place::Duplicate);
        }
        if body.version <= before || body.version == before + 1 && body.previous != previous {
            return Err(BrokenChain::Fork { subject: body.subject.clone(), version: body.version });
        }
        if body.version != before + 1 {
            return Err(BrokenChain::Gap { subject: body.subject.clone(), before, found: body.version });
        }
        self.links.insert(key, (body.version, hash));
        Ok(Place::Next)
    }
}
