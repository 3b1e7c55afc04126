//! What operators watch: probes and metrics, on a listener of their own.

use postern_tests::{origin::Origin, until, world::World};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn get(world: &World, path: &str) -> String {
    let mut stream = TcpStream::connect(&world.probes).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: probes\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn probes_say_why_and_metrics_count() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    let mut alice = world.signed_in("wiki", "alice").await;
    assert!(get(&world, "/livez").await.starts_with("HTTP/1.1 200"));
    let ready = get(&world, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("snapshot at") && ready.contains("s old"), "{ready}");

    const FORWARDED: &str = "postern_requests_total{status=\"2xx\",refusal=\"forwarded\"}";
    let before = value(&get(&world, "/metrics").await, FORWARDED);
    for _ in 0..5 {
        assert_eq!(alice.get(&world.url("wiki", "/")).await.status, 200);
    }
    // Whoever guesses is told nothing; who runs it sees what was wrong.
    for name in ["alice", "nobody"] {
        assert_eq!(world.browser().sign_in(&world.url("wiki", "/"), name, "a guess").await.status, 401);
    }
    for fault in ["wrong", "unknown_user"] {
        let name = format!("postern_proof_faults_total{{proof=\"password\",fault=\"{fault}\"}}");
        assert_eq!(value(&get(&world, "/metrics").await, &name), 1.0);
    }
    let token = url::Url::parse(&world.url("login", "/token")).unwrap();
    let guess = [("grant_type", "authorization_code"), ("client_id", "postern-cli"), ("code", "a guess")];
    assert_eq!(world.browser().form(&token, &guess).await.status, 400);
    let faults = "postern_token_faults_total{token=\"code\",fault=\"malformed\"}";
    assert_eq!(value(&get(&world, "/metrics").await, faults), 1.0);
    world.revoke_session("alice").await;
    until("the session is over at identity too", async || {
        alice.open(&world.url("login", "/signout")).await.text().contains("You are signed out").then_some(())
    })
    .await;
    let faults = "postern_token_faults_total{token=\"signed_in\",fault=\"session_over\"}";
    assert!(value(&get(&world, "/metrics").await, faults) >= 1.0);
    alice = world.signed_in("wiki", "alice").await;
    let mut mallory = alice.connect(&url::Url::parse(&world.url("wiki", "/")).unwrap()).await;
    mallory.write_all(b"GET / HTTP/1.1\nhost: x\r\n\r\n").await.unwrap();
    let socket = world.web_socket(&alice, &world.url("wiki", "/ws")).await;
    let metrics = until("everything is counted", async || {
        let metrics = get(&world, "/metrics").await;
        let counted = value(&metrics, FORWARDED) >= before + 5.0
            && value(&metrics, "postern_malformed_total") >= 1.0
            && value(&metrics, "postern_open_exchanges") >= 1.0;
        counted.then_some(metrics)
    })
    .await;
    drop(socket);
    assert!(metrics.contains("application/openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert_eq!(value(&metrics, "postern_accesses_dropped_total"), 0.0);
    assert!(value(&metrics, "postern_links") >= 1.0 && value(&metrics, "postern_snapshot_age_seconds") < 10.0);
    // Users cannot reach any of it.
    let mut anyone = world.browser();
    assert_eq!(anyone.get(&world.url("nothing", "/metrics")).await.refusal(), "unknown_host");
}
