//! Nothing stays broken: whatever users do to an exchange, alone or in crowds,
//! the next request is answered, and nobody restarts anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::Method;
use postern_tests::{
    cluster::Cluster,
    http2::{self, Http2},
    http3::{Http3, quic},
    origin::Origin,
    until,
    world::{World, app, open_app},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use url::Url;

/// With HTTP/3, and more connections from one address than usual: a crowd.
async fn world() -> World {
    World::with_settings("[relay]\nhttp3 = true\nconnections_per_source_max = 10000\nconnections_max = 10000\n").await
}

/// How far an exchange goes before its user leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    InTheHead,
    AfterTheHead,
    InTheBody,
    BeforeTheAnswer,
    InTheAnswer,
}

const EVERYWHERE: [Leaves; 5] =
    [Leaves::InTheHead, Leaves::AfterTheHead, Leaves::InTheBody, Leaves::BeforeTheAnswer, Leaves::InTheAnswer];

impl Leaves {
    /// Path, and the length of a body that is promised.
    fn request(self) -> (&'static str, usize) {
        match self {
            Self::InTheHead | Self::AfterTheHead => ("/left", 0),
            Self::InTheBody => ("/upload", 100_000),
            Self::BeforeTheAnswer => ("/slow?20000", 0),
            Self::InTheAnswer => ("/big?20000000", 0),
        }
    }
}

/// The next request, on a connection of its own.
async fn assert_answered(world: &World, after: &str) {
    let answered = timeout(Duration::from_secs(10), world.browser().get(&world.url("open", "/next"))).await;
    let answer = answered.unwrap_or_else(|_| panic!("after {after}: no answer"));
    assert_eq!((answer.status.as_u16(), answer.refusal()), (200, ""), "after {after}");
}

async fn leave_over_http1(world: &World, leaves: Leaves) {
    let url = Url::parse(&world.url("open", "/")).unwrap();
    let (path, length) = leaves.request();
    let method = if length > 0 { "POST" } else { "GET" };
    let host = format!("open.postern.localhost:{}", world.port);
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
    let mut stream = world.browser().connect_for(&url, b"http/1.1").await;
    let sent = match leaves {
        Leaves::InTheHead => head.as_bytes()[..head.len() / 2].to_vec(),
        Leaves::InTheBody => [head.as_bytes(), &[7; 1000]].concat(),
        Leaves::AfterTheHead | Leaves::BeforeTheAnswer | Leaves::InTheAnswer => head.into_bytes(),
    };
    stream.write_all(&sent).await.unwrap();
    stream.flush().await.unwrap();
    match leaves {
        Leaves::InTheAnswer => _ = stream.read(&mut [0; 4096]).await,
        Leaves::BeforeTheAnswer => _ = timeout(Duration::from_millis(30), stream.read(&mut [0; 1])).await,
        Leaves::InTheHead | Leaves::AfterTheHead | Leaves::InTheBody => {}
    }
}

/// So many on each connection: what a relay allows at once.
const STREAMS: u32 = 100;

async fn leave_over_http2(world: &World, leaves: Leaves, count: usize) {
    let url = Url::parse(&world.url("open", "/")).unwrap();
    let host = format!("open.postern.localhost:{}", world.port);
    let mut left = count as u32;
    while left > 0 {
        let here = left.min(STREAMS);
        left -= here;
        let mut connection = Http2::begin(world.browser().connect_for(&url, b"h2").await).await;
        let (path, length) = leaves.request();
        let method = if length > 0 { "POST" } else { "GET" };
        let fields = [(":method", method), (":scheme", "https"), (":authority", host.as_str()), (":path", path)];
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| http2::field(name, value)).collect();
        let mut frames = Vec::new();
        for n in 0..here {
            let stream = 2 * n + 1;
            let end = if length > 0 { 0 } else { http2::END_STREAM };
            match leaves {
                // Nothing may come between the frames of a head, so this costs the connection.
                Leaves::InTheHead if n + 1 == here => frames.push((http2::HEADERS, end, stream, block[..8].to_vec())),
                Leaves::InTheHead => {}
                Leaves::AfterTheHead => {
                    frames.push((http2::HEADERS, http2::END_HEADERS | end, stream, block.clone()));
                    // The way a client broke a connector once: a window beyond its end.
                    frames.push((http2::WINDOW_UPDATE, 0, stream, 0x7fff_ffffu32.to_be_bytes().to_vec()));
                }
                Leaves::InTheBody | Leaves::BeforeTheAnswer | Leaves::InTheAnswer => {
                    frames.push((http2::HEADERS, http2::END_HEADERS | end, stream, block.clone()));
                    if length > 0 {
                        frames.push((http2::DATA, 0, stream, vec![7; 1000]));
                    }
                }
            }
        }
        assert!(connection.write_together(&frames).await);
        if matches!(leaves, Leaves::InTheAnswer) {
            // Some of an answer has come.
            while connection.read().await.is_some_and(|it| it.kind != http2::DATA) {}
        }
        // Half are reset, and the connection goes with the others.
        let resets: Vec<_> =
            (0..here / 2).map(|n| (http2::RST_STREAM, 0, 4 * n + 1, 8u32.to_be_bytes().to_vec())).collect();
        if !matches!(leaves, Leaves::InTheHead) {
            let _gone = connection.write_together(&resets).await;
        }
    }
}

