//! HTTP client of one origin address: sockets, TLS, and connections kept for the
//! next request.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::v1::{App, ResetCode};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use tunnel::exchange::Download;

use crate::{origins::is_forbidden, statements::Account, trust::Trust};

/// Idle connections kept for one application on one worker.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// An origin may close a connection it was not asked on; ours go first.
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// hyper would read up to 400 KiB ahead, which starves the streams beside it.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The body of a request to an origin.
pub type Body = http_body_util::Either<Download, http_body_util::Empty<bytes::Bytes>>;

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What there is to dial: this machine's network, or one a test made up.
pub trait Network: Send + Sync {
    fn dial<'a>(&'a self, target: &'a Target) -> Dialling<'a>;
}

pub type Dialling<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Io>, ResetCode>> + Send + 'a>>;

/// Sockets of this machine.
pub struct System;

impl Network for System {
    fn dial<'a>(&'a self, target: &'a Target) -> Dialling<'a> {
        Box::pin(async move {
            if target.scheme == "unix" {
                let unix = UnixStream::connect(&target.host).await.map_err(|error| unreachable(&error))?;
                return Ok(Box::new(unix) as Box<dyn Io>);
            }
            Ok(Box::new(open_tcp(target).await?) as Box<dyn Io>)
        })
    }
}

/// Where an application really is, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub scheme: String,
    pub host: String,
    pub port: u16,
}

/// One place on one worker: how to get there, and connections that are there.
pub struct Backend {
    app: String,
    target: Target,
    tls: Option<Tls>,
    connect_timeout: Duration,
    idle: Mutex<Vec<Idle>>,
    /// It has authenticated a connection, or offered to: from then on each
    /// connection serves one owner.
    authenticates_connections: AtomicBool,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Body>>>,
    network: Arc<dyn Network>,
    tasks: TaskTracker,
}

/// A connection kept for the next request of its owner; without one it is anybody's.
struct Idle {
    connection: http1::SendRequest<Body>,
    since: Instant,
    owner: Option<Owner>,
}

/// Whose request it is, and so whose connection, where the origin authenticates
/// connections. Both must be the same: a connection that was opened for one
/// account is never used for another, whatever a relay says of their sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The relay's word: a session, or a connection of somebody; 0 is nobody's.
    pub session: u64,
    /// Identity's word; none where nobody signed in.
    pub account: Option<Account>,
}

impl Owner {
    fn is_somebody(&self) -> bool {
        self.session != 0 || self.account.is_some()
    }
}

struct Tls {
    any: Arc<ClientConfig>,
    only_http1: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// A request that was not answered.
pub struct Failed {
    pub code: ResetCode,
    /// The request, when nothing of it was sent: it may go elsewhere.
    pub unsent: Option<Box<Request<Body>>>,
    /// It was sent on a kept connection, which may have been ending just then
    /// (RFC 9112, section 9.3.1).
    pub kept: bool,
}

impl Failed {
    pub fn sent(code: ResetCode) -> Self {
        Self { code, unsent: None, kept: false }
    }

    fn unsent(code: ResetCode, request: Request<Body>) -> Self {
        Self { code, unsent: Some(Box::new(request)), kept: false }
    }
}

impl Backend {
    pub fn new(
        app: &App,
        target: Target,
        trust: &Trust,
        network: Arc<dyn Network>,
        tasks: TaskTracker,
    ) -> Result<Self, ResetCode> {
        let tls = match target.scheme.as_str() {
            "https" => Some(Tls::new(app, &target, trust)?),
            _ => None,
        };
        Ok(Self {
            app: app.id.clone(),
            target,
            tls,
            connect_timeout: Duration::from_millis(app.connect_timeout_ms.into()),
            idle: Mutex::default(),
            authenticates_connections: AtomicBool::new(false),
            shared: tokio::sync::Mutex::default(),
            network,
            tasks,
        })
    }

    /// Opens a connection, with TLS where it is spoken, and closes it.
    pub async fn reach(&self) -> Result<(), ResetCode> {
        timeout(self.connect_timeout, self.open(false)).await.map_err(|_| ResetCode::Timeout)?.map(|_| ())
    }

