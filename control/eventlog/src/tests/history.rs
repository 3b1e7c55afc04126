//! Whatever is done to the file of the log, a reader starts with exactly the
//! true state or refuses; it never starts silently with another.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use model::{
    directory::Role,
    risk::{SessionRevocation, UserRevocation},
};
use rusqlite::{Connection, params};

use super::*;
use crate::projection::StartError;

#[tokio::test]
async fn a_row_left_out_is_noticed() {
    let history = History::write().await;
    let mut random = Random(11);
    for case in 0..60 {
        let file = history.copy();
        let stream = [Stream::Config, Stream::Risk][case % 2];
        let position = 1 + random.below(history.end(stream));
        let entirely = random.below(2) == 0;
        delete(&file.path(), stream, position, entirely);
        let started = history.start(&file, None).await;
        match (history.replaces_nothing_since(stream, position), started) {
            // An event that a later one on its subject replaced, before the
            // newest checkpoint, says nothing any more.
            (true, Ok(snapshot)) => assert_eq!(*snapshot, history.truth(), "case {case}"),
            (_, outcome) => assert!(outcome.is_err(), "case {case}: {stream:?} without {position} was believed"),
        }
    }
}

#[tokio::test]
async fn a_revocation_cannot_be_left_out() {
    let history = History::write().await;
    let file = history.copy();
    // As an intruder would: the last event, and every trace of it.
    delete(&file.path(), Stream::Risk, 2, true);
    let refused = history.start(&file, None).await.expect_err("a session that was revoked lives again");
    let names = matches!(
        refused,
        StartError::Refused { stream: Stream::Risk, .. } | StartError::Moved { stream: Stream::Risk, .. }
    );
    assert!(names, "{refused}");
}

#[tokio::test]
async fn rows_in_each_others_place_are_noticed() {
    let history = History::write().await;
    let mut random = Random(12);
    for case in 0..40 {
        let file = history.copy();
        let (a, b) = (1 + random.below(history.end(Stream::Config)), 1 + random.below(history.end(Stream::Config)));
        swap(&file.path(), a, b);
        if let Ok(snapshot) = history.start(&file, None).await {
            assert_eq!(*snapshot, history.truth(), "case {case}: {a} and {b}");
        }
    }
}

