//! What goes around the gate: other protocols, other readings of a path, bodies
//! that get lost, names written otherwise.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::{Buf, Bytes};
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use postern_tests::{
    http3::Http3,
    origin::Origin,
    world::{World, app, open_app},
};
use proto::v1;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use url::Url;

/// What arrived: method, whether a body was announced, and the body.
type Arrived = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Reads whatever it is sent, over HTTP/1.1 or HTTP/2 without TLS.
async fn reader() -> (u16, Arrived, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let arrived = Arrived::default();
    let seen = arrived.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            serving.spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let seen = seen.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.map(|it| it.to_bytes().to_vec()).unwrap_or_default();
                        seen.lock().unwrap().push((parts.method.to_string(), body));
                        let answer = if parts.method == Method::HEAD { "" } else { "read" };
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(answer.as_bytes()))))
                    }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                let _closed = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, arrived, tasks)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    LengthZero,
    Length,
    ChunkedZero,
    Chunked,
    /// Of which trailers go no further than the relay.
    ChunkedWithTrailers,
}

const KINDS: [Kind; 6] =
    [Kind::None, Kind::LengthZero, Kind::Length, Kind::ChunkedZero, Kind::Chunked, Kind::ChunkedWithTrailers];
const METHODS: [&str; 11] =
    ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "SEARCH", "PUT", "POST", "REPORT", "BREW"];
const BODY: &str = "hello, body";

impl Kind {
    fn body(self) -> &'static str {
        match self {
            Self::None | Self::LengthZero | Self::ChunkedZero => "",
            Self::Length | Self::Chunked | Self::ChunkedWithTrailers => BODY,
        }
    }

    fn http1(self) -> String {
        let chunked = "Transfer-Encoding: chunked\r\n\r\n";
        match self {
            Self::None => "\r\n".into(),
            Self::LengthZero => "Content-Length: 0\r\n\r\n".into(),
            Self::Length => format!("Content-Length: {}\r\n\r\n{BODY}", BODY.len()),
            Self::ChunkedZero => format!("{chunked}0\r\n\r\n"),
            Self::Chunked => format!("{chunked}5\r\nhello\r\n6\r\n, body\r\n0\r\n\r\n"),
            Self::ChunkedWithTrailers => {
                format!("Trailer: x-sum\r\n{chunked}5\r\nhello\r\n6\r\n, body\r\n0\r\nx-sum: 1\r\n\r\n")
            }
        }
    }

    fn frames(self) -> BoxBody<Bytes, Infallible> {
        let pieces = |pieces: &[&'static str]| -> Vec<Result<Frame<Bytes>, Infallible>> {
            pieces.iter().map(|it| Ok(Frame::data(Bytes::from_static(it.as_bytes())))).collect()
        };
        let mut frames = match self {
            Self::None | Self::LengthZero => return Full::default().boxed(),
            Self::Length => return Full::new(Bytes::from_static(BODY.as_bytes())).boxed(),
            Self::ChunkedZero => pieces(&[""]),
            Self::Chunked | Self::ChunkedWithTrailers => pieces(&["hello", ", body"]),
        };
        if self == Self::ChunkedWithTrailers {
            let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), 1.into())]);
            frames.push(Ok(Frame::trailers(trailers)));
        }
        BodyExt::boxed(StreamBody::new(stream::iter(frames)))
    }
}