    /// Sends a request of an owner and waits for the head of the response.
    pub async fn send(self: &Arc<Self>, mut request: Request<Body>, owner: &Owner) -> Result<OriginResponse, Failed> {
        let upgrade = request.headers().contains_key(header::UPGRADE);
        self.look_for_connection_schemes(request.headers(), &header::AUTHORIZATION);
        let owns_connection = self.authenticates_connections.load(Ordering::Relaxed);
        let alone = upgrade || owns_connection;
        while self.may_speak_http2() && !alone {
            let mut shared = match self.shared_connection().await {
                Ok(Some(shared)) => shared,
                Ok(None) => break,
                Err(code) => return Err(Failed::unsent(code, request)),
            };
            match shared.try_send_request(self.for_http2(request)).await {
                Ok(response) => {
                    self.look_for_connection_schemes(response.headers(), &header::WWW_AUTHENTICATE);
                    return Ok(OriginResponse { response, lent: None });
                }
                // The origin is going away; nothing was sent, so another may try.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = for_http1(unsent),
                    None => return Err(Failed::sent(bad_response(refused.error()))),
                },
            }
        }
        say_body_follows(&mut request);
        while let Some(mut idle) = self.idle_connection(owner).filter(|_| !upgrade) {
            match idle.try_send_request(request).await {
                Ok(response) => return Ok(self.lending(response, idle, owner)),
                // The origin closed it meanwhile; nothing was sent, so another may try.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => {
                        // The others are as old.
                        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        return Err(Failed { kept: true, ..Failed::sent(bad_response(refused.error())) });
                    }
                },
            }
        }
        match self.connect(alone).await {
            Err(code) => Err(Failed::unsent(code, request)),
            Ok(Connection::Http1(mut fresh)) => {
                let answered = fresh.send_request(request).await;
                let response = answered.map_err(|error| Failed::sent(bad_response(&error)))?;
                Ok(self.lending(response, fresh, owner))
            }
            Ok(Connection::Http2(mut fresh)) => {
                if !owns_connection {
                    *self.shared.lock().await = Some(fresh.clone());
                }
                let answered = fresh.send_request(self.for_http2(request)).await;
                let response = answered.map_err(|error| Failed::sent(bad_response(&error)))?;
                Ok(OriginResponse { response, lent: None })
            }
        }
    }

    fn lending(
        self: &Arc<Self>,
        response: Response<Incoming>,
        connection: http1::SendRequest<Body>,
        owner: &Owner,
    ) -> OriginResponse {
        self.look_for_connection_schemes(response.headers(), &header::WWW_AUTHENTICATE);
        let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
        let owned = self.authenticates_connections.load(Ordering::Relaxed);
        // Nobody's connection, which somebody may have authenticated, is used once.
        let is_kept = !switched && (!owned || owner.is_somebody());
        let owner = owned.then(|| owner.clone());
        let lent = is_kept.then(|| Lent { connection, owner, backend: self.clone() });
        OriginResponse { response, lent }
    }

    /// The youngest connection that is nobody's or this owner's.
    fn idle_connection(&self, owner: &Owner) -> Option<http1::SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|it| it.connection.is_ready() && it.since.elapsed() < IDLE_CONNECTION_LIFE);
        let suits = |it: &Idle| it.owner.as_ref().is_none_or(|of| of == owner);
        let at = idle.iter().rposition(suits)?;
        Some(idle.remove(at).connection)
    }

    /// NTLM (MS-NTHT) and Negotiate (RFC 4559) say who is at the other end of a
    /// connection, not of a request: whoever used it next would be that person.
    fn look_for_connection_schemes(&self, headers: &HeaderMap, name: &HeaderName) {
        if headers.get_all(name).iter().any(names_connection_scheme)
            && !self.authenticates_connections.swap(true, Ordering::Relaxed)
        {
            info!(app = %self.app, "the origin authenticates connections; each serves one session from now on");
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
        let host = request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::TRANSFER_ENCODING);
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
        let connecting = timeout(self.connect_timeout, self.open(upgrade)).await;
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
        let socket = self.network.dial(&self.target).await?;
        let Some(tls) = &self.tls else { return Ok((socket, self.target.scheme == "h2c")) };
        let config = if upgrade { &tls.only_http1 } else { &tls.any };
        let connected = TlsConnector::from(config.clone()).connect(tls.name.clone(), socket).await;
        let stream = connected.map_err(|error| {
            debug!(app = %self.app, %error, "TLS to the origin fails");
            ResetCode::Tls
        })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), http2))
    }
}

