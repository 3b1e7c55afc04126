//! Frames as bytes: gRPC's five-byte prefix and a protobuf `Frame`, written and
//! read without a codec so that a payload is neither copied nor waited for.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use proto::{
    Message,
    v1::{Frame, frame::Kind},
};

use crate::TunnelError;

/// A head larger than this is refused. Users' heads are at most 48 KiB.
pub const HEAD_BYTES_MAX: usize = 128 * 1024;
/// One data message; larger payloads are cut.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;
/// gRPC prefix, exchange id, fin, tag and length of a data message, at most.
pub const DATA_PREFIX_MAX: usize = 5 + 11 + 2 + 1 + 5;

const GRPC_PREFIX: usize = 5;
const TAG_EXCHANGE: u8 = 1 << 3;
const TAG_FIN: u8 = 2 << 3;
const TAG_DATA: u8 = 15 << 3 | 2;

/// What is handed to h2: a short prefix and a payload, in one DATA frame.
#[derive(Debug, Default)]
pub struct Chunk {
    prefix: Bytes,
    payload: Bytes,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.prefix.len() + self.payload.len()
    }

    fn chunk(&self) -> &[u8] {
        match self.prefix.is_empty() {
            true => &self.payload,
            false => &self.prefix,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for part in [&self.prefix, &self.payload] {
            if let Some(slice) = slices.get_mut(filled).filter(|_| !part.is_empty()) {
                *slice = IoSlice::new(part);
                filled += 1;
            }
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        let from_prefix = count.min(self.prefix.len());
        self.prefix.advance(from_prefix);
        self.payload.advance(count - from_prefix);
    }
}

impl Chunk {
    /// A message in one piece.
    pub fn message(message: &impl Message) -> Self {
        let mut bytes = BytesMut::with_capacity(GRPC_PREFIX + message.encoded_len());
        put_message(&mut bytes, message);
        Self { prefix: bytes.freeze(), payload: Bytes::new() }
    }

    /// A head and the data that is ready with it.
    pub fn head_and_data(head: &Frame, payload: Bytes, fin: bool) -> Self {
        let mut bytes = BytesMut::with_capacity(GRPC_PREFIX + head.encoded_len() + DATA_PREFIX_MAX);
        put_message(&mut bytes, head);
        put_data_prefix(&mut bytes, head.exchange_id, fin, payload.len());
        Self { prefix: bytes.freeze(), payload }
    }

    pub fn data(exchange_id: u64, fin: bool, payload: Bytes) -> Self {
        let mut bytes = BytesMut::with_capacity(DATA_PREFIX_MAX);
        put_data_prefix(&mut bytes, exchange_id, fin, payload.len());
        Self { prefix: bytes.freeze(), payload }
    }
}

fn put_message(bytes: &mut BytesMut, message: &impl Message) {
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    // BytesMut grows, so encoding does not fail.
    message.encode(bytes).expect("the buffer grows");
}

fn put_data_prefix(bytes: &mut BytesMut, exchange_id: u64, fin: bool, len: usize) {
    let mut fields = BytesMut::with_capacity(DATA_PREFIX_MAX);
    fields.extend_from_slice(&[TAG_EXCHANGE]);
    put_varint(&mut fields, exchange_id);
    if fin {
        fields.extend_from_slice(&[TAG_FIN, 1]);
    }
    fields.extend_from_slice(&[TAG_DATA]);
    put_varint(&mut fields, len as u64);
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&((fields.len() + len) as u32).to_be_bytes());
    bytes.extend_from_slice(&fields);
}

fn put_varint(bytes: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        bytes.extend_from_slice(&[value as u8 | 0x80]);
        value >>= 7;
    }
    bytes.extend_from_slice(&[value as u8]);
}

/// What the decoder found.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "each is moved on at once; a box would be an allocation for every head")]
pub enum Item {
    /// A whole message that is not data.
    Head(Frame),
    /// A piece of a data message. `fin` comes with its last piece.
    Data { exchange_id: u64, bytes: Bytes, fin: bool },
}

/// Cuts a byte stream into items. Total over any input: it yields items, asks
/// for more, or refuses.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of a message that has begun but cannot be told yet.
    partial: BytesMut,
    /// Received and not looked at.
    input: Bytes,
    payload: Option<Payload>,
}

#[derive(Debug)]
struct Payload {
    exchange_id: u64,
    fin: bool,
    left: usize,
}