/// Sent and arrived are the same, for every method, kind of body and version.
#[tokio::test]
async fn no_body_is_lost_on_its_way() {
    let world = World::with_settings("[relay]\nhttp3 = true\n").await;
    let (port, arrived, _serving) = reader().await;
    let mut lost = Vec::new();
    let mut count = 0;
    for scheme in ["http", "h2c"] {
        world.publish(open_app(scheme, &format!("{scheme}://127.0.0.1:{port}")), &[]).await;
        let url = Url::parse(&world.url(scheme, "/")).unwrap();
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let browser = world.browser();
        let (mut http2, connection) = hyper::client::conn::http2::handshake(
            TokioExecutor::new(),
            TokioIo::new(browser.connect_for(&url, b"h2").await),
        )
        .await
        .unwrap();
        let mut driving = JoinSet::new();
        driving.spawn(async move { _ = connection.await });
        let mut http3 = Http3::connect(&browser, url.as_str()).await;
        for method in METHODS {
            for kind in KINDS {
                for version in ["HTTP/1.1", "HTTP/2", "HTTP/3"] {
                    arrived.lock().unwrap().clear();
                    match version {
                        "HTTP/1.1" => {
                            let head = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
                            let mut stream = browser.connect_for(&url, b"http/1.1").await;
                            stream.write_all((head + &kind.http1()).as_bytes()).await.unwrap();
                            let mut answer = Vec::new();
                            let _closed = stream.read_to_end(&mut answer).await;
                        }
                        "HTTP/2" => {
                            let request = Request::builder().method(method).uri(url.as_str());
                            let answer = http2.send_request(request.body(kind.frames()).unwrap()).await.unwrap();
                            answer.into_body().collect().await.unwrap();
                        }
                        _ => {
                            let method = Method::from_bytes(method.as_bytes()).unwrap();
                            let mut stream = http3.begin(method, url.as_str(), &[]).await;
                            for piece in kind.body().as_bytes().chunks(5) {
                                stream.send_data(Bytes::copy_from_slice(piece)).await.unwrap();
                            }
                            stream.finish().await.unwrap();
                            stream.recv_response().await.unwrap();
                            while let Some(data) = stream.recv_data().await.unwrap() {
                                assert!(data.has_remaining());
                            }
                        }
                    }
                    count += 1;
                    let seen = arrived.lock().unwrap().clone();
                    if seen != [(method.to_owned(), kind.body().as_bytes().to_vec())] {
                        lost.push(format!("{method} {kind:?} over {version} to {scheme}: {seen:?}"));
                    }
                }
            }
        }
    }
    assert_eq!(count, 2 * METHODS.len() * KINDS.len() * 3);
    assert!(lost.is_empty(), "{} of {count}:\n{}", lost.len(), lost.join("\n"));
}

/// The library would send it over HTTP/2, and a client break off there.
#[tokio::test]
async fn an_answer_of_ours_to_head_has_no_body() {
    let world = World::start().await;
    world.publish(open_app("gone", "http://127.0.0.1:1"), &[]).await;
    let url = Url::parse(&world.url("gone", "/")).unwrap();
    let io = TokioIo::new(world.browser().connect_for(&url, b"h2").await);
    let (mut http2, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { _ = connection.await });
    for method in [Method::HEAD, Method::GET] {
        let request = Request::builder().method(&method).uri(url.as_str()).body(Full::<Bytes>::default()).unwrap();
        let answer = http2.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.is_empty(), method == Method::HEAD);
    }
}

/// Switches to whatever it is asked for, or to something else.
async fn switching() -> (u16, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = heads.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            serving.spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|it| it == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
                let asked = head.lines().find_map(|line| line.strip_prefix("upgrade: ")).map(str::to_owned);
                let protocol = if head.starts_with("get /other") { Some("h2c".to_owned()) } else { asked };
                seen.lock().unwrap().push(head);
                let answer = match protocol {
                    Some(protocol) => format!(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\nraw"
                    ),
                    None => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain".into(),
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _gone = stream.read(&mut [0; 16]).await;
            });
        }
    });
    (port, heads, tasks)
}

