//! Where users and connectors come in: one port, one listener per thread, TLS,
//! and who is who by the name they asked for.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use http::{Request, Response};
use http_body_util::Either;
use hyper::{
    body::Incoming,
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::TenantId;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    server::{Acceptor, ClientHello, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};
use tracing::{debug, warn};
use tunnel::io::{Corked, Wide};

use crate::{
    Relay,
    body::Body,
    client_auth::{ClientAuthorities, Shown},
    gate::Gate,
    request,
    settings::*,
    slots::Slot,
    streams::Streams,
    visitor::Visitor,
};

const BACKLOG: i32 = 1024;
/// Links on their way to the thread they will live on.
pub(crate) const WAITING_LINKS_MAX: usize = 64;

/// Anybody's connection after its handshake.
pub(crate) type UserStream = TlsStream<Wide<TcpStream>>;

/// A connection to the connector endpoint, before its handshake.
pub(crate) struct ComingLink {
    start: rustls::server::Accepted,
    stream: std::net::TcpStream,
    tenant: TenantId,
    config: Arc<ServerConfig>,
}

/// One socket of several on the same port; the kernel deals connections out.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    listen(socket)
}

/// The first socket of a port that nobody listens on; others may follow.
pub(crate) fn bind_alone(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    // Only now: before, it would be one more beside another process's.
    socket.set_reuse_port(true)?;
    listen(socket)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<std::net::TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the relay stops.
pub(crate) async fn accept(
    relay: Arc<Relay>,
    listener: TcpListener,
    mut links: mpsc::Receiver<ComingLink>,
    thread: usize,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(link) = links.recv() => {
                relay.tasks.spawn(relay.clone().finish_link(link, thread));
                continue;
            }
            () = relay.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => match Slot::take(&relay.slots, peer.ip()) {
                Some(slot) => {
                    relay.tasks.spawn(relay.clone().welcome(stream, peer, slot, thread));
                }
                None => {
                    relay.metrics.connections_refused.inc();
                }
            },
            Err(error) => {
                // Out of descriptors, most likely: waiting is all that helps.
                warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

impl Relay {
    async fn welcome(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: Slot, thread: usize) {
        // A socket option the kernel may refuse; requests work without it.
        let _slower = stream.set_nodelay(true);
        let hello =
            timeout(TLS_HANDSHAKE_TIMEOUT, LazyConfigAcceptor::new(Acceptor::default(), Wide::new(stream))).await;
        let start = match hello {
            Ok(Ok(start)) => start,
            Ok(Err(error)) => return debug!(%error, "no TLS"),
            Err(_) => return debug!("no TLS in time"),
        };
        let sni = start.client_hello().server_name().map(host_asked_for);
        let keys = self.keys();
        let endpoint = sni.as_deref().and_then(|host| keys.endpoint(host));
        if let Some((tenant, of_tenant)) = endpoint {
            let Some(config) = of_tenant.endpoint_tls.clone() else { return };
            return self.deal(start, tenant.clone(), config, slot);
        }
        let proves = start.client_hello().alpn().is_some_and(|mut it| it.any(|protocol| protocol == ACME_TLS));
        if proves {
            // The handshake is the proof; nothing is said after it.
            let proved = timeout(TLS_HANDSHAKE_TIMEOUT, start.into_stream(self.challenge_tls.clone())).await;
            return debug!(host = sni, proved = matches!(proved, Ok(Ok(_))), "an ACME server asks");
        }
        let asks = sni.as_deref().is_some_and(|host| ClientAuthorities::asks(&self.view().snapshot, host));
        let config = if asks { &self.client_authorities.tls } else { &self.user_tls };
        let handshake = timeout(TLS_HANDSHAKE_TIMEOUT, start.into_stream(config.clone())).await;
        match handshake {
            Ok(Ok(stream)) => {
                let shown = Shown::new(stream.get_ref().1.peer_certificates());
                let visitor = Visitor::showing(peer.ip(), sni, thread, slot, shown);
                // A task of its own: what the handshake needed goes.
                self.tasks.spawn(self.clone().serve_user(stream, visitor));
            }
            Ok(Err(error)) => debug!(%error, "no TLS"),
            Err(_) => debug!("no TLS in time"),
        }
    }

    /// Links go to the thread that has the fewest, so each has one.
    fn deal(&self, start: StartHandshake<Wide<TcpStream>>, tenant: TenantId, config: Arc<ServerConfig>, _slot: Slot) {
        let threads = self.link_queues.len();
        let coming =
            |thread: usize| self.connectors.links(thread, &tenant) + self.coming[thread].load(Ordering::SeqCst);
        let Some(thread) = (0..threads).min_by_key(|thread| coming(*thread)) else { return };
        // A connector says nothing after its hello before it is answered.
        let Some(Ok(stream)) = start.io.into_inner().map(TcpStream::into_std) else { return };
        self.coming[thread].fetch_add(1, Ordering::SeqCst);
        let link = ComingLink { start: start.accepted, stream, tenant, config };
        if self.link_queues[thread].try_send(link).is_err() {
            self.coming[thread].fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn finish_link(self: Arc<Self>, link: ComingLink, thread: usize) {
        let handshake = async {
            let stream = Wide::new(TcpStream::from_std(link.stream)?);
            StartHandshake::from_parts(link.start, stream).into_stream(link.config).await
        };
        let finished = timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await;
        self.coming[thread].fetch_sub(1, Ordering::SeqCst);
        match finished {
            Ok(Ok(stream)) => self.serve_link(stream, link.tenant, thread).await,
            Ok(Err(error)) => debug!(%error, "a connector's TLS fails"),
            Err(_) => debug!("a connector's TLS is late"),
        }
    }

    /// One connection that came another way than by the listener, TLS and all
    /// done: for simulations. It speaks HTTP/1.1.
    pub async fn serve_user_on<T>(self: Arc<Self>, io: T, peer: IpAddr, host: &str)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(slot) = Slot::take(&self.slots, peer) else { return };
        let visitor = Visitor::new(peer, Some(host.to_owned()), 0, slot);
        let service = service(self.clone(), visitor);
        if let Err(error) = self.serve_http1(io, service).await {
            debug!(%error, "a user's connection ended early");
        }
    }

    async fn serve_user(self: Arc<Self>, stream: UserStream, visitor: Arc<Visitor>) {
        self.metrics.connections.inc();
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let service = service(self.clone(), visitor.clone());
        let served = match is_http2 {
            // Boxed: its state is the larger one.
            true => Box::pin(self.serve_http2(stream, service, &visitor)).await,
            false => self.serve_http1(stream, service).await,
        };
        if let Err(error) = served {
            if error.is_parse() {
                self.metrics.malformed.inc();
            }
            debug!(%error, "a user's connection ended early");
        }
        self.metrics.connections.dec();
    }

    async fn serve_http1<T, S>(&self, io: T, service: S) -> hyper::Result<()>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: HttpService<Incoming, ResBody = Body>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP1_IDLE_TIMEOUT)
            .max_buf_size(READ_BUFFER_BYTES)
            .max_headers(HEADER_FIELDS_MAX + 1);
        let connection = builder.serve_connection(TokioIo::new(Gate::http1(io)), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            served = connection.as_mut() => served,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                self.until_ended(connection).await
            }
        }
    }

    async fn serve_http2<S>(&self, stream: UserStream, service: S, visitor: &Visitor) -> hyper::Result<()>
    where
        S: HttpService<Incoming, ResBody = Body>,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut stream = BufReader::new(Corked::new(Gate::http2(stream)));
        // The first byte of the preface; after it hyper's own limits count.
        match timeout(HTTP2_PREFACE_TIMEOUT, stream.fill_buf()).await {
            Ok(Ok(bytes)) if !bytes.is_empty() => {}
            Ok(_) | Err(_) => return Ok(()),
        }
        let mut builder = hyper::server::conn::http2::Builder::new(Streams);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .keep_alive_interval(HTTP2_IDLE_PING)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            served = connection.as_mut() => served,
            () = visitor.idle(HTTP2_IDLE_TIMEOUT) => {
                connection.as_mut().graceful_shutdown();
                // Whole answers may wait in it for a user who takes nothing.
                timeout(WRITE_STALL_TIMEOUT, self.until_ended(connection)).await.unwrap_or(Ok(()))
            }
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                self.until_ended(connection).await
            }
        }
    }

    /// Open exchanges may finish, within the grace period.
    async fn until_ended(&self, connection: impl Future<Output = hyper::Result<()>>) -> hyper::Result<()> {
        tokio::select! {
            served = connection => served,
            () = self.ended.cancelled() => Ok(()),
        }
    }
}

