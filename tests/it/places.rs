//! Where applications are: wildcards, complex applications, several origins,
//! and TLS to them.

use std::sync::atomic::Ordering;

use base64::{Engine, engine::general_purpose::STANDARD};
use postern_tests::{
    browser::Browser,
    cluster::Cluster,
    origin::{Certified, Origin},
    processes::Folder,
    until,
    world::{PASSWORD, World, app, applied},
};
use proto::v1;
use serde_json::json;

async fn world() -> World {
    let world = World::start().await;
    world.user("alice").await;
    world
}

async fn signed_in(world: &World, url: &str) -> Browser {
    let mut alice = world.browser();
    let answer = alice.sign_in(url, "alice", PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    alice
}

/// PUB-15 and PUB-16.
#[tokio::test]
async fn a_wildcard_takes_every_name_that_nobody_else_has() {
    let world = world().await;
    let (named, any) = (Origin::start().await, Origin::start().await);
    let wildcard = v1::App {
        external_url: "https://*.postern.localhost/".into(),
        host_header: v1::HostHeader::Origin.into(),
        // The one name that every machine can resolve: 127 for the star.
        ..app("any", &format!("http://*.0.0.1:{}", any.port))
    };
    world.publish(wildcard, &["everyone"]).await;
    world.publish_origin("wiki", &named).await;
    let mut alice = signed_in(&world, &world.url("127", "/")).await;
    let answer = alice.get(&world.url("127", "/x")).await.json();
    assert_eq!(answer["headers"]["host"][0], format!("127.0.0.1:{}", any.port));
    let redirected = alice.get(&world.url("127", "/redirect")).await;
    assert_eq!(redirected.location().unwrap().as_str(), world.url("127", "/there"));
    let nowhere = alice.open(&world.url("team-1", "/")).await;
    assert_eq!(nowhere.refusal(), "origin_dns", "the same sign-in, and a name nobody knows");

    alice.open(&world.url("wiki", "/")).await;
    alice.get(&world.url("wiki", "/x")).await;
    assert!(named.requests.load(Ordering::SeqCst) > 0, "a name of its own wins");
    let portal = alice.open(&world.url("apps", "/")).await.text();
    assert!(portal.contains("wiki") && !portal.contains(">any<"), "a wildcard is no tile");

    let bad = v1::App { external_url: "https://x.postern.localhost/".into(), ..app("bad", "http://*.localhost") };
    let request = v1::PublishAppRequest { change: applied(), app: Some(bad), assign_caller: false };
    let refused = world.admin.applications().publish(request).await.unwrap_err();
    assert!(refused.message().starts_with("origin: has a *"), "{refused}");
}

/// PUB-19: one application, several addresses, and nothing beside them.
#[tokio::test]
async fn a_complex_application_has_one_sign_in_and_fails_closed() {
    let world = world().await;
    let (front, api) = (Origin::start().await, Origin::start().await);
    let segment = v1::Segment { external_url: "https://shop-api.postern.localhost/v1/".into(), origin: api.url() };
    let shop = world.publish(v1::App { segments: vec![segment], ..app("shop", &front.url()) }, &["user:alice"]).await;
    let mut alice = signed_in(&world, &world.url("shop", "/")).await;
    let answer = alice.open(&world.url("shop-api", "/v1/items")).await;
    assert_eq!(answer.json()["path"], "/v1/items", "no second password");
    assert_eq!(api.requests.load(Ordering::SeqCst), 1);
    assert_eq!(alice.get(&world.url("shop-api", "/v2/items")).await.refusal(), "not_published");
    let redirected = alice.get(&world.url("shop", &format!("/redirect?{}/v1/next", api.url()))).await;
    assert_eq!(redirected.location().unwrap().as_str(), world.url("shop-api", "/v1/next"));

    let bare = v1::App { segments: vec![], ..shop };
    world.admin.change(applied(), "app", json!(bare)).await.unwrap();
    assert_eq!(alice.get(&world.url("shop-api", "/v1/items")).await.refusal(), "unknown_host");
    assert_eq!(alice.get(&world.url("shop", "/x")).await.status, 200);
}

#[tokio::test]
async fn several_origins_share_the_work_and_stand_in_for_each_other() {
    let world = world().await;
    let (one, two) = (Origin::start().await, Origin::start().await);
    let shared = v1::App { more_origins: vec![two.url()], ..app("shared", &one.url()) };
    world.publish(shared.clone(), &["everyone"]).await;
    let mut alice = signed_in(&world, &world.url("shared", "/")).await;
    let count = |origin: &Origin| origin.requests.load(Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(alice.get(&world.url("shared", "/x")).await.status, 200);
    }
    assert!(count(&one) >= 5 && count(&two) >= 5, "{} and {}", count(&one), count(&two));

    let url = two.url();
    drop(two);
    for _ in 0..20 {
        assert_eq!(alice.get(&world.url("shared", "/x")).await.status, 200, "{url} is gone and nobody notices");
    }

    let three = Origin::start().await;
    let sticky = v1::App { more_origins: vec![three.url()], sticky: true, ..app("sticky", &one.url()) };
    world.publish(sticky, &["everyone"]).await;
    alice.open(&world.url("sticky", "/")).await;
    let before = (count(&one), count(&three));
    for _ in 0..10 {
        assert_eq!(alice.get(&world.url("sticky", "/x")).await.status, 200);
    }
    let grown = (count(&one) - before.0, count(&three) - before.1);
    assert!(grown == (10, 0) || grown == (0, 10), "{grown:?}");
}

#[tokio::test]
async fn a_place_that_says_it_is_ill_is_left_alone() {
    let world = world().await;
    let (well, ill) = (Origin::start().await, Origin::start().await);
    ill.ill.store(true, Ordering::SeqCst);
    let checked =
        v1::App { more_origins: vec![ill.url()], health_path: "/health".into(), ..app("checked", &well.url()) };
    world.publish(checked, &["everyone"]).await;
    let mut alice = signed_in(&world, &world.url("checked", "/")).await;
    until("the ill one is left alone", async || {
        let before = well.requests.load(Ordering::SeqCst);
        for _ in 0..20 {
            assert_eq!(alice.get(&world.url("checked", "/x")).await.status, 200);
        }
        (well.requests.load(Ordering::SeqCst) >= before + 20).then_some(())
    })
    .await;
    well.ill.store(true, Ordering::SeqCst);
    assert_eq!(alice.get(&world.url("checked", "/x")).await.status, 200, "with none well, all are tried");
}

/// PUB-42: the usual verification, and the key as well.
#[tokio::test]
async fn a_pinned_key_is_asked_for_beside_the_usual_verification() {
    let world = world().await;
    let certified = inside("inside.test");
    let secure = Origin::start_tls(&certified, None).await;
    let pin = |certified: &Certified| {
        use rcgen::PublicKeyData;
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certified.signing_key.subject_public_key_info());
        STANDARD.encode(digest)
    };
    let pinned = |name: &str, pins: &[String]| v1::App {
        origin_ca_pem: certified.cert.pem(),
        origin_server_name: "inside.test".into(),
        origin_pins: pins.to_vec(),
        ..app(name, &format!("https://127.0.0.1:{}", secure.port))
    };
    world.publish(pinned("right", &[pin(&inside("old.test")), pin(&certified)]), &["everyone"]).await;
    world.publish(pinned("wrong", &[pin(&inside("other.test"))]), &["everyone"]).await;
    let mut alice = signed_in(&world, &world.url("right", "/")).await;
    assert_eq!(alice.get(&world.url("right", "/x")).await.json()["path"], "/x");
    assert_eq!(alice.open(&world.url("wrong", "/x")).await.refusal(), "origin_tls");

    let plain = v1::App { origin_pins: vec![pin(&certified)], ..app("plain", "http://127.0.0.1:1") };
    let request = v1::PublishAppRequest { change: applied(), app: Some(plain), assign_caller: false };
    let refused = world.admin.applications().publish(request).await.unwrap_err();
    assert!(refused.message().starts_with("origin_pins: is for https"), "{refused}");
}

