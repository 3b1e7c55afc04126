//! The contract of the log, held by both backends, and what readers refuse.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::signature::Ed25519KeyPair;
use model::{event::Stream, kinds::TenantSettings, *};
use proto::{
    Message,
    signed::{Signer, Verifier},
    v1::{EventBody, SignedEvent},
};
use uuid::Uuid;

use crate::*;

mod broker;
mod full;
mod history;
mod outdated;
mod policies;
mod refused;
mod samples;

#[tokio::test]
async fn appends_count_from_one_and_are_read_in_order() {
    for world in World::both().await {
        assert_eq!(world.log.head(Stream::Config).await.unwrap(), 0);
        assert_eq!(world.append(["a", "b"], Some(0)).await.unwrap(), 2);
        assert_eq!(world.append(["c"], Some(2)).await.unwrap(), 3);
        assert_eq!(world.read(0).await, ["1 a", "2 b", "3 c"]);
        assert_eq!(world.read(2).await, ["3 c"]);
        assert_eq!(world.read(3).await, [""; 0]);
        assert_eq!(world.log.head(Stream::Directory).await.unwrap(), 0, "streams are apart");
    }
}

#[tokio::test]
async fn a_writer_that_is_behind_is_told_where_the_log_is() {
    for world in World::both().await {
        world.append(["a", "b"], Some(0)).await.unwrap();
        for late in [vec!["x"], vec!["x", "y"]] {
            match world.append(late, Some(1)).await {
                Err(AppendError::Conflict { at }) => assert_eq!(at, 2),
                other => panic!("{}: {other:?}", world.name),
            }
        }
        assert_eq!(world.read(0).await, ["1 a", "2 b"], "{}: nothing of a refused append is there", world.name);
    }
}

