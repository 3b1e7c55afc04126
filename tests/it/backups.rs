//! What is copied comes back, and nothing that was taken away with it.

use std::process::{Command, Output};

use postern_tests::{
    cluster::Cluster,
    origin::Origin,
    processes::{Folder, binary},
    until,
    world::{PASSWORD, World, app},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_in_use_comes_back_and_every_session_ends() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.publish_origin("wiki", &origin).await;
    world.user("alice").await;
    let file = world.folder.0.join("one.backup");
    // Somebody changes things all the while.
    let changes = async {
        for n in 0..40 {
            world.user(&format!("u{n}")).await;
        }
    };
    let copy = async { tokio::task::block_in_place(|| postern(&world.folder, "backup", &file, &[])) };
    let ((), output) = tokio::join!(changes, copy);
    assert!(said(&output).contains("is whole") && said(&output).contains("keys"), "{}", said(&output));
    assert!(!said(&postern(&world.folder, "backup", &file, &[])).contains("is whole"), "it is never written over");

    // After the backup: somebody signs in, somebody is made, the log is lost.
    let alice = world.signed_in("wiki", "alice").await;
    world.user("late").await;
    let running = postern(&world.folder, "restore", &file, &[]);
    assert!(said(&running).contains("stop it first"), "{}", said(&running));
    let url = |world: &World| world.url("wiki", "/");
    let world = world
        .restart_after(|folder| {
            let there = postern(folder, "restore", &file, &[]);
            assert!(said(&there).contains("away first"), "{}", said(&there));
            for name in ["log.db", "log.db-wal", "log.db-shm"] {
                let _none = std::fs::rename(folder.0.join("data").join(name), folder.0.join(name));
            }
            let restored = postern(folder, "restore", &file, &[]);
            assert!(restored.status.success() && said(&restored).contains("Restored"), "{}", said(&restored));
        })
        .await;
    // The port is another one now; what alice's browser holds is of the old one.
    assert_ne!(alice.as_script().get(&url(&world)).await.status, 200, "sessions of before are over");
    let mut alice = world.signed_in("wiki", "alice").await;
    assert_eq!(alice.get(&url(&world)).await.status, 200);
    assert!(world.admin.object("user", "late").await.is_err(), "made after the backup");
    // And it is used again: a change, a restart, another backup.
    world.user("again").await;
    let world = world.restart().await;
    let two = world.folder.0.join("two.backup");
    assert!(postern(&world.folder, "backup", &two, &[]).status.success());
    world.signed_in("wiki", "alice").await;
}

#[tokio::test]
async fn a_backup_with_anything_left_out_or_changed_is_refused() {
    let world = World::start().await;
    for n in 0..3 {
        world.user(&format!("u{n}")).await;
    }
    let file = world.folder.0.join("one.backup");
    assert!(postern(&world.folder, "backup", &file, &[]).status.success());
    assert!(postern(&world.folder, "restore", &file, &["--check"]).status.success());
    let whole = std::fs::read(&file).unwrap();
    let other_kind = replaced(&whole, b"user.put", b"role.put");
    let other_user = replaced(&whole, b"u2", b"u9");
    for (what, bytes) in [("a kind", other_kind), ("a name", other_user), ("half", whole[..whole.len() / 2].to_vec())] {
        let damaged = world.folder.0.join("damaged.backup");
        std::fs::write(&damaged, bytes).unwrap();
        let output = postern(&world.folder, "restore", &damaged, &["--check"]);
        assert!(!output.status.success(), "{what}: {}", said(&output));
    }
    let stranger = World::start().await;
    let output = postern(&stranger.folder, "restore", &file, &["--check"]);
    assert!(!output.status.success(), "the keys of another installation: {}", said(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_everything_gets_it_back() {
    let mut cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.user("alice").await;
    cluster.publish(app("wiki", &origin.url())).await;
    let file = cluster.folder.0.join("one.backup");
    let settings = cluster.folder.0.join("controller-0.toml");
    let settings = ["--settings", settings.to_str().unwrap()];
    let copied = postern(&cluster.folder, "backup", &file, &settings);
    assert!(copied.status.success(), "{}", said(&copied));
    let url = cluster.url(0, "wiki", "/");
    let mut alice = cluster.browser();
    assert_eq!(alice.sign_in(&url, "alice", PASSWORD).await.status, 200);

    for controller in &mut cluster.controllers {
        controller.kill();
    }
    cluster.nats.kill();
    std::fs::remove_dir_all(cluster.folder.0.join("jetstream")).unwrap();
    cluster.restart_nats().await;
    let restored = postern(&cluster.folder, "restore", &file, &settings);
    assert!(restored.status.success(), "{}", said(&restored));

    // Every role is started again, as it says.
    let mut controller = Command::new(binary("postern"));
    controller.args(["controller"]).args(settings);
    let mut controller = postern_tests::processes::Running::start("controller again", &mut controller);
    controller.line(|line| line.contains("controller listens").then_some(())).await;
    cluster.relays[0].kill();
    cluster.relays[0] = cluster.restart_relay(0);
    cluster.relays[0].line(|line| line.contains("relay listens").then_some(())).await;
    let mut identity = Command::new(binary("postern"));
    identity.args(["identity", "--settings"]).arg(cluster.folder.0.join("identity.toml"));
    cluster.identity.terminate();
    cluster.identity.ended().await;
    cluster.identity = postern_tests::processes::Running::start("identity again", &mut identity);
    assert_ne!(alice.as_script().get(&url).await.status, 200, "sessions of before are over");
    until("alice signs in again", async || {
        let answer = cluster.browser().sign_in(&url, "alice", PASSWORD).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

// ---------------------------------------------------------------- helpers

fn postern(folder: &Folder, what: &str, file: &std::path::Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary("postern"));
    command.arg(what).arg(file).args(more);
    if !more.contains(&"--settings") {
        command.arg("--data").arg(folder.0.join("data"));
    }
    command.output().unwrap()
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let found: Vec<usize> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!found.is_empty());
    found.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
    bytes
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
