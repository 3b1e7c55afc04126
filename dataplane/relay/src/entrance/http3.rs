//! HTTP/3 for users (RFC 9114) over QUIC, on the UDP port beside the TCP one.
//!
//! The same requests as ever: a connection, a body and an answer look different
//! on the wire, and everything between is `request::handle`. A connection
//! outlives a change of the user's address (RFC 9000, section 9), so the address
//! is asked anew for each request, and an answer under way is judged again.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h3::{
    error::{Code, StreamError},
    server::RequestStream,
};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Either};
use model::app::is_host;
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicServerConfig},
};
use rustls::server::WebPkiClientVerifier;
use strict::limits::HEADER_BYTES_MAX;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::{
    entrance::{
        Entrance, RelayError,
        http3_body::Http3Body,
        http3_gate::{Gate, Gated, Half, Halves},
        tls::{FromSnapshot, host_asked_for, user_tls},
    },
    forward::body::Body,
    open::{connection_permits::ConnectionPermit, user_connection::UserConnection},
    request,
    settings::*,
};

const ALPN: &[u8] = b"h3";
/// Handshakes under way; a peer beyond this must prove its address first
/// (RFC 9000, section 8.1.2), so that a flood costs no memory.
const UNPROVEN_MAX: usize = 64;
/// Bytes of handshakes that nobody has accepted yet, each and in all.
const EARLY_BYTES_MAX: u64 = 16 * 1024;
const EARLY_BYTES_IN_ALL_MAX: u64 = 4 * 1024 * 1024;
/// Control, the two of QPACK, and some of kinds to come (RFC 9114, section 6.2).
const UNI_STREAMS_MAX: u32 = 8;
/// A path that says nothing is gone after the first; the second asks.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// `H3_NO_ERROR` (RFC 9114, section 8.1), as QUIC takes it.
const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// For the last bytes of the last answer to arrive.
const LINGER: Duration = Duration::from_secs(1);

type UserHalf = Half<h3_quinn::SendStream<Bytes>>;
type Connection = h3::server::Connection<Gate<h3_quinn::Connection, h3_quinn::SendStream<Bytes>>, Bytes>;
type Sending = RequestStream<UserHalf, Bytes>;

/// The UDP port of `address`.
pub(crate) fn bind(address: SocketAddr, certificates: FromSnapshot) -> Result<Endpoint, RelayError> {
    let failed = |source| RelayError::Listen { address, source };
    let nobody = WebPkiClientVerifier::no_client_auth();
    let mut tls = user_tls(&[&rustls::version::TLS13], nobody, certificates, &[ALPN])?;
    // No early data: it can be replayed (RFC 8446, section 8).
    tls.max_early_data_size = 0;
    let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other).map_err(failed)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(HTTP2_STREAMS_MAX.into())
        .max_concurrent_uni_streams(UNI_STREAMS_MAX.into())
        .stream_receive_window(HTTP2_STREAM_WINDOW.into())
        .receive_window(HTTP2_CONNECTION_WINDOW.into())
        .send_window(HTTP2_CONNECTION_WINDOW.into())
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(SILENCE_MAX.as_millis() as u32))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .datagram_receive_buffer_size(None);
    config
        .transport_config(Arc::new(transport))
        .max_incoming(UNPROVEN_MAX * 4)
        .incoming_buffer_size(EARLY_BYTES_MAX)
        .incoming_buffer_size_total(EARLY_BYTES_IN_ALL_MAX);
    let socket = std::net::UdpSocket::bind(address).map_err(failed)?;
    Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(quinn::TokioRuntime)).map_err(failed)
}

