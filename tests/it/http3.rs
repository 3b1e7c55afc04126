//! HTTP/3: the same door, by another road.

use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};
use http::{Method, header};
use postern_tests::{
    browser::Browser,
    http3::{Http3, quic},
    origin::Origin,
    until,
    world::{World, app},
};
use proto::v1;
use url::Url;

async fn world() -> (World, Origin, Browser) {
    let world = World::with_settings("[relay]\nhttp3 = true\n").await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    let browser = world.signed_in("wiki", "alice").await;
    (world, origin, browser)
}

fn cookies(browser: &Browser, url: &str) -> String {
    browser.cookie_header(&Url::parse(url).unwrap()).unwrap()
}

#[tokio::test]
async fn a_signed_in_user_is_served_and_nobody_else() {
    let (world, origin, mut alice) = world().await;
    let url = world.url("wiki", "/page?x=1");
    let told = alice.get(&url).await;
    assert_eq!(told.headers["alt-svc"], format!("h3=\":{}\"; ma=86400", world.port));
    let cookie = cookies(&alice, &url);
    let mut users = Http3::connect(&alice, &url).await;

    let answer = users.ask(Method::GET, &url, &[("cookie", &cookie)], b"").await;
    assert_eq!(answer.status, 200);
    let seen = answer.json();
    assert_eq!((&seen["path"], &seen["query"]), (&"/page".into(), &"x=1".into()));
    assert!(!seen["headers"]["cookie"].to_string().contains("__Host-postern"), "our cookies end at the relay");
    assert!(!answer.headers.contains_key(header::ALT_SVC), "they are here already");

    let upload = world.url("wiki", "/upload");
    let posted = users.ask(Method::POST, &upload, &[("cookie", &cookie)], &[7; 300_000]).await;
    assert_eq!(posted.body, b"300000");
    assert_eq!(origin.received.load(Ordering::SeqCst), 300_000);
    let big = users.ask(Method::GET, &world.url("wiki", "/big?20000000"), &[("cookie", &cookie)], b"").await;
    assert_eq!(big.body.len(), 20_000_000);
    let head = users.ask(Method::HEAD, &url, &[("cookie", &cookie)], b"").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));

    // Nobody: a page is sent to sign in, a program told to.
    let page = users.ask(Method::GET, &url, &[("accept", "text/html")], b"").await;
    assert_eq!(page.status, 303);
    let script = users.ask(Method::GET, &url, &[("accept", "application/json")], b"").await;
    assert_eq!((script.status.as_u16(), script.refusal()), (401, "sign_in_required"));
    let forged = users.ask(Method::GET, &url, &[("authorization", "Bearer forged"), ("accept", "*/*")], b"").await;
    assert_eq!(forged.status, 401);

    // Somebody, but not for this.
    world.publish(app("board", &origin.url()), &[]).await;
    alice.open(&world.url("board", "/")).await;
    let board = world.url("board", "/");
    let mut users = Http3::connect(&alice, &board).await;
    let answer = users.ask(Method::GET, &board, &[("cookie", &cookies(&alice, &board))], b"").await;
    assert_eq!(answer.refusal(), "not_assigned");
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_here_too() {
    let (world, origin, alice) = world().await;
    let url = world.url("wiki", "/");
    let cookie = cookies(&alice, &url);
    let before = origin.requests.load(Ordering::SeqCst);
    let paths = ["/a/../b", "/%2e%2e/b", "/a%00b", "/a%2fb", "/a\\b"];
    let fields: [(&str, &str); 7] = [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("x_forwarded_for", "10.0.0.1"),
        ("content-length", "1, 2"),
    ];
    for path in paths {
        let mut users = Http3::connect(&alice, &url).await;
        let url = format!("{}{path}", url.trim_end_matches('/'));
        let refused = users.ask(Method::GET, &url, &[("cookie", &cookie)], b"").await;
        assert_eq!((refused.status.as_u16(), refused.refusal()), (400, "bad_request"), "{path}");
    }
    for (name, value) in fields {
        let mut users = Http3::connect(&alice, &url).await;
        let refused = users.ask(Method::GET, &url, &[("cookie", &cookie), (name, value)], b"").await;
        assert_eq!((refused.status.as_u16(), refused.refusal()), (400, "bad_request"), "{name}");
    }
    let mut users = Http3::connect(&alice, &url).await;
    let elsewhere = users.ask(Method::GET, &world.url("demo", "/"), &[("cookie", &cookie)], b"").await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.refusal()), (421, "misdirected"));
    let connect = users.ask(Method::TRACE, &url, &[("cookie", &cookie)], b"").await;
    assert_eq!(connect.status, 405);
    assert_eq!(origin.requests.load(Ordering::SeqCst), before, "the application saw none of it");

    // A body of another length than it said never counts as whole.
    for (said, pieces) in [("3", &[&b"12345"[..]][..]), ("9", &[b"12345"]), ("3", &[b"12345", b"678"])] {
        let headers = [("cookie", cookie.as_str()), ("content-length", said)];
        let mut stream = users.begin(Method::POST, &world.url("wiki", "/upload"), &headers).await;
        for piece in pieces {
            let _taken = stream.send_data(Bytes::from_static(piece)).await;
        }
        let _finished = stream.finish().await;
        let answered = stream.recv_response().await.map(|it| it.status());
        assert!(answered.as_ref().is_ok_and(|it| it.is_client_error()) || answered.is_err(), "{said}: {answered:?}");
    }
    assert_eq!(users.ask(Method::GET, &url, &[("cookie", &cookie)], b"").await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn a_head_without_end_is_not_collected() {
    let (world, _origin, alice) = world().await;
    let url = Url::parse(&world.url("wiki", "/")).unwrap();
    let before = world.up.rss_kib();
    // HEADERS, trailers, and a frame nobody knows, each of a GiB.
    for kind in [0x01u8, 0x21] {
        let (_endpoint, connection) = quic(&alice, &url).await;
        let (mut sending, _receiving) = connection.open_bi().await.unwrap();
        sending.write_all(&[kind, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]).await.unwrap();
        let piece = vec![0; 64 * 1024];
        let mut sent = 0;
        while sending.write_all(&piece).await.is_ok() {
            sent += piece.len();
            assert!(sent < 16 * 1024 * 1024, "a frame of kind {kind} goes on");
        }
    }
    let grown = world.up.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "memory grew by {grown} KiB");
}

