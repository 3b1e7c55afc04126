//! An application to publish: says what it received, and does everything HTTP
//! can do.

use std::{
    convert::Infallible,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Body as _, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{pki_types::PrivateKeyDer, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::broadcast,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

pub struct Origin {
    pub port: u16,
    pub requests: Arc<AtomicU64>,
    /// Bytes of request bodies read so far.
    pub received: Arc<AtomicU64>,
    pub connections: Arc<AtomicU64>,
    /// What it says of itself at `/health`.
    pub ill: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

pub type Certified = rcgen::CertifiedKey<rcgen::KeyPair>;

enum Listener {
    Plain(TcpListener),
    Unix(UnixListener),
    Tls(TcpListener, TlsAcceptor),
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Listener {
    async fn accept(&self) -> Box<dyn Io> {
        match self {
            Self::Plain(listener) => Box::new(listener.accept().await.unwrap().0),
            Self::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
            Self::Tls(listener, tls) => loop {
                // A client that does not trust us, or whom we do not, tries in vain.
                if let Ok(stream) = tls.accept(listener.accept().await.unwrap().0).await {
                    return Box::new(stream);
                }
            },
        }
    }
}

type Body = BoxBody<Bytes, Infallible>;

impl Origin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self::serve(port, Listener::Plain(listener))
    }

    /// On a unix socket.
    pub fn start_unix(path: &Path) -> Self {
        Self::serve(0, Listener::Unix(UnixListener::bind(path).unwrap()))
    }

    /// HTTP/2 over TLS, with a certificate for `inside.test` (PEM, returned).
    pub async fn start_http2() -> (Self, String) {
        let certified = rcgen::generate_simple_self_signed(["inside.test".to_owned()]).unwrap();
        let origin = Self::start_tls(&certified, None).await;
        (origin, certified.cert.pem())
    }

    /// HTTP/2 over TLS; with `client`, only for who has that certificate.
    pub async fn start_tls(own: &Certified, client: Option<&Certified>) -> Self {
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let builder = rustls::ServerConfig::builder();
        let builder = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(client.cert.der().clone()).unwrap();
                builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
            }
        };
        let mut tls = builder.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self::serve(port, Listener::Tls(listener, acceptor))
    }

    fn serve(port: u16, listener: Listener) -> Self {
        let (requests, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let connections = Arc::new(AtomicU64::new(0));
        let ill = Arc::new(AtomicBool::new(false));
        let says_ill = ill.clone();
        let (count, bytes, opened) = (requests.clone(), received.clone(), connections.clone());
        let gateway = Gateway::new(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let http2 = matches!(listener, Listener::Tls(..));
                let stream = listener.accept().await;
                opened.fetch_add(1, Ordering::SeqCst);
                let (count, bytes, ill) = (count.clone(), bytes.clone(), says_ill.clone());
                let gateway = gateway.clone();
                serving.spawn(async move {
                    let service = service_fn(move |request| {
                        count.fetch_add(1, Ordering::SeqCst);
                        answer(request, bytes.clone(), ill.load(Ordering::SeqCst), gateway.clone())
                    });
                    let io = TokioIo::new(stream);
                    if http2 {
                        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _closed = http2.serve_connection(io, service).await;
                    } else {
                        let http1 = hyper::server::conn::http1::Builder::new();
                        let _closed = http1.serve_connection(io, service).with_upgrades().await;
                    }
                });
            }
        });
        Self { port, requests, received, connections, ill, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

async fn answer(
    request: Request<Incoming>,
    received: Arc<AtomicU64>,
    ill: bool,
    gateway: Gateway,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or("").to_owned();
    Ok(match path.as_str() {
        "/ws" => web_socket(request),
        "/remoteDesktopGateway/" => remote_desktop(request, gateway).await,
        "/health" if ill => text(StatusCode::SERVICE_UNAVAILABLE, "ill".into()),
        "/sse" => stream(ticks(), "text/event-stream"),
        "/big" => stream(zeros(query.parse().unwrap()), "application/octet-stream"),
        "/upload" => {
            let mut body = request.into_body();
            let mut total = 0u64;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { break };
                let bytes = frame.data_ref().map_or(0, |it| it.len() as u64);
                total += bytes;
                received.fetch_add(bytes, Ordering::SeqCst);
            }
            text(StatusCode::OK, total.to_string())
        }
        "/redirect" => {
            let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
            let mut response = text(StatusCode::FOUND, String::new());
            let location = if query.is_empty() { format!("http://{host}/there") } else { query };
            response.headers_mut().insert(header::LOCATION, location.parse().unwrap());
            response
        }
        "/say" => say(request).await,
        "/cookies" => {
            let mut response = text(StatusCode::OK, String::new());
            for cookie in ["app=1; Path=/", "__Host-postern-evil=1; Path=/; Secure"] {
                response.headers_mut().append(header::SET_COOKIE, cookie.parse().unwrap());
            }
            response
        }
        "/hop" => {
            let mut response = text(StatusCode::OK, "x".into());
            response.headers_mut().insert(header::CONNECTION, "x-private".parse().unwrap());
            response.headers_mut().insert("x-private", "1".parse().unwrap());
            response.headers_mut().insert("postern-refusal", "fake".parse().unwrap());
            response
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(query.parse().unwrap_or(100))).await;
            echo(request.method().as_str(), &path, &query, request.headers())
        }
        _ => {
            let (parts, body) = request.into_parts();
            // A small body is read: whoever leaves one unread closes the connection.
            if body.size_hint().upper().is_some_and(|it| it <= 64 * 1024) {
                let _read = body.collect().await;
            }
            echo(parts.method.as_str(), &path, &query, &parts.headers)
        }
    })
}