/// Accepts until the relay stops.
pub(crate) async fn accept(entrance: Arc<Entrance>, endpoint: Endpoint) {
    let unproven = Arc::new(AtomicUsize::new(0));
    let mut turn = 0;
    loop {
        let incoming = tokio::select! {
            Some(incoming) = endpoint.accept() => incoming,
            () = entrance.life.stop.cancelled() => break,
        };
        let Some(permit) = ConnectionPermit::take(&entrance.permits, incoming.remote_address().ip()) else {
            entrance.metrics.connections_refused.inc();
            incoming.refuse();
            continue;
        };
        if unproven.load(Ordering::Relaxed) >= UNPROVEN_MAX && !incoming.remote_address_validated() {
            // An error says that it cannot be asked again, and then it is refused.
            let _refused = incoming.retry();
            continue;
        }
        turn = (turn + 1) % entrance.link_queues.len();
        unproven.fetch_add(1, Ordering::Relaxed);
        entrance.life.tasks.spawn(entrance.clone().welcome_http3(incoming, permit, turn, unproven.clone()));
    }
    // Connections end by themselves, or with the grace period.
    entrance.life.ended.cancelled().await;
    endpoint.close(NO_ERROR, b"");
    endpoint.wait_idle().await;
}

impl Entrance {
    async fn welcome_http3(
        self: Arc<Self>,
        incoming: Incoming,
        permit: ConnectionPermit,
        thread: usize,
        unproven: Arc<AtomicUsize>,
    ) {
        let handshake = async {
            let connection = incoming.accept()?.await?;
            Ok::<_, quinn::ConnectionError>(connection)
        };
        let connected = timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await;
        unproven.fetch_sub(1, Ordering::Relaxed);
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return debug!(%error, "the QUIC handshake failed"),
            Err(_) => return debug!("the QUIC handshake took too long (timeout)"),
        };
        let greeting = connection.handshake_data().and_then(|it| it.downcast::<HandshakeData>().ok());
        let sni = greeting.and_then(|it| it.server_name).map(|it| host_asked_for(&it)).filter(|it| is_host(it));
        let user = UserConnection::new(connection.remote_address().ip(), sni, thread, permit);
        self.metrics.connections.inc();
        if let Err(error) = self.serve_http3(&connection, user).await {
            debug!(%error, "a user's connection ended early");
        }
        self.metrics.connections.dec();
        connection.close(NO_ERROR, b"");
    }

    async fn serve_http3(
        self: &Arc<Self>,
        connection: &quinn::Connection,
        mut user: Arc<UserConnection>,
    ) -> Result<(), h3::error::ConnectionError> {
        let mut builder = h3::server::builder();
        builder.max_field_section_size(HEADER_BYTES_MAX as u64).send_grease(false);
        let gate = Gate::new(h3_quinn::Connection::new(connection.clone()));
        let halves = gate.halves();
        let building = builder.build(gate);
        let Ok(built) = timeout(HTTP2_PREFACE_TIMEOUT, building).await else { return Ok(()) };
        let mut users: Connection = built?;
        let requests = TaskTracker::new();
        loop {
            let resolver = tokio::select! {
                accepted = users.accept() => match accepted? {
                    Some(resolver) => resolver,
                    None => return Ok(()),
                },
                () = user.idle(HTTP2_IDLE_TIMEOUT) => break,
                () = self.life.stop.cancelled() => break,
            };
            let peer = connection.remote_address().ip();
            if peer != user.peer {
                let Some(permit) = ConnectionPermit::take(&self.permits, peer) else { return Ok(()) };
                user = UserConnection::new(peer, user.sni.clone(), user.thread, permit);
            }
            let (entrance, user, connection) = (self.clone(), user.clone(), connection.clone());
            let halves = halves.clone();
            requests.spawn(async move {
                let served = async {
                    let Ok(resolved) = timeout(HEAD_TIMEOUT, resolver.resolve_request()).await else {
                        debug!("a request head took too long (timeout)");
                        return Ok(());
                    };
                    let (request, stream) = resolved?;
                    Exchange { entrance, user, connection: &connection }.serve(request, stream, &halves).await
                };
                tokio::select! {
                    served = served => if let Err(error) = served {
                        debug!(%error, "an HTTP/3 exchange ended early");
                    },
                    // Nobody is there who could read on.
                    _gone = connection.closed() => {}
                }
            });
        }
        requests.close();
        users.shutdown(0).await?;
        // What is open goes on; nothing new is taken. Then the user closes:
        // what closes first takes back what is still on its way (RFC 9000,
        // section 10.2).
        let left = async { while let Ok(Some(_)) = users.accept().await {} };
        let done = async {
            requests.wait().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            () = left => {}
            () = done => {}
            () = self.life.ended.cancelled() => {}
        }
        Ok(())
    }
}