async fn open_tcp(target: &Target) -> Result<TcpStream, ResetCode> {
    let host = target.host.trim_start_matches('[').trim_end_matches(']');
    let resolved = lookup_host((host, target.port)).await;
    let addresses: Vec<SocketAddr> = resolved.map_err(|_| ResetCode::Dns)?.collect();
    // Checked after resolution: a name may point anywhere (DNS rebinding).
    if addresses.iter().any(|it| is_forbidden(it.ip())) {
        return Err(ResetCode::OriginRefused);
    }
    let mut failure = ResetCode::Dns;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                // A socket option the kernel may refuse; requests work without it.
                let _slower = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Err(error) => failure = unreachable(&error),
        }
    }
    Err(failure)
}

enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A response, and the connection it comes on, for when its body was read to the
/// end. hyper closes it after anything odd.
pub struct OriginResponse {
    pub response: Response<Incoming>,
    pub lent: Option<Lent>,
}

pub struct Lent {
    connection: http1::SendRequest<Body>,
    owner: Option<Owner>,
    backend: Arc<Backend>,
}

impl Lent {
    /// When the response body is complete.
    pub fn give_back(self) {
        let mut idle = self.backend.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(Idle { connection: self.connection, since: Instant::now(), owner: self.owner });
        }
    }
}

impl Target {
    pub fn parse(origin: &str) -> Option<Self> {
        if let Some(path) = origin.strip_prefix("unix:") {
            return Some(Self { scheme: "unix".into(), host: path.into(), port: 0 });
        }
        let (scheme, authority) = origin.split_once("://")?;
        let (host, port) = authority.rsplit_once(':')?;
        Some(Self { scheme: scheme.into(), host: host.into(), port: port.parse().ok()? })
    }
}

impl Tls {
    fn new(app: &App, target: &Target, trust: &Trust) -> Result<Self, ResetCode> {
        let (any, only_http1) = trust.client(app, &target.host)?;
        let name = match app.origin_server_name.is_empty() {
            true => target.host.trim_start_matches('[').trim_end_matches(']'),
            false => &app.origin_server_name,
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|_| ResetCode::Tls)?;
        Ok(Self { any, only_http1, name })
    }
}

/// The library sends no body with GET and HEAD unless it is told that there is
/// one, though any method may have one (RFC 9110, section 9.3.1).
fn say_body_follows(request: &mut Request<Body>) {
    if !request.body().is_end_stream() && !request.headers().contains_key(header::CONTENT_LENGTH) {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Undoes `for_http2`.
fn for_http1(mut request: Request<Body>) -> Request<Body> {
    let authority = request.uri().authority().and_then(|it| it.as_str().parse().ok());
    if let Some(host) = authority {
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    *request.version_mut() = http::Version::HTTP_11;
    request
}

/// One of several challenges in a field, or the credentials for one.
fn names_connection_scheme(value: &HeaderValue) -> bool {
    let mut challenges = value.as_bytes().split(|byte| *byte == b',');
    challenges.any(|challenge| {
        let scheme = challenge.trim_ascii_start().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
}

fn unreachable(error: &io::Error) -> ResetCode {
    debug!(%error, "the origin does not answer");
    ResetCode::Connect
}

fn bad_response(error: &hyper::Error) -> ResetCode {
    debug!(%error, "the origin broke HTTP");
    ResetCode::BadResponse
}

#[cfg(test)]
mod tests;
