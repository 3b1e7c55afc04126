//! A user's HTTP/3 streams as the HTTP library sees them.
//!
//! The library collects every frame that is not data before it looks at it,
//! however long the frame claims to be; QUIC gives it new credit for what it
//! has collected. So a frame longer than any head may be ends its stream here
//! (RFC 9114, section 4.2.2: a limit on field sections; section 8.1:
//! `H3_EXCESSIVE_LOAD`).
//!
//! It also hides that a user asked for no more of an answer until the next byte
//! of it is sent, so a silent answer would go on without a reader: the sending
//! half can be asked here ([`Half::given_up`]).

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{
        BidiStream, Connection, ConnectionErrorIncoming, OpenStreams, RecvStream, SendStream, SendStreamUnframed,
        StreamErrorIncoming, StreamId, WriteBuf,
    },
};
use tokio::time::sleep;

use crate::settings::HEADER_BYTES_MAX;

/// A field section as it travels; what it unfolds to is measured when it is read.
const FRAME_BYTES_MAX: u64 = 2 * HEADER_BYTES_MAX as u64;
const DATA: u64 = 0;

/// Follows the frames of one stream of a user.
#[derive(Debug)]
pub struct Frames {
    at: At,
    /// An integer that has begun (RFC 9000, section 16), and its missing bytes.
    number: u64,
    missing: u8,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// Only streams in one direction begin with it.
    StreamType,
    FrameType,
    Length(u64),
    Inside(u64),
    /// Streams without frames; the library asks for none, and leaves them unread.
    Other,
}

/// Longer than any head.
#[derive(Debug, PartialEq, Eq)]
pub struct Excessive;

impl Frames {
    pub fn of_request() -> Self {
        Self { at: At::FrameType, number: 0, missing: 0 }
    }

    pub fn of_control() -> Self {
        Self { at: At::StreamType, number: 0, missing: 0 }
    }

    /// Bytes in the order they came.
    pub fn follow(&mut self, mut bytes: &[u8]) -> Result<(), Excessive> {
        const CONTROL: u64 = 0;
        while !bytes.is_empty() {
            match self.at {
                At::Other => return Ok(()),
                At::Inside(left) => {
                    let taken = left.min(bytes.len() as u64);
                    bytes = &bytes[taken as usize..];
                    self.at = if taken == left { At::FrameType } else { At::Inside(left - taken) };
                }
                At::StreamType | At::FrameType | At::Length(_) => {
                    let Some(number) = self.number(&mut bytes) else { return Ok(()) };
                    self.at = match self.at {
                        At::StreamType if number == CONTROL => At::FrameType,
                        At::StreamType => At::Other,
                        At::FrameType => At::Length(number),
                        At::Length(kind) if kind != DATA && number > FRAME_BYTES_MAX => return Err(Excessive),
                        At::Length(_) if number == 0 => At::FrameType,
                        At::Length(_) => At::Inside(number),
                        other @ (At::Inside(_) | At::Other) => other,
                    };
                }
            }
        }
        Ok(())
    }

    /// The next integer, when all of it is there.
    fn number(&mut self, bytes: &mut &[u8]) -> Option<u64> {
        while let Some((first, rest)) = bytes.split_first() {
            *bytes = rest;
            if self.missing == 0 {
                self.missing = (1 << (first >> 6)) - 1;
                self.number = u64::from(first & 0x3f);
            } else {
                self.missing -= 1;
                self.number = self.number << 8 | u64::from(*first);
            }
            if self.missing == 0 {
                return Some(self.number);
            }
        }
        None
    }
}

/// How often a user of a silent answer is looked for.
const GIVEN_UP_LOOK: Duration = Duration::from_millis(250);

/// The sending half of a user's stream.
pub(crate) struct Half<S>(Arc<Mutex<S>>);

