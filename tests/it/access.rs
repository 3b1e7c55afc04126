//! Who may enter, and how access ends.

use admin_client::lists::by_name;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use postern_tests::{
    origin::Origin,
    until,
    world::{World, app, applied, open_app},
};
use proto::v1;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn publishing_takes_one_command_and_assigns_whoever_did_it() {
    let world = World::start().await;
    let origin = Origin::start().await;
    let printed = world.cli(&["publish", &origin.url(), "--name", "wiki", "--wait"]);
    assert!(printed.status.success(), "{printed:?}");
    assert_eq!(String::from_utf8_lossy(&printed.stdout).trim(), world.url("wiki", "/"));
    let mut browser = world.browser();
    let answer = browser.sign_in(&world.url("wiki", "/page"), "admin", &world.password).await;
    assert_eq!(answer.json()["path"], "/page");
    world.user("alice").await;
    let mut alice = world.browser();
    let refused = alice.sign_in(&world.url("wiki", "/"), "alice", postern_tests::world::PASSWORD).await;
    assert_eq!((refused.status.as_u16(), refused.refusal()), (403, "not_assigned"));
    assert!(!refused.text().contains("127.0.0.1"), "a refusal shows nothing of the inside");
}

#[tokio::test]
async fn a_group_opens_and_closes_doors_without_a_new_sign_in() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let group = v1::Group { name: "staff".into(), ..Default::default() };
    world.admin.create(applied(), "group", json!(group)).await.unwrap();
    world.publish(app("hr", &origin.url()), &["group:staff"]).await;
    let mut alice = world.browser();
    let refused = alice.sign_in(&world.url("hr", "/"), "alice", postern_tests::world::PASSWORD).await;
    assert_eq!(refused.refusal(), "not_assigned");

    let membership = || json!({ "group": "staff", "member": "user:alice" });
    world.admin.put(applied(), "membership", membership()).await.unwrap();
    assert_eq!(alice.get(&world.url("hr", "/")).await.status, 200, "the next request already has the group");
    world.admin.remove(applied(), "membership", membership()).await.unwrap();
    assert_eq!(alice.get(&world.url("hr", "/")).await.refusal(), "not_assigned", "and the next one does not");
}

#[tokio::test]
async fn a_policy_blocks_the_next_request_of_a_session_that_exists() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("hr", &origin).await;
    let mut alice = world.signed_in("hr", "alice").await;
    let policy = v1::Policy {
        name: "not-from-here".into(),
        networks: vec!["127.0.0.0/8".into()],
        block: true,
        apps: vec!["hr".into()],
        ..Default::default()
    };
    let policy = world.policy(policy).await;
    let answer = alice.get(&world.url("hr", "/")).await;
    assert_eq!((answer.status.as_u16(), answer.refusal()), (403, "blocked_by_policy"));
    let printed = world.cli(&["policy", "what-if", "--user", "alice", "--app", "hr"]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("deny: policy not-from-here blocks"), "{printed}");
    let state = json!({ "id": policy.id, "state": "report_only" });
    world.admin.change(applied(), "policy", state).await.unwrap();
    assert_eq!(alice.get(&world.url("hr", "/")).await.status, 200, "report-only refuses nobody");
}

#[tokio::test]
async fn who_has_not_shown_enough_and_cannot_be_sent_to_sign_in_is_told_what_is_missing() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("hr", &origin).await;
    world.publish(open_app("brochure", &origin.url()), &[]).await;
    let alice = world.signed_in("hr", "alice").await;
    let require = vec![v1::Control::Mfa.into(), v1::Control::SignInWithin.into()];
    let policy = v1::Policy { name: "secret-name".into(), require, sign_in_within_minutes: 240, ..Default::default() };
    let policy = world.policy(v1::Policy { apps: vec!["hr".into(), "brochure".into()], ..policy }).await;

    const STEP: &str = "This application asks for a second step when you sign in.";
    let mut script = alice.as_script();
    let got = script.get(&world.url("hr", "/")).await;
    let posted = script.post(&world.url("hr", "/"), "x=1".into()).await;
    for answer in [&got, &posted] {
        assert_eq!((answer.status.as_u16(), answer.refusal()), (401, "more_proof_required"));
        let json = answer.json();
        assert_eq!(json["missing"], json!([STEP]), "the sign-in is of now, and was by password");
        assert_eq!(json["acr_values"], "mfa");
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains("acr_values=\"mfa\""), "{challenge}");
    }
    // Nobody signs in there, so nobody can be sent to sign in.
    let page = world.browser().get(&world.url("brochure", "/")).await;
    assert_eq!((page.status.as_u16(), page.refusal()), (401, "more_proof_required"));
    let recent = "This application asks that you signed in within the last 4 hours.";
    assert!(page.text().contains(STEP) && page.text().contains(recent), "{}", page.text());
    for shown in [got.text(), posted.text(), page.text()] {
        for internal in ["secret-name", &policy.id, "127.0.0.1", &format!(":{}", origin.port)] {
            assert!(!shown.contains(internal), "{internal} is of the inside: {shown}");
        }
    }
    let what_if = world.cli(&["policy", "what-if", "--user", "alice", "--app", "hr"]);
    let what_if = String::from_utf8_lossy(&what_if.stdout).into_owned();
    assert!(what_if.contains("challenge: the user is asked for mfa, sign-in-within:4h"), "{what_if}");
    assert!(what_if.contains("requires all of mfa, sign-in-within:4h"), "{what_if}");
    // A form of hers goes to sign in, which it can.
    let form = alice.clone().post(&world.url("hr", "/"), "x=1".into()).await;
    assert_eq!(form.status, 303);
}

