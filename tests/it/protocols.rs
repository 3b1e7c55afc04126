//! HTTP as applications use it, and as attackers do.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::BodyExt;
use postern_tests::{
    browser::Browser,
    http2,
    origin::Origin,
    world::{World, app},
};
use proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn world_with(name: &str) -> (World, Origin, Browser) {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin(name, &origin).await;
    let browser = world.signed_in(name, "alice").await;
    (world, origin, browser)
}

#[tokio::test]
async fn large_bodies_stream_both_ways_with_flat_memory() {
    let (world, origin, mut alice) = world_with("files").await;
    const BYTES: u64 = 5 * 1024 * 1024 * 1024;
    let before = world.up.rss_kib();
    let url = url::Url::parse(&world.url("files", &format!("/big?{BYTES}"))).unwrap();
    let mut body = alice.send(http::Method::GET, &url, &[], Bytes::new()).await.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len() as u64;
    }
    assert_eq!(read, BYTES);

    let url = url::Url::parse(&world.url("files", "/upload")).unwrap();
    let mut stream = alice.connect(&url).await;
    let cookies = alice.cookie_header(&url).unwrap();
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: {authority}\r\ncookie: {cookies}\r\ncontent-length: {BYTES}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![0; 1024 * 1024];
    for _ in 0..BYTES / piece.len() as u64 {
        stream.write_all(&piece).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut answer = String::new();
    let _closed = stream.read_to_string(&mut answer).await;
    assert!(answer.ends_with(&BYTES.to_string()), "{answer}");
    assert_eq!(origin.received.load(Ordering::SeqCst), BYTES);
    let grown = world.up.rss_kib().saturating_sub(before);
    assert!(grown < 96 * 1024, "memory grew by {grown} KiB for {BYTES} bytes each way");
}

#[tokio::test]
async fn an_application_cannot_be_fooled_about_who_asks() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let header = v1::IdentityHeader { name: "X-Remote-User".into(), claim: v1::Claim::Username.into() };
    let hr = v1::App { identity_headers: vec![header], ..app("hr", &origin.url()) };
    world.publish(hr, &["everyone"]).await;
    let mut alice = world.signed_in("hr", "alice").await;
    let url = world.url("hr", "/");
    let attempts: [&[(&str, &str)]; 5] = [
        &[("x-remote-user", "root")],
        &[("X-REMOTE-USER", "root")],
        &[("connection", "x-remote-user, close")],
        &[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=1.2.3.4"),
        ],
        &[("postern-assertion", "forged"), ("x-real-ip", "10.0.0.1")],
    ];
    for headers in attempts {
        let seen = alice.get_with(&url, headers).await.json();
        let fields = &seen["headers"];
        assert_eq!(fields["x-remote-user"], serde_json::json!(["alice"]), "{headers:?}");
        assert_eq!(fields["x-forwarded-for"], serde_json::json!(["127.0.0.1"]), "{headers:?}");
        assert_eq!(fields["x-forwarded-proto"], serde_json::json!(["https"]));
        assert!(fields["postern-assertion"].is_null() && fields["x-real-ip"].is_null());
        assert!(!fields["cookie"].to_string().contains("__Host-postern"), "our cookies end at the relay");
    }
    let imitated = alice.get_with(&url, &[("x_remote_user", "root")]).await;
    assert_eq!((imitated.status.as_u16(), imitated.refusal()), (400, "bad_request"));
}

/// Two applications on one origin, told apart by path, with policies of their
/// own. Whatever the origin makes of a path, it is not the other's (R3).
#[tokio::test]
async fn a_path_gives_no_way_around_another_applications_policy() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let at = |path: &str| format!("https://site.postern.localhost/{path}");
    world.publish(v1::App { external_url: at(""), ..app("site", &origin.url()) }, &["everyone"]).await;
    world.publish(v1::App { external_url: at("admin/"), ..app("admin", &origin.url()) }, &[]).await;
    let mut alice = world.signed_in("site", "alice").await;
    assert_eq!(alice.get(&world.url("site", "/x")).await.status, 200);
    alice.open(&world.url("site", "/admin/x")).await;
    assert_eq!(alice.get(&world.url("site", "/admin/x")).await.refusal(), "not_assigned");
    for path in ["/%61dmin/x", "/ADMIN/x", "/admin;a/x", "/%2561dmin/x", "/admin%20/x", "/admin./x"] {
        let refused = alice.get(&world.url("site", path)).await;
        assert_eq!((refused.status.as_u16(), refused.refusal()), (400, "bad_request"), "{path}");
    }
    assert_eq!(alice.get(&world.url("site", "/other%20page/Admin")).await.status, 200);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "mostly a list of requests")]