impl<S> Half<S> {
    fn lock(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: SendStreamUnframed<Bytes>> Half<S> {
    /// Waits until the user wants no more of the answer. Only for the task that
    /// sends it: QUIC wakes one.
    pub(crate) async fn given_up(&self) {
        loop {
            sleep(GIVEN_UP_LOOK).await;
            if poll_fn(|context| Poll::Ready(self.is_stopped(context))).await {
                return;
            }
        }
    }

    fn is_stopped(&self, context: &mut Context<'_>) -> bool {
        let mut half = self.lock();
        match half.poll_ready(context) {
            // Writing nothing fails only where nothing can be written any more.
            Poll::Ready(Ok(())) => matches!(half.poll_send(context, &mut Bytes::new()), Poll::Ready(Err(_))),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }
}

impl<B: Buf, S: SendStream<B>> SendStream<B> for Half<S> {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.lock().poll_ready(context)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.lock().send_data(data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.lock().poll_finish(context)
    }

    fn reset(&mut self, reset_code: u64) {
        self.lock().reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.lock().send_id()
    }
}

/// Sending halves the library was just given: it lets nobody see them.
pub(crate) struct Halves<S>(Arc<Mutex<BTreeMap<StreamId, Half<S>>>>);

impl<S> Clone for Halves<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Halves<S> {
    fn put(&self, id: StreamId, half: Half<S>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, half);
    }

    /// That of a stream whose halves were parted; once.
    pub(crate) fn take(&self, id: StreamId) -> Option<Half<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

/// A connection whose streams are followed.
pub(crate) struct Gate<C, S> {
    inner: C,
    halves: Halves<S>,
}

impl<C, S> Gate<C, S> {
    pub(crate) fn new(inner: C) -> Self {
        Self { inner, halves: Halves(Arc::default()) }
    }

    pub(crate) fn halves(&self) -> Halves<S> {
        self.halves.clone()
    }
}

/// A receiving half that is followed.
pub(crate) struct Gated<S> {
    inner: S,
    frames: Frames,
}

/// Both halves.
pub(crate) struct GatedBidi<C, S> {
    gated: Gated<C>,
    halves: Halves<S>,
}

impl<S: RecvStream<Buf = Bytes>> RecvStream for Gated<S> {
    type Buf = Bytes;

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let read = ready!(self.inner.poll_data(context))?;
        if let Some(bytes) = &read
            && let Err(Excessive) = self.frames.follow(bytes)
        {
            let code = Code::H3_EXCESSIVE_LOAD.value();
            self.inner.stop_sending(code);
            return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code: code }));
        }
        Poll::Ready(Ok(read))
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.inner.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.inner.recv_id()
    }
}

impl<C: RecvStream<Buf = Bytes>, S> RecvStream for GatedBidi<C, S> {
    type Buf = Bytes;

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.gated.poll_data(context)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.gated.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.gated.recv_id()
    }
}

impl<B: Buf, C: SendStream<B>, S> SendStream<B> for GatedBidi<C, S> {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.gated.inner.poll_ready(context)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.gated.inner.send_data(data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.gated.inner.poll_finish(context)
    }

    fn reset(&mut self, reset_code: u64) {
        self.gated.inner.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.gated.inner.send_id()
    }
}

impl<B: Buf, C, S> BidiStream<B> for GatedBidi<C, S>
where
    C: BidiStream<B, SendStream = S> + RecvStream<Buf = Bytes>,
    C::RecvStream: RecvStream<Buf = Bytes>,
    S: SendStream<B>,
{
    type SendStream = Half<S>;
    type RecvStream = Gated<C::RecvStream>;

    fn split(self) -> (Self::SendStream, Self::RecvStream) {
        let id = self.gated.inner.send_id();
        let (send, recv) = self.gated.inner.split();
        let half = Arc::new(Mutex::new(send));
        self.halves.put(id, Half(half.clone()));
        (Half(half), Gated { inner: recv, frames: self.gated.frames })
    }
}

