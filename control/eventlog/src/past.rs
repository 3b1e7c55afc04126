//! What a process knows of the log from before: a memory of the last event it
//! acted on, and a mirror to start from when the log is out of reach.
//!
//! The memory says whether the log is still the same history. The mirror keeps
//! what a start reads, so that it is proved complete as the log is.

use std::{collections::BTreeMap, sync::PoisonError};

use model::{Position, event::Stream};
use proto::{
    Message,
    signed::{Hash, body_hash},
    v1::{EventBody, SignedEvent},
};
use tracing::warn;

use crate::{
    Append, Entry, EventLog, LogError,
    codec::CHECKPOINT,
    embedded::Embedded,
    memory::{Memory, Remembered},
    projection::{Fold, Loaded, Remedy, StartError, chain_of},
};

/// What earlier processes of this role left behind.
#[derive(Clone)]
pub(crate) struct Past {
    pub(crate) mirror: Option<Embedded>,
    pub(crate) memory: Option<Memory>,
}

impl Past {
    /// Loads the log if it is the one that is remembered, and brings the mirror
    /// up to it.
    pub(crate) async fn load(&self, fold: &mut Fold, log: &EventLog, streams: &[Stream]) -> Result<(), StartError> {
        let memories = self.memories()?;
        let mut mirrored = BTreeMap::new();
        for stream in streams {
            let loaded = fold.load(log, *stream).await?;
            let mut same = self.mirrored(*stream).await;
            let remembered = memories.get(stream).copied();
            for it in remembered.into_iter().chain(same) {
                let Err(differs) = self.compare(fold, log, *stream, &loaded, it).await? else { continue };
                let epoch = fold.chain.lock().unwrap_or_else(PoisonError::into_inner).epoch(*stream);
                if epoch <= remembered.map_or(0, |it| it.epoch) {
                    return Err(differs);
                }
                warn!(stream = stream.name(), epoch, %differs, "an older log was restored, and that is signed");
                same = None;
            }
            mirrored.insert(*stream, same);
        }
        // CONFIG last: a mirror that has it has the others.
        for (stream, same) in mirrored.into_iter().rev() {
            if let Some(mirror) = &self.mirror {
                bring_up(mirror, log, stream, same, fold.snapshot.position(stream)).await;
            }
        }
        Ok(())
    }

    pub(crate) async fn load_mirror(
        &self,
        fold: &mut Fold,
        mirror: &Embedded,
        streams: &[Stream],
    ) -> Result<(), StartError> {
        let memories = self.memories()?;
        let log = mirror.clone().into();
        for stream in streams {
            let loaded = fold.load(&log, *stream).await?;
            // Before its checkpoint a mirror has gaps.
            let it = memories.get(stream).filter(|it| it.position >= loaded.checkpoint);
            if let Some(it) = it {
                self.compare(fold, &log, *stream, &loaded, *it).await??;
            }
        }
        Ok(())
    }

    fn memories(&self) -> Result<BTreeMap<Stream, Remembered>, LogError> {
        self.memory.as_ref().map_or(Ok(BTreeMap::new()), Memory::get)
    }

    /// A mirror is a memory as well. One that cannot be read is filled anew.
    async fn mirrored(&self, stream: Stream) -> Option<Remembered> {
        let mirror = self.mirror.as_ref()?;
        let position = mirror.head(stream);
        match mirror.read(stream, position.checked_sub(1)?, 1).await {
            Ok(last) => last.first().and_then(hash_of).map(|hash| Remembered { position, hash, epoch: 0 }),
            Err(error) => {
                warn!(error = %chain_of(&error), "the mirror cannot be read");
                None
            }
        }
    }

    /// Whether the log has the remembered event, and goes on from it to what was
    /// loaded. The inner error says how it differs.
    async fn compare(
        &self,
        fold: &Fold,
        log: &EventLog,
        stream: Stream,
        loaded: &Loaded,
        it: Remembered,
    ) -> Result<Result<(), StartError>, StartError> {
        let found = fold.snapshot.position(stream);
        if found < it.position {
            return Ok(Err(StartError::WentBack { stream, seen: it.position, found, remedy: self.remedy() }));
        }
        let differing = match it.position >= loaded.checkpoint {
            true => {
                let there = loaded.tail.get(&it.position);
                (there != Some(&it.hash)).then(|| (it.position, there.copied()))
            }
            false => walk(log, stream, it, loaded).await?,
        };
        let another = |(position, there): (Position, Option<Hash>)| {
            let found = there.map_or("absent".to_owned(), |it| short(&it));
            StartError::AnotherHistory { stream, position, remembered: short(&it.hash), found, remedy: self.remedy() }
        };
        Ok(differing.map_or(Ok(()), |it| Err(another(it))))
    }

    fn remedy(&self) -> Remedy {
        let memory = self.memory.iter().map(|it| it.path().to_owned());
        Remedy(memory.chain(self.mirror.iter().map(|it| it.path().to_owned())).collect())
    }

    /// Keeps events that were just folded. The mirror is a help, not a duty: what
    /// it misses it gets at the next start, and nothing before that.
    pub(crate) async fn mirror(&self, stream: Stream, entries: &[Entry]) {
        let Some(mirror) = &self.mirror else { return };
        if entries.first().is_some_and(|it| it.position == mirror.head(stream) + 1)
            && let Err(error) = copy(mirror, stream, entries, true).await
        {
            warn!(error = %chain_of(&error), "the mirror missed events");
        }
    }