/// One request and where it came from.
struct Exchange<'a> {
    entrance: Arc<Entrance>,
    user: Arc<UserConnection>,
    connection: &'a quinn::Connection,
}

impl Exchange<'_> {
    async fn serve<S>(
        self,
        request: Request<()>,
        stream: RequestStream<S, Bytes>,
        halves: &Halves<h3_quinn::SendStream<Bytes>>,
    ) -> Result<(), StreamError>
    where
        S: h3::quic::BidiStream<Bytes, SendStream = UserHalf, RecvStream = Gated<h3_quinn::RecvStream>>,
    {
        let id = stream.id();
        let (mut sending, receiving) = stream.split();
        let Some(half) = halves.take(id) else { return Ok(()) };
        let is_head = request.method() == Method::HEAD;
        let body = Http3Body::begin(&request, receiving).await;
        let request = request.map(|()| Either::Right(Box::pin(body) as Pin<Box<_>>));
        let answering = request::handle(self.entrance.requests.clone(), self.user.clone(), request);
        let sent = match wanted(&half, answering).await {
            Ok(response) => self.send(response, is_head, &mut sending, &half).await,
            Err(cut) => Err(cut),
        };
        match sent {
            // The user must see a cut and never a short success.
            Err(Cut::Body(error)) => {
                debug!(%error, "an answer is cut");
                sending.stop_stream(Code::H3_INTERNAL_ERROR);
                Ok(())
            }
            Err(Cut::Stalled | Cut::GivenUp) => {
                sending.stop_stream(Code::H3_REQUEST_CANCELLED);
                Ok(())
            }
            Err(Cut::Stream(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    async fn send(
        &self,
        response: Response<Body>,
        is_head: bool,
        sending: &mut Sending,
        user: &UserHalf,
    ) -> Result<(), Cut> {
        let (parts, mut body) = response.into_parts();
        let mut here = self.user.peer;
        taken(sending.send_response(Response::from_parts(parts, ()))).await?;
        while let Some(frame) = wanted(user, body.frame()).await?.filter(|_| !is_head) {
            self.look_where_the_user_is(&mut here, &body);
            match frame.map_err(Cut::Body)?.into_data() {
                Ok(data) => taken(sending.send_data(data)).await?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        taken(sending.send_trailers(trailers)).await?;
                    }
                }
            }
        }
        taken(sending.finish()).await
    }

    /// Judges the exchange again when the user's address changes during a response
    /// (QUIC migration).
    fn look_where_the_user_is(&self, here: &mut IpAddr, body: &Body) {
        let from = std::mem::replace(here, self.connection.remote_address().ip());
        if from != *here
            && let Body::Forwarded(forwarded) = body
            && forwarded.place.open.admission.moved(from, *here)
        {
            let open = &self.entrance.requests.forwarder.open;
            open.judge(&open.current.view(), forwarded.place.open.clone(), self.user.thread);
        }
    }
}

/// Why an answer does not reach its end.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the answer broke off")]
    Body(#[source] io::Error),
    #[error("the user takes nothing (write timeout)")]
    Stalled,
    #[error("the user wants no more")]
    GivenUp,
    #[error("the stream ended")]
    Stream(#[from] StreamError),
}

/// Waits for a piece of the answer while its user does.
async fn wanted<T>(user: &UserHalf, piece: impl Future<Output = T>) -> Result<T, Cut> {
    tokio::select! {
        biased;
        piece = piece => Ok(piece),
        () = user.given_up() => Err(Cut::GivenUp),
    }
}

/// A user must take what is sent to them.
async fn taken(sent: impl Future<Output = Result<(), StreamError>>) -> Result<(), Cut> {
    timeout(WRITE_STALL_TIMEOUT, sent).await.map_err(|_| Cut::Stalled)?.map_err(Cut::Stream)
}
