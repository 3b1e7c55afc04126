//! Things that end and are renewed while nobody notices, with lives of seconds.

use std::time::Duration;

use http_body_util::BodyExt;
use postern_tests::{
    browser::Browser,
    cluster::Cluster,
    origin::Origin,
    until,
    world::{PASSWORD, app, applied},
};
use proto::v1;

/// Certificates of connectors live 6 s, session tokens 4 s.
async fn short_lived() -> (Cluster, Origin, Browser) {
    let environment = vec![
        ("POSTERN_CONTROLLER__CONNECTOR_CERTIFICATE_LIFE_S", "6".to_owned()),
        ("POSTERN_IDENTITY__TOKEN_LIFE_S", "4".to_owned()),
    ];
    let cluster = Cluster::start_with(environment).await;
    let origin = Origin::start().await;
    cluster.user("alice").await;
    cluster.publish(app("wiki", &origin.url())).await;
    let mut alice = cluster.browser();
    let answer = alice.sign_in(&cluster.url(0, "wiki", "/"), "alice", PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (cluster, origin, alice)
}

/// The token; the other cookie of ours is the one a sign-in is bound to.
fn session_of(browser: &Browser) -> String {
    let cookies = &browser.cookies["wiki.postern.localhost"];
    let is_token = |name: &str| name.starts_with("__Host-postern-") && name != "__Host-postern-browser";
    cookies.iter().find(|(name, _)| is_token(name)).unwrap().1.clone()
}

#[tokio::test]
async fn sessions_and_certificates_are_renewed_under_traffic() {
    let (cluster, _origin, mut alice) = short_lived().await;
    let url = cluster.url(0, "wiki", "/");
    let first = session_of(&alice);
    let renewals = |cluster: &Cluster| {
        let said = cluster.connectors.iter().map(|it| it.said());
        said.map(|lines| lines.iter().filter(|line| line.contains("certificate renewed")).count()).min().unwrap()
    };
    // A renewal puts a new link beside the old one; what runs on the old one goes on.
    let stream = url::Url::parse(&cluster.url(0, "wiki", "/sse")).unwrap();
    let mut events = alice.send(http::Method::GET, &stream, &[], Default::default()).await.into_body();
    let mut ticks = 0;
    let already = renewals(&cluster);
    while renewals(&cluster) == already {
        assert!(events.frame().await.unwrap().is_ok());
        ticks += 1;
    }
    for _ in 0..10 {
        assert!(events.frame().await.unwrap().is_ok(), "cut after {ticks} events");
    }
    let mut replaced = 0;
    let mut before = first.clone();
    until("both certificates and the session's token were renewed twice more", async || {
        let answer = alice.get(&url).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let now = session_of(&alice);
        replaced += usize::from(now != before);
        before = now;
        (renewals(&cluster) >= already + 2 && replaced >= 2).then_some(())
    })
    .await;

    // Away for longer than the token lives: the next request renews it first.
    let old = session_of(&alice);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(alice.get(&url).await.status, 200);
    assert_ne!(session_of(&alice), old);
    // The old token is of no use to whoever took it and has no session left to renew.
    cluster.admin.sessions().revoke_user(revoke(&cluster, "alice").await).await.unwrap();
    let mut thief = cluster.browser().as_script();
    thief.cookies = alice.cookies.clone();
    assert_eq!(thief.get(&url).await.status, 401);
}

async fn revoke(cluster: &Cluster, username: &str) -> v1::RevokeUserSessionsRequest {
    let user = cluster.admin.object("user", username).await.unwrap().key;
    v1::RevokeUserSessionsRequest { change: applied(), user }
}

#[tokio::test]
async fn a_connector_that_was_away_too_long_proves_its_old_key() {
    let (mut cluster, _origin, mut alice) = short_lived().await;
    for connector in &mut cluster.connectors {
        connector.kill();
    }
    let url = cluster.url(0, "wiki", "/");
    let gone = alice.get(&url).await;
    assert!(matches!(gone.refusal(), "no_connector" | "link_lost"), "{}", gone.refusal());
    // Both certificates end.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut back = cluster.restart_connector(0);
    back.line(|line| line.contains("certificate renewed").then_some(())).await;
    back.line(|line| line.contains("link up").then_some(())).await;
    until("requests pass again", async || (alice.get(&url).await.status == 200).then_some(())).await;

    // One that was revoked meanwhile gets nothing.
    let list: Vec<v1::Connector> = cluster.admin.read_all("connector").await.unwrap();
    let other = list.iter().find(|it| it.name == "c1").unwrap();
    let request = v1::RevokeConnectorRequest { change: applied(), id: other.id.clone() };
    cluster.admin.connectors().revoke(request).await.unwrap();
    let mut revoked = cluster.restart_connector(1);
    revoked.line(|line| (line.contains("not renewed") && line.contains("revoked")).then_some(())).await;
}
