//! How soon a change reaches who is concerned, and whom it leaves alone.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::{SinkExt, StreamExt, future::join_all};
use postern_tests::{
    browser::Browser,
    cluster::{Cluster, start_role},
    origin::Origin,
    processes::{Running, free_port},
    until,
    world::{PASSWORD, WebSocket, app, applied, web_socket},
};
use proto::v1;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::Message;

const SOCKETS: usize = 100;
/// A second for the fresh token that does not come, and one for a busy machine.
/// Asked for one after the other, they took more than three minutes.
const CUT_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test]
async fn with_identity_away_a_changed_user_keeps_no_web_socket() {
    let cluster = Cluster::start().await;
    let origin = Origin::start().await;
    let alice = alice(&cluster, &origin).await;
    let url = cluster.url(0, "wiki", "/ws");
    let mut sockets = join_all((0..SOCKETS).map(|_| web_socket(&alice, &url))).await;
    for socket in &mut sockets {
        assert!(echoes(socket).await);
    }

    // While identity answers, a change of theirs leaves them what they may have.
    cluster.admin.create(applied(), "group", json!({ "name": "staff" })).await.unwrap();
    cluster.admin.put(applied(), "membership", membership()).await.unwrap();
    for socket in &mut sockets {
        assert!(echoes(socket).await, "the fresh token passes");
    }

    // Frozen: whatever it is asked, it says nothing.
    signal(&cluster.identity, "STOP");
    let mut script = alice.as_script();
    let page = cluster.url(0, "wiki", "/");
    assert_eq!(script.get(&page).await.status, 200, "nobody needs identity for what is known");
    cluster.admin.remove(applied(), "membership", membership()).await.unwrap();
    let changed = Instant::now();
    let cut = sockets.iter_mut().map(|socket| async {
        while let Some(Ok(_)) = socket.next().await {}
        changed.elapsed()
    });
    let last = join_all(cut).await.into_iter().max().unwrap();
    assert!(last < CUT_WITHIN, "the last one was open for {last:?}");
    // New requests of theirs do not queue behind it.
    let asked = Instant::now();
    let answers = join_all((0..SOCKETS).map(|_| {
        let (mut script, page) = (script.clone(), page.clone());
        async move { script.get(&page).await }
    }));
    for answer in answers.await {
        assert_eq!((answer.status.as_u16(), answer.refusal()), (503, "sign_in_unavailable"));
    }
    assert!(asked.elapsed() < CUT_WITHIN, "{:?}", asked.elapsed());

    signal(&cluster.identity, "CONT");
    until("identity is back", async || (script.get(&page).await.status == 200).then_some(())).await;
    assert!(echoes(&mut web_socket(&script, &url).await).await);
}

#[tokio::test]
async fn connectors_follow_relays_that_come_and_go() {
    let mut cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.publish(v1::App { pre_authentication: 1, ..app("open", &origin.url()) }).await;
    let mut anyone = cluster.browser().as_script();
    let page = |port: u16, path: &str| format!("https://open.postern.localhost:{port}{path}");
    let [stays, goes] = [cluster.relay_ports[0], cluster.relay_ports[1]];
    assert_eq!(anyone.get(&page(goes, "/")).await.status, 200);

    // A third relay is there, and the controllers are told: it comes, the second goes.
    let comes = free_port();
    let own = format!("[relay]\nlisten = \"127.0.0.1:{comes}\"\n");
    let mut third = start_role(&cluster.folder, "relay", "relay-2", &cluster.nats_url, &own);
    third.line(|line| line.contains("relay listens").then_some(())).await;
    let unknown = anyone.get(&page(comes, "/")).await;
    assert_eq!(unknown.refusal(), "no_connector", "nobody has told the connectors");
    let mut slow = {
        let (mut anyone, slow) = (anyone.clone(), page(goes, "/slow?3000"));
        let before = origin.requests.load(Ordering::SeqCst);
        let mut slow_one = JoinSet::new();
        slow_one.spawn(async move { anyone.get(&slow).await });
        until("it is with the application", async || (origin.requests.load(Ordering::SeqCst) > before).then_some(()))
            .await;
        slow_one
    };
    move_relays(&mut cluster, &[stays, comes]).await;
    until("the new relay serves", async || (anyone.get(&page(comes, "/")).await.status == 200).then_some(())).await;
    until("the old one has no links", async || {
        (anyone.get(&page(goes, "/")).await.refusal() == "no_connector").then_some(())
    })
    .await;
    assert_eq!(slow.join_next().await.unwrap().unwrap().status, 200, "what was open went on to its end");
    assert_eq!(anyone.get(&page(stays, "/")).await.status, 200);

    // A mistake strands nobody: nothing listens there.
    move_relays(&mut cluster, &[free_port()]).await;
    for connector in &mut cluster.connectors {
        connector.line(|line| line.contains("no relay of the new list").then_some(())).await;
    }
    for port in [stays, comes] {
        assert_eq!(anyone.get(&page(port, "/")).await.status, 200);
    }
    // Nor does it after a restart, and the mistake can be mended.
    cluster.connectors[0].kill();
    cluster.connectors[0] = cluster.restart_connector(0);
    cluster.connectors[0].line(|line| line.contains("link up").then_some(())).await;
    move_relays(&mut cluster, &[comes]).await;
    until("the first has no links either", async || {
        (anyone.get(&page(stays, "/")).await.refusal() == "no_connector").then_some(())
    })
    .await;
    assert_eq!(anyone.get(&page(comes, "/")).await.status, 200);
}

/// The controllers start again with other addresses, one after the other.
async fn move_relays(cluster: &mut Cluster, ports: &[u16]) {
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    for n in 0..cluster.controllers.len() {
        let path = cluster.folder.0.join(format!("controller-{n}.toml"));
        let settings = std::fs::read_to_string(&path).unwrap();
        let change = |line: &str| match line.starts_with("relay_addresses") {
            true => format!("relay_addresses = {addresses:?}"),
            false => line.to_owned(),
        };
        let settings: Vec<String> = settings.lines().map(change).collect();
        std::fs::write(&path, settings.join("\n")).unwrap();
        cluster.controllers[n].kill();
        cluster.controllers[n] = cluster.restart_controller(n);
        cluster.controllers[n].line(|line| line.contains("controller listens").then_some(())).await;
    }
}

/// Somebody who has signed in at the wiki.
async fn alice(cluster: &Cluster, origin: &Origin) -> Browser {
    cluster.user("alice").await;
    cluster.publish(app("wiki", &origin.url())).await;
    let mut alice = cluster.browser();
    let answer = alice.sign_in(&cluster.url(0, "wiki", "/"), "alice", PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    alice
}

fn membership() -> Value {
    json!({ "group": "staff", "member": "user:alice" })
}

async fn echoes(socket: &mut WebSocket) -> bool {
    let sent = Message::text("are you there?");
    let answer = async {
        socket.send(sent.clone()).await.ok()?;
        socket.next().await?.ok()
    };
    timeout(Duration::from_secs(5), answer).await.is_ok_and(|it| it == Some(sent))
}

fn signal(process: &Running, name: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &process.child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}