impl<B: Buf, C: OpenStreams<B>, S> OpenStreams<B> for Gate<C, S>
where
    C::BidiStream: BidiStream<B, SendStream = S> + RecvStream<Buf = Bytes>,
    S: SendStream<B>,
{
    type BidiStream = GatedBidi<C::BidiStream, S>;
    type SendStream = C::SendStream;

    fn poll_open_bidi(&mut self, context: &mut Context<'_>) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        let inner = ready!(self.inner.poll_open_bidi(context))?;
        Poll::Ready(Ok(self.gated(inner)))
    }

    fn poll_open_send(&mut self, context: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        self.inner.poll_open_send(context)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.inner.close(code, reason);
    }
}

impl<C, S> Gate<C, S> {
    fn gated<T>(&self, inner: T) -> GatedBidi<T, S> {
        GatedBidi { gated: Gated { inner, frames: Frames::of_request() }, halves: self.halves.clone() }
    }
}

impl<B: Buf, C: Connection<B>, S> Connection<B> for Gate<C, S>
where
    C::BidiStream: BidiStream<B, SendStream = S> + RecvStream<Buf = Bytes>,
    C::RecvStream: RecvStream<Buf = Bytes>,
    S: SendStream<B>,
    C::OpenStreams: OpenStreams<B, BidiStream = C::BidiStream>,
{
    type RecvStream = Gated<C::RecvStream>;
    type OpenStreams = Gate<C::OpenStreams, S>;

    fn poll_accept_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        let inner = ready!(self.inner.poll_accept_recv(context))?;
        Poll::Ready(Ok(Gated { inner, frames: Frames::of_control() }))
    }

    fn poll_accept_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        let inner = ready!(self.inner.poll_accept_bidi(context))?;
        Poll::Ready(Ok(self.gated(inner)))
    }

    fn opener(&self) -> Self::OpenStreams {
        Gate { inner: self.inner.opener(), halves: self.halves.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: u8 = 1;

    /// The frames of a stream, cut in two at every place.
    fn everywhere(of: fn() -> Frames, bytes: &[u8]) -> Result<(), Excessive> {
        let whole = of().follow(bytes);
        for at in 0..=bytes.len() {
            let mut frames = of();
            let cut = frames.follow(&bytes[..at]).and_then(|()| frames.follow(&bytes[at..]));
            assert_eq!(cut, whole, "cut at {at}");
        }
        whole
    }

    #[test]
    fn a_frame_longer_than_any_head_is_excessive_and_data_never_is() {
        let of = Frames::of_request;
        let short: Vec<u8> = [&[HEADERS, 3, 1, 2, 3, DATA as u8, 0xff][..], &[0xff; 7], &[0; 64]].concat();
        assert_eq!(everywhere(of, &short), Ok(()), "a body may be endless");
        let long = [HEADERS, 0x80, 0x01, 0x80, 0x01];
        assert_eq!(everywhere(of, &long), Err(Excessive), "one byte more than twice a head");
        let most = [HEADERS, 0x80, 0x01, 0x80, 0x00];
        assert_eq!(everywhere(of, &most), Ok(()));
        let unknown = [0x21, 2, 0, 0, 0x40, 0x21, 0xc0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(everywhere(of, &unknown), Err(Excessive), "nobody knows it, and it is too long");
        let after_data = [&[DATA as u8, 2, 0, 0][..], &long].concat();
        assert_eq!(everywhere(of, &after_data), Err(Excessive), "trailers are a head too");
    }

    #[test]
    fn streams_in_one_direction_begin_with_their_kind() {
        let settings = [0, 4, 0, HEADERS, 0x80, 0x10, 0, 0];
        assert_eq!(everywhere(Frames::of_control, &settings), Err(Excessive));
        let encoder = [2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(everywhere(Frames::of_control, &encoder), Ok(()), "QPACK has no frames");
    }
}