#[tokio::test]
async fn flipped_bits_never_change_what_is_believed() {
    let history = History::write().await;
    let mut random = Random(13);
    let (mut started, mut refused) = (0, 0);
    for case in 0..150 {
        let file = history.copy();
        let mut bytes = fs::read(file.path()).unwrap();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        fs::write(file.path(), bytes).unwrap();
        match history.start(&file, None).await {
            Ok(snapshot) => {
                assert!(*snapshot == history.truth(), "case {case}: another state after the byte at {at} changed");
                started += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(started > 0 && refused > 0, "{started} started, {refused} refused");
}

#[tokio::test]
async fn a_shorter_log_is_what_it_was_and_whoever_remembers_more_refuses_it() {
    let history = History::write().await;
    let mut random = Random(14);
    for case in 0..30 {
        let file = history.copy();
        let position = 1 + random.below(history.end(Stream::Config) - 1);
        truncate(&file.path(), Stream::Config, position);
        let fresh = history.start(&file, None).await;
        if let Ok(snapshot) = fresh {
            assert_eq!(snapshot.config, position, "case {case}");
            let roles = |it: &Snapshot| it.tenant(&TenantId::default_tenant()).unwrap().roles.clone();
            let before = history.states.get(&position).map(|it| roles(it));
            assert!(before.is_none_or(|it| it == roles(&snapshot)), "case {case}: not as it was at {position}");
        }
        let refused = history.start(&file, Some(&history.memory())).await.err();
        let expected = matches!(refused, Some(StartError::WentBack { .. } | StartError::Refused { .. }));
        assert!(expected, "case {case}: {refused:?}");
    }
}

/// Both backends: the older log then goes on, past what readers remember.
#[tokio::test]
async fn an_older_log_that_grew_is_refused_until_a_restore_signs_it() {
    for grown in [0, 10, 1500] {
        for mut world in World::both().await {
            let past = Folder::new();
            let (memory, mirror) = (past.0.join("memory.db"), past.0.join("mirror.db"));
            let files = Files { mirror: Some(&mirror), memory: Some(&memory) };
            write_roles(&world, 0..30, Role::Admin).await;
            let older = all(&world).await;
            write_roles(&world, 30..40, Role::Admin).await;
            {
                let reader = start_with(&world, files).await.unwrap();
                assert_eq!(reader.snapshot().config, 40);
            }
            // Another log begins as the older copy of this one, and goes on.
            let name = world.name;
            let signer = world.signer.clone();
            let [embedded, jetstream] = World::both().await;
            world = if name == "embedded" { embedded } else { jetstream };
            world.signer = signer;
            for part in older.chunks(APPEND_MAX) {
                world.log.append(Stream::Config, part.to_vec(), None).await.unwrap();
            }
            write_roles(&world, 100..100 + grown, Role::Auditor).await;

            let refused = until_closed(|| start_with(&world, files)).await.err().expect("another history was believed");
            let expected = match grown {
                0 => matches!(refused, StartError::WentBack { seen: 40, found: 30, .. }),
                _ => matches!(refused, StartError::AnotherHistory { position: 40, .. }),
            };
            assert!(expected, "{name}: {refused}");
            assert!(refused.to_string().contains("memory.db"), "says what to remove: {refused}");

            let restorer = world.projection().await;
            let journal = Journal::new(world.log.clone(), world.signer.clone());
            journal.record_restore(&restorer, 7, Timestamp(7)).await.unwrap();
            let accepted = until_closed(|| start_with(&world, files)).await.unwrap();
            assert_eq!(accepted.snapshot(), restorer.snapshot(), "{name}");
            drop(accepted);
            // The new history is what is remembered now, in the mirror too.
            let again = until_closed(|| start_with(&world, files)).await.unwrap();
            assert_eq!(again.snapshot(), restorer.snapshot(), "{name}");
            drop(again);
            let mirrored = until_open(&mirror).await;
            let offline = Projection::start(mirrored, &Stream::STATE, world.trust(), None).await.unwrap();
            assert_eq!(offline.snapshot().tenants, restorer.snapshot().tenants, "{name}");
        }
    }
}

#[tokio::test]
async fn a_signed_restore_is_accepted_once() {
    let [mut world, _] = World::both().await;
    let past = Folder::new();
    let memory = past.0.join("memory.db");
    let files = Files { mirror: None, memory: Some(&memory) };
    write_roles(&world, 0..5, Role::Owner).await;
    let restorer = world.projection().await;
    let journal = Journal::new(world.log.clone(), world.signer.clone());
    journal.record_restore(&restorer, 7, Timestamp(7)).await.unwrap();
    let older = all(&world).await;
    write_roles(&world, 5..9, Role::Owner).await;
    drop(start_with(&world, files).await.unwrap());

    let signer = world.signer.clone();
    [world, _] = World::both().await;
    world.signer = signer;
    world.log.append(Stream::Config, older, None).await.unwrap();
    let refused = start_with(&world, files).await.err().expect("a copy with an old restore in it was believed");
    assert!(matches!(refused, StartError::WentBack { .. }), "{refused}");
}

#[tokio::test]
async fn a_log_of_before_there_were_links_is_read_and_then_sealed() {
    let folder = Folder::new();
    let world = World::embedded(&folder);
    let subjects = (0..20).map(|n| granted(n, Role::Owner));
    for (n, event) in subjects.enumerate() {
        world.log.append(Stream::Config, vec![unlinked(&world.signer, event)], Some(n as u64)).await.unwrap();
    }
    let projection = world.projection().await;
    assert_eq!(projection.snapshot().config, 20);
    let journal = Journal::new(world.log.clone(), world.signer.clone());
    let position = journal.seal(Stream::Config, projection.chain(), 20, Timestamp(1)).await.unwrap();
    assert_eq!(position, 21);
    projection.reach(Stream::Config, position).await;
    assert_eq!(journal.seal(Stream::Config, projection.chain(), 21, Timestamp(1)).await.unwrap(), 21, "once");
    let truth = projection.snapshot();
    drop(projection);
    assert_eq!(world.projection().await.snapshot(), truth);
    drop((world.log, journal));
    wait_until(|| EventLog::open(&folder.0.join("log.db")).is_ok()).await;
    delete(&folder.0.join("log.db"), Stream::Config, 9, true);
    let world = World { signer: world.signer, ..World::embedded(&folder) };
    let refused = Projection::start(world.log.clone(), &Stream::STATE, world.trust(), None).await.err();
    assert!(matches!(refused, Some(StartError::Incomplete { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_damaged_mirror_is_moved_aside_and_the_log_is_read() {
    let folder = Folder::new();
    let world = World::embedded(&folder);
    write_roles(&world, 0..5, Role::Owner).await;
    for (name, damage) in [("mirror", "no database at all".repeat(300)), ("memory", "x".repeat(9000))] {
        let path = folder.0.join(format!("{name}.db"));
        fs::write(&path, damage).unwrap();
        let (mirror, memory) = if name == "mirror" { (Some(&*path), None) } else { (None, Some(&*path)) };
        let reader = start_with(&world, Files { mirror, memory }).await.expect(name);
        assert_eq!(reader.snapshot().config, 5);
        drop(reader);
        assert!(folder.0.join(format!("{name}.db.damaged")).exists(), "{name}");
        let again = until_closed(|| start_with(&world, Files { mirror, memory })).await.expect(name);
        assert_eq!(again.snapshot().config, 5, "the new {name} is good");
    }
}

#[tokio::test]
async fn a_mirror_with_a_row_left_out_is_not_started_from() {
    let folder = Folder::new();
    let mirror = folder.0.join("mirror.db");
    let nats = Nats::start().await;
    let world = World::jetstream(&nats).await;
    let files = Files { mirror: Some(&mirror), memory: None };
    // Both ways into the mirror: as a reader runs, and as one starts later.
    write_roles(&world, 0..10, Role::Owner).await;
    let reader = start_with(&world, files).await.unwrap();
    write_roles(&world, 0..1500, Role::Admin).await;
    let end = world.log.head(Stream::Config).await.unwrap();
    reader.reach(Stream::Config, end).await;
    wait_until(|| mirrored(&mirror) == end).await;
    drop(reader);
    drop(until_open(&mirror).await);
    write_roles(&world, 0..1500, Role::Owner).await;
    let snapshot = until_closed(|| start_with(&world, files)).await.unwrap().snapshot();
    drop(nats);
    drop(until_open(&mirror).await);
    let whole = until_closed(|| start_with(&world, files)).await.unwrap();
    assert_eq!(whole.snapshot(), snapshot, "the mirror proves itself complete");
    drop(whole);
    drop(until_open(&mirror).await);
    let first = "SELECT min(position) FROM latest WHERE stream = 0";
    let first = Connection::open(&mirror).unwrap().query_row(first, [], |row| row.get(0)).unwrap();
    delete(&mirror, Stream::Config, first, true);
    let refused = start_with(&world, files).await.err().expect("a mirror with a row left out was believed");
    assert!(matches!(refused, StartError::Incomplete { .. }), "{refused}");
}

// ---------------------------------------------------------------- helpers

/// A log of some length with a checkpoint, closed, and what was true at its positions.
struct History {
    folder: Folder,
    world: World,
    states: BTreeMap<Position, Arc<Snapshot>>,
    /// Positions of CONFIG by subject.
    subjects: BTreeMap<String, Vec<Position>>,
}

impl History {
    async fn write() -> Self {
        let folder = Folder::new();
        let world = World::embedded(&folder);
        let mut states = BTreeMap::new();
        let memory = folder.0.join("memory.db");
        {
            let projection = start_with(&world, Files { mirror: None, memory: Some(&memory) }).await.unwrap();
            let journal = Journal::new(world.log.clone(), world.signer.clone());
            for part in 0..60 {
                let role = if part % 3 == 0 { Role::Owner } else { Role::Auditor };
                let first = part % 20 * 10;
                let drafts: Vec<_> = (first..first + 19).map(|n| draft(granted(n, role))).collect();
                let end = projection.snapshot().config;
                let position = journal.append(Stream::Config, &drafts, projection.chain(), end).await.unwrap();
                states.insert(position, projection.reach(Stream::Config, position).await);
            }
            for n in 0..4_u64 {
                let session = SessionRevocation { session: SessionId(Uuid::from_u128(n.into())), at: Timestamp(1) };
                let user = UserRevocation { user: user(n), sessions_before: Timestamp(1), directory: 0 };
                for (m, event) in [Event::put(session), Event::put(user)].into_iter().enumerate() {
                    let (draft, end) = ([draft(event)], 2 * n + m as u64);
                    let position = journal.append(Stream::Risk, &draft, projection.chain(), end).await.unwrap();
                    states.insert(projection.snapshot().config, projection.reach(Stream::Risk, position).await);
                }
            }
            assert!(states.keys().last().unwrap() > &1100, "there is a checkpoint");
            let end = [(Stream::Config, projection.snapshot().config), (Stream::Risk, 8)];
            wait_until(|| {
                let known = memory::Memory::open(&memory).unwrap().get().unwrap();
                end.iter().all(|(stream, position)| known.get(stream).is_some_and(|it| it.position == *position))
            })
            .await;
        }
        let mut subjects: BTreeMap<String, Vec<Position>> = BTreeMap::new();
        let mut after = 0;
        loop {
            let entries = world.log.read(Stream::Config, after).await.unwrap();
            let Some(last) = entries.last() else { break };
            after = last.position;
            for entry in entries {
                let event = SignedEvent::decode(entry.bytes).unwrap();
                let body = EventBody::decode(event.body).unwrap();
                subjects.entry(body.subject).or_default().push(entry.position);
            }
        }
        let World { name, log, signer, _life } = world;
        drop(log);
        let world = World { name, log: EventLog::open(&folder.0.join("unused.db")).unwrap(), signer, _life };
        wait_until(|| EventLog::open(&folder.0.join("log.db")).is_ok()).await;
        wait_until(|| !folder.0.join("log.db-wal").exists()).await;
        Self { folder, world, states, subjects }
    }

    fn memory(&self) -> std::path::PathBuf {
        self.folder.0.join("memory.db")
    }

    fn truth(&self) -> Snapshot {
        Snapshot::clone(self.states.values().last().unwrap())
    }

    fn end(&self, stream: Stream) -> Position {
        self.truth().position(stream)
    }

    /// Whether a later event on the same subject came before the newest checkpoint.
    fn replaces_nothing_since(&self, stream: Stream, position: Position) -> bool {
        if stream != Stream::Config {
            return false;
        }
        let checkpoint = self.subjects.get("postern.config._.checkpoint.last").unwrap().last().unwrap();
        let mut of_subject = self.subjects.values().filter(|it| it.contains(&position)).flatten();
        position < *checkpoint && of_subject.any(|it| *it > position)
    }

    fn copy(&self) -> File {
        let folder = Folder::new();
        fs::copy(self.folder.0.join("log.db"), folder.0.join("log.db")).unwrap();
        File(folder)
    }

    async fn start(&self, file: &File, memory: Option<&Path>) -> Result<Arc<Snapshot>, StartError> {
        let log = loop {
            match EventLog::open(&file.path()) {
                Err(error) if error.to_string().contains("another process holds") => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                opened => break opened?,
            }
        };
        let files = Files { mirror: None, memory };
        let start = Projection::start_with(log, &Stream::STATE, self.world.trust(), files);
        let started = tokio::time::timeout(Duration::from_secs(60), start).await.expect("a start has an end");
        started.map(|it| it.snapshot())
    }
}

struct File(Folder);

impl File {
    fn path(&self) -> std::path::PathBuf {
        self.0.0.join("log.db")
    }
}

/// Deletes an event. Entirely: the index then names the one before on its subject.
fn delete(path: &Path, stream: Stream, position: Position, entirely: bool) {
    let file = Connection::open(path).unwrap();
    file.execute("DELETE FROM events WHERE stream = ? AND position = ?", params![stream as i64, position]).unwrap();
    if entirely {
        index_again(&file, stream);
    }
}

fn index_again(file: &Connection, stream: Stream) {
    file.execute("DELETE FROM latest WHERE stream = ?", params![stream as i64]).unwrap();
    file.execute(
        "INSERT INTO latest SELECT stream, subject, max(position) FROM events WHERE stream = ? GROUP BY subject",
        params![stream as i64],
    )
    .unwrap();
}

fn swap(path: &Path, a: Position, b: Position) {
    let file = Connection::open(path).unwrap();
    let row = |position: Position| {
        file.query_row(
            "SELECT subject, event FROM events WHERE stream = 0 AND position = ?",
            params![position],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)),
        )
        .unwrap()
    };
    let (at_a, at_b) = (row(a), row(b));
    for (position, (subject, event)) in [(a, at_b), (b, at_a)] {
        file.execute(
            "UPDATE events SET subject = ?, event = ? WHERE stream = 0 AND position = ?",
            params![subject, event, position],
        )
        .unwrap();
    }
    index_again(&file, Stream::Config);
}

fn truncate(path: &Path, stream: Stream, position: Position) {
    let file = Connection::open(path).unwrap();
    file.execute("DELETE FROM events WHERE stream = ? AND position > ?", params![stream as i64, position]).unwrap();
    file.execute("UPDATE heads SET position = ? WHERE stream = ?", params![position, stream as i64]).unwrap();
    index_again(&file, stream);
}

fn user(n: u64) -> UserId {
    UserId(Uuid::from_u128(n.into()))
}

fn granted(n: u64, role: Role) -> Event {
    Event::put(RoleAssignment { user: user(n), role })
}

async fn write_roles(world: &World, users: std::ops::Range<u64>, role: Role) {
    let projection = world.projection().await;
    let journal = Journal::new(world.log.clone(), world.signer.clone());
    let drafts: Vec<_> = users.map(|n| draft(granted(n, role))).collect();
    for part in drafts.chunks(300) {
        let end = projection.snapshot().config;
        let position = journal.append(Stream::Config, part, projection.chain(), end).await.unwrap();
        projection.reach(Stream::Config, position).await;
    }
}

/// As a release before this one wrote it.
fn unlinked(signer: &Signer, event: Event) -> Append {
    let (kind, payload) = Fact::State(event.clone()).encode();
    let subject = draft_subject(&event);
    let body = EventBody {
        tenant: "default".into(),
        subject: subject.clone(),
        version: 1,
        kind,
        payload: payload.into(),
        ..Default::default()
    };
    Append { subject, bytes: signer.sign(vec![body.encode_to_vec()]).remove(0).encode_to_vec().into() }
}

async fn all(world: &World) -> Vec<Append> {
    let append = |entry: Entry| {
        let body = EventBody::decode(SignedEvent::decode(entry.bytes.clone()).unwrap().body).unwrap();
        Append { subject: body.subject, bytes: entry.bytes }
    };
    world.log.read(Stream::Config, 0).await.unwrap().into_iter().map(append).collect()
}

async fn start_with(world: &World, files: Files<'_>) -> Result<Projection, StartError> {
    Projection::start_with(world.log.clone(), &Stream::STATE, world.trust(), files).await
}

/// The reader before holds the mirror for a moment after it was dropped.
async fn until_closed<F: Future<Output = Result<Projection, StartError>>>(
    start: impl Fn() -> F,
) -> Result<Projection, StartError> {
    let started = async {
        loop {
            match start().await {
                Err(StartError::Log(error)) if error.to_string().contains("another process holds") => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                outcome => return outcome,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), started).await.expect("the mirror was never closed")
}

async fn until_open(path: &Path) -> EventLog {
    let mut opened = None;
    wait_until(|| {
        opened = EventLog::open(path).ok();
        opened.is_some()
    })
    .await;
    opened.unwrap()
}

/// xorshift: a failing case is run again by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
