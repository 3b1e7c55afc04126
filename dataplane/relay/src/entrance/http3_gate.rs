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
use strict::http3_frames::{Excessive, Frames};
use tokio::time::sleep;

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