async fn upgrade_to(world: &World, app: &str, path: &str, protocol: &str) -> String {
    let url = Url::parse(&world.url(app, "/")).unwrap();
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
         HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nX-After: yes\r\n\r\n"
    );
    let mut stream = world.browser().connect_for(&url, b"http/1.1").await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 16 * 1024];
    let count = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..count]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn only_what_an_application_names_is_upgraded_and_never_to_http() {
    let world = World::start().await;
    let (port, heads, _serving) = switching().await;
    let origin = format!("http://127.0.0.1:{port}");
    world.publish(open_app("open", &origin), &[]).await;
    let naming = v1::App { upgrades: vec!["tcp/1".into()], ..open_app("naming", &origin) };
    world.publish(naming, &[]).await;
    for protocol in ["h2c", "H2C", "TLS/1.0", "tcp/1", "h2c, tcp/1"] {
        let answer = upgrade_to(&world, "open", "/", protocol).await;
        assert_eq!(answer, "HTTP/1.1 200 OK", "{protocol}");
    }
    assert_eq!(upgrade_to(&world, "open", "/", "WebSocket").await, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(upgrade_to(&world, "naming", "/", "tcp/1").await, "HTTP/1.1 101 Switching Protocols");
    // Of several only those it may: the others are not even asked for.
    assert_eq!(upgrade_to(&world, "naming", "/", "h2c, tcp/1").await, "HTTP/1.1 101 Switching Protocols");
    let seen = heads.lock().unwrap().clone();
    assert_eq!(seen.len(), 8);
    assert!(!seen.iter().any(|head| head.contains("h2c") || head.contains("http2-settings")), "{seen:#?}");
    assert!(seen.iter().all(|head| head.contains("x-after: yes")));
    // Nor may it switch to something else than was asked.
    assert_eq!(upgrade_to(&world, "open", "/other", "websocket").await, "HTTP/1.1 502 Bad Gateway");
    let url = world.url("open", "/other");
    assert_eq!(world.browser().get(&url).await.refusal(), "origin_bad_response", "and not without being asked");
    for never in ["h2c", "h2", "HTTP/2.0", "TLS/1.3", "two words"] {
        let app = v1::App { upgrades: vec![never.into()], ..open_app("never", &origin) };
        let request = v1::PublishAppRequest { app: Some(app), ..Default::default() };
        let refused = world.admin.applications().publish(request).await.unwrap_err();
        assert!(refused.message().contains("upgrades"), "{}", refused.message());
    }
    // The next request is like any other.
    assert_eq!(upgrade_to(&world, "open", "/", "websocket").await, "HTTP/1.1 101 Switching Protocols");
}

#[tokio::test]
async fn a_path_that_becomes_another_applications_when_decoded_twice_is_refused() {
    let world = World::start().await;
    let origin = Origin::start().await;
    let at = |name: &str, path: &str| v1::App {
        external_url: format!("https://shared.postern.localhost{path}"),
        ..open_app(name, &origin.url())
    };
    world.publish(at("pub", "/pub/"), &[]).await;
    world.publish(v1::App { pre_authentication: 0, ..at("adm", "/adm/") }, &[]).await;
    for path in ["/pub/%252e%252e/adm/x", "/pub/%252e%252e%252fadm/x", "/pub/%25252e%25252e/adm/x"] {
        let answer = world.browser().get(&world.url("shared", path)).await;
        assert_eq!((answer.status, answer.refusal()), (StatusCode::BAD_REQUEST, "bad_request"), "{path}");
    }
    assert_eq!(world.browser().get(&world.url("shared", "/pub/100%2525/x")).await.status, 200);
}

#[tokio::test]
async fn a_host_written_in_full_is_the_same_application() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.publish(open_app("open", &origin.url()), &[]).await;
    world.publish(app("wiki", &origin.url()), &["everyone"]).await;
    let ask = async |name: &str| {
        let url = Url::parse(&world.url(name, "/")).unwrap();
        let host = format!("{name}.postern.localhost.:{}", world.port);
        let mut stream = world.browser().connect_for(&url, b"http/1.1").await;
        let head = format!("GET /page HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _closed = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).to_ascii_lowercase()
    };
    let served = ask("open").await;
    assert!(served.starts_with("http/1.1 200"), "{served}");
    let usual = format!("open.postern.localhost:{}", world.port);
    assert!(served.contains(&format!("\"host\":[\"{usual}\"]")), "{served}");
    assert!(served.contains(&format!("\"x-forwarded-host\":[\"{usual}\"]")), "{served}");
    // A cookie of the usual name would not be seen here, so sign-in begins there.
    let sent_on = ask("wiki").await;
    assert!(sent_on.starts_with("http/1.1 307"), "{sent_on}");
    let usual = format!("{}: https://wiki.postern.localhost:{}/page\r\n", header::LOCATION, world.port);
    assert!(sent_on.contains(&usual), "{sent_on}");
}
