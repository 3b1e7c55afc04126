//! A log that is full, and one that cannot be believed: what is refused, what is
//! said, and what goes on.

use std::io::Write;

use eventlog::{Append, EventLog, jetstream};
use model::event::Stream;
use postern_tests::{
    cluster::Cluster,
    origin::Origin,
    until,
    world::{PASSWORD, World, app, applied},
};
use proto::v1;

#[tokio::test]
async fn on_a_full_disk_users_go_on_and_can_be_revoked() {
    let mut world = World::on_a_disk_of(32).await;
    let origin = Origin::start().await;
    world.publish_origin("wiki", &origin).await;
    world.user("alice").await;
    let mut alice = world.signed_in("wiki", "alice").await;
    let ballast = world.folder.0.join("data/ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    // What the log has already may take a few events more.
    let refused = until("a change is refused", async || {
        let user = v1::User { username: uuid(), ..Default::default() };
        let request = v1::CreateUserRequest { user: Some(user), ..Default::default() };
        world.admin.users().create(request).await.err()
    })
    .await;
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("the disk of the event log is full"), "{refused}");
    assert_eq!(alice.get(&world.url("wiki", "/")).await.status, 200, "traffic goes on");

    let alice_id = world.admin.object("user", "alice").await.unwrap().key;
    let request = v1::RevokeUserSessionsRequest { change: applied(), user: alice_id };
    world.admin.sessions().revoke_user(request).await.unwrap();
    assert_eq!(alice.as_script().get(&world.url("wiki", "/")).await.status, 401, "a revocation always fits");

    std::fs::remove_file(&ballast).unwrap();
    until("a change is taken again", async || {
        let user = v1::User { username: uuid(), ..Default::default() };
        let request = v1::CreateUserRequest { user: Some(user), ..Default::default() };
        world.admin.users().create(request).await.ok()
    })
    .await;
    let mut alice = world.signed_in("wiki", "alice").await;
    assert_eq!(alice.get(&world.url("wiki", "/")).await.status, 200);
    assert!(world.up.child.try_wait().unwrap().is_none(), "nothing was restarted");
}

/// It took the change, waited for ever, and held a lock meanwhile.
#[tokio::test]
async fn a_controller_that_cannot_believe_the_log_says_so_at_once() {
    let cluster = Cluster::start().await;
    let origin = Origin::start().await;
    let id = cluster.user("alice").await.id;
    cluster.publish(app("wiki", &origin.url())).await;
    let url = cluster.url(0, "wiki", "/");
    let mut alice = cluster.browser();
    assert_eq!(alice.sign_in(&url, "alice", PASSWORD).await.status, 200);

    let settings = jetstream::Settings {
        inbox: "controller".into(),
        url: cluster.nats_url.clone(),
        nkey: Some(cluster.folder.0.join("keys/controller/nats.nk")),
        ca: Some(cluster.folder.0.join("nats-ca.pem")),
        certificate: Some((cluster.folder.0.join("nats-client.pem"), cluster.folder.0.join("nats-client.key"))),
        ..Default::default()
    };
    let log = EventLog::connect(&settings).await.unwrap();
    let forged = Append { subject: format!("postern.risk.default.user.{id}"), bytes: "forged".into() };
    let position = log.append(Stream::Risk, vec![forged], None).await.unwrap();
    let revoke = || v1::RevokeUserSessionsRequest { change: None, user: id.clone() };
    let refused = until("the controller has read it", async || {
        let mut sessions = cluster.admin.sessions();
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), sessions.revoke_user(revoke())).await;
        answer.expect("an answer").err()
    })
    .await;
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    for words in [&format!("event {position} of risk"), "nothing was recorded", "docs/backup.md"] {
        assert!(refused.message().contains(words), "{words}: {}", refused.message());
    }
    assert_eq!(alice.get(&url).await.status, 200, "the last good snapshot serves");
}

fn uuid() -> String {
    format!("u{}", runtime::clock::fresh_id().simple())
}