/// What came in, for who reads the other half.
type Gateway = broadcast::Sender<Bytes>;

/// A Remote Desktop Gateway as far as HTTP sees it (MS-TSGU, section 1.3.3.1):
/// what comes in one long request leaves in the answer of another.
async fn remote_desktop(request: Request<Incoming>, gateway: Gateway) -> Response<Body> {
    if request.method().as_str() == "RDG_OUT_DATA" {
        let heard = futures_util::stream::unfold(gateway.subscribe(), |mut heard| async move {
            let bytes = heard.recv().await.ok()?;
            Some((Ok(Frame::data(bytes)), heard))
        });
        return stream(heard, "application/octet-stream");
    }
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            // Nobody may be listening.
            let _heard = gateway.send(data);
        }
    }
    text(StatusCode::OK, String::new())
}

/// Answers with the body it is sent, and with each `x-say-NAME` as field NAME.
async fn say(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::new(body).boxed());
    for (name, value) in &parts.headers {
        if let Some(name) = name.as_str().strip_prefix("x-say-") {
            response.headers_mut().append(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.clone());
        }
    }
    response
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    response
}

/// The request as JSON; a field that came twice is a list of two.
fn echo(method: &str, path: &str, query: &str, headers: &HeaderMap) -> Response<Body> {
    let mut fields = serde_json::Map::new();
    for name in headers.keys() {
        let values: Vec<String> =
            headers.get_all(name).iter().map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned()).collect();
        fields.insert(name.as_str().to_owned(), values.into());
    }
    let json = serde_json::json!({ "method": method, "path": path, "query": query, "headers": fields });
    let mut response = text(StatusCode::OK, json.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    response
}

fn stream(
    frames: impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync + 'static,
    kind: &'static str,
) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
    response
}

fn ticks() -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    futures_util::stream::unfold(0u32, |n| async move {
        if n > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some((Ok(Frame::data(Bytes::from(format!("data: {n}\n\n")))), n + 1))
    })
}

fn zeros(total: u64) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    const PIECE: u64 = 64 * 1024;
    static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];
    futures_util::stream::unfold(total, |left| async move {
        let piece = left.min(PIECE);
        (piece > 0).then(|| (Ok(Frame::data(Bytes::from_static(&ZEROS[..piece as usize]))), left - piece))
    })
}

fn web_socket(mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").map(|it| derive_accept_key(it.as_bytes()));
    let Some(accept) = key else { return text(StatusCode::BAD_REQUEST, "no key".into()) };
    let upgrade = hyper::upgrade::on(&mut request);
    #[expect(clippy::disallowed_methods, reason = "the socket ends with the test's runtime")]
    tokio::task::spawn(async move {
        let Ok(io) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, "upgrade".parse().unwrap());
    headers.insert(header::UPGRADE, "websocket".parse().unwrap());
    headers.insert("sec-websocket-accept", accept.parse().unwrap());
    response
}
