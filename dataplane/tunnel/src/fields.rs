//! Header fields as bytes: `name: value\r\n`, in order, nothing interpreted.
//!
//! A block is built and read by our own ends, so reading is strict: what does
//! not fit the grammar is refused, and no value can smuggle a line break.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use crate::TunnelError;

/// More fields than this in one block are refused.
pub const FIELDS_MAX: usize = 256;

/// Builds a block.
#[derive(Default)]
pub struct Builder {
    bytes: BytesMut,
}

impl Builder {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(bytes) }
    }

    pub fn push(&mut self, name: &str, value: &[u8]) {
        debug_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        self.bytes.reserve(name.len() + value.len() + 4);
        self.bytes.put_slice(name.as_bytes());
        self.bytes.put_slice(b": ");
        self.bytes.put_slice(value);
        self.bytes.put_slice(b"\r\n");
    }

    pub fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

pub fn encode(headers: &HeaderMap) -> Bytes {
    let mut builder = Builder::with_capacity(headers.len() * 32);
    for (name, value) in headers {
        builder.push(name.as_str(), value.as_bytes());
    }
    builder.finish()
}

pub fn decode(block: &Bytes) -> Result<HeaderMap, TunnelError> {
    const BAD: TunnelError = TunnelError::Protocol("an unreadable header field");
    let mut headers = HeaderMap::new();
    let mut start = 0;
    while start < block.len() {
        let line = &block[start..];
        // A value cannot have a line feed, so the first one ends the field.
        let end = memchr(b'\n', line).filter(|end| *end > 0 && line[end - 1] == b'\r').ok_or(BAD)? - 1;
        let colon = memchr(b':', &line[..end]).ok_or(BAD)?;
        if line.get(colon + 1) != Some(&b' ') || end < colon + 2 || headers.len() >= FIELDS_MAX {
            return Err(BAD);
        }
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| BAD)?;
        let value = block.slice(start + colon + 2..start + end);
        headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| BAD)?);
        start += end + 2;
    }
    Ok(headers)
}
