//! The two halves of a tunnel stream: sending and receiving frames.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use proto::v1::{Acknowledged, Frame, Reset, ResetCode, Trailers, frame::Kind};

use crate::{
    TunnelError,
    frame::{Chunk, DATA_BYTES_MAX, DATA_PREFIX_MAX, Decoder, Item},
};

/// A payload up to this size goes out with its head without asking for room.
pub const SMALL_BODY_BYTES: usize = 16 * 1024;
/// Room worth sending into: less would cut a body into crumbs.
const ROOM_MIN: usize = 4 * 1024;

/// Sends frames of one exchange after the other.
#[derive(Debug)]
pub struct FrameSender {
    stream: SendStream<Chunk>,
}

impl FrameSender {
    pub fn new(stream: SendStream<Chunk>) -> Self {
        Self { stream }
    }

    /// A head, at once. Heads are small and bounded, so they do not wait for room.
    pub fn head(&mut self, frame: &Frame) -> Result<(), TunnelError> {
        Ok(self.stream.send_data(Chunk::message(frame), false)?)
    }

    /// A head and a small body in one DATA frame.
    pub fn head_with(&mut self, head: &Frame, body: Bytes, fin: bool) -> Result<(), TunnelError> {
        debug_assert!(body.len() <= SMALL_BODY_BYTES);
        Ok(self.stream.send_data(Chunk::head_and_data(head, body, fin), false)?)
    }

    /// Waits until the peer has room and sends all of a payload, in pieces. `fin`
    /// goes out with its last byte: a reader that counts may stop right there.
    pub fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        exchange_id: u64,
        payload: &mut Bytes,
        fin: bool,
    ) -> Poll<Result<(), TunnelError>> {
        while !payload.is_empty() {
            let wanted = payload.len().min(DATA_BYTES_MAX) + DATA_PREFIX_MAX;
            let enough = wanted.min(ROOM_MIN);
            self.stream.reserve_capacity(wanted);
            while self.stream.capacity() < enough {
                match ready!(self.stream.poll_capacity(context)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(TunnelError::Ended)),
                };
            }
            let room = self.stream.capacity().min(wanted) - DATA_PREFIX_MAX.min(self.stream.capacity());
            let piece = payload.split_to(room.min(payload.len()));
            let fin = fin && payload.is_empty();
            self.stream.send_data(Chunk::data(exchange_id, fin, piece), false)?;
        }
        Poll::Ready(Ok(()))
    }

    pub async fn send(&mut self, exchange_id: u64, mut payload: Bytes, fin: bool) -> Result<(), TunnelError> {
        poll_fn(|context| self.poll_send(context, exchange_id, &mut payload, fin)).await
    }

    /// The end of this direction of the exchange. The stream stays.
    pub fn finish(&mut self, exchange_id: u64) -> Result<(), TunnelError> {
        Ok(self.stream.send_data(Chunk::data(exchange_id, true, Bytes::new()), false)?)
    }

    pub fn trailers(&mut self, exchange_id: u64, fields: Bytes) -> Result<(), TunnelError> {
        self.head(&Frame { exchange_id, fin: true, kind: Some(Kind::Trailers(Trailers { fields })) })
    }

    /// Tells why an exchange failed; the stream stays.
    pub fn reset(&mut self, exchange_id: u64, code: ResetCode) -> Result<(), TunnelError> {
        let kind = Some(Kind::Reset(Reset { code: code.into() }));
        self.head(&Frame { exchange_id, fin: true, kind })
    }

    /// Tells that the head of a request was read.
    pub fn acknowledge(&mut self, exchange_id: u64) -> Result<(), TunnelError> {
        self.head(&Frame { exchange_id, fin: false, kind: Some(Kind::Acknowledged(Acknowledged {})) })
    }

    /// Ready when the peer wants nothing more of this stream.
    pub fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(context).map(|_reason| ())
    }

    /// Ends the stream itself.
    pub fn close(mut self) {
        // A stream that is gone already is as closed as it can be.
        let _gone = self.stream.send_data(Chunk::default(), true);
    }

    pub fn abort(&mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }

    pub(crate) fn raw(&mut self) -> &mut SendStream<Chunk> {
        &mut self.stream
    }
}

/// Receives items; flow control is given back as bytes are taken.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    decoder: Decoder,
}

impl FrameReceiver {
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// The next item; `None` when the peer ended the stream between exchanges.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Item, TunnelError>>> {
        loop {
            match self.decoder.step() {
                Ok(Some(item)) => return Poll::Ready(Some(Ok(item))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(bytes)) => {
                    // Fails only when the stream is gone, which the next poll tells.
                    let _gone = self.stream.flow_control().release_capacity(bytes.len());
                    self.decoder.push(bytes);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None if self.decoder.is_clean() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(TunnelError::Ended))),
            }
        }
    }

    pub async fn next(&mut self) -> Option<Result<Item, TunnelError>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Nothing of an exchange is left over.
    pub fn is_clean(&self) -> bool {
        self.decoder.is_clean()
    }
}