async fn leave_over_http3(world: &World, leaves: Leaves, count: usize) {
    let browser = world.browser();
    let (path, length) = leaves.request();
    let url = world.url("open", path);
    let mut left = count;
    while left > 0 {
        let here = left.min(STREAMS as usize);
        left -= here;
        if matches!(leaves, Leaves::InTheHead) {
            let (_endpoint, connection) = quic(&browser, &Url::parse(&url).unwrap()).await;
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            // A HEADERS frame of ten bytes, of which three come.
            send.write_all(&[1, 10, 0, 0, 0]).await.unwrap();
            connection.close(0u32.into(), b"");
            continue;
        }
        let mut users = Http3::connect(&browser, &url).await;
        let mut streams = Vec::new();
        for _ in 0..here {
            let method = if length > 0 { Method::POST } else { Method::GET };
            let mut stream = users.begin(method, &url, &[]).await;
            if length > 0 {
                stream.send_data(bytes::Bytes::from_static(&[7; 1000])).await.unwrap();
            } else {
                stream.finish().await.unwrap();
            }
            streams.push(stream);
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            if matches!(leaves, Leaves::InTheAnswer) && n == 0 {
                stream.recv_response().await.unwrap();
            }
            if n % 2 == 0 {
                stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
                stream.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED);
            }
        }
        drop(streams);
        users.connection.close(0u32.into(), b"");
    }
}

#[tokio::test]
async fn whoever_leaves_wherever_the_next_request_is_answered() {
    let world = world().await;
    let origin = Origin::start().await;
    world.publish(open_app("open", &origin.url()), &[]).await;
    for leaves in EVERYWHERE {
        leave_over_http1(&world, leaves).await;
        assert_answered(&world, &format!("one over HTTP/1.1, {leaves:?}")).await;
        leave_over_http2(&world, leaves, 1).await;
        assert_answered(&world, &format!("one over HTTP/2, {leaves:?}")).await;
        leave_over_http3(&world, leaves, 1).await;
        assert_answered(&world, &format!("one over HTTP/3, {leaves:?}")).await;
    }
}

#[tokio::test]
async fn crowds_that_leave_leave_nothing_behind() {
    let world = world().await;
    let origin = Origin::start().await;
    world.publish(open_app("open", &origin.url()), &[]).await;
    for leaves in EVERYWHERE {
        join_all((0..64).map(|_| leave_over_http1(&world, leaves))).await;
        assert_answered(&world, &format!("64 over HTTP/1.1, {leaves:?}")).await;
        leave_over_http2(&world, leaves, 2000).await;
        assert_answered(&world, &format!("2,000 over HTTP/2, {leaves:?}")).await;
        leave_over_http3(&world, leaves, 500).await;
        assert_answered(&world, &format!("500 over HTTP/3, {leaves:?}")).await;
        // All at the same moment, over everything.
        let crowd = join_all((0..32).map(|_| leave_over_http1(&world, leaves)));
        tokio::join!(crowd, leave_over_http2(&world, leaves, 200), leave_over_http3(&world, leaves, 100));
        assert_answered(&world, &format!("a mixed crowd, {leaves:?}")).await;
    }
    // The connector holds nothing for those who left, and the relay neither.
    until("every exchange has ended", async || (gauge(&world, "postern_open_exchanges").await == 0).then_some(()))
        .await;
    until("streams are parked", async || (gauge(&world, "postern_parked_streams").await >= 8).then_some(())).await;
    assert_eq!(gauge(&world, "postern_links_revived_total").await, 0, "the second line of defence had nothing to do");
}

