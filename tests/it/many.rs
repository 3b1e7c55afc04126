//! The same stories with every role as a process of its own over NATS, and what
//! happens when one of them is gone.

use std::{sync::atomic::Ordering, time::Duration};

use eventlog::{Append, EventLog, jetstream};
use futures_util::StreamExt;
use model::event::Stream;
use postern_tests::{
    cluster::Cluster,
    origin::Origin,
    processes::Running,
    until,
    world::{PASSWORD, app, applied},
};
use proto::v1;
use serde_json::json;

use crate::sign_in::{code, secret_shown};

#[tokio::test]
async fn many_processes_are_one_installation() {
    let mut cluster = Cluster::start().await;
    let origin = Origin::start().await;
    let alice_id = cluster.user("alice").await.id;
    let published = cluster.publish(app("wiki", &origin.url())).await;

    // One sign-in, both relays.
    let mut alice = cluster.browser();
    let answer = alice.sign_in(&cluster.url(0, "wiki", "/a"), "alice", PASSWORD).await;
    assert_eq!(answer.json()["path"], "/a");
    assert_eq!(alice.get(&cluster.url(1, "wiki", "/b")).await.json()["path"], "/b", "relays keep no session");

    // A connector goes: nobody notices for long.
    cluster.connectors[0].terminate();
    for n in 0..50 {
        let answer = alice.get(&cluster.url(n % 2, "wiki", "/")).await;
        assert_eq!(answer.status, 200, "request {n} during a drain: {}", answer.refusal());
    }
    assert!(cluster.connectors[0].ended().await.success());

    // Both controllers go, then the broker: traffic does not notice.
    for controller in &mut cluster.controllers {
        controller.kill();
    }
    cluster.nats.kill();
    for n in 0..10 {
        assert_eq!(alice.get(&cluster.url(n % 2, "wiki", "/")).await.status, 200);
    }

    // One relay goes as well; what it knew is in its mirror (how a reader starts
    // from one is a story of the event log).
    cluster.relays[1].kill();
    assert!(cluster.folder.0.join("relay-1.db").exists());

    // All come back; what was true is true, and a change reaches the relay.
    cluster.restart_nats().await;
    let controller = |n: usize| {
        let mut command = std::process::Command::new(postern_tests::processes::binary("postern"));
        command.args(["controller", "--settings"]).arg(cluster.folder.0.join(format!("controller-{n}.toml")));
        postern_tests::processes::Running::start("controller again", &mut command)
    };
    let mut again = controller(0);
    again.line(|line| line.contains("controller listens").then_some(())).await;
    let (_, credential) =
        admin_client::Credential::find(Some(&cluster.folder.0.join("keys-controller-0/owner.json"))).unwrap();
    let admin = admin_client::Admin::connect(&credential).await.unwrap();
    let mut socket_owner = alice.clone();
    let mut events = socket_owner
        .send(http::Method::GET, &url::Url::parse(&cluster.url(0, "wiki", "/sse")).unwrap(), &[], Default::default())
        .await
        .into_body();
    let request = v1::RevokeUserSessionsRequest { change: None, user: alice_id };
    admin.sessions().revoke_user(request).await.unwrap();
    use http_body_util::BodyExt;
    until("the open stream is cut", async || events.frame().await.is_none_or(|it| it.is_err()).then_some(())).await;
    assert_eq!(alice.as_script().get(&cluster.url(0, "wiki", "/")).await.status, 401);
    assert!(origin.requests.load(Ordering::SeqCst) > 50);

    // Analytics wrote what happened, once the log was there.
    let lines = until("accesses are exported", async || {
        let text = std::fs::read_to_string(cluster.folder.0.join("activity.jsonl")).unwrap_or_default();
        (text.contains(&published.id) && text.contains("\"class_uid\":3002")).then_some(text)
    })
    .await;
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[tokio::test]
async fn a_stolen_relay_credential_publishes_nothing() {
    let cluster = Cluster::start().await;
    let connect_as = |role: &str, inbox: &str| {
        let settings = jetstream::Settings {
            inbox: inbox.into(),
            url: cluster.nats_url.clone(),
            nkey: Some(cluster.folder.0.join("keys").join(role).join("nats.nk")),
            ca: Some(cluster.folder.0.join("nats-ca.pem")),
            certificate: Some(("nats-client.pem", "nats-client.key"))
                .map(|(a, b)| (cluster.folder.0.join(a), cluster.folder.0.join(b))),
            ..Default::default()
        };
        async move { EventLog::connect(&settings).await.unwrap() }
    };
    let connect = |role: &str| connect_as(role, role);
    let head = connect("controller").await.head(Stream::Config).await.unwrap();
    let evil = |stream: &str| Append { subject: format!("postern.{stream}.default.app.1"), bytes: "x".into() };
    let mut attempts = Vec::new();
    for role in ["relay", "identity", "analytics"] {
        let log = connect(role).await;
        for stream in [Stream::Config, Stream::Directory, Stream::Risk] {
            let (log, event) = (log.clone(), evil(stream.name()));
            // The broker does not answer what it refuses, so each takes its time-out.
            attempts.push(async move { (role, stream, log.append(stream, vec![event], None).await.is_ok()) });
        }
    }
    for (role, stream, written) in futures_util::future::join_all(attempts).await {
        assert!(!written, "{role} wrote to {}", stream.name());
    }
    let relay = connect("relay").await;
    assert!(relay.head(Stream::Directory).await.is_err(), "a relay does not read the directory");
    assert!(relay.head(Stream::Config).await.is_ok());
    let listening = connect_as("relay", "identity").await;
    assert!(listening.head(Stream::Config).await.is_err(), "nor does it hear what identity is answered");
    assert_eq!(connect("controller").await.head(Stream::Config).await.unwrap(), head, "nothing was written");
    // A key of ours without a certificate, and a certificate without a key, come to nothing.
    for (nkey, certificate) in [(true, false), (false, true)] {
        let stranger = jetstream::Settings {
            url: cluster.nats_url.clone(),
            ca: Some(cluster.folder.0.join("nats-ca.pem")),
            nkey: nkey.then(|| cluster.folder.0.join("keys/controller/nats.nk")),
            certificate: certificate
                .then(|| (cluster.folder.0.join("nats-client.pem"), cluster.folder.0.join("nats-client.key"))),
            ..Default::default()
        };
        if let Ok(stranger) = EventLog::connect(&stranger).await {
            assert!(stranger.head(Stream::Config).await.is_err(), "a stranger reads nothing");
        }
    }
}

#[tokio::test]
async fn a_relay_drains_without_failing_a_request() {
    let mut cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.publish(v1::App { pre_authentication: 1, ..app("open", &origin.url()) }).await;
    let browser = cluster.browser();
    let url = cluster.url(1, "open", "/slow?300");
    let mut running = futures_util::stream::FuturesUnordered::new();
    for _ in 0..20 {
        let (mut browser, url) = (browser.clone(), url.clone());
        running.push(async move { browser.get(&url).await });
    }
    until("all are with the application", async || {
        tokio::select! {
            answer = running.next() => panic!("too early: {answer:?}"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        (origin.requests.load(Ordering::SeqCst) >= 20).then_some(())
    })
    .await;
    cluster.relays[1].terminate();
    while let Some(answer) = running.next().await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(cluster.relays[1].ended().await.success());
    let mut other = cluster.browser();
    assert_eq!(other.get(&cluster.url(0, "open", "/")).await.status, 200);
}

#[tokio::test]
async fn a_relay_starts_without_the_log_from_what_it_knew() {
    let mut cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.publish(v1::App { pre_authentication: 1, serve_when_stale: true, ..app("sturdy", &origin.url()) }).await;
    cluster.publish(v1::App { pre_authentication: 1, ..app("strict", &origin.url()) }).await;
    let mut anyone = cluster.browser().as_script();
    let sturdy = cluster.url(1, "sturdy", "/");
    assert_eq!(anyone.get(&sturdy).await.status, 200);
    cluster.nats.kill();
    cluster.relays[1].kill();
    let mut again = cluster.restart_relay(1);
    again.line(|line| line.contains("relay listens").then_some(())).await;
    until("connectors find it", async || (anyone.get(&sturdy).await.status == 200).then_some(())).await;
    let strict = cluster.url(1, "strict", "/");
    let refused = anyone.get(&strict).await;
    assert_eq!((refused.status.as_u16(), refused.refusal()), (503, "configuration_stale"));

    // The log is back: everything is served, and nobody restarted the relay.
    cluster.restart_nats().await;
    until("it is fresh again", async || (anyone.get(&strict).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_found() {
    let cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.publish(v1::App { pre_authentication: 1, ..app("open", &origin.url()) }).await;
    let browser = cluster.browser();
    let url = cluster.url(0, "open", "/");
    // Frozen, not closed: no packet says that anything happened.
    signal(&cluster.connectors[0], "STOP");
    let started = tokio::time::Instant::now();
    let asked = (0..20).map(|_| {
        let (mut browser, url) = (browser.clone(), url.clone());
        async move { browser.get(&url).await }
    });
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.status, 200, "the other connector answers: {}", answer.refusal());
    }
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    // And the other way round.
    signal(&cluster.connectors[0], "CONT");
    let mut other = cluster.connectors.into_iter().nth(1).unwrap();
    signal(&cluster.relays[1], "STOP");
    let started = tokio::time::Instant::now();
    other.line(|line| line.contains("link lost").then_some(())).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    signal(&cluster.relays[1], "CONT");
}

fn signal(process: &Running, name: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &process.child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[tokio::test]
async fn a_connector_drains_without_failing_a_request() {
    let mut cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.publish(v1::App { pre_authentication: 1, ..app("open", &origin.url()) }).await;
    let browser = cluster.browser();
    let ask = |path: &str| {
        let (mut browser, url) = (browser.clone(), cluster.url(0, "open", path));
        async move { browser.get(&url).await }
    };
    let slow = futures_util::future::join_all((0..40).map(|_| ask("/slow?1500")));
    let mut slow = std::pin::pin!(slow);
    let with_application = until("all are with the application", async || {
        tokio::select! {
            _ = &mut slow => panic!("too early"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        (origin.requests.load(Ordering::SeqCst) >= 40).then_some(())
    });
    with_application.await;
    cluster.connectors[0].terminate();
    // New requests while it drains, long ones to their end.
    let (answers, new) = tokio::join!(slow, async {
        let mut new = Vec::new();
        for _ in 0..50 {
            new.push(ask("/").await);
        }
        new
    });
    for answer in answers.into_iter().chain(new) {
        assert_eq!(answer.status, 200, "{}", answer.refusal());
    }
    assert!(cluster.connectors[0].ended().await.success());
}

#[tokio::test]
async fn a_write_without_an_answer_can_be_sent_again() {
    let mut cluster = Cluster::start().await;
    let cluster_admin = cluster.admin.clone();
    cluster.nats.kill();
    let change = Some(v1::Change { request_id: "change-4711".into(), ..Default::default() });
    let create = || cluster_admin.create(change.clone(), "connector-group", json!({ "name": "branch" }));
    let started = tokio::time::Instant::now();
    let refused = create().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("same request_id"), "{}", refused.message());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());

    cluster.restart_nats().await;
    let created = until("the log is back", async || create().await.ok()).await;
    let repeated = create().await.unwrap();
    assert_eq!(created.objects[0].key, repeated.objects[0].key);
    let list: Vec<v1::ConnectorGroup> = cluster.admin.read_all("connector-group").await.unwrap();
    assert_eq!(list.iter().filter(|it| it.name == "branch").count(), 1, "once, however often it was sent");
}

#[tokio::test]
async fn a_second_factor_that_cannot_be_saved_is_our_fault_and_not_the_users() {
    let mut cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.user("alice").await;
    let app = cluster.publish(app("vault", &origin.url())).await;
    let policy = json!({ "name": "vault-mfa", "apps": [app.name], "require": ["mfa"] });
    cluster.admin.put(applied(), "policy", policy).await.unwrap();
    let mut alice = cluster.browser();
    let page = alice.sign_in(&cluster.url(0, "vault", "/x"), "alice", PASSWORD).await;
    let (secret, action) = (secret_shown(&page.text()), page.url.join("/code").unwrap());

    for controller in &mut cluster.controllers {
        controller.kill();
    }
    let mut page = page;
    // More often than a wrong code may be typed.
    for _ in 0..7 {
        page = alice.form(&action, &[("flow", &page.field("flow")), ("code", &code(&secret, 0))]).await;
        assert_eq!(page.status, 503);
        assert!(page.text().contains("could not be saved"), "{}", page.text());
        assert_eq!(secret_shown(&page.text()), secret, "the authenticator that was set up goes on");
    }

    let mut controller = cluster.restart_controller(0);
    controller.line(|line| line.contains("controller listens").then_some(())).await;
    let flow = page.field("flow");
    let entered = until("the code is saved", async || {
        let entered = alice.form(&action, &[("flow", &flow), ("code", &code(&secret, 0))]).await;
        (entered.status != 503).then_some(entered)
    })
    .await;
    assert_eq!(entered.json()["path"], "/x");
}
