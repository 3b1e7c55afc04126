//! Applications that break HTTP, or would like to answer somebody else's
//! request (attack classes R16 and R18). Their faults never reach the user as a
//! whole answer, and never anybody else at all.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use postern_tests::{
    browser::Browser,
    until,
    world::{World, app},
};
use proto::v1;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// What the user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// A refusal of ours: the answer was none.
    Refusal,
    /// A broken body: never one that seems whole.
    Cut,
    /// The answer as far as it counts, and nothing of what follows it.
    Body(&'static str),
    /// Either of the first two.
    Neither,
}

const NEXT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn cases() -> Vec<(&'static str, May, String)> {
    let ok = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let large = "a".repeat(20_000);
    vec![
        ("nothing at all", May::Refusal, String::new()),
        ("half a head", May::Refusal, "HTTP/1.1 200 OK\r\nContent-Le".into()),
        ("HTTP/0.9", May::Refusal, "hello".into()),
        ("another protocol", May::Refusal, "SSH-2.0-OpenSSH_9.0\r\n\r\n".into()),
        ("a status that is no number", May::Refusal, "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n".into()),
        ("a status of four digits", May::Refusal, "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n".into()),
        ("a status below 100", May::Refusal, "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n".into()),
        (
            "a switch nobody asked for",
            May::Refusal,
            "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".into(),
        ),
        ("two different lengths", May::Neither, ok("Content-Length: 4\r\nContent-Length: 40\r\n", "test")),
        ("a list of lengths", May::Neither, ok("Content-Length: 4, 40\r\n", "test")),
        ("a length that is no number", May::Refusal, ok("Content-Length: four\r\n", "test")),
        ("a negative length", May::Refusal, ok("Content-Length: -1\r\n", "test")),
        ("a length with a sign", May::Refusal, ok("Content-Length: +4\r\n", "test")),
        ("a length beyond 64 bits", May::Refusal, ok("Content-Length: 99999999999999999999\r\n", "test")),
        ("a body shorter than its length", May::Cut, ok("Content-Length: 100\r\n", "test")),
        ("a body longer than its length", May::Body("test"), ok("Content-Length: 4\r\n", &format!("test{NEXT}"))),
        ("a second answer right behind", May::Body("test"), ok("Content-Length: 4\r\n", "test") + NEXT + NEXT),
        ("a length and a coding", May::Neither, ok("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("a coding that is not chunked", May::Neither, ok("Transfer-Encoding: gzip\r\n", "test")),
        ("chunked twice", May::Neither, ok("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")),
        ("a chunk size that is none", May::Neither, ok("Transfer-Encoding: chunked\r\n", "zz\r\ntest\r\n0\r\n\r\n")),
        (
            "a chunk size beyond 64 bits",
            May::Neither,
            ok("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\ntest"),
        ),
        ("a chunk longer than its size", May::Cut, ok("Transfer-Encoding: chunked\r\n", "2\r\ntest\r\n0\r\n\r\n")),
        ("chunks that do not end", May::Cut, ok("Transfer-Encoding: chunked\r\n", "4\r\ntest\r\n")),
        (
            "an answer after the last chunk",
            May::Body("test"),
            ok("Transfer-Encoding: chunked\r\n", &format!("4\r\ntest\r\n0\r\n\r\n{NEXT}")),
        ),
        (
            "no content with content",
            May::Body(""),
            format!("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\ntest{NEXT}"),
        ),
        ("not modified with content", May::Body(""), format!("HTTP/1.1 304 Not Modified\r\n\r\n{NEXT}")),
        ("a field without a colon", May::Refusal, ok("nonsense\r\nContent-Length: 0\r\n", "")),
        ("a field name with a space", May::Refusal, ok("x y: z\r\nContent-Length: 0\r\n", "")),
        ("a field value with NUL", May::Refusal, ok("x: a\0b\r\nContent-Length: 0\r\n", "")),
        ("a thousand fields", May::Refusal, ok(&"x: y\r\n".repeat(1000), "")),
        ("a field of 2 MB", May::Refusal, ok(&format!("x: {}\r\n", large.repeat(100)), "")),
        ("a head without end", May::Refusal, ok(&format!("x: {large}\r\n").repeat(100), "")[..1_500_000].into()),
        ("interim answers without end", May::Refusal, "HTTP/1.1 100 Continue\r\n\r\n".repeat(20_000)),
    ]
}

async fn start() -> u16 {
    start_counting(Arc::default()).await
}

/// Answers `/N` with case N as it stands, and closes; everything else well. Counts
/// how often it hung up on a request.
async fn start_counting(hung_up: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::task::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let hung_up = hung_up.clone();
            #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
            tokio::task::spawn(async move {
                let mut seen = Vec::new();
                let mut buffer = [0; 4096];
                let mut answered = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    seen.extend_from_slice(&buffer[..read]);
                    let Some(end) = seen.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&seen[..end]).into_owned();
                    seen.drain(..end + 4);
                    let path = head.split(' ').nth(1).unwrap_or("/");
                    let case = path[1..].parse().ok().and_then(|n: usize| cases().into_iter().nth(n));
                    match case {
                        Some((_, _, answer)) => {
                            let _gone = stream.write_all(answer.as_bytes()).await;
                            return;
                        }
                        None if path == "/lasting" => {
                            // Kept alive, and worse than it looks.
                            let _gone = stream
                                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntest{NEXT}").as_bytes())
                                .await;
                        }
                        // As one does whose patience with the connection ended just now.
                        None if path == "/hangs-up" && answered > 0 => {
                            hung_up.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        None if path == "/silent" => tokio::time::sleep(std::time::Duration::from_secs(60)).await,
                        None => {
                            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
                            answered += 1;
                        }
                    }
                }
            });
        }
    });
    port
}

