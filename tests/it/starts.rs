//! First starts: twice at the same moment, killed on the way, and with a log that
//! is gone.

use std::{fs, path::Path};

use postern_tests::{
    browser::Browser,
    cluster::{Cluster, start_role, token},
    origin::Origin,
    processes::{Folder, Running},
    until,
    world::{World, open_app, start_up},
};

const ROUNDS: usize = 10;

#[tokio::test]
async fn roles_that_start_together_on_nothing_are_one_installation() {
    for round in 0..ROUNDS {
        let twins = Cluster::start_twins().await;
        let authorities: Vec<String> = twins.owners().iter().map(|it| it.authority.clone()).collect();
        assert_eq!(authorities[0], authorities[1], "round {round}");
        let passwords = (0..2).filter(|n| twins.controller_state(*n).join("first-owner.txt").exists()).count();
        assert_eq!(passwords, 1, "round {round}: whoever made the owner has the password");
        // What was wrong with it showed when controllers started again.
        let twins = if round % 2 == 0 { twins.restarted().await } else { twins };
        let cluster = twins.joined().await;
        serves(&cluster).await;
        for role in cluster.relays.iter().chain(&cluster.analytics).chain([&cluster.identity]) {
            let said = role.said().join("\n");
            assert!(!said.contains("Permissions Violation"), "round {round}: {said}");
        }
    }
}

async fn serves(cluster: &Cluster) {
    let origin = Origin::start().await;
    cluster.publish(open_app("wiki", &origin.url())).await;
    let mut browser = cluster.browser();
    for relay in 0..2 {
        let url = cluster.url(relay, "wiki", "/");
        until("the application answers", async || (browser.get(&url).await.status == 200).then_some(())).await;
    }
}

#[tokio::test]
async fn of_two_that_start_in_one_folder_the_second_says_that_it_is_in_use() {
    for round in 0..ROUNDS {
        let folder = Folder::default();
        let mut both = [start_up(&folder), start_up(&folder)];
        let ended =
            until("one of both ends", async || both.iter_mut().position(|it| it.child.try_wait().unwrap().is_some()))
                .await;
        let (mut loser, mut winner) = {
            let [first, second] = both;
            if ended == 0 { (first, second) } else { (second, first) }
        };
        assert!(!loser.ended().await.success());
        let said = loser.said().join("\n");
        assert!(said.contains("is in use by another `postern up`"), "round {round}: {said}");
        // And the first serves, as if nothing had been.
        let demo = demo_address(&mut winner).await;
        winner.line(|line| line.contains("postern publish").then_some(())).await;
        let kept = fs::read_to_string(folder.0.join("data/first-owner.txt")).unwrap();
        let password = kept.strip_prefix("username admin\npassword ").unwrap().trim_end();
        let authority = fs::read_to_string(folder.0.join("data/authority.pem")).unwrap();
        let answer = Browser::new(&authority).sign_in(&demo, "admin", password).await;
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
    }
}

async fn demo_address(up: &mut Running) -> String {
    let demo =
        |line: &str| Some(format!("https{}", line.trim().strip_prefix("Demo application")?.split_once("https")?.1));
    up.line(demo).await
}

#[tokio::test]
async fn a_first_start_that_is_killed_leaves_the_password_in_a_file() {
    let folder = Folder::default();
    let data = folder.0.join("data");
    let mut up = start_up(&folder);
    until("the password is on the disk", async || {
        assert!(up.child.try_wait().unwrap().is_none(), "{}", up.said().join("\n"));
        has_password(&data).then_some(())
    })
    .await;
    up.kill();
    assert!(!up.said().iter().any(|line| line.contains("password  ")), "killed too late to tell");

    let mut up = start_up(&folder);
    let url = demo_address(&mut up).await;
    up.line(|line| line.contains("postern publish").then_some(())).await;
    let kept = fs::read_to_string(data.join("first-owner.txt")).unwrap();
    let password = kept.strip_prefix("username admin\npassword ").unwrap().trim_end();
    assert!(up.said().iter().any(|line| line.contains("first-owner.txt")), "it says where the password is");
    let authority = fs::read_to_string(data.join("authority.pem")).unwrap();
    let mut browser = Browser::new(&authority);
    let answer = browser.sign_in(&url, "admin", password).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The file, or the draft of it.
fn has_password(data: &Path) -> bool {
    let Ok(entries) = fs::read_dir(data) else { return false };
    entries.flatten().any(|it| {
        let name = it.file_name().into_string().unwrap();
        name.starts_with("first-owner") && name.ends_with(".txt")
    })
}

#[tokio::test]
async fn a_folder_whose_log_is_gone_is_not_a_new_installation() {
    let mut world = World::start().await;
    world.up.terminate();
    assert!(world.up.ended().await.success());
    let data = world.folder.0.join("data");
    let log = |suffix: &str| data.join(format!("log.db{suffix}"));
    let aside = world.folder.0.join("aside");
    fs::create_dir(&aside).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        if log(suffix).exists() {
            fs::rename(log(suffix), aside.join(format!("log.db{suffix}"))).unwrap();
        }
    }
    // Missing, and there but empty.
    for _ in 0..2 {
        let mut up = start_up(&world.folder);
        assert!(!up.ended().await.success());
        let said = up.said().join("\n");
        assert!(said.contains("log.db is missing or empty") && said.contains("backup"), "{said}");
        assert_eq!(log("").exists(), log("-empty").exists(), "a start that is refused leaves nothing behind");
        fs::write(log(""), "").unwrap();
        fs::write(log("-empty"), "").unwrap();
    }
    // What it says to do helps.
    for suffix in ["", "-wal", "-shm"] {
        let _replaced = fs::remove_file(log(suffix));
        if aside.join(format!("log.db{suffix}")).exists() {
            fs::rename(aside.join(format!("log.db{suffix}")), log(suffix)).unwrap();
        }
    }
    let mut up = start_up(&world.folder);
    up.line(|line| line.contains("postern publish").then_some(())).await;
}