/// A number the metrics show.
async fn gauge(world: &World, name: &str) -> u64 {
    let mut stream = TcpStream::connect(&world.probes).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing:\n{text}")).parse().unwrap()
}

/// An application that reads requests and never answers; counts who is there.
struct Silent {
    port: u16,
    asked: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Silent {
    /// With `begins` it sends the head of an answer and a piece of its body first.
    async fn start(begins: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (was_asked, is_gone) = (asked.clone(), gone.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (asked, gone) = (was_asked.clone(), is_gone.clone());
                serving.spawn(async move {
                    let mut seen = Vec::new();
                    while !seen.windows(4).any(|it| it == b"\r\n\r\n") {
                        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    if begins {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun").await.unwrap();
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                    while stream.read_buf(&mut seen).await.unwrap_or(0) > 0 {}
                    gone.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, asked, gone, _tasks: tasks }
    }

    async fn was_asked(&self, times: usize) {
        until("the application is asked", async || (self.asked.load(Ordering::SeqCst) >= times).then_some(())).await;
    }

    async fn was_left(&self, times: usize, by: &str) {
        let left = until("the application is left", async || (self.gone.load(Ordering::SeqCst) >= times).then_some(()));
        timeout(Duration::from_secs(5), left).await.unwrap_or_else(|_| panic!("{by}: its connection stays open"));
    }
}

#[tokio::test]
async fn a_user_who_gives_up_frees_the_application() {
    let world = world().await;
    let url = Url::parse(&world.url("open", "/")).unwrap();
    let host = format!("open.postern.localhost:{}", world.port);
    let silent = Silent::start(false).await;
    let beginning = Silent::start(true).await;
    world.publish(open_app("open", &format!("http://127.0.0.1:{}", silent.port)), &[]).await;
    world.publish(open_app("begun", &format!("http://127.0.0.1:{}", beginning.port)), &[]).await;
    let mut times = 0;
    for body in [&b""[..], b"hello"] {
        times += 1;
        let mut stream = world.browser().connect_for(&url, b"http/1.1").await;
        let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        stream.flush().await.unwrap();
        silent.was_asked(times).await;
        drop(stream);
        silent.was_left(times, "HTTP/1.1").await;

        times += 1;
        let mut connection = Http2::begin(world.browser().connect_for(&url, b"h2").await).await;
        let fields = [(":method", "POST"), (":scheme", "https"), (":authority", host.as_str()), (":path", "/")];
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| http2::field(name, value)).collect();
        let end = if body.is_empty() { http2::END_STREAM } else { 0 };
        assert!(connection.write(http2::HEADERS, http2::END_HEADERS | end, 1, &block).await);
        if !body.is_empty() {
            assert!(connection.write(http2::DATA, http2::END_STREAM, 1, body).await);
        }
        silent.was_asked(times).await;
        assert!(connection.write(http2::RST_STREAM, 0, 1, &8u32.to_be_bytes()).await);
        silent.was_left(times, "HTTP/2").await;

        times += 1;
        let mut users = Http3::connect(&world.browser(), url.as_str()).await;
        let mut stream = users.begin(Method::POST, url.as_str(), &[]).await;
        if !body.is_empty() {
            stream.send_data(bytes::Bytes::from_static(b"hello")).await.unwrap();
        }
        stream.finish().await.unwrap();
        silent.was_asked(times).await;
        stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
        silent.was_left(times, "HTTP/3").await;
    }
    // Also in the middle of an answer that has become silent.
    let begun = world.url("begun", "/");
    let mut users = Http3::connect(&world.browser(), &begun).await;
    let mut stream = users.begin(Method::GET, &begun, &[]).await;
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    beginning.was_left(1, "HTTP/3, in the answer").await;
    let mut stream = world.browser().connect_for(&Url::parse(&begun).unwrap(), b"http/1.1").await;
    let head = format!("GET / HTTP/1.1\r\nhost: begun.postern.localhost:{}\r\n\r\n", world.port);
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
    drop(stream);
    beginning.was_left(2, "HTTP/1.1, in the answer").await;
    // And the next one is served.
    let origin = Origin::start().await;
    world.publish(open_app("next", &origin.url()), &[]).await;
    assert_eq!(world.browser().get(&world.url("next", "/")).await.status, 200);
}

/// SIGSTOP: the process is there, and does nothing.
fn signal(process: &std::process::Child, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &process.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[tokio::test]
async fn a_request_no_connector_had_goes_to_another() {
    let cluster = Cluster::start().await;
    let origin = Origin::start().await;
    cluster.publish(open_app("open", &origin.url())).await;
    let url = cluster.url(0, "open", "/");
    let mut users: Vec<_> = (0..8).map(|_| cluster.browser()).collect();
    for user in &mut users {
        assert_eq!(user.get(&url).await.status, 200);
    }
    // One of the two stands still; its links stay up.
    signal(&cluster.connectors[0].child, "-STOP");
    let answers = join_all(users.iter_mut().map(|user| user.get(&url))).await;
    let down = cluster.relays[0].said().iter().filter(|it| it.contains("link down")).count();
    assert_eq!(down, 0, "the requests went on before the link was found dead");
    signal(&cluster.connectors[0].child, "-CONT");
    for answer in answers {
        assert_eq!((answer.status.as_u16(), answer.refusal()), (200, ""));
    }
    for user in &mut users {
        assert_eq!(user.get(&url).await.status, 200, "and both serve again");
    }
}

/// Knows a connection by its first `Authorization`, as NTLM does (MS-NTHT).
async fn authenticating() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            serving.spawn(async move {
                let (mut seen, mut user) = (Vec::new(), None);
                loop {
                    let end = loop {
                        if let Some(end) = seen.windows(4).position(|it| it == b"\r\n\r\n") {
                            break end;
                        }
                        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                            return;
                        }
                    };
                    let head = String::from_utf8(seen.drain(..end + 4).collect()).unwrap();
                    let shown = head.lines().find_map(|line| line.strip_prefix("authorization: NTLM "));
                    user = shown.map(str::to_owned).or(user);
                    let answer = match &user {
                        Some(user) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{user}", user.len()),
                        None => "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Negotiate\r\n\
                                 www-authenticate: NTLM\r\ncontent-length: 0\r\n\r\n"
                            .into(),
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn a_connection_that_knows_its_user_serves_nobody_else() {
    let world = World::start().await;
    let (port, _serving) = authenticating().await;
    for user in ["alice", "bob"] {
        world.user(user).await;
    }
    world.publish(app("iis", &format!("http://127.0.0.1:{port}")), &["everyone"]).await;
    world.publish(open_app("open", &format!("http://127.0.0.1:{port}")), &[]).await;
    let url = world.url("iis", "/");
    let (mut alice, mut bob) = (world.browser(), world.browser());
    for (browser, user) in [(&mut alice, "alice"), (&mut bob, "bob")] {
        // The application wants a proof of its own.
        let answer = browser.sign_in(&url, user, postern_tests::world::PASSWORD).await;
        assert_eq!(answer.status, 401);
    }
    let proof = [("authorization", "NTLM alice")];
    assert_eq!(alice.get_with(&url, &proof).await.text(), "alice");
    // Her connections are hers: as many as there are, as often as they are used.
    for _ in 0..20 {
        let (hers, his) = tokio::join!(alice.get(&url), bob.get(&url));
        assert!(hers.status == 401 || hers.text() == "alice", "{}", hers.text());
        assert_eq!(his.status, 401, "bob is taken for {}", his.text());
    }
    // Without sign-in each connection of a user is one of its own.
    let url = world.url("open", "/");
    let (mut one, mut other) = (world.browser(), world.browser());
    assert_eq!(one.get_with(&url, &[("authorization", "NTLM carol")]).await.text(), "carol");
    for _ in 0..20 {
        assert_eq!(other.get(&url).await.status, 401);
    }
}
