//! The hash chains of the log, and what breaks them.
//!
//! An event names two predecessors by hash: the one on its subject, counting
//! versions from 1, and the one in its stream. So a reader notices an event
//! that was left out, repeated, reordered or put in the place of another, even
//! if each carries a good signature.
//!
//! A reader starts from the last event of each subject and cannot follow the
//! stream through what it does not read. So writers put in checkpoints: a
//! checkpoint signs the [root](Chain::root) over the last event of every
//! subject before it. What comes after the newest checkpoint is read in full.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{self, SHA256, digest};
use model::event::Stream;
use proto::{signed::Hash, v1::EventBody};
use thiserror::Error;

/// A checkpoint comes after this many events, or after an eighth of the
/// subjects if that is more: a start reads little in full, and the cost of the
/// root, which grows with the subjects, is spread over as many events.
pub const CHECKPOINT_EVENTS: u64 = 1024;
const CHECKPOINT_SHARE: u64 = 8;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum BrokenChain {
    #[error("version {found} of {subject} follows version {before}")]
    Gap { subject: String, before: u64, found: u64 },
    #[error("version {version} of {subject} is not the successor of what was read before")]
    Fork { subject: String, version: u64 },
    #[error("version {version} of {subject} follows another event of the stream: events were left out or replaced")]
    LeftOut { subject: String, version: u64 },
    #[error(
        "version {version} of {subject} does not name the event before it in the stream, as all after the first do"
    )]
    Unlinked { subject: String, version: u64 },
}

/// What to do with an event whose place in the chain is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    Next,
    /// Delivered before; nothing to do.
    Duplicate,
}

/// The chains of the state streams, as far as they were read.
#[derive(Default)]
pub struct Chain {
    streams: BTreeMap<Stream, StreamChain>,
}

#[derive(Clone, Default)]
struct StreamChain {
    /// By the first half of the subject's SHA-256: subjects are long, and there
    /// are millions. In order, for the root.
    links: BTreeMap<u128, (u64, Hash)>,
    last: Option<Hash>,
    /// Whether an event named the one before it in the stream; then all do.
    linked: bool,
    since_checkpoint: u64,
    epoch: u64,
}

fn key(subject: &str) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&digest(&SHA256, subject.as_bytes()).as_ref()[..16]);
    u128::from_be_bytes(half)
}

/// What the first event of a stream names as the one before it.
fn beginning(stream: Stream) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, format!("postern-stream-v1 {}", stream.name()).as_bytes()).as_ref());
    hash
}

impl Chain {
    /// Version and previous hash for the next event on a subject.
    pub fn next(&self, stream: Stream, subject: &str) -> (u64, Vec<u8>) {
        match self.streams.get(&stream).and_then(|it| it.links.get(&key(subject))) {
            Some((version, hash)) => (version + 1, hash.to_vec()),
            None => (1, vec![]),
        }
    }

    /// What the next event of a stream names as the one before it.
    pub fn stream_previous(&self, stream: Stream) -> Hash {
        self.last(stream).unwrap_or_else(|| beginning(stream))
    }

    /// The hash of the last event of a stream.
    pub fn last(&self, stream: Stream) -> Option<Hash> {
        self.streams.get(&stream).and_then(|it| it.last)
    }

    /// Whether the next event should be a checkpoint. Events of before there
    /// were links are sealed by one at the first occasion.
    pub fn is_checkpoint_due(&self, stream: Stream) -> bool {
        let Some(chain) = self.streams.get(&stream) else { return false };
        let enough = CHECKPOINT_EVENTS.max(chain.links.len() as u64 / CHECKPOINT_SHARE);
        chain.last.is_some() && (!chain.linked || chain.since_checkpoint >= enough)
    }

    /// SHA-256 over subject, version and hash of the last event of each subject
    /// of a stream, and how many subjects there are.
    pub fn root(&self, stream: Stream) -> (Hash, u64) {
        let mut context = digest::Context::new(&SHA256);
        context.update(b"postern-checkpoint-v1");
        let mut count = 0;
        for (subject, (version, hash)) in self.streams.get(&stream).iter().flat_map(|it| &it.links) {
            context.update(&subject.to_be_bytes());
            context.update(&version.to_be_bytes());
            context.update(hash);
            count += 1;
        }
        let mut root = [0; 32];
        root.copy_from_slice(context.finish().as_ref());
        (root, count)
    }

    /// Of the last restore that the stream tells of.
    pub fn epoch(&self, stream: Stream) -> u64 {
        self.streams.get(&stream).map_or(0, |it| it.epoch)
    }

    pub fn restored(&mut self, stream: Stream, epoch: u64) {
        self.streams.entry(stream).or_default().epoch = epoch;
    }

    /// The first sight of a subject while loading the last event of each: it is
    /// taken on trust in its signature, until a root confirms it.
    pub fn begin(&mut self, stream: Stream, body: &EventBody, hash: Hash) {
        let chain = self.streams.entry(stream).or_default();
        chain.links.insert(key(&body.subject), (body.version, hash));
        chain.last = Some(hash);
    }

    /// Forgets what `begin` took.
    pub fn restart(&mut self, stream: Stream) {
        self.streams.remove(&stream);
    }

    /// The state before an event that is read in full, as the event says it:
    /// where `begin` saw only the subject's last event, which came later.
    pub fn before(&mut self, stream: Stream, body: &EventBody) {
        let previous = Hash::try_from(body.previous.as_ref());
        if let (Ok(previous), Some(version @ 1..)) = (previous, body.version.checked_sub(1)) {
            let links = &mut self.streams.entry(stream).or_default().links;
            links.entry(key(&body.subject)).or_insert((version, previous));
        }
    }

    /// Goes on from a checkpoint whose root was confirmed: from here on every
    /// event names the one before it.
    pub fn resume(&mut self, stream: Stream, checkpoint: &EventBody) {
        let chain = self.streams.entry(stream).or_default();
        chain.last = Hash::try_from(checkpoint.stream_previous.as_ref()).ok();
        chain.linked = true;
    }

    pub fn follow(&mut self, stream: Stream, body: &EventBody, hash: Hash) -> Result<Place, BrokenChain> {
        let expected = self.stream_previous(stream);
        let chain = self.streams.entry(stream).or_default();
        let (subject, version) = (|| body.subject.clone(), body.version);
        let key = key(&body.subject);
        let (before, previous) = chain.links.get(&key).map_or((0, &[][..]), |(version, it)| (*version, &it[..]));
        if version == before && previous == hash {
            return Ok(Place::Duplicate);
        }
        if version <= before || version == before + 1 && body.previous != previous {
            return Err(BrokenChain::Fork { subject: subject(), version });
        }
        if version != before + 1 {
            return Err(BrokenChain::Gap { subject: subject(), before, found: version });
        }
        match body.stream_previous.is_empty() {
            true if chain.linked => return Err(BrokenChain::Unlinked { subject: subject(), version }),
            false if body.stream_previous != expected[..] => {
                return Err(BrokenChain::LeftOut { subject: subject(), version });
            }
            true | false => {}
        }
        chain.linked |= !body.stream_previous.is_empty();
        chain.links.insert(key, (version, hash));
        chain.last = Some(hash);
        chain.since_checkpoint = if body.kind == crate::codec::CHECKPOINT { 0 } else { chain.since_checkpoint + 1 };
        Ok(Place::Next)
    }
}