/// PUB-43: the certificate lies beside the connector and nowhere else.
#[tokio::test]
async fn a_connector_shows_its_own_certificate_to_an_origin_that_asks() {
    let folder = Folder::default();
    let client = inside("connector.test");
    let pem = client.cert.pem() + &client.signing_key.serialize_pem();
    std::fs::write(folder.0.join("localhost.pem"), pem).unwrap();
    let setting = ("POSTERN_CONNECTOR_CLIENT_CERTIFICATES", folder.0.display().to_string());
    let cluster = Cluster::start_with(vec![setting]).await;
    let certified = inside("localhost");
    let secure = Origin::start_tls(&certified, Some(&client)).await;
    let described = |name: &str, host: &str| v1::App {
        origin_ca_pem: certified.cert.pem(),
        origin_server_name: "localhost".into(),
        pre_authentication: v1::PreAuthentication::Passthrough.into(),
        ..app(name, &format!("https://{host}:{}", secure.port))
    };
    cluster.publish(described("known", "localhost")).await;
    cluster.publish(described("unknown", "127.0.0.1")).await;
    let mut browser = cluster.browser();
    assert_eq!(browser.get(&cluster.url(0, "known", "/x")).await.json()["path"], "/x");
    let refused = browser.get(&cluster.url(0, "unknown", "/x")).await;
    assert_eq!(refused.status, 502, "{}", refused.text());
}

fn inside(name: &str) -> Certified {
    rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
}