impl Decoder {
    /// Gives the decoder more bytes. Call it only when `step` asked for more.
    pub fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.input.is_empty());
        self.input = bytes;
    }

    /// Nothing is begun and nothing is left over.
    pub fn is_clean(&self) -> bool {
        self.partial.is_empty() && self.input.is_empty() && self.payload.is_none()
    }

    /// The next item, or `None` when more bytes are needed.
    pub fn step(&mut self) -> Result<Option<Item>, TunnelError> {
        if self.payload.is_none() {
            match self.begin()? {
                Begun::Head(frame) => return Ok(Some(Item::Head(frame))),
                Begun::Payload(payload) => self.payload = Some(payload),
                Begun::NeedMore => return Ok(None),
            }
        }
        Ok(self.piece())
    }

    fn piece(&mut self) -> Option<Item> {
        let payload = self.payload.as_mut()?;
        if self.input.is_empty() && payload.left > 0 {
            return None;
        }
        let bytes = self.input.split_to(payload.left.min(self.input.len()));
        payload.left -= bytes.len();
        let done = payload.left == 0;
        let item = Item::Data { exchange_id: payload.exchange_id, bytes, fin: done && payload.fin };
        if done {
            self.payload = None;
        }
        Some(item)
    }

    /// Reads the start of a message: all of a head, or the fields before data.
    fn begin(&mut self) -> Result<Begun, TunnelError> {
        if !self.take_until(GRPC_PREFIX) {
            return Ok(Begun::NeedMore);
        }
        let compressed = self.partial[0] != 0;
        let len = u32::from_be_bytes([self.partial[1], self.partial[2], self.partial[3], self.partial[4]]) as usize;
        if compressed || len > DATA_BYTES_MAX + DATA_PREFIX_MAX {
            return Err(TunnelError::Protocol("a compressed or oversized message"));
        }
        loop {
            match data_fields(&self.partial[GRPC_PREFIX..], len)? {
                Fields::Data { exchange_id, fin, payload_len } => {
                    self.partial.clear();
                    return Ok(Begun::Payload(Payload { exchange_id, fin, left: payload_len }));
                }
                Fields::Other => return self.head(len),
                Fields::Unclear => {
                    if !self.take_until(self.partial.len() + 1) {
                        return Ok(Begun::NeedMore);
                    }
                }
            }
        }
    }

    fn head(&mut self, len: usize) -> Result<Begun, TunnelError> {
        if len > HEAD_BYTES_MAX {
            return Err(TunnelError::Protocol("an oversized head"));
        }
        if !self.take_until(GRPC_PREFIX + len) {
            return Ok(Begun::NeedMore);
        }
        let message = self.partial.split().freeze().slice(GRPC_PREFIX..);
        let frame = Frame::decode(message).map_err(|_| TunnelError::Protocol("an unreadable message"))?;
        match frame.kind {
            Some(Kind::Data(_)) => Err(TunnelError::Protocol("fields out of order before data")),
            Some(Kind::Request(_) | Kind::Response(_) | Kind::Trailers(_) | Kind::Reset(_) | Kind::Acknowledged(_))
            | None => Ok(Begun::Head(frame)),
        }
    }

    /// Moves input to `partial` until it holds `len` bytes.
    fn take_until(&mut self, len: usize) -> bool {
        let missing = len.saturating_sub(self.partial.len()).min(self.input.len());
        if missing > 0 {
            self.partial.extend_from_slice(&self.input.split_to(missing));
        }
        self.partial.len() >= len
    }
}

#[expect(clippy::large_enum_variant, reason = "each is moved on at once; a box would be an allocation for every head")]
enum Begun {
    Head(Frame),
    Payload(Payload),
    NeedMore,
}

enum Fields {
    Data { exchange_id: u64, fin: bool, payload_len: usize },
    Other,
    Unclear,
}

/// Is this message data? Reads `exchange_id`, `fin` and the tag after them.
fn data_fields(bytes: &[u8], len: usize) -> Result<Fields, TunnelError> {
    let whole = bytes.len() >= len;
    let mut rest = &bytes[..bytes.len().min(len)];
    let (mut exchange_id, mut fin) = (0, false);
    loop {
        let Some((&tag, after)) = rest.split_first() else {
            return Ok(if whole { Fields::Other } else { Fields::Unclear });
        };
        if !matches!(tag, TAG_EXCHANGE | TAG_FIN | TAG_DATA) {
            return Ok(Fields::Other);
        }
        let Some((value, after)) = varint(after)? else {
            return match whole {
                true => Err(TunnelError::Protocol("a message ends inside a field")),
                false => Ok(Fields::Unclear),
            };
        };
        match tag {
            TAG_EXCHANGE => exchange_id = value,
            TAG_FIN => fin = value != 0,
            _ => {
                let header = bytes.len().min(len) - after.len();
                // Compared this way round: the number may be as large as it likes.
                let payload_len = len - header;
                return match payload_len as u64 == value {
                    true => Ok(Fields::Data { exchange_id, fin, payload_len }),
                    false => Err(TunnelError::Protocol("data is not the last field of its message")),
                };
            }
        }
        rest = after;
    }
}

fn varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, TunnelError> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(Some((value, &bytes[index + 1..])));
        }
    }
    match bytes.len() >= 10 {
        true => Err(TunnelError::Protocol("an endless number")),
        false => Ok(None),
    }
}