#[tokio::test]
async fn of_many_writers_at_one_position_one_wins() {
    for world in World::both().await {
        let attempts = (0..16).map(|n| {
            let world = world.clone();
            async move { world.append([format!("w{n}")], Some(0)).await.is_ok() }
        });
        let won = futures_util::future::join_all(attempts).await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "{}", world.name);
        assert_eq!(world.log.head(Stream::Config).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn many_appends_without_expectation_all_land() {
    for world in World::both().await {
        let appends = (0..100).map(|n| {
            let world = world.clone();
            async move { world.append([format!("w{n}")], None).await.unwrap() }
        });
        let mut positions = futures_util::future::join_all(appends).await;
        positions.sort_unstable();
        assert_eq!(positions, (1..=100).collect::<Vec<_>>(), "{}", world.name);
    }
}

#[tokio::test]
async fn latest_is_the_last_of_each_subject() {
    for world in World::both().await {
        assert_eq!(world.latest().await, (vec![], 0));
        world.append(["a", "b", "a", "c", "b"], None).await.unwrap();
        assert_eq!(world.latest().await, (vec!["3 a".into(), "4 c".into(), "5 b".into()], 5), "{}", world.name);
    }
}

#[tokio::test]
async fn an_append_that_is_repeated_with_its_id_is_there_once() {
    for world in World::both().await {
        for names in [vec!["a"], vec!["b", "c", "d"]] {
            let append = |name: &&str| Append { subject: subject(name), bytes: name.as_bytes().to_vec().into() };
            let events: Vec<_> = names.iter().map(append).collect();
            let id = Uuid::now_v7();
            for _ in 0..3 {
                world.log.append_once(Stream::Config, events.clone(), id).await.expect(world.name);
            }
        }
        assert_eq!(world.read(0).await, ["1 a", "2 b", "3 c", "4 d"], "{}", world.name);
        assert_eq!(world.append(["e"], Some(4)).await.unwrap(), 5, "{}", world.name);
    }
}

#[tokio::test]
async fn a_follower_sees_what_was_and_what_comes() {
    for world in World::both().await {
        world.append(["a", "b"], None).await.unwrap();
        let mut follow = world.log.follow(Stream::Config, 1);
        assert_eq!(show(&follow.next().await.unwrap()[0]), "2 b");
        let writer = world.clone();
        let (next, appended) = tokio::join!(follow.next(), async move { writer.append(["c"], None).await });
        appended.unwrap();
        assert_eq!(show(&next.unwrap()[0]), "3 c", "{}", world.name);
    }
}

#[tokio::test]
async fn an_append_larger_than_a_batch_is_whole() {
    for world in World::both().await {
        let names: Vec<String> = (0..APPEND_MAX).map(|n| format!("s{n}")).collect();
        assert_eq!(world.append(names, Some(0)).await.unwrap(), APPEND_MAX as u64, "{}", world.name);
    }
}

#[tokio::test]
async fn an_event_too_large_is_refused_before_it_is_sent() {
    for world in World::both().await {
        let event = Append { subject: subject("a"), bytes: vec![0; EVENT_BYTES_MAX + 1].into() };
        let outcome = world.log.append(Stream::Config, vec![event], None).await;
        assert!(matches!(outcome, Err(AppendError::TooLarge { .. })), "{}", world.name);
    }
}

#[tokio::test]
async fn presences_are_heard() {
    for world in World::both().await {
        let presence = Presence { role: "relay".into(), id: "r1".into(), config: 7, risk: 3 };
        let heard = async {
            loop {
                world.log.announce(presence.clone()).await.unwrap();
                if world.log.presences("relay") == [presence.clone()] {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), heard).await.expect(world.name);
        assert!(world.log.presences("identity").is_empty());
        let linked = |connector: &str| LinkedConnector { connector: connector.into(), ..Default::default() };
        let told = async {
            loop {
                world.log.announce_linked("r.1", vec![linked("a")]).await.unwrap();
                world.log.announce_linked("r.1", vec![linked("b")]).await.unwrap();
                world.log.announce_linked("r.2", vec![linked("b")]).await.unwrap();
                if world.log.linked_connectors() == [linked("b"), linked("b")] {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.expect(world.name);
        assert_eq!(world.log.presences("relay"), [presence], "a relay's links are no relay");
    }
}

#[tokio::test]
async fn the_embedded_log_survives_its_process() {
    let folder = Folder::new();
    {
        let world = World::embedded(&folder);
        world.append(["a", "b", "a"], None).await.unwrap();
    }
    let world = World::embedded(&folder);
    assert_eq!(world.read(0).await, ["1 a", "2 b", "3 a"]);
    assert_eq!(world.append(["c"], Some(3)).await.unwrap(), 4);
}

#[tokio::test]
async fn two_processes_cannot_hold_one_file() {
    let folder = Folder::new();
    let _first = World::embedded(&folder);
    assert!(EventLog::open(&folder.0.join("log.db")).is_err());
}

#[tokio::test]
async fn what_is_appended_is_folded_by_every_reader() {
    for world in World::both().await {
        let projection = world.projection().await;
        let journal = Journal::new(world.log.clone(), world.signer.clone());
        let group = |name: &str| {
            Event::put(ConnectorGroup {
                id: ConnectorGroupId(Uuid::from_u128(1)),
                name: model::text::Name::parse(name).unwrap(),
                labels: Default::default(),
            })
        };
        for (n, name) in ["one", "two", "three"].into_iter().enumerate() {
            let drafts = [draft(group(name))];
            let position = journal.append(Stream::Config, &drafts, projection.chain(), n as u64).await.unwrap();
            projection.reach(Stream::Config, position).await;
        }
        let late = world.projection().await;
        assert_eq!(late.snapshot(), projection.snapshot(), "{}", world.name);
        assert_eq!(late.snapshot().config, 3);
        assert!(late.view().quarantine.is_none());
        let chain = late.chain().lock().unwrap().next(Stream::Config, &draft_subject(&group("x"))).0;
        assert_eq!(chain, 4, "{}: a reader that starts late knows the version", world.name);
    }
}

#[tokio::test]
async fn a_reader_starts_from_its_mirror_when_the_log_is_away() {
    let folder = Folder::new();
    let mirror = folder.0.join("mirror.db");
    let nats = Nats::start().await;
    let world = World::jetstream(&nats).await;
    let journal = Journal::new(world.log.clone(), world.signer.clone());
    let online = Projection::start(world.log.clone(), &[Stream::Config], world.trust(), Some(&mirror)).await.unwrap();
    for n in 0..3 {
        let event =
            Event::put(TenantSettings { domain: format!("d{n}.example.com"), public_port: 443, relays: vec![] });
        let position = journal.append(Stream::Config, &[draft(event)], online.chain(), n).await.unwrap();
        online.reach(Stream::Config, position).await;
    }
    let snapshot = online.snapshot();
    wait_until(|| EventLog::open(&mirror).is_err() && mirrored(&mirror) == 3).await;
    drop(online);
    drop(nats);
    wait_until(|| EventLog::open(&mirror).is_ok()).await;
    let offline = Projection::start(world.log.clone(), &[Stream::Config], world.trust(), Some(&mirror)).await.unwrap();
    assert_eq!(offline.snapshot(), snapshot);
    assert!(offline.view().age() > Duration::from_secs(300), "a mirror does not count as fresh");
}

// ---------------------------------------------------------------- helpers

fn mirrored(path: &std::path::Path) -> u64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .query_row("SELECT max(position) FROM heads", [], |row| row.get::<_, Option<u64>>(0))
        .unwrap()
        .unwrap_or(0)
}

async fn wait_until(mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("the state never came");
}

#[derive(Clone)]
struct World {
    name: &'static str,
    log: EventLog,
    signer: Arc<Signer>,
    _life: Arc<Life>,
}

#[expect(dead_code, reason = "held, never read")]
enum Life {
    Folder(Folder),
    Borrowed,
    Nats(Nats),
}

impl World {
    async fn both() -> [Self; 2] {
        let folder = Folder::new();
        let mut embedded = Self::embedded(&folder);
        embedded._life = Arc::new(Life::Folder(folder));
        let nats = Nats::start().await;
        let mut jetstream = Self::jetstream(&nats).await;
        jetstream._life = Arc::new(Life::Nats(nats));
        [embedded, jetstream]
    }

    fn embedded(folder: &Folder) -> Self {
        Self::over("embedded", EventLog::open(&folder.0.join("log.db")).unwrap())
    }

    async fn jetstream(nats: &Nats) -> Self {
        let settings = jetstream::Settings { url: nats.url.clone(), create: true, ..Default::default() };
        Self::over("jetstream", EventLog::connect(&settings).await.unwrap())
    }

    fn over(name: &'static str, log: EventLog) -> Self {
        let signer = Arc::new(Signer::new(Ed25519KeyPair::generate().unwrap()));
        Self { name, log, signer, _life: Arc::new(Life::Borrowed) }
    }

    fn trust(&self) -> Verifier {
        Verifier::trusting([self.signer.public_key().to_vec()])
    }

    async fn projection(&self) -> Projection {
        Projection::start(self.log.clone(), &Stream::STATE, self.trust(), None).await.unwrap()
    }

    async fn append<S: Into<String>>(
        &self,
        names: impl IntoIterator<Item = S>,
        expected: Option<Position>,
    ) -> Result<Position, AppendError> {
        let append = |name: String| Append { subject: subject(&name), bytes: name.into_bytes().into() };
        let events = names.into_iter().map(|name| append(name.into())).collect();
        self.log.append(Stream::Config, events, expected).await
    }

    async fn latest(&self) -> (Vec<String>, Position) {
        let mut latest = self.log.latest(Stream::Config).await.unwrap();
        let mut found = Vec::new();
        while let Some(part) = latest.next().await.unwrap() {
            found.extend(part.iter().map(show));
        }
        (found, latest.position())
    }

    async fn read(&self, after: Position) -> Vec<String> {
        self.log.read(Stream::Config, after).await.unwrap().iter().map(show).collect()
    }
}

fn show(entry: &Entry) -> String {
    format!("{} {}", entry.position, String::from_utf8_lossy(&entry.bytes))
}

fn subject(name: &str) -> String {
    format!("postern.config.default.test.{name}")
}

fn draft(event: Event) -> UnsignedEvent {
    UnsignedEvent {
        id: Uuid::now_v7(),
        tenant: TenantId::default_tenant(),
        time: Timestamp(1),
        actor: "system".into(),
        cause: "test".into(),
        fact: Fact::State(event),
    }
}

fn draft_subject(event: &Event) -> String {
    event.subject().path(&TenantId::default_tenant())
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("postern-eventlog-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// A real nats-server of this test's own.
struct Nats {
    process: Child,
    url: String,
    folder: Folder,
}

impl Nats {
    async fn start() -> Self {
        Self::with(0, |_| String::new()).await
    }

    /// With so many bytes for all streams.
    async fn with_store(bytes: u64) -> Self {
        Self::with(bytes, |_| String::new()).await
    }

    /// Each role may do what it should be allowed, and `everything` all.
    async fn with_roles(roles: &[&str]) -> Self {
        let user = |role: &str, folder: &Folder, permissions: String| {
            let key = nkeys::KeyPair::new_user();
            std::fs::write(folder.0.join(role), key.seed().unwrap()).unwrap();
            format!("{{ nkey: {}{permissions} }}\n", key.public_key())
        };
        Self::with(0, |folder| {
            let restricted = |role: &&str| {
                let jetstream::Permissions { publish, subscribe } = jetstream::permissions(role);
                let permissions = format!(
                    ", permissions: {{ publish: {{ allow: {publish:?} }}, subscribe: {{ allow: {subscribe:?} }} }}"
                );
                user(role, folder, permissions)
            };
            let users: String = roles.iter().map(restricted).collect();
            format!("authorization {{ users: [\n{users}{}] }}\n", user("everything", folder, String::new()))
        })
        .await
    }

    /// 0 bytes are what the server chooses.
    async fn with(store_bytes: u64, more: impl Fn(&Folder) -> String) -> Self {
        let binary = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.tools/py/bin/nats-server");
        let folder = Folder::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.0.join("nats.conf");
        let limit = if store_bytes > 0 { format!("max_file_store: {store_bytes}") } else { String::new() };
        let jetstream = format!("jetstream {{ store_dir: {:?}\n{limit} }}\n", folder.0);
        std::fs::write(&config, jetstream + &more(&folder)).unwrap();
        let process = Command::new(binary)
            .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is missing: run tests/run once, it installs what tests need");
        wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        Self { process, url: format!("nats://127.0.0.1:{port}"), folder }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    async fn client(&self, role: &str) -> async_nats::Client {
        let seed = std::fs::read_to_string(self.folder.0.join(role)).unwrap();
        let options = async_nats::ConnectOptions::with_nkey(seed).custom_inbox_prefix(format!("_INBOX_{role}"));
        options.connect(&self.url).await.unwrap()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _stopped = self.process.kill();
        let _reaped = self.process.wait();
    }
}
