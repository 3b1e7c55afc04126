//! TCP listeners: one port, one per thread, for users and connectors. The TLS
//! handshake tells them apart by the name they ask for (SNI).

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
use rustls::{ServerConfig, server::Acceptor};
use socket2::{Domain, Protocol, Socket, Type};
use strict::limits::{HEADER_BYTES_MAX, HEADER_FIELDS_MAX};
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
    entrance::{
        ComingLink, Entrance,
        gate::Gate,
        tls::{ACME_TLS, host_asked_for},
    },
    forward::body::Body,
    open::{
        client_certificate::ClientCertificate, connection_permits::ConnectionPermit, exchanges::Streams,
        user_connection::UserConnection,
    },
    request::{self, Requests},
    settings::*,
};

const BACKLOG: i32 = 1024;
/// Links on their way to the thread they will live on.
pub(crate) const WAITING_LINKS_MAX: usize = 64;

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
    entrance: Arc<Entrance>,
    listener: TcpListener,
    mut links: mpsc::Receiver<ComingLink>,
    thread: usize,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(link) = links.recv() => {
                entrance.life.tasks.spawn(entrance.clone().finish_link(link, thread));
                continue;
            }
            () = entrance.life.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => match ConnectionPermit::take(&entrance.permits, peer.ip()) {
                Some(permit) => {
                    entrance.life.tasks.spawn(entrance.clone().welcome(stream, peer, permit, thread));
                }
                None => {
                    entrance.metrics.connections_refused.inc();
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

impl Entrance {
    async fn welcome(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, permit: ConnectionPermit, thread: usize) {
        // A socket option the kernel may refuse; requests work without it.
        let _slower = stream.set_nodelay(true);
        let hello =
            timeout(TLS_HANDSHAKE_TIMEOUT, LazyConfigAcceptor::new(Acceptor::default(), Wide::new(stream))).await;
        let start = match hello {
            Ok(Ok(start)) => start,
            Ok(Err(error)) => return debug!(%error, "the TLS handshake failed"),
            Err(_) => return debug!("the TLS handshake took too long (timeout)"),
        };
        let sni = start.client_hello().server_name().map(host_asked_for);
        let keys = self.current.keys();
        let endpoint = sni.as_deref().and_then(|host| keys.endpoint(host));
        if let Some((tenant, of_tenant)) = endpoint {
            let Some(config) = of_tenant.endpoint_tls.clone() else { return };
            return self.deal(start, tenant.clone(), config, permit);
        }
        let proves = start.client_hello().alpn().is_some_and(|mut it| it.any(|protocol| protocol == ACME_TLS));
        if proves {
            // The handshake is the proof; nothing is said after it.
            let proved = timeout(TLS_HANDSHAKE_TIMEOUT, start.into_stream(self.challenge_tls.clone())).await;
            return debug!(host = sni, proved = matches!(proved, Ok(Ok(_))), "an ACME server asks");
        }
        let config = self.user_tls.of_host(&self.current.view().snapshot, sni.as_deref());
        let handshake = timeout(TLS_HANDSHAKE_TIMEOUT, start.into_stream(config.clone())).await;
        match handshake {
            Ok(Ok(stream)) => {
                let certificate = ClientCertificate::new(stream.get_ref().1.peer_certificates());
                let user = UserConnection::showing(peer.ip(), sni, thread, permit, certificate);
                // A task of its own: what the handshake needed goes.
                self.life.tasks.spawn(self.clone().serve_user(stream, user));
            }
            Ok(Err(error)) => debug!(%error, "the TLS handshake failed"),
            Err(_) => debug!("the TLS handshake took too long (timeout)"),
        }
    }

    /// Links go to the thread that has the fewest, so each has one.
    fn deal(
        &self,
        start: StartHandshake<Wide<TcpStream>>,
        tenant: TenantId,
        config: Arc<ServerConfig>,
        _permit: ConnectionPermit,
    ) {
        let threads = self.link_queues.len();
        let coming =
            |thread: usize| self.links.connectors.links(thread, &tenant) + self.coming[thread].load(Ordering::SeqCst);
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
        let address = link.stream.peer_addr().ok().map(|it| it.ip());
        let handshake = async {
            let stream = Wide::new(TcpStream::from_std(link.stream)?);
            StartHandshake::from_parts(link.start, stream).into_stream(link.config).await
        };
        let finished = timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await;
        self.coming[thread].fetch_sub(1, Ordering::SeqCst);
        match finished {
            Ok(Ok(stream)) => self.links.clone().serve_link(stream, address, link.tenant, thread).await,
            Ok(Err(error)) => debug!(%error, "the TLS handshake of a connector failed"),
            Err(_) => debug!("the TLS handshake of a connector took too long (timeout)"),
        }
    }

    /// One connection that came another way than by the listener, TLS and all
    /// done: for simulations. It speaks HTTP/1.1.
    pub(crate) async fn serve_user_on<T>(self: Arc<Self>, io: T, peer: IpAddr, host: &str)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(permit) = ConnectionPermit::take(&self.permits, peer) else { return };
        let user = UserConnection::new(peer, Some(host.to_owned()), 0, permit);
        let service = service(self.requests.clone(), user);
        if let Err(error) = self.serve_http1(io, service).await {
            debug!(%error, "a user's connection ended early");
        }
    }

    async fn serve_user(self: Arc<Self>, stream: TlsStream<Wide<TcpStream>>, user: Arc<UserConnection>) {
        self.metrics.connections.inc();
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let service = service(self.requests.clone(), user.clone());
        let served = match is_http2 {
            // Boxed: its state is the larger one.
            true => Box::pin(self.serve_http2(stream, service, &user)).await,
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
            () = self.life.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                self.until_ended(connection).await
            }
        }
    }

    async fn serve_http2<S>(
        &self,
        stream: TlsStream<Wide<TcpStream>>,
        service: S,
        user: &UserConnection,
    ) -> hyper::Result<()>
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
            () = user.idle(HTTP2_IDLE_TIMEOUT) => {
                connection.as_mut().graceful_shutdown();
                // Whole answers may wait in it for a user who takes nothing.
                timeout(WRITE_STALL_TIMEOUT, self.until_ended(connection)).await.unwrap_or(Ok(()))
            }
            () = self.life.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                self.until_ended(connection).await
            }
        }
    }

    /// Open exchanges may finish, within the grace period.
    async fn until_ended(&self, connection: impl Future<Output = hyper::Result<()>>) -> hyper::Result<()> {
        tokio::select! {
            served = connection => served,
            () = self.life.ended.cancelled() => Ok(()),
        }
    }
}

/// Answers the requests of one connection.
fn service(
    requests: Arc<Requests>,
    user: Arc<UserConnection>,
) -> impl HttpService<Incoming, ResBody = Body, Future: Send + 'static, Error = Infallible> {
    service_fn(move |request: Request<Incoming>| {
        let answer = request::handle(requests.clone(), user.clone(), request.map(Either::Left));
        async move { Ok::<Response<Body>, Infallible>(answer.await) }
    })
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