#[tokio::test]
async fn keys_are_made_by_one_process_at_a_time() {
    let folder = Folder::default();
    let keys = folder.0.join("keys");
    runtime::files::private_folder(&keys).unwrap();
    let held = runtime::files::hold_folder(&keys).unwrap();
    assert!(held.is_some());
    let make = || Running::start("postern keys", folder.program("postern").args(["keys", "--out"]).arg(&keys));
    let mut second = make();
    assert!(!second.ended().await.success());
    assert!(second.said().join("\n").contains("another process is making keys"), "{:?}", second.said());
    assert!(!keys.join("controller").exists(), "it has made nothing");
    drop(held);
    assert!(make().ended().await.success());
    assert!(keys.join("controller/trust.json").exists());
}

#[tokio::test]
async fn a_controller_whose_log_is_gone_says_so() {
    let mut cluster = Cluster::start_twins().await;
    for controller in &mut cluster.controllers {
        controller.kill();
    }
    cluster.lose_nats().await;
    let mut controller = cluster.restart_controller(0);
    assert!(!controller.ended().await.success());
    let said = controller.said().join("\n");
    assert!(said.contains("is empty, but a controller has run here before"), "{said}");
    assert!(said.contains("owner.json") && said.contains("backup"), "{said}");
}

#[tokio::test]
async fn every_other_role_that_starts_twice_at_the_same_moment_runs() {
    let cluster = Cluster::start().await;
    for round in 0..ROUNDS {
        let place = |name: &str| cluster.folder.0.join(format!("{name}-{round}"));
        // In a place of their own both run.
        let mut relays = [0, 1].map(|n| {
            let mirror = place(&format!("mirror-{n}"));
            let own = format!("[relay]\nlisten = \"127.0.0.1:0\"\nmirror = {mirror:?}\n");
            start_role(&cluster.folder, "relay", &format!("twin-relay-{n}"), &cluster.nats_url, &own)
        });
        for relay in &mut relays {
            relay.line(|line| line.contains("relay listens").then_some(())).await;
        }
        // In one place one of them does, and the other says why not.
        fs::write(place("token"), token(&cluster.admin, "Postern").await).unwrap();
        let own = format!(
            "[identity]\nsocket = {:?}\nconnector_state = {:?}\njoin_token_file = {:?}\n",
            place("socket"),
            place("state"),
            place("token")
        );
        one_of_two(&cluster, "identity", &own, "link up").await;
        let own = format!("[analytics]\nfile = {:?}\ncursor = {:?}\n", place("lines"), place("cursor"));
        one_of_two(&cluster, "analytics", &own, "analytics follows activity").await;
    }
}

async fn one_of_two(cluster: &Cluster, role: &str, own: &str, runs: &str) {
    let mut both =
        [0, 1].map(|n| start_role(&cluster.folder, role, &format!("twin-{role}-{n}"), &cluster.nats_url, own));
    let ended =
        until("one of both ends", async || both.iter_mut().position(|it| it.child.try_wait().unwrap().is_some())).await;
    assert!(!both[ended].ended().await.success());
    let said = both[ended].said().join("\n");
    assert!(said.contains(&format!("is in use by another `postern {role}`")), "{said}");
    both[1 - ended].line(|line| line.contains(runs).then_some(())).await;
}
