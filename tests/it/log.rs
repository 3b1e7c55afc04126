//! Nobody lets a revoked user in again by what they do to the log.

use std::{fs, process::ExitStatus};

use postern_tests::{
    browser::Browser,
    cluster::Cluster,
    origin::Origin,
    processes::Running,
    until,
    world::{World, app, start_up},
};
use proto::v1;
use rusqlite::Connection;

/// Numbers of streams in the file.
const RISK: i64 = 2;

#[tokio::test]
async fn a_revocation_deleted_from_the_file_keeps_the_proxy_from_starting() {
    let (mut world, mut alice, _origin) = revoked().await;
    stop(&mut world).await;
    let file = world.folder.0.join("data/log.db");
    let whole = read_log(&world);
    {
        let file = Connection::open(&file).unwrap();
        for table in ["events", "latest"] {
            let deleted = file.execute(&format!("DELETE FROM {table} WHERE stream = ?"), [RISK]).unwrap();
            assert!(deleted > 0);
        }
        // Even where the file says that the stream ends is put back.
        file.execute("DELETE FROM heads WHERE stream = ?", [RISK]).unwrap();
    }
    let (status, said) = refused_start(&world).await;
    assert!(!status.success());
    assert!(said.contains("of risk") && said.contains("log-memory.db"), "says what, and what to remove: {said}");

    write_log(&world, whole);
    let world = world.start_again().await;
    assert!(!served(&world, &mut alice).await, "the revocation is still there");
    world.signed_in("wiki", "alice").await;
}

#[tokio::test]
async fn an_older_log_keeps_the_proxy_from_starting() {
    let origin = Origin::start().await;
    let mut world = World::start().await;
    world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    let mut alice = world.signed_in("wiki", "alice").await;
    stop(&mut world).await;
    let older = read_log(&world);
    let mut world = world.start_again().await;
    world.revoke_session("alice").await;
    stop(&mut world).await;
    let newest = read_log(&world);

    write_log(&world, older);
    let (status, said) = refused_start(&world).await;
    assert!(!status.success());
    assert!(said.contains("before") && said.contains("postern restore"), "{said}");

    write_log(&world, newest);
    let world = world.start_again().await;
    assert!(!served(&world, &mut alice).await, "the revocation is still there");
    world.signed_in("wiki", "alice").await;
}

#[tokio::test]
async fn accesses_while_the_broker_is_frozen_are_recorded_once_and_none_is_called_dropped() {
    let mut cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.publish(v1::App { pre_authentication: 1, ..app("open", &origin.url()) }).await;
    let mut anyone = cluster.browser().as_script();
    assert_eq!(anyone.get(&cluster.url(0, "open", "/before")).await.status, 200);
    signal(&cluster.nats, "STOP");
    for _ in 0..20 {
        assert_eq!(anyone.get(&cluster.url(0, "open", "/frozen")).await.status, 200, "a user never waits for the log");
    }
    cluster.relays[0].line(|line| line.contains("activity is sent again").then_some(())).await;
    signal(&cluster.nats, "CONT");
    assert_eq!(anyone.get(&cluster.url(0, "open", "/after")).await.status, 200);
    let exported = cluster.folder.0.join("activity.jsonl");
    let recorded = until("the last access is exported", async || {
        let text = fs::read_to_string(&exported).unwrap_or_default();
        text.contains("/after").then_some(text)
    })
    .await;
    let frozen = recorded.lines().filter(|line| line.contains("/frozen")).count();
    assert_eq!(frozen, 20, "each once");
    assert!(!recorded.contains("dropped"), "nothing was dropped: {recorded}");
}

fn signal(process: &Running, name: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &process.child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

// ---------------------------------------------------------------- helpers

/// Alice has signed in, and her session was revoked.
async fn revoked() -> (World, Browser, Origin) {
    let origin = Origin::start().await;
    let world = World::start().await;
    world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    let mut alice = world.signed_in("wiki", "alice").await;
    assert!(served(&world, &mut alice).await);
    world.revoke_session("alice").await;
    assert!(!served(&world, &mut alice).await);
    (world, alice, origin)
}

async fn served(world: &World, browser: &mut Browser) -> bool {
    let answer = browser.get(&world.url("wiki", "/")).await;
    assert!([200, 303].contains(&answer.status.as_u16()), "{}", answer.text());
    answer.status == 200
}

async fn stop(world: &mut World) {
    world.up.terminate();
    assert!(world.up.ended().await.success());
}

/// The log's file and the one beside it that SQLite has not moved into it yet.
const LOG_FILES: [&str; 2] = ["data/log.db", "data/log.db-wal"];

fn read_log(world: &World) -> [Option<Vec<u8>>; 2] {
    LOG_FILES.map(|file| fs::read(world.folder.0.join(file)).ok())
}

fn write_log(world: &World, log: [Option<Vec<u8>>; 2]) {
    for (file, bytes) in LOG_FILES.into_iter().zip(log) {
        let path = world.folder.0.join(file);
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => _ = fs::remove_file(path),
        }
    }
}

async fn refused_start(world: &World) -> (ExitStatus, String) {
    let mut up: Running = start_up(&world.folder);
    let status = up.ended().await;
    let said = until("it says why", async || {
        let said = up.said().join("\n");
        said.contains("error:").then_some(said)
    });
    (status, said.await)
}
