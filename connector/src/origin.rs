//! Reaching an origin: sockets, TLS, and connections kept for the next request.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::v1::{App, ResetCode};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use tracing::debug;
use tunnel::exchange::Download;

use crate::origins::{Definition, is_forbidden};

/// Idle connections kept for one application on one worker.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// An origin may close a connection it was not asked on; ours go first.
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// hyper would read up to 400 KiB ahead, which starves the streams beside it.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The body of a request to an origin.
pub type Body = http_body_util::Either<Download, http_body_util::Empty<bytes::Bytes>>;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where an application really is, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    scheme: String,
    host: String,
    port: u16,
}

/// One application on one worker: its definition and its connections.
pub struct Origin {
    pub app: Arc<App>,
    pub version: u64,
    target: Target,
    tls: Option<Tls>,
    idle: Mutex<Vec<(http1::SendRequest<Body>, Instant)>>,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Body>>>,
    tasks: TaskTracker,
}

struct Tls {
    any: Arc<ClientConfig>,
    only_http1: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// All origins of one worker.
pub struct Pools {
    origins: Mutex<BTreeMap<String, Arc<Origin>>>,
    roots: Arc<RootCertStore>,
    tasks: TaskTracker,
}

impl Pools {
    pub fn new(roots: Arc<RootCertStore>, tasks: TaskTracker) -> Self {
        Self { origins: Mutex::default(), roots, tasks }
    }

    /// The origin of a definition. A new version leaves the old connections behind.
    pub fn origin(&self, definition: &Definition, app: &Arc<App>) -> Result<Arc<Origin>, ResetCode> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = origins.get(&app.id).filter(|it| it.version == definition.version) {
            return Ok(known.clone());
        }
        let origin = Arc::new(Origin::new(app.clone(), definition.version, &self.roots, self.tasks.clone())?);
        origins.insert(app.id.clone(), origin.clone());
        Ok(origin)
    }
}

impl Origin {
    fn new(app: Arc<App>, version: u64, roots: &Arc<RootCertStore>, tasks: TaskTracker) -> Result<Self, ResetCode> {
        let target = Target::parse(&app.origin).ok_or(ResetCode::OriginRefused)?;
        let tls = match target.scheme.as_str() {
            "https" => Some(Tls::new(&app, &target, roots)?),
            _ => None,
        };
        let (idle, shared) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { app, version, target, tls, idle, shared, tasks })
    }

    /// Sends a request and waits for the head of the response.
    pub async fn send(&self, request: Request<Body>) -> Result<Answered, ResetCode> {
        let response_timeout = Duration::from_millis(self.app.response_timeout_ms.into());
        timeout(response_timeout, self.send_soon(request)).await.map_err(|_| ResetCode::Timeout)?
    }

    /// Opens a connection, with TLS where it is spoken, and closes it.
    pub async fn reach(&self) -> Result<(), ResetCode> {
        let connect_timeout = Duration::from_millis(self.app.connect_timeout_ms.into());
        timeout(connect_timeout, self.open(false)).await.map_err(|_| ResetCode::Timeout)?.map(|_| ())
    }

    async fn send_soon(&self, mut request: Request<Body>) -> Result<Answered, ResetCode> {
        let upgrade = request.headers().contains_key(http::header::UPGRADE);
        while self.may_speak_http2()
            && !upgrade
            && let Some(mut shared) = self.shared_connection().await?
        {
            match shared.try_send_request(self.for_http2(request)).await {
                Ok(response) => return Ok(Answered { response, lent: None }),
                // The origin is going away; nothing was sent, so another may try.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = for_http1(unsent),
                    None => return Err(bad_response(refused.error())),
                },
            }
        }
        while let Some(mut idle) = self.idle_connection().filter(|_| !upgrade) {
            match idle.try_send_request(request).await {
                Ok(response) => return Ok(Answered::lending(response, idle)),
                // The origin closed it meanwhile; nothing was sent, so another may try.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(bad_response(refused.error())),
                },
            }
        }
        match self.connect(upgrade).await? {
            Connection::Http1(mut fresh) => {
                let response = fresh.send_request(request).await.map_err(|error| bad_response(&error))?;
                Ok(Answered::lending(response, fresh))
            }
            Connection::Http2(mut fresh) => {
                *self.shared.lock().await = Some(fresh.clone());
                let answered = fresh.send_request(self.for_http2(request)).await;
                let response = answered.map_err(|error| bad_response(&error))?;
                Ok(Answered { response, lent: None })
            }
        }
    }

    fn idle_connection(&self) -> Option<http1::SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((connection, since)) = idle.pop() {
            if connection.is_ready() && since.elapsed() < IDLE_CONNECTION_LIFE {
                return Some(connection);
            }
        }
        None
    }

    /// Called when a response body is complete.
    pub fn give_back(&self, lent: Lent) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push((lent.0, Instant::now()));
        }
    }

    /// Plain HTTP and unix sockets never do, and need not look for a shared connection.
    fn may_speak_http2(&self) -> bool {
        self.tls.is_some() || self.target.scheme == "h2c"
    }

    /// The HTTP/2 connection all requests share; none where the origin has not
    /// chosen HTTP/2.
    async fn shared_connection(&self) -> Result<Option<http2::SendRequest<Body>>, ResetCode> {
        let mut shared = self.shared.lock().await;
        if let Some(open) = shared.as_ref().filter(|it| !it.is_closed()) {
            return Ok(Some(open.clone()));
        }
        *shared = None;
        if self.target.scheme != "h2c" {
            return Ok(None);
        }
        match self.connect(false).await? {
            Connection::Http2(fresh) => Ok(Some(shared.insert(fresh).clone())),
            Connection::Http1(_) => Err(ResetCode::BadResponse),
        }
    }

    /// HTTP/2 has its host in the URI, and no fields about the connection.
    fn for_http2(&self, mut request: Request<Body>) -> Request<Body> {
        let host = request.headers_mut().remove(http::header::HOST);
        let authority = host.as_ref().and_then(|it| it.to_str().ok()).unwrap_or("localhost");
        let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = http::Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = http::Version::HTTP_2;
        request
    }

    async fn connect(&self, upgrade: bool) -> Result<Connection, ResetCode> {
        let connect_timeout = Duration::from_millis(self.app.connect_timeout_ms.into());
        let connecting = timeout(connect_timeout, self.open(upgrade)).await;
        let (io, http2) = connecting.map_err(|_| ResetCode::Connect)??;
        match http2 {
            true => {
                let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await;
                let (requests, connection) = handshake.map_err(|error| bad_response(&error))?;
                self.tasks.spawn(async move {
                    let _closed = connection.await;
                });
                Ok(Connection::Http2(requests))
            }
            false => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(READ_BUFFER_BYTES);
                let handshake = builder.handshake(TokioIo::new(io)).await;
                let (requests, connection) = handshake.map_err(|error| bad_response(&error))?;
                self.tasks.spawn(async move {
                    let _closed = connection.with_upgrades().await;
                });
                Ok(Connection::Http1(requests))
            }
        }
    }

    /// A stream to the origin, and whether HTTP/2 is spoken on it.
    async fn open(&self, upgrade: bool) -> Result<(Box<dyn Io>, bool), ResetCode> {
        if self.target.scheme == "unix" {
            let unix = UnixStream::connect(&self.target.host).await.map_err(|error| unreachable(&error))?;
            return Ok((Box::new(unix), false));
        }
        let tcp = self.open_tcp().await?;
        // A socket option the kernel may refuse; requests work without it.
        let _slower = tcp.set_nodelay(true);
        let Some(tls) = &self.tls else { return Ok((Box::new(tcp), self.target.scheme == "h2c")) };
        let config = if upgrade { &tls.only_http1 } else { &tls.any };
        let connected = TlsConnector::from(config.clone()).connect(tls.name.clone(), tcp).await;
        let stream = connected.map_err(|error| {
            debug!(app = %self.app.id, %error, "TLS to the origin fails");
            ResetCode::Tls
        })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), http2))
    }

    async fn open_tcp(&self) -> Result<TcpStream, ResetCode> {
        let host = self.target.host.trim_start_matches('[').trim_end_matches(']');
        let resolved = lookup_host((host, self.target.port)).await;
        let addresses: Vec<SocketAddr> = resolved.map_err(|_| ResetCode::Dns)?.collect();
        // Checked after resolution: a name may point anywhere (DNS rebinding).
        if addresses.iter().any(|it| is_forbidden(it.ip())) {
            return Err(ResetCode::OriginRefused);
        }
        let mut failure = ResetCode::Dns;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => failure = unreachable(&error),
            }
        }
        Err(failure)
    }
}

enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A response, and the connection it comes on, for when its body was read to the
/// end. hyper closes it after anything odd.
pub struct Answered {
    pub response: Response<Incoming>,
    pub lent: Option<Lent>,
}

pub struct Lent(http1::SendRequest<Body>);

impl Answered {
    fn lending(response: Response<Incoming>, connection: http1::SendRequest<Body>) -> Self {
        let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
        Self { response, lent: (!switched).then_some(Lent(connection)) }
    }
}

impl Target {
    fn parse(origin: &str) -> Option<Self> {
        if let Some(path) = origin.strip_prefix("unix:") {
            return Some(Self { scheme: "unix".into(), host: path.into(), port: 0 });
        }
        let (scheme, authority) = origin.split_once("://")?;
        let (host, port) = authority.rsplit_once(':')?;
        Some(Self { scheme: scheme.into(), host: host.into(), port: port.parse().ok()? })
    }
}

impl Tls {
    fn new(app: &App, target: &Target, system: &Arc<RootCertStore>) -> Result<Self, ResetCode> {
        let roots = match app.origin_ca_pem.is_empty() {
            true => system.clone(),
            false => {
                let ders = runtime::tls::pem_certificates(app.origin_ca_pem.as_bytes()).map_err(|_| ResetCode::Tls)?;
                runtime::tls::roots(ders.iter().map(|it| it.as_ref())).map_err(|_| ResetCode::Tls)?
            }
        };
        let config = |protocols: &[&[u8]]| {
            let mut config = ClientConfig::builder_with_protocol_versions(runtime::tls::USER_VERSIONS)
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Arc::new(config)
        };
        let name = match app.origin_server_name.is_empty() {
            true => target.host.trim_start_matches('[').trim_end_matches(']'),
            false => &app.origin_server_name,
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|_| ResetCode::Tls)?;
        Ok(Self { any: config(&[b"h2", b"http/1.1"]), only_http1: config(&[b"http/1.1"]), name })
    }
}

/// Undoes `for_http2`.
fn for_http1(mut request: Request<Body>) -> Request<Body> {
    let authority = request.uri().authority().and_then(|it| it.as_str().parse().ok());
    if let Some(host) = authority {
        request.headers_mut().insert(http::header::HOST, host);
    }
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    *request.version_mut() = http::Version::HTTP_11;
    request
}

fn unreachable(error: &io::Error) -> ResetCode {
    debug!(%error, "the origin does not answer");
    ResetCode::Connect
}

fn bad_response(error: &hyper::Error) -> ResetCode {
    debug!(%error, "the origin broke HTTP");
    ResetCode::BadResponse
}
