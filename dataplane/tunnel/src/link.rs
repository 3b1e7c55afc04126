//! A connection between relay and connector: windows, limits, keep-alive.
//!
//! Windows decide more than anything else (`stalled streams x stream window`
//! must never reach the connection window, or one slow user stops a site), so
//! the connection window is endless and the stream window follows the round
//! trip. h2's guards against abusive peers are raised: the peer is ours, and
//! the abuse comes from users behind it who hang up.

use std::{collections::VecDeque, future::poll_fn, time::Duration};

use bytes::Bytes;
use h2::{Ping, PingPong, RecvStream, SendStream, client, server};
use http::{Method, Request, Response, Version, header::HeaderValue};
use proto::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout},
};

use crate::{
    TunnelError,
    exchange::IdleStream,
    frame::{Chunk, Decoder},
    io::Corked,
    stream_halves::{FrameReceiver, FrameSender},
};

pub const PING_INTERVAL: Duration = Duration::from_secs(10);
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const STREAM_WINDOW: u32 = 512 * 1024;
const STREAM_WINDOW_MAX: u32 = 24 * 1024 * 1024;
/// A frame of a body; HTTP/2's own 16 KiB would cost four times the bookkeeping.
const FRAME_BYTES_MAX: u32 = 64 * 1024;
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Streams on one link, busy and parked.
pub const STREAMS_MAX: u32 = 16 * 1024;
const RESETS_REMEMBERED: usize = 4096;
/// A message on the control stream.
const CONTROL_BYTES_MAX: usize = 4 * 1024 * 1024;

pub const SERVE: &str = "/postern.v1.Tunnel/Serve";
pub const FOLLOW: &str = "/postern.v1.Tunnel/Follow";

pub type ServerConnection<T> = server::Connection<Corked<T>, Chunk>;
pub type ClientConnection<T> = client::Connection<Corked<T>, Chunk>;
pub type ServerResponse = server::SendResponse<Chunk>;

/// The relay's end of a fresh connection.
pub async fn serve<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> Result<ServerConnection<T>, TunnelError> {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_pending_accept_reset_streams(RESETS_REMEMBERED)
        .max_local_error_reset_streams(None);
    let handshake = timeout(HANDSHAKE_TIMEOUT, builder.handshake(Corked::new(io))).await;
    Ok(handshake.map_err(|_| TunnelError::Protocol("no handshake in time"))??)
}

/// The connector's end of a fresh connection.
pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
) -> Result<(client::SendRequest<Chunk>, ClientConnection<T>), TunnelError> {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(STREAMS_MAX as usize)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_pending_accept_reset_streams(RESETS_REMEMBERED)
        .max_local_error_reset_streams(None)
        .enable_push(false);
    let handshake = timeout(HANDSHAKE_TIMEOUT, builder.handshake(Corked::new(io))).await;
    Ok(handshake.map_err(|_| TunnelError::Protocol("no handshake in time"))??)
}

/// The stream window for a round trip: twice what 1 Gbit/s has in flight, since h2
/// gives credit back by half windows.
///
/// Choice: the rate is assumed and not measured. Too large a window on a slow
/// link costs memory per stalled stream, 24 MiB at most; too small a one costs
/// throughput on every transfer. Look again when links beyond 1 Gbit/s matter.
pub fn stream_window(round_trip: Duration) -> u32 {
    let in_flight = round_trip.as_secs_f64() * 1e9 / 8.0 * 2.0;
    (in_flight as u32).clamp(STREAM_WINDOW, STREAM_WINDOW_MAX)
}

/// The stream window of one link as its round trips are measured. It follows the
/// shortest of the last few, so that a machine short of CPU is not taken for a
/// long way; and it never shrinks: a parked stream may have used more than the
/// smaller window, and would get no credit ever again.
#[derive(Debug, Default)]
pub struct Windows {
    recent: VecDeque<Duration>,
    granted: u32,
}

impl Windows {
    const RECENT: usize = 3;

    /// The window to grant from now on.
    pub fn measured(&mut self, round_trip: Duration) -> u32 {
        if self.recent.len() == Self::RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(round_trip);
        let shortest = self.recent.iter().min().copied().unwrap_or_default();
        self.granted = self.granted.max(stream_window(shortest));
        self.granted
    }
}

/// How often each end looks whether a link has streams at all.
pub const STREAMLESS_LOOK: Duration = Duration::from_millis(250);

/// For how long a link may be without any stream, parked or busy. Opening one
/// takes a round trip.
pub fn streamless_max(round_trip: Duration) -> Duration {
    const STREAMLESS_MAX: Duration = Duration::from_millis(1500);
    STREAMLESS_MAX.max(4 * round_trip)
}

/// Pings until the peer is silent for `PING_TIMEOUT`; tells each round trip.
pub async fn keep_alive(mut pings: PingPong, mut measured: impl FnMut(Duration)) -> TunnelError {
    loop {
        let sent = Instant::now();
        if let Err(error) = pings.send_ping(Ping::opaque()) {
            return error.into();
        }
        match timeout(PING_TIMEOUT, poll_fn(|context| pings.poll_pong(context))).await {
            Ok(Ok(_)) => measured(sent.elapsed()),
            Ok(Err(error)) => return error.into(),
            Err(_) => return TunnelError::Protocol("the peer is silent"),
        }
        sleep(PING_INTERVAL).await;
    }
}