#[tokio::test]
async fn a_revoked_session_ends_open_web_sockets_and_streams() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("hr", &origin).await;
    let mut alice = world.signed_in("hr", "alice").await;
    let mut socket = world.web_socket(&alice, &world.url("hr", "/ws")).await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    let url = url::Url::parse(&world.url("hr", "/sse")).unwrap();
    let mut events = alice.send(http::Method::GET, &url, &[], Default::default()).await.into_body();
    assert!(events.frame().await.unwrap().is_ok());

    world.revoke_session("alice").await;
    let closed = until_closed(&mut socket).await;
    assert!(closed, "the WebSocket ends");
    until("the event stream ends", async || events.frame().await.is_none_or(|it| it.is_err()).then_some(())).await;
    assert_eq!(alice.as_script().get(&world.url("hr", "/")).await.status, 401);
}

#[tokio::test]
async fn open_exchanges_end_when_their_reason_does() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let app = world.publish_origin("hr", &origin).await;
    let alice = world.signed_in("hr", "alice").await;

    // The assignment goes.
    let mut socket = world.web_socket(&alice, &world.url("hr", "/ws")).await;
    let everyone = json!({ "app": app.id, "principal": "everyone" });
    world.admin.remove(applied(), "assignment", everyone).await.unwrap();
    assert!(until_closed(&mut socket).await);

    // The application goes.
    world.assign(&app.id, "user:alice").await;
    let mut socket = world.web_socket(&alice, &world.url("hr", "/ws")).await;
    world.admin.remove(applied(), "app", by_name(&app.id)).await.unwrap();
    assert!(until_closed(&mut socket).await);
    assert_eq!(alice.clone().get(&world.url("hr", "/")).await.refusal(), "unknown_host");
}

#[tokio::test]
async fn a_revoked_connector_is_cut_and_cannot_come_back() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("hr", &origin).await;
    let mut alice = world.signed_in("hr", "alice").await;
    let list: Vec<v1::Connector> = world.admin.read_all("connector").await.unwrap();
    let local = list.iter().find(|it| it.name == "local").unwrap();
    let request = v1::RevokeConnectorRequest { change: applied(), id: local.id.clone() };
    world.admin.connectors().revoke(request).await.unwrap();
    let refused = until("the connector is gone", async || {
        let answer = alice.get(&world.url("hr", "/")).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert!(matches!(refused.refusal(), "no_connector" | "link_lost"), "{}", refused.refusal());
    // It dials again and again, and is turned away.
    let again = alice.get(&world.url("hr", "/")).await;
    assert_eq!(again.refusal(), "no_connector");
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_apart() {
    let world = World::start().await;
    world.user("alice").await;
    let closed = postern_tests::processes::free_port();
    let origins = [
        ("closed", format!("http://127.0.0.1:{closed}"), "origin_connect"),
        ("nowhere", "http://does-not-exist.invalid:80".to_owned(), "origin_dns"),
        ("metadata", "http://169.254.169.254:80".to_owned(), "origin_refused"),
        ("plain", format!("https://127.0.0.1:{}", Origin::start().await.port), "origin_connect"),
    ];
    for (name, origin, _) in &origins {
        world.publish(app(name, origin), &["everyone"]).await;
    }
    let mut alice = world.browser();
    alice.sign_in(&world.url("demo", "/"), "alice", postern_tests::world::PASSWORD).await;
    for (name, _, code) in &origins {
        let answer = alice.open(&world.url(name, "/")).await;
        assert_eq!(answer.refusal(), *code, "{name}");
        assert!(!answer.text().contains("169.254") && !answer.text().contains("invalid"), "nothing internal is shown");
    }
    let slow = Origin::start().await;
    let impatient = v1::App { response_timeout_ms: 200, ..app("slow", &slow.url()) };
    world.publish(impatient, &["everyone"]).await;
    let answer = alice.open(&world.url("slow", "/slow?5000")).await;
    assert_eq!((answer.status.as_u16(), answer.refusal()), (504, "origin_timeout"));
    world.admin.create(applied(), "connector-group", json!({ "name": "empty" })).await.unwrap();
    let lonely = v1::App { connector_group: "empty".into(), ..app("lonely", &slow.url()) };
    world.publish(lonely, &["everyone"]).await;
    let answer = alice.open(&world.url("lonely", "/")).await;
    assert_eq!((answer.status.as_u16(), answer.refusal()), (503, "no_connector"));
}

async fn until_closed<S>(socket: &mut tokio_tungstenite::WebSocketStream<S>) -> bool
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let closed = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), closed).await.is_ok()
}
