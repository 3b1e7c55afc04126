//! What one peer may cost a relay. The time-outs of a head and of a write have
//! tests on virtual time beside the code (`relay`, `gate`).

use std::time::Duration;

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use postern_tests::{
    http2::{self, Http2},
    origin::Origin,
    until,
    world::{World, open_app},
};
use relay::settings::WRITE_STALL_TIMEOUT;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn an_http2_connection_is_told_its_limits() {
    let world = World::start().await;
    let mut connection = http2(&world).await;
    let settings = until("settings", async || connection.read().await.filter(|it| it.kind == http2::SETTINGS)).await;
    let value = |id: u8| {
        let entry = settings.payload.chunks(6).find(|entry| entry[..2] == [0, id]).unwrap();
        u32::from_be_bytes(entry[2..].try_into().unwrap())
    };
    assert_eq!((value(3), value(4), value(6)), (100, 256 * 1024, 48 * 1024));
}

#[tokio::test]
async fn floods_end_their_own_connection_and_nothing_else() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.publish(open_app("open", &origin.url()), &[]).await;
    let block = http2::get(&format!("open.postern.localhost:{}", world.port));
    // Rapid reset (CVE-2023-44487).
    let mut connection = flooding(&world).await;
    let mut rounds = 0;
    for stream in (1..40_001).step_by(2) {
        let opened = connection.write(http2::HEADERS, http2::END_HEADERS | http2::END_STREAM, stream, &block).await;
        if !opened || !connection.write(http2::RST_STREAM, 0, stream, &8u32.to_be_bytes()).await {
            break;
        }
        rounds += 1;
    }
    assert!(rounds < 20_000, "a reset flood goes on");
    assert_others_are_served(&world).await;

    // CONTINUATION without end (CVE-2024-27316).
    let mut connection = flooding(&world).await;
    let mut sent = connection.write(http2::HEADERS, http2::END_STREAM, 1, &block).await;
    let field = [&[0x00, 0x01, b'a', 0x7f, 0x81, 0x7e][..], &[b'b'; 16_000]].concat();
    let mut frames = 0;
    while sent && frames < 1000 {
        sent = connection.write(http2::CONTINUATION, 0, 1, &field).await;
        frames += 1;
    }
    assert!(frames < 1000, "a header block goes on");
    assert_others_are_served(&world).await;

    // Empty DATA frames (RUSTSEC-2026-0258).
    let mut connection = flooding(&world).await;
    let post = [&block[1..], &[0x83]].concat();
    let mut sent = connection.write(http2::HEADERS, http2::END_HEADERS, 1, &post).await;
    let mut frames = 0;
    while sent && frames < 200_000 {
        sent = connection.write(http2::DATA, 0, 1, b"").await;
        frames += 1;
    }
    assert!(frames < 200_000, "empty frames go on");
    assert_others_are_served(&world).await;
}

/// A connection to an application that anybody may ask.
async fn flooding(world: &World) -> Http2 {
    let url = url::Url::parse(&world.url("open", "/")).unwrap();
    Http2::begin(world.browser().connect_for(&url, b"h2").await).await
}