/// Answers a `Serve` call: the stream is parked.
pub fn park(request: Request<RecvStream>, mut respond: ServerResponse) -> Result<IdleStream, TunnelError> {
    let sender = respond.send_response(grpc_response(), false)?;
    Ok(IdleStream {
        sender: FrameSender::new(sender),
        receiver: FrameReceiver::new(request.into_body()),
        last_exchange: 0,
    })
}

/// Opens a stream and parks it at the relay.
pub async fn open(requests: &client::SendRequest<Chunk>) -> Result<IdleStream, TunnelError> {
    let (response, sender) = call(requests, SERVE).await?;
    let response = response.await?;
    Ok(IdleStream {
        sender: FrameSender::new(sender),
        receiver: FrameReceiver::new(response.into_body()),
        last_exchange: 0,
    })
}

/// Opens the control stream.
pub async fn follow(requests: &client::SendRequest<Chunk>) -> Result<(ControlSender, ControlReceiver), TunnelError> {
    let (response, sender) = call(requests, FOLLOW).await?;
    let response = response.await?;
    Ok((ControlSender::new(sender), ControlReceiver::new(response.into_body())))
}

/// Answers a `Follow` call.
pub fn followed(
    request: Request<RecvStream>,
    mut respond: ServerResponse,
) -> Result<(ControlSender, ControlReceiver), TunnelError> {
    let sender = respond.send_response(grpc_response(), false)?;
    Ok((ControlSender::new(sender), ControlReceiver::new(request.into_body())))
}

/// One message there, one back. The status of a refusal is gRPC's.
pub async fn unary<Q: Message, A: Message + Default>(
    requests: &client::SendRequest<Chunk>,
    path: &'static str,
    question: &Q,
) -> Result<Result<A, GrpcStatus>, TunnelError> {
    let (response, mut sender) = call(requests, path).await?;
    sender.send_data(Chunk::message(question), true)?;
    let response = response.await?;
    if let Some(status) = GrpcStatus::of(response.headers()) {
        return Ok(Err(status));
    }
    let mut receiver = ControlReceiver::new(response.into_body());
    let answer = receiver.next::<A>().await?;
    let trailers = receiver.stream.trailers().await?.unwrap_or_default();
    match (GrpcStatus::of(&trailers), answer) {
        (Some(status), _) => Ok(Err(status)),
        (None, Some(answer)) => Ok(Ok(answer)),
        (None, None) => Err(TunnelError::Ended),
    }
}

/// A gRPC status other than OK.
#[derive(Debug, thiserror::Error)]
#[error("{message} (gRPC status {code})")]
pub struct GrpcStatus {
    pub code: i32,
    pub message: String,
}

impl GrpcStatus {
    fn of(headers: &http::HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse().unwrap_or(2);
        let message = headers.get("grpc-message").and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
        (code != 0).then_some(Self { code, message })
    }
}

async fn call(
    requests: &client::SendRequest<Chunk>,
    path: &'static str,
) -> Result<(client::ResponseFuture, SendStream<Chunk>), TunnelError> {
    let mut ready = requests.clone().ready().await?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() =
        http::Uri::builder().scheme("https").authority("relay").path_and_query(path).build().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    Ok(ready.send_request(request, false)?)
}

fn grpc_response() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// Whole messages on a control stream.
pub struct ControlSender {
    inner: FrameSender,
}

impl ControlSender {
    pub fn new(stream: SendStream<Chunk>) -> Self {
        Self { inner: FrameSender::new(stream) }
    }

    pub fn send(&mut self, message: &impl Message) -> Result<(), TunnelError> {
        Ok(self.inner.raw().send_data(Chunk::message(message), false)?)
    }

    /// Ends a call as gRPC ends it: a message, then the status in trailers.
    pub fn answer(mut self, message: &impl Message) -> Result<(), TunnelError> {
        self.send(message)?;
        self.status(0, "")
    }

    pub fn status(mut self, code: i32, message: &str) -> Result<(), TunnelError> {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code));
        if let Ok(message) = HeaderValue::from_str(message) {
            trailers.insert("grpc-message", message);
        }
        Ok(self.inner.raw().send_trailers(trailers)?)
    }
}

pub struct ControlReceiver {
    stream: RecvStream,
    buffer: bytes::BytesMut,
}

impl ControlReceiver {
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: bytes::BytesMut::new() }
    }

    /// The next message; `None` when the peer has ended.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, TunnelError> {
        loop {
            if let Some(message) = self.take()? {
                let message = M::decode(message).map_err(|_| TunnelError::Protocol("an unreadable message"))?;
                return Ok(Some(message));
            }
            match self.stream.data().await {
                Some(bytes) => {
                    let bytes = bytes?;
                    self.stream.flow_control().release_capacity(bytes.len())?;
                    self.buffer.extend_from_slice(&bytes);
                }
                None => return Ok(None),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, TunnelError> {
        let Some(prefix) = self.buffer.get(..5) else { return Ok(None) };
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 || len > CONTROL_BYTES_MAX {
            return Err(TunnelError::Protocol("a compressed or oversized message"));
        }
        if self.buffer.len() < 5 + len {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(5 + len);
        Ok(Some(message.split_off(5).freeze()))
    }
}

/// For fuzzing: a decoder is total over any bytes.
pub fn decode_all(input: &[u8]) -> Result<usize, TunnelError> {
    let mut decoder = Decoder::default();
    decoder.push(Bytes::copy_from_slice(input));
    let mut items = 0;
    while decoder.step()?.is_some() {
        items += 1;
    }
    Ok(items)
}
