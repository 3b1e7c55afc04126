//! The fold: streams loaded with a proof that nothing is left out, and then one
//! event after the other, each verified and in its place in the chain.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, ScopedJoinHandle},
    time::Instant,
};

use model::{Position, Snapshot, TenantId, event::Stream};
use proto::signed::{Hash, Verifier};

use super::{
    Refused, SignedKeys, StartError, View,
    verified::{Said, VerifiedEvent},
};
use crate::{
    Entry, EventLog, LogError,
    chain::{Chain, Place},
    codec::Mark,
    memory::Remembered,
    presence::now,
};

pub(crate) struct Fold {
    pub(crate) snapshot: Snapshot,
    pub(super) signed_apps: imbl::OrdMap<model::AppId, bytes::Bytes>,
    signed_tenants: imbl::OrdMap<TenantId, bytes::Bytes>,
    signed_keys: imbl::OrdMap<TenantId, SignedKeys>,
    pub(crate) chain: Arc<Mutex<Chain>>,
    pub(super) trust: Verifier,
    pub(super) confirmed: Instant,
    confirmed_by: BTreeMap<Stream, Instant>,
    pub(super) quarantine: Option<Arc<str>>,
}

impl Fold {
    pub(super) fn new(trust: Verifier) -> Self {
        Self {
            snapshot: Snapshot::default(),
            signed_apps: imbl::OrdMap::new(),
            signed_tenants: imbl::OrdMap::new(),
            signed_keys: imbl::OrdMap::new(),
            chain: Arc::default(),
            trust,
            confirmed: now(),
            confirmed_by: BTreeMap::new(),
            quarantine: None,
        }
    }

    pub(super) fn view(&self) -> View {
        View {
            snapshot: Arc::new(self.snapshot.clone()),
            confirmed: self.confirmed,
            quarantine: self.quarantine.clone(),
            signed_apps: Arc::new(self.signed_apps.clone()),
            signed_tenants: Arc::new(self.signed_tenants.clone()),
            signed_keys: Arc::new(self.signed_keys.clone()),
        }
    }

    /// Loads a stream, and proves that nothing is left out of it up to its end.
    pub(crate) async fn load(&mut self, log: &EventLog, stream: Stream) -> Result<Loaded, StartError> {
        let before =
            (self.snapshot.clone(), self.signed_apps.clone(), self.signed_tenants.clone(), self.signed_keys.clone());
        let mut latest = log.latest(stream).await?;
        let mut checkpoint = None;
        while let Some(entries) = latest.next().await? {
            // What came after the newest checkpoint is read in full.
            if checkpoint.is_none() {
                checkpoint = self.begin(stream, &entries)?;
            }
        }
        let head = latest.position();
        let mut loaded = Loaded { checkpoint: checkpoint.unwrap_or(0), tail: BTreeMap::new() };
        let mut position = loaded.checkpoint.saturating_sub(1);
        if checkpoint.is_none() {
            // A young stream, or one written before there were checkpoints: all
            // of it is read in full, from the beginning.
            (self.snapshot, self.signed_apps, self.signed_tenants, self.signed_keys) = before;
            self.chain.lock().unwrap_or_else(PoisonError::into_inner).restart(stream);
        }
        if let Some(checkpoint) = checkpoint {
            let tail = read_all(log, stream, position, head).await?;
            position = in_a_row(stream, position, &tail)?;
            self.resume(stream, checkpoint, &tail, &mut loaded)?;
        }
        while position < head {
            let entries = log.read(stream, position).await?;
            position = in_a_row(stream, position, &entries)?;
            if entries.is_empty() {
                break;
            }
            let believed = self.verify(stream, &entries);
            self.follow(stream, &entries, believed, &mut loaded)?;
        }
        if position < head {
            return Err(StartError::EndsEarly { stream, end: head, found: position });
        }
        let end = log.head(stream).await?;
        if end < position {
            return Err(StartError::EndsEarly { stream, end: position, found: end });
        }
        self.snapshot.advance(stream, position);
        self.confirmed_by.insert(stream, now());
        Ok(loaded)
    }

    /// Goes on from a checkpoint, the first of `tail`, if its root confirms what
    /// was loaded: with each subject that changed since put back to what its
    /// first event after the checkpoint names as the one before.
    fn resume(
        &mut self,
        stream: Stream,
        checkpoint: Position,
        tail: &[Entry],
        loaded: &mut Loaded,
    ) -> Result<(), StartError> {
        let incomplete = || StartError::Incomplete { stream, checkpoint };
        let believed = self.verify(stream, tail);
        {
            let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
            for believed in believed.iter().flatten() {
                chain.before(stream, &believed.body);
            }
            let Some(Ok(VerifiedEvent { body, said: Said::Mark(Mark::Checkpoint(said)), .. })) = believed.first()
            else {
                return Err(incomplete());
            };
            if said.root != chain.root(stream).0 {
                return Err(incomplete());
            }
            chain.resume(stream, body);
        }
        self.follow(stream, tail, believed, loaded)
    }

    /// Applies events that were read in full.
    fn follow(
        &mut self,
        stream: Stream,
        entries: &[Entry],
        believed: Vec<Result<VerifiedEvent, Refused>>,
        loaded: &mut Loaded,
    ) -> Result<(), StartError> {
        for (entry, believed) in entries.iter().zip(believed) {
            let refused = |source| StartError::Refused { stream, position: entry.position, source };
            let believed = believed.map_err(refused)?;
            self.chain_and_apply(stream, entry, believed).map_err(refused)?;
            loaded.tail.extend(self.last(stream).map(|last| (entry.position, last.hash)));
        }
        Ok(())
    }