async fn what_can_be_read_in_two_ways_is_refused() {
    let (world, origin, alice) = world_with("wiki").await;
    let before = origin.requests.load(Ordering::SeqCst);
    let host = format!("wiki.postern.localhost:{}", world.port);
    let requests = [
        ("two hosts", format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil\r\n\r\n"), "400"),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("another host", format!("GET / HTTP/1.1\r\nHost: demo.postern.localhost:{}\r\n\r\n", world.port), "421"),
        ("userinfo", format!("GET / HTTP/1.1\r\nHost: x@{host}\r\n\r\n"), "400"),
        ("absolute elsewhere", format!("GET http://evil/ HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("dot segment", format!("GET /a/../b HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("encoded dots", format!("GET /a/%2e%2E/b HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("dots with a parameter", format!("GET /a/..;x/b HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("encoded slash", format!("GET /a%2fb HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("encoded backslash", format!("GET /a%5cb HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("backslash", format!("GET /a\\b HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("NUL", format!("GET /a%00b HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("broken percent", format!("GET /a%zz HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        ("connect", format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"), "405"),
        ("trace", format!("TRACE / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "405"),
        ("asterisk", format!("OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400"),
        (
            "gzip coding",
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        (
            "two lengths",
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
            "400",
        ),
        (
            "CL.TE",
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"
            ),
            "400",
        ),
        (
            "TE.CL",
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
            ),
            "400",
        ),
        (
            "equal lengths",
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
            "400",
        ),
        ("bare LF", format!("GET / HTTP/1.1\r\nHost: {host}\nX: y\r\n\r\n"), "400"),
        ("folded", format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: y\r\n z\r\n\r\n"), "400"),
        (
            "broken chunk",
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n"),
            "400",
        ),
        ("signed length", format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: +1\r\n\r\nx"), "400"),
        (
            "chunked in 1.0",
            format!("POST / HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        ("long address", format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "a".repeat(9000)), "414"),
        ("large field", format!("GET / HTTP/1.1\r\nHost: {host}\r\nx: {}\r\n\r\n", "a".repeat(17_000)), "431"),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "a: b\r\n".repeat(120)), "431"),
    ];
    for (name, request, expected) in requests {
        let url = url::Url::parse(&world.url("wiki", "/")).unwrap();
        let mut stream = alice.connect(&url).await;
        let cookies = alice.cookie_header(&url).unwrap();
        let request = request.replacen("\r\n", &format!("\r\ncookie: {cookies}\r\nconnection: close\r\n"), 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _closed = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or("none");
        assert_eq!(status, expected, "{name}: {}", answer.lines().next().unwrap_or(""));
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: what follows is not read");
    }
    // Of a broken body the head may have arrived; its end never does.
    let reached = origin.requests.load(Ordering::SeqCst) - before;
    assert!(reached <= 1, "{reached} of them reached the application");
}

#[tokio::test]
async fn the_path_that_was_judged_is_the_path_that_arrives() {
    let (world, _origin, mut alice) = world_with("wiki").await;
    for path in
        ["/", "/a/b", "/a;x=1/b", "/a%20b/%C3%A9", "/a/b/?q=%2F..%2F&r=a+b", "/~user/(x)'*", "/a//b", "/.hidden/..."]
    {
        let answer = alice.get(&world.url("wiki", path)).await;
        let seen = answer.json();
        let query = seen["query"].as_str().unwrap();
        let arrived = match query.is_empty() {
            true => seen["path"].as_str().unwrap().to_owned(),
            false => format!("{}?{query}", seen["path"].as_str().unwrap()),
        };
        assert_eq!(arrived, path);
    }
}

/// Targets out of the pieces that have fooled others (attack class R3):
/// what arrives is byte for byte what was asked, at the application whose path
/// it is. What has two readings does not arrive.
#[tokio::test]
async fn whatever_the_path_it_arrives_as_it_was_judged() {
    const PLAIN: [&str; 16] =
        ["/", "/", "/", "/", "a", "b", "team", "team", "teams", "?", "&", "=", "~", ".x", "%20", "%C3%A9"];
    const PIECES: [&str; 40] = [
        "/", "/", "/", "a", "b", "team", "team", "Team", ".", "..", "%2e", "%2E%2e", "%2f", "%5c", "\\", ";", ";x=1",
        "%00", "%", "%zz", "%252e", "%74eam", "//", "/./", "?", "?q=/../", "&", "#f", "~", "@", ":", "*", "'", "é",
        "%C3%A9", "+", "%20", " ", "=", "teams",
    ];
    const CONNECTIONS: u64 = 8;
    // All of them in CI (`.ci/run`), a tenth on a developer's machine.
    #[expect(clippy::disallowed_methods, reason = "chosen by whoever runs the tests")]
    let targets: u64 = std::env::var("TEST_TARGETS").map_or(10_000, |it| it.parse().unwrap());
    let world = World::start().await;
    let (root, team) = (Origin::start().await, Origin::start().await);
    let open = |name: &str, path: &str, origin: &Origin| v1::App {
        external_url: format!("https://site.postern.localhost/{path}"),
        pre_authentication: v1::PreAuthentication::Passthrough.into(),
        ..app(name, &origin.url())
    };
    world.publish(open("site", "", &root), &[]).await;
    world.publish(open("team", "team/", &team), &[]).await;
    let url = url::Url::parse(&world.url("site", "/")).unwrap();
    let mut walks = Vec::new();
    for seed in 1..=CONNECTIONS {
        let (browser, url) = (world.browser(), url.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        walks.push(tokio::task::spawn(async move {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = move |below: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random % below as u64) as usize
            };
            let mut client = RawClient::new(&browser, &url).await;
            let mut arrived = 0;
            for _ in 0..targets / CONNECTIONS {
                // One in eight has a piece of every kind; those end connections.
                let evil = next(8) == 0;
                let mut piece = || if evil { PIECES[next(PIECES.len())] } else { PLAIN[next(PLAIN.len())] };
                let count = 1 + piece().len() % 6;
                let target: String = std::iter::once("/").chain((0..count).map(|_| piece())).collect();
                let Some((status, body)) = client.get(&browser, &url, &target).await else { continue };
                if status != 200 {
                    assert!(matches!(status, 400 | 404 | 502), "{target}: {status} {body}");
                    continue;
                }
                let seen: serde_json::Value = serde_json::from_str(&body).unwrap();
                let (path, query) = (seen["path"].as_str().unwrap(), seen["query"].as_str().unwrap());
                let whole = if target.contains('?') { format!("{path}?{query}") } else { path.to_owned() };
                assert_eq!(whole, target);
                let of_team = path == "/team" || path.starts_with("/team/");
                let host = seen["headers"]["x-forwarded-host"][0].as_str().unwrap();
                assert!(host.starts_with("site."));
                arrived += u64::from(of_team) << 32 | 1;
            }
            arrived
        }));
    }
    let (mut arrived, mut of_team) = (0, 0);
    for walk in walks {
        let counts = walk.await.unwrap();
        arrived += counts & 0xffff_ffff;
        of_team += counts >> 32;
    }
    assert!(arrived > targets / 2, "only {arrived} arrived");
    assert_eq!(team.requests.load(Ordering::SeqCst), of_team, "each application has its own paths");
    assert_eq!(root.requests.load(Ordering::SeqCst), arrived - of_team);
}

/// A client that says exactly what it is told, and tries again on a new
/// connection when the old one was closed over it.
struct RawClient {
    stream: tokio::io::BufReader<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
}

impl RawClient {
    async fn new(browser: &Browser, url: &url::Url) -> Self {
        Self { stream: tokio::io::BufReader::new(browser.connect(url).await) }
    }

    async fn get(&mut self, browser: &Browser, url: &url::Url, target: &str) -> Option<(u16, String)> {
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let head = format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\naccept: application/json\r\n\r\n");
        let answered = match self.stream.write_all(head.as_bytes()).await {
            Ok(()) => self.read().await,
            Err(_) => None,
        };
        if answered.as_ref().is_none_or(|(_, _, closes)| *closes) {
            *self = Self::new(browser, url).await;
        }
        answered.map(|(status, body, _)| (status, body))
    }

    async fn read(&mut self) -> Option<(u16, String, bool)> {
        use tokio::io::AsyncBufReadExt;
        let (mut status, mut length, mut closes) = (0, 0, false);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some(("connection", "close")) => closes = true,
                Some(_) => {}
                None if line.is_empty() => break,
                None => status = line.split(' ').nth(1)?.parse().ok()?,
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((status, String::from_utf8(body).ok()?, closes))
    }
}

#[tokio::test]
async fn paths_tell_applications_apart() {
    let world = World::start().await;
    let (root, team) = (Origin::start().await, Origin::start().await);
    world.user("alice").await;
    let url = "https://site.postern.localhost";
    world.publish(v1::App { external_url: format!("{url}/"), ..app("site", &root.url()) }, &["everyone"]).await;
    world.publish(v1::App { external_url: format!("{url}/team/"), ..app("team", &team.url()) }, &[]).await;
    let mut alice = world.signed_in("site", "alice").await;
    assert_eq!(alice.get(&world.url("site", "/teams")).await.status, 200);
    assert_eq!(alice.open(&world.url("site", "/team/x")).await.refusal(), "not_assigned", "each has its own door");
    assert_eq!(alice.get(&world.url("site", "//team/x")).await.refusal(), "bad_request");
    assert_eq!(team.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_an_application_says_about_itself_is_put_right() {
    let (world, origin, mut alice) = world_with("wiki").await;
    let there = format!("/redirect?http://127.0.0.1:{}/there?x=1", origin.port);
    let answer = alice.get(&world.url("wiki", &there)).await;
    assert_eq!(
        answer.headers["location"],
        world.url("wiki", "/there?x=1"),
        "an inside address becomes the outside one"
    );
    let answer = alice.get(&world.url("wiki", "/cookies")).await;
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().map(|it| it.to_str().unwrap()).collect();
    assert_eq!(cookies, ["app=1; Path=/"], "an application cannot set cookies in our name");
    let answer = alice.get(&world.url("wiki", "/hop")).await;
    assert!(!answer.headers.contains_key("x-private"), "what Connection names ends here");
    assert!(answer.refusal().is_empty(), "an application cannot look like a refusal");
}

#[tokio::test]
async fn bytes_before_the_switch_go_nowhere() {
    let (world, origin, alice) = world_with("wiki").await;
    let before = origin.requests.load(Ordering::SeqCst);
    let url = url::Url::parse(&world.url("wiki", "/nothing")).unwrap();
    let mut stream = alice.connect(&url).await;
    let cookies = alice.cookie_header(&url).unwrap();
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    // The application does not switch; what follows would be its data to one reader and a request to another.
    let smuggled =
        format!("GET /second HTTP/1.1\r\nhost: {authority}\r\ncookie: {cookies}\r\nconnection: close\r\n\r\n");
    let request = format!(
        "GET /first HTTP/1.1\r\nhost: {authority}\r\ncookie: {cookies}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n{smuggled}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("/second") && !answer.contains("101"), "{answer}");
    assert!(origin.requests.load(Ordering::SeqCst) - before <= 1, "the second is no request");

    // One that waits for the answer learns that the connection ends there.
    let mut alice = alice;
    let asks = [("connection", "upgrade"), ("upgrade", "websocket")];
    let declined = alice.get_with(&world.url("wiki", "/first"), &asks).await;
    assert_eq!((declined.status.as_u16(), declined.headers["connection"].as_bytes()), (200, &b"close"[..]));
}

#[tokio::test]
async fn an_application_may_listen_on_a_unix_socket_or_speak_http2_over_tls() {
    let world = World::start().await;
    world.user("alice").await;
    let path = world.folder.0.join("app.sock");
    let unix = Origin::start_unix(&path);
    world.publish(app("unix", &format!("unix:{}", path.display())), &["everyone"]).await;
    let (secure, certificate) = Origin::start_http2().await;
    let origin = format!("https://127.0.0.1:{}", secure.port);
    let http2 = v1::App { origin_ca_pem: certificate, origin_server_name: "inside.test".into(), ..app("h2", &origin) };
    world.publish(http2, &["everyone"]).await;
    let mut alice = world.signed_in("unix", "alice").await;
    assert_eq!(alice.get(&world.url("unix", "/a")).await.json()["path"], "/a");
    assert!(unix.requests.load(Ordering::SeqCst) > 0);

    alice.open(&world.url("h2", "/")).await;
    let before = secure.connections.load(Ordering::SeqCst);
    for n in 0..20 {
        let answer = alice.get(&world.url("h2", &format!("/{n}"))).await;
        assert_eq!(answer.json()["path"], format!("/{n}"));
    }
    let url = world.url("h2", "/upload");
    assert_eq!(alice.post(&url, Bytes::from(vec![7; 3_000_000])).await.text(), "3000000");
    let opened = secure.connections.load(Ordering::SeqCst) - before;
    // Each worker of the connector has its own.
    assert!(opened < 10, "requests share connections, and {opened} were opened");
}

/// An application that records the bytes it gets, and answers with nothing.
async fn recorder() -> (u16, std::sync::Arc<std::sync::Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = seen.clone();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::task::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let record = record.clone();
            #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
            tokio::task::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    record.lock().unwrap().extend_from_slice(&buffer[..read]);
                    if buffer[..read].ends_with(b"0\r\n\r\n") {
                        let _gone = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                    }
                }
            });
        }
    });
    (port, seen)
}

#[tokio::test]
async fn trailers_of_a_user_go_nowhere() {
    let world = World::start().await;
    world.user("alice").await;
    let (port, seen) = recorder().await;
    world.publish(app("raw", &format!("http://127.0.0.1:{port}")), &["everyone"]).await;
    let mut alice = world.browser();
    alice.sign_in(&world.url("demo", "/"), "alice", postern_tests::world::PASSWORD).await;
    let callback = alice.get(&world.url("raw", "/")).await.location().unwrap();
    let signed_in = alice.get(callback.as_str()).await.location().unwrap();
    alice.get(signed_in.as_str()).await;
    let url = url::Url::parse(&world.url("raw", "/first")).unwrap();
    let cookies = alice.cookie_header(&url).unwrap();
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];

    let mut stream = alice.connect(&url).await;
    let request = format!(
        "POST /first HTTP/1.1\r\nhost: {authority}\r\ncookie: {cookies}\r\nte: trailers\r\ntrailer: x-evil\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\nx-evil: 1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _closed = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");

    // Over HTTP/2 a trailer may also pretend to be the head: that breaks the stream.
    let mut connection = http2::Http2::begin(alice.connect_for(&url, b"h2").await).await;
    let head = [
        vec![0x83, 0x87],
        http2::field(":path", "/second"),
        http2::field(":authority", authority),
        http2::field("cookie", &cookies),
    ]
    .concat();
    assert!(connection.write(http2::HEADERS, http2::END_HEADERS, 1, &head).await);
    assert!(connection.write(http2::DATA, 0, 1, b"abc").await);
    let lie = [http2::field("x-evil", "2"), http2::field(":path", "/admin")].concat();
    assert!(connection.write(http2::HEADERS, http2::END_HEADERS | http2::END_STREAM, 1, &lie).await);
    let broken = postern_tests::until("the stream breaks", async || {
        let frame = connection.read().await;
        frame.is_none_or(|it| matches!(it.kind, http2::RST_STREAM | http2::GOAWAY | http2::HEADERS)).then_some(())
    });
    broken.await;
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(seen.contains("POST /first") && !seen.contains("x-evil") && !seen.contains("/admin"), "{seen}");
    let second = seen.split("POST /second").nth(1);
    assert!(second.is_none_or(|rest| !rest.contains("0\r\n\r\n")), "a broken request never ends well: {seen}");
}