#[tokio::test]
async fn a_stream_is_cut_when_access_ends() {
    let (world, _origin, alice) = world().await;
    let url = world.url("wiki", "/sse");
    let mut users = Http3::connect(&alice, &url).await;
    let mut stream = users.begin(Method::GET, &url, &[("cookie", &cookies(&alice, &url))]).await;
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    assert!(stream.recv_data().await.unwrap().unwrap().has_remaining());
    world.revoke_session("alice").await;
    let broke = async {
        loop {
            match stream.recv_data().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a cut must not look like an end"),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(std::time::Duration::from_secs(20), broke).await.expect("cut");
    assert!(!error.is_h3_no_error(), "{error}");
}

/// A train leaves the station: the connection goes on from another address, and
/// what it may have is judged by that one.
#[tokio::test]
async fn a_connection_outlives_a_change_of_address_but_policy_sees_it() {
    let (world, _origin, alice) = world().await;
    let url = world.url("wiki", "/sse");
    let cookie = cookies(&alice, &url);
    let policy = v1::Policy {
        name: "not-at-the-station".into(),
        networks: vec!["127.0.0.2".into()],
        block: true,
        ..Default::default()
    };
    world.policy(policy).await;
    let mut users = Http3::connect(&alice, &url).await;
    let mut stream = users.begin(Method::GET, &url, &[("cookie", &cookie)]).await;
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    users.rebind("127.0.0.3:0");
    let page = users.ask(Method::GET, &world.url("wiki", "/"), &[("cookie", &cookie)], b"").await;
    assert_eq!(page.json()["headers"]["x-forwarded-for"], serde_json::json!(["127.0.0.3"]));
    for _ in 0..3 {
        assert!(stream.recv_data().await.unwrap().is_some(), "what was open goes on");
    }
    users.rebind("127.0.0.2:0");
    let refused = users.ask(Method::GET, &world.url("wiki", "/"), &[("cookie", &cookie)], b"").await;
    assert_eq!(refused.refusal(), "blocked_by_policy");
    until("the stream is cut", async || stream.recv_data().await.is_err().then_some(())).await;
}

#[tokio::test]
async fn a_relay_that_stops_finishes_what_is_open() {
    let (mut world, origin, alice) = world().await;
    let url = world.url("wiki", "/slow?1500");
    let mut users = Http3::connect(&alice, &url).await;
    let mut stream = users.begin(Method::GET, &url, &[("cookie", &cookies(&alice, &url))]).await;
    stream.finish().await.unwrap();
    until("the request is at the application", async || (origin.requests.load(Ordering::SeqCst) > 1).then_some(()))
        .await;
    world.up.terminate();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    while stream.recv_data().await.unwrap().is_some() {}
    assert!(world.up.ended().await.success());
}