    /// Verifies events on all cores.
    pub(super) fn verify(&self, stream: Stream, entries: &[Entry]) -> Vec<Result<VerifiedEvent, Refused>> {
        let threads = thread::available_parallelism().map_or(1, |it| it.get());
        let share = entries.len().div_ceil(threads).max(1);
        let trust = &self.trust;
        let verify = |entries: &[Entry]| {
            let mut trust = trust.clone();
            entries.iter().map(|entry| VerifiedEvent::verify(&mut trust, stream, entry)).collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let verifying: Vec<_> = entries.chunks(share).map(|part| scope.spawn(|| verify(part))).collect();
            let join = |thread: ScopedJoinHandle<'_, Vec<_>>| thread.join().unwrap_or_else(|it| resume_unwind(it));
            verifying.into_iter().flat_map(join).collect()
        })
    }

    /// Applies the last events of subjects in order, up to the first checkpoint,
    /// whose position it returns; each takes its place in the chain on trust.
    fn begin(&mut self, stream: Stream, entries: &[Entry]) -> Result<Option<Position>, StartError> {
        for (entry, believed) in entries.iter().zip(self.verify(stream, entries)) {
            let refused = |source| StartError::Refused { stream, position: entry.position, source };
            let believed = believed.map_err(refused)?;
            if let Said::Mark(Mark::Checkpoint(_)) = believed.said {
                return Ok(Some(entry.position));
            }
            self.chain.lock().unwrap_or_else(PoisonError::into_inner).begin(stream, &believed.body, believed.hash);
            self.apply(stream, entry, believed);
        }
        Ok(None)
    }

    /// Verifies and applies one event.
    pub(super) fn fold(&mut self, stream: Stream, entry: &Entry) -> Result<(), Refused> {
        let believed = VerifiedEvent::verify(&mut self.trust, stream, entry)?;
        self.chain_and_apply(stream, entry, believed)
    }

    fn chain_and_apply(&mut self, stream: Stream, entry: &Entry, believed: VerifiedEvent) -> Result<(), Refused> {
        let place = {
            let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
            chain.follow(stream, &believed.body, believed.hash)?
        };
        match place {
            Place::Duplicate => {}
            Place::Next => self.apply(stream, entry, believed),
        }
        Ok(())
    }

    fn apply(&mut self, stream: Stream, entry: &Entry, believed: VerifiedEvent) {
        match believed.said {
            Said::State(tenant, event) => {
                self.remember_signed(&tenant, &event, entry);
                self.snapshot.apply(&tenant, event, believed.body.version);
            }
            Said::Mark(Mark::Checkpoint(_)) => {}
            Said::Mark(Mark::Restored(it)) => {
                self.chain.lock().unwrap_or_else(PoisonError::into_inner).restored(stream, it.epoch);
            }
        }
    }

    fn remember_signed(&mut self, tenant: &TenantId, event: &model::Event, entry: &Entry) {
        let signed = || bytes::Bytes::copy_from_slice(&entry.bytes);
        if let model::ObjectKey::App(id) = event.key() {
            self.signed_apps.insert(id, signed());
        } else if let model::ObjectKey::TenantSettings(_) = event.key() {
            self.signed_tenants.insert(tenant.clone(), signed());
        } else if let Some(key) = session_key(event) {
            Arc::make_mut(self.signed_keys.entry(tenant.clone()).or_default()).insert(key, signed());
        }
    }

    pub(crate) fn last(&self, stream: Stream) -> Option<Remembered> {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let (position, epoch) = (self.snapshot.position(stream), chain.epoch(stream));
        chain.last(stream).map(|hash| Remembered { position, hash, epoch })
    }

    pub(super) fn confirm(&mut self, stream: Stream) {
        self.confirmed_by.insert(stream, now());
        self.confirmed = self.confirmed_by.values().min().copied().unwrap_or(self.confirmed);
    }
}

/// How a stream was loaded.
pub(crate) struct Loaded {
    /// Position of the checkpoint the load went on from; 0 is the beginning.
    pub(crate) checkpoint: Position,
    /// Hashes of what was read in full, by position.
    pub(crate) tail: BTreeMap<Position, Hash>,
}

async fn read_all(
    log: &EventLog,
    stream: Stream,
    mut position: Position,
    end: Position,
) -> Result<Vec<Entry>, LogError> {
    let mut all = Vec::new();
    while position < end {
        let entries = log.read(stream, position).await?;
        let Some(last) = entries.last() else { break };
        position = last.position;
        all.extend(entries);
    }
    Ok(all)
}

/// Positions are not signed, and people's tokens are compared by them: each event
/// that is read in full must stand right after the one before. Returns the last.
pub(super) fn in_a_row(stream: Stream, mut after: Position, entries: &[Entry]) -> Result<Position, StartError> {
    for entry in entries {
        if entry.position != after + 1 {
            return Err(StartError::Moved { stream, after, found: entry.position });
        }
        after = entry.position;
    }
    Ok(after)
}

/// The key that connectors must hear of, by id. What a retired one was for, its
/// last event does not say.
fn session_key(event: &model::Event) -> Option<String> {
    match (event, event.key()) {
        (model::Event::Put(model::Object::Key(key)), _) if key.purpose != model::keys::KeyPurpose::Session => None,
        (_, model::ObjectKey::Key(id)) => Some(id),
        _ => None,
    }
}
