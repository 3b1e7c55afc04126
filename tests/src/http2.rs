//! HTTP/2 as an attacker writes it: frame by frame.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITISED: u8 = 32;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct Http2 {
    stream: TlsStream<TcpStream>,
}

impl Http2 {
    /// Preface and empty settings.
    pub async fn begin(stream: TlsStream<TcpStream>) -> Self {
        let mut it = Self { stream };
        it.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert!(it.write(SETTINGS, 0, 0, b"").await);
        it
    }

    /// False when the peer is gone.
    pub async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write_together(&[(kind, flags, stream, payload.to_vec())]).await
    }

    /// So that nothing is answered between them.
    pub async fn write_together(&mut self, frames: &[(u8, u8, u32, Vec<u8>)]) -> bool {
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in frames {
            bytes.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
            bytes.extend([*kind, *flags]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(payload);
        }
        self.stream.write_all(&bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// The next frame, or none when the peer has closed.
    pub async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Reads until the peer closes; the error it gave, if any.
    pub async fn until_closed(&mut self) -> Option<u32> {
        let mut error = None;
        while let Some(frame) = self.read().await {
            if frame.kind == GOAWAY {
                error = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        error
    }
}

/// A field without compression (RFC 7541, section 6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        let mut rest = text.len();
        if rest < 127 {
            field.push(u8::try_from(rest).unwrap());
        } else {
            field.push(127);
            rest -= 127;
            while rest >= 128 {
                field.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            field.push(u8::try_from(rest).unwrap());
        }
        field.extend(text.as_bytes());
    }
    field
}

/// A header block for `GET /`, without compression.
pub fn get(authority: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x84, 0x41, u8::try_from(authority.len()).unwrap()];
    block.extend(authority.as_bytes());
    block
}