    /// Keeps what was acted on last.
    pub(crate) async fn remember(&self, fold: &Fold, stream: Stream) {
        let it = fold.last(stream);
        self.keep(stream, it).await;
    }

    pub(crate) async fn keep(&self, stream: Stream, it: Option<Remembered>) {
        if let (Some(memory), Some(it)) = (&self.memory, it) {
            memory.keep(stream, it).await;
        }
    }
}

/// Follows the links from a remembered event to the checkpoint that was loaded.
/// Returns where they part.
async fn walk(
    log: &EventLog,
    stream: Stream,
    from: Remembered,
    loaded: &Loaded,
) -> Result<Option<(Position, Option<Hash>)>, LogError> {
    let end = loaded.checkpoint;
    let (mut position, mut previous, mut linked) = (from.position - 1, None::<Hash>, false);
    while position < end {
        let entries = log.read(stream, position).await?;
        if entries.is_empty() {
            return Ok(Some((position + 1, None)));
        }
        for entry in entries.iter().take_while(|it| it.position <= end) {
            let body = SignedEvent::decode(entry.bytes.clone()).map(|it| it.body).unwrap_or_default();
            let hash = body_hash(&body);
            let named = EventBody::decode(body).map(|it| it.stream_previous).unwrap_or_default();
            let goes_on = match previous {
                None => entry.position == from.position && hash == from.hash,
                Some(_) if named.is_empty() => !linked,
                Some(previous) => named == previous[..],
            };
            if !goes_on {
                return Ok(Some((from.position, Some(hash))));
            }
            linked |= !named.is_empty();
            previous = Some(hash);
            position = entry.position;
        }
        if entries.last().is_some_and(|it| it.position > end) {
            break;
        }
    }
    let parts = previous.as_ref() != loaded.tail.get(&end);
    Ok(parts.then_some((from.position, previous)))
}

pub(crate) fn hash_of(entry: &Entry) -> Option<Hash> {
    SignedEvent::decode(entry.bytes.clone()).ok().map(|it| body_hash(&it.body))
}

fn short(hash: &Hash) -> String {
    proto::hex::encode(&hash[..8])
}

/// Fills the mirror up to where the log was loaded. From where it ends if that
/// is known to be in the log, so that it is of use at every moment; else anew.
async fn bring_up(mirror: &Embedded, log: &EventLog, stream: Stream, from: Option<Remembered>, end: Position) {
    let filled = match from {
        Some(from) => catch_up(mirror, log, stream, from.position, end).await,
        None => fill(mirror, log, stream, end).await,
    };
    if let Err(error) = filled {
        warn!(error = %chain_of(&error), "the mirror missed events");
    }
}

async fn catch_up(
    mirror: &Embedded,
    log: &EventLog,
    stream: Stream,
    mut position: Position,
    end: Position,
) -> Result<(), LogError> {
    while position < end {
        let mut entries = log.read(stream, position).await?;
        entries.retain(|it| it.position <= end);
        let Some(last) = entries.last() else { return Ok(()) };
        position = last.position;
        copy(mirror, stream, &entries, true).await?;
    }
    Ok(())
}

async fn fill(mirror: &Embedded, log: &EventLog, stream: Stream, end: Position) -> Result<(), LogError> {
    mirror.mirror_anew(stream).await.map_err(|source| LogError::new("emptying the mirror", source))?;
    let mut latest = log.latest(stream).await?;
    let mut checkpoint = None;
    while let Some(mut entries) = latest.next().await? {
        if checkpoint.is_none() {
            let is_checkpoint = |entry: &Entry| {
                let body = SignedEvent::decode(entry.bytes.clone()).and_then(|it| EventBody::decode(it.body));
                body.is_ok_and(|it| it.kind == CHECKPOINT)
            };
            if let Some(at) = entries.iter().position(is_checkpoint) {
                checkpoint = Some(entries[at].position);
                entries.truncate(at);
            }
            copy(mirror, stream, &entries, false).await?;
        }
    }
    let mut position = checkpoint.map_or(0, |it| it - 1);
    while position < end {
        let mut entries = log.read(stream, position).await?;
        entries.retain(|it| it.position <= end);
        let Some(read) = entries.last() else { break };
        position = read.position;
        copy(mirror, stream, &entries, false).await?;
    }
    if position >= end && end > 0 {
        let filled = mirror.mirror(stream, vec![], vec![], Some(end)).await;
        filled.map_err(|source| LogError::new("writing to the mirror", source))?;
    }
    Ok(())
}

/// Copies events in order. If all before them are there, the mirror is filled
/// up to each part of them.
async fn copy(mirror: &Embedded, stream: Stream, entries: &[Entry], follows: bool) -> Result<(), LogError> {
    for entries in entries.chunks(crate::APPEND_MAX) {
        let appends = entries.iter().filter_map(|entry| {
            let event = SignedEvent::decode(entry.bytes.clone()).ok()?;
            let subject = EventBody::decode(event.body).ok()?.subject;
            Some(Append { subject, bytes: entry.bytes.clone() })
        });
        let positions = entries.iter().map(|entry| entry.position).collect();
        let end = entries.last().map(|it| it.position).filter(|_| follows);
        let copied = mirror.mirror(stream, appends.collect(), positions, end).await;
        copied.map_err(|source| LogError::new("writing to the mirror", source))?;
    }
    Ok(())
}