/// A kept connection may end just when a request is on its way (RFC 9112,
/// section 9.3.1): what may be sent twice without harm is, once, and on a fresh one.
#[tokio::test]
async fn a_kept_connection_that_ends_costs_a_reader_nothing_and_a_writer_no_second_try() {
    let world = World::start().await;
    world.user("alice").await;
    let hung_up = Arc::new(AtomicU64::new(0));
    let port = start_counting(hung_up.clone()).await;
    world.publish(app("hostile", &format!("http://127.0.0.1:{port}")), &["everyone"]).await;
    let mut alice = world.signed_in("hostile", "alice").await;
    let url = world.url("hostile", "/hangs-up");
    until("it hung up on a reader", async || {
        assert_eq!(ask(&mut alice, &world.url("hostile", "/good")).await.0, 200);
        assert_eq!(ask(&mut alice, &url).await, (200, Some("good".into())));
        (hung_up.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    until("it hung up on a writer", async || {
        assert_eq!(ask(&mut alice, &world.url("hostile", "/good")).await.0, 200);
        let before = hung_up.load(Ordering::SeqCst);
        let answer = alice.ask(Method::POST, &url, &[], Bytes::new()).await;
        let refused = (answer.status == 502).then_some(());
        let counted = hung_up.load(Ordering::SeqCst) - before;
        assert_eq!(counted, u64::from(refused.is_some()), "an order is placed once");
        refused
    })
    .await;
}

/// Status (0 when there is no answer), and the body if it came to its end.
async fn ask(alice: &mut Browser, url: &str) -> (u16, Option<String>) {
    let response = alice.try_send(Method::GET, &url::Url::parse(url).unwrap(), &[], Bytes::new()).await;
    let Some(response) = response else { return (0, None) };
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok();
    (status, body.map(|it| String::from_utf8_lossy(&it.to_bytes()).into_owned()))
}

#[tokio::test]
async fn what_an_application_breaks_stays_broken_and_its_own() {
    let world = World::start().await;
    world.user("alice").await;
    let port = start().await;
    let hostile = v1::App { response_timeout_ms: 3000, ..app("hostile", &format!("http://127.0.0.1:{port}")) };
    world.publish(hostile, &["everyone"]).await;
    let mut alice = world.signed_in("hostile", "alice").await;
    let mut failed = Vec::new();
    for (n, (name, may, _)) in cases().into_iter().enumerate() {
        let (status, body) = ask(&mut alice, &world.url("hostile", &format!("/{n}"))).await;
        let refused = matches!(status, 502 | 504);
        let right = match may {
            May::Refusal => refused,
            May::Cut => body.is_none(),
            May::Body(expected) => body.as_deref() == Some(expected) && !refused,
            May::Neither => refused || body.is_none(),
        };
        if !right {
            failed.push(format!("{name}: may {may:?}, was {status} {body:?}"));
        }
        for _ in 0..3 {
            let next = ask(&mut alice, &world.url("hostile", "/good")).await;
            if next != (200, Some("good".into())) {
                failed.push(format!("{name}: the next request got {next:?}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Pingora CVE-2026-2833 and kin: a pooled connection that holds more than was
/// asked for is never used again.
#[tokio::test]
async fn an_answer_nobody_asked_for_reaches_nobody() {
    let world = World::start().await;
    world.user("alice").await;
    let port = start().await;
    world.publish(app("hostile", &format!("http://127.0.0.1:{port}")), &["everyone"]).await;
    let mut alice = world.signed_in("hostile", "alice").await;
    for _ in 0..30 {
        assert_eq!(ask(&mut alice, &world.url("hostile", "/lasting")).await, (200, Some("test".into())));
        assert_eq!(ask(&mut alice, &world.url("hostile", "/good")).await, (200, Some("good".into())));
    }
}

/// A silent application costs its own user time, and nobody else.
#[tokio::test]
async fn silence_ends_in_time() {
    let world = World::start().await;
    world.user("alice").await;
    let port = start().await;
    let silent = v1::App { response_timeout_ms: 700, ..app("silent", &format!("http://127.0.0.1:{port}")) };
    world.publish(silent, &["everyone"]).await;
    let alice = world.signed_in("silent", "alice").await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let (mut alice, url) = (alice.clone(), world.url("silent", "/silent"));
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        waiting.push(tokio::task::spawn(async move { ask(&mut alice, &url).await.0 }));
    }
    let mut other = alice.clone();
    until("others are served meanwhile", async || {
        let good = ask(&mut other, &world.url("silent", "/good")).await;
        (good.0 == 200).then_some(())
    })
    .await;
    for waited in waiting {
        assert_eq!(waited.await.unwrap(), 504);
    }
}