/// Answers the requests of one connection.
fn service(
    relay: Arc<Relay>,
    visitor: Arc<Visitor>,
) -> impl HttpService<Incoming, ResBody = Body, Future: Send + 'static, Error = Infallible> {
    service_fn(move |request: Request<Incoming>| {
        let answer = request::handle(relay.clone(), visitor.clone(), request.map(Either::Left));
        async move { Ok::<Response<Body>, Infallible>(answer.await) }
    })
}

/// TLS for users, in which they choose the cipher: a phone without AES in
/// hardware asks for ChaCha20.
pub(crate) fn user_tls(
    versions: &[&'static SupportedProtocolVersion],
    clients: Arc<dyn ClientCertVerifier>,
    certificates: FromSnapshot,
    protocols: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_protocol_versions(versions)
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    config.time_provider = Arc::new(runtime::Clock::default());
    // Of its own: no session is resumed on terms it did not begin with.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// Chooses the user's certificate from what is configured now.
pub(crate) struct FromSnapshot(pub Arc<arc_swap::ArcSwap<crate::keys::Keys>>);

impl std::fmt::Debug for FromSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FromSnapshot")
    }
}

/// Proves hosts to an ACME server (RFC 8737).
#[derive(Debug)]
pub(crate) struct Challenges(pub FromSnapshot);

pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = host_asked_for(hello.server_name()?);
        self.0.0.load().certificates.challenge(&host)
    }
}

impl ResolvesServerCert for FromSnapshot {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = host_asked_for(hello.server_name()?);
        self.0.load().certificates.find(&host)
    }
}

/// In lower case. Some send the dot of a host written in full, though they should
/// not (RFC 6066, section 3).
pub(crate) fn host_asked_for(server_name: &str) -> String {
    server_name.strip_suffix('.').unwrap_or(server_name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_opened_alone_has_more_sockets_of_ours_and_no_second_owner() {
        let first = bind_alone(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = first.local_addr().unwrap();
        let second = bind(address).expect("another thread's");
        assert!(bind_alone(address).is_err(), "another process asks for the same port");
        drop((first, second));
        bind_alone(address).expect("free again");
    }
}