/// All the way to the application.
async fn assert_others_are_served(world: &World) {
    assert_eq!(world.browser().get(&world.url("open", "/")).await.status, 200, "others are served");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story of many clients")]
async fn slow_clients_are_given_up_on() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    let alice = world.signed_in("wiki", "alice").await;
    let url = url::Url::parse(&world.url("wiki", "/upload")).unwrap();
    let cookies = alice.cookie_header(&url).unwrap();
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];

    // Methods as HPACK's static table has them (RFC 7541, appendix A).
    const GET: u8 = 0x82;
    const POST: u8 = 0x83;
    let block = |method: u8, path: &str| {
        let path = [&[method, 0x87, 0x04, u8::try_from(path.len()).unwrap()][..], path.as_bytes()].concat();
        [path, http2::field(":authority", authority), http2::field("cookie", &cookies)].concat()
    };

    // Says nothing at all: no TLS.
    let silent = async {
        let mut tcp = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
        ended(tcp.read(&mut [0; 1]).await)
    };
    // TLS, and then a head that does not end.
    let half_a_head = async {
        let mut stream = alice.connect(&url).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        ended(stream.read(&mut [0; 1]).await)
    };
    // HTTP/2 by name, and nothing.
    let no_preface = async {
        let mut stream = alice.connect_for(&url, b"h2").await;
        ended(stream.read(&mut [0; 1]).await)
    };
    // HTTP/2 with a header block that does not end, but answers to PING.
    let half_a_block = async {
        let mut connection = Http2::begin(alice.connect_for(&url, b"h2").await).await;
        connection.write(http2::HEADERS, 0, 1, &http2::get(authority)).await;
        connection.until_closed().await;
        true
    };
    // A handshake, a head, a header block, of which a drop comes now and then.
    let dripping_handshake = async {
        let tcp = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
        drip(tcp, [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 200]].concat()).await.is_empty()
    };
    let dripping_head = async {
        let stream = alice.connect(&url).await;
        let head = format!("GET / HTTP/1.1\r\nhost: {authority}\r\nx: {}", "a".repeat(200));
        drip(stream, head.into_bytes()).await.is_empty()
    };
    let dripping_block = async {
        let mut connection = Http2::begin(alice.connect_for(&url, b"h2").await).await;
        connection.write(http2::HEADERS, http2::END_STREAM, 1, &http2::get(authority)).await;
        let field = http2::field("x", "y");
        while connection.write(http2::CONTINUATION, 0, 1, &field).await {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        true
    };
    // A body, or the size of a chunk of it, of which a drop comes now and then.
    let post = format!("POST /upload HTTP/1.1\r\nhost: {authority}\r\ncookie: {cookies}\r\n");
    let dripping_body = async {
        let mut stream = alice.connect(&url).await;
        stream.write_all(format!("{post}content-length: 9999\r\n\r\n").as_bytes()).await.unwrap();
        let answer = drip(stream, vec![b'x'; 200]).await;
        answer.starts_with("HTTP/1.1 408") && answer.contains("postern-refusal: slow_body")
    };
    let dripping_chunk = async {
        let mut stream = alice.connect(&url).await;
        stream.write_all(format!("{post}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
        let answer = drip(stream, vec![b'0'; 200]).await;
        answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 408")
    };
    let dripping_data = async {
        let mut connection = Http2::begin(alice.connect_for(&url, b"h2").await).await;
        connection.write(http2::HEADERS, http2::END_HEADERS, 1, &block(POST, "/upload")).await;
        loop {
            connection.write(http2::DATA, 0, 1, b"x").await;
            match tokio::time::timeout(Duration::from_secs(1), connection.read()).await {
                Ok(Some(frame)) if frame.kind == http2::HEADERS => break true,
                Ok(None) => break false,
                Ok(Some(_)) | Err(_) => {}
            }
        }
    };
    // Whoever asks for much and takes nothing: of HTTP/1 a connection, of HTTP/2 a
    // stream, while the connection serves on.
    let big = 256 << 20;
    let takes_nothing = async {
        let mut stream = alice.connect(&url).await;
        let request = format!("GET /big?{big} HTTP/1.1\r\nhost: {authority}\r\ncookie: {cookies}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(WRITE_STALL_TIMEOUT + Duration::from_secs(10)).await;
        let mut answer = Vec::new();
        let _cut = stream.read_to_end(&mut answer).await;
        answer.starts_with(b"HTTP/1.1 200") && answer.len() < big
    };
    let opens_no_window = async {
        let mut connection = Http2::begin(alice.connect_for(&url, b"h2").await).await;
        connection.write(http2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
        let ends = http2::END_HEADERS | http2::END_STREAM;
        connection.write(http2::HEADERS, ends, 1, &block(GET, &format!("/big?{big}"))).await;
        let mut reset = false;
        while let Some(frame) = connection.read().await {
            match (frame.kind, frame.stream) {
                (http2::PING, _) if frame.flags & http2::ACK == 0 => {
                    connection.write(http2::PING, http2::ACK, 0, &frame.payload).await;
                }
                (http2::RST_STREAM, 1) => {
                    reset = true;
                    connection.write(http2::HEADERS, ends, 3, &block(GET, "/a")).await;
                }
                (http2::HEADERS, 3) => return reset,
                _ => {}
            }
        }
        false
    };
    // A whole request, and then nothing: kept for a while, not for ever.
    let idle = async {
        let mut stream = alice.connect(&url).await;
        let request = format!("GET /a HTTP/1.1\r\nhost: {authority}\r\ncookie: {cookies}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _closed = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200")
    };
    let kinds: [(&str, BoxFuture<'_, bool>); 13] = [
        ("silent", silent.boxed()),
        ("half a head", half_a_head.boxed()),
        ("no preface", no_preface.boxed()),
        ("half a block", half_a_block.boxed()),
        ("dripping handshake", dripping_handshake.boxed()),
        ("dripping head", dripping_head.boxed()),
        ("dripping block", dripping_block.boxed()),
        ("dripping body", dripping_body.boxed()),
        ("dripping chunk", dripping_chunk.boxed()),
        ("dripping data", dripping_data.boxed()),
        ("takes nothing", takes_nothing.boxed()),
        ("opens no window", opens_no_window.boxed()),
        ("idle", idle.boxed()),
    ];
    let ends = kinds.map(async |(kind, ends)| {
        let ended = tokio::time::timeout(Duration::from_secs(120), ends).await;
        (kind, ended)
    });
    for (kind, ended) in join_all(ends).await {
        assert_eq!(ended, Ok(true), "{kind}");
    }
}

/// A byte a second, until the peer has enough; what it says to that.
async fn drip(stream: impl AsyncRead + AsyncWrite, bytes: Vec<u8>) -> String {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let dripped = async {
        for byte in bytes {
            if writer.write_all(&[byte]).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        read = reader.read_to_end(&mut answer) => drop(read),
        () = dripped => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn one_address_has_a_bounded_number_of_connections() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    let alice = world.signed_in("wiki", "alice").await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(world.web_socket(&alice, &world.url("wiki", "/ws")).await);
    }
    let mut held = Vec::new();
    // 256 by default; those over it are closed at once, without a byte.
    let refused = until("a connection is refused", async || {
        let mut tcp = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
        let refused = tokio::time::timeout(Duration::from_millis(5), tcp.read(&mut [0; 1])).await;
        held.push(tcp);
        refused.is_ok().then_some(held.len())
    })
    .await;
    assert!((230..=237).contains(&refused), "refused after {refused}, and WebSockets count");
    held.clear();
    let mut alice = world.browser();
    until("there is room again", async || {
        let tcp = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
        let mut byte = [0; 1];
        let closed = tokio::time::timeout(Duration::from_millis(50), tcp.peek(&mut byte)).await;
        closed.is_err().then_some(())
    })
    .await;
    assert_eq!(alice.get(&world.url("demo", "/")).await.status, 303);
}

async fn http2(world: &World) -> Http2 {
    let url = url::Url::parse(&world.url("demo", "/")).unwrap();
    Http2::begin(world.browser().connect_for(&url, b"h2").await).await
}

/// Closed, with or without an error.
fn ended(read: std::io::Result<usize>) -> bool {
    !matches!(read, Ok(1..))
}
