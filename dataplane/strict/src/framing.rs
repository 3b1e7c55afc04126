//! Where one HTTP/1 message ends and the next begins, read strictly and before
//! the HTTP library reads it.
//!
//! Libraries repair: they take a bare LF for a line end, drop a length beside a
//! coding, join folded lines. What one party repairs, another reads otherwise
//! (attack class R1, request smuggling; RFC 9112, sections 2.2, 5.2, 6 and 11.2).
//! So nothing here is repaired: at the first byte that breaks the grammar the
//! library is handed a byte that no head and no body may have, and answers 400.

use memchr::memchr;

use crate::limits::LINE_BYTES_MAX;

/// Longest line of a chunked body: sixteen digits and some extension.
const CHUNK_LINE_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Between messages: nothing of a head has come.
    Idle,
    RequestLine,
    Fields,
    Body(u64),
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// After a head that asks for another protocol, until something is answered.
    Switching,
    /// Another protocol, or HTTP that ends after this message.
    Raw,
}

/// How the message whose head is read will be framed.
#[derive(Debug, Default)]
struct Head {
    http_11: bool,
    length: Option<u64>,
    chunked: bool,
    names_upgrade: bool,
    upgrade: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    /// So many bytes of those given were still good.
    pub good: usize,
    pub why: &'static str,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub struct Framing {
    at: At,
    head: Head,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
    /// Heads that ended.
    heads: u64,
}

impl Default for Framing {
    fn default() -> Self {
        Self { at: At::Idle, head: Head::default(), begun: Vec::new(), heads: 0 }
    }
}

impl Framing {
    /// The number of the head that has begun and not ended.
    pub fn head(&self) -> Option<u64> {
        matches!(self.at, At::RequestLine | At::Fields).then_some(self.heads)
    }

    /// A head asked for another protocol and nothing was answered yet.
    pub fn is_switching(&self) -> bool {
        self.at == At::Switching
    }

    /// Something was sent to the user. After a head that asks to switch, that is
    /// the answer: what comes now belongs to whatever was agreed. (An answer that
    /// declines also ends the connection.)
    pub fn answered(&mut self) {
        if self.at == At::Switching {
            self.at = At::Raw;
        }
    }

    /// Bytes in the order they came.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            let left = &bytes[at..];
            let bad = |why| Malformed { good: at, why };
            match self.at {
                At::Raw => return Ok(()),
                At::Switching => return Err(bad("bytes after Upgrade, before the switch of protocols")),
                At::Body(length) => {
                    let taken = length.min(left.len() as u64);
                    self.at = if taken == length { At::Idle } else { At::Body(length - taken) };
                    at += taken as usize;
                }
                At::ChunkData(length) => {
                    let taken = length.min(left.len() as u64);
                    self.at = if taken == length { At::ChunkEnd } else { At::ChunkData(length - taken) };
                    at += taken as usize;
                }
                At::Idle | At::RequestLine | At::Fields | At::ChunkLine | At::ChunkEnd | At::Trailers => {
                    if self.at == At::Idle && self.begun.is_empty() && left[0] != b'\r' {
                        self.at = At::RequestLine;
                    }
                    let Some(length) = memchr(b'\n', left) else {
                        self.begin_line(left).map_err(bad)?;
                        return Ok(());
                    };
                    self.end_line(&left[..length]).map_err(bad)?;
                    at += length + 1;
                }
            }
        }
        Ok(())
    }

    fn begin_line(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let max = match matches!(self.at, At::ChunkLine | At::ChunkEnd) {
            true => CHUNK_LINE_BYTES_MAX,
            false => LINE_BYTES_MAX,
        };
        if self.begun.len() + bytes.len() > max {
            return Err("a line is too long");
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }

    /// `rest` ends before the LF.
    fn end_line(&mut self, rest: &[u8]) -> Result<(), &'static str> {
        if self.begun.is_empty() {
            return self.line(rest);
        }
        let mut begun = std::mem::take(&mut self.begun);
        begun.extend_from_slice(rest);
        let read = self.line(&begun);
        begun.clear();
        self.begun = begun;
        read
    }

    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let line = line.strip_suffix(b"\r").ok_or("a line ends in LF without CR")?;
        if memchr(b'\r', line).is_some() {
            return Err("a CR inside a line");
        }
        self.at = match self.at {
            // One empty line before a request is tolerated (RFC 9112, section 2.2).
            At::Idle if line.is_empty() => At::RequestLine,
            At::Idle | At::RequestLine => {
                // The library would drop it, and others would not.
                if memchr(b'#', line).is_some() {
                    return Err("the request target has a fragment (#)");
                }
                self.head = Head { http_11: line.ends_with(b" HTTP/1.1"), ..Head::default() };
                At::Fields
            }
            At::Fields if line.is_empty() => {
                self.heads += 1;
                self.head.body()?
            }
            At::Fields => {
                self.head.read(line)?;
                At::Fields
            }
            At::ChunkLine => match chunk_length(line)? {
                0 => At::Trailers,
                length => At::ChunkData(length),
            },
            At::ChunkEnd if line.is_empty() => At::ChunkLine,
            At::ChunkEnd => return Err("a chunk is longer than its length"),
            At::Trailers if line.is_empty() => At::Idle,
            At::Trailers => {
                field(line)?;
                At::Trailers
            }
            other @ (At::Body(_) | At::ChunkData(_) | At::Switching | At::Raw) => other,
        };
        Ok(())
    }
}

impl Head {
    fn read(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let (name, value) = field(line)?;
        // Comparing tells most names apart by their length alone.
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.replace(length(value)?).is_some() {
                return Err("more than one Content-Length");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if std::mem::replace(&mut self.chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("Transfer-Encoding is not just chunked, once");
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            let mut members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            self.names_upgrade |= members.any(|it| it.eq_ignore_ascii_case(b"upgrade"));
        }
        Ok(())
    }

    fn body(&self) -> Result<At, &'static str> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err("Content-Length beside Transfer-Encoding"),
            (true, None) if !self.http_11 => Err("Transfer-Encoding in HTTP/1.0"),
            (true, None) => Ok(At::ChunkLine),
            (false, None | Some(0)) if self.upgrade && self.names_upgrade => Ok(At::Switching),
            (false, None | Some(0)) => Ok(At::Idle),
            (false, Some(length)) => Ok(At::Body(length)),
        }
    }
}

/// Name and value. Neither folded lines nor space around the name.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let colon = memchr(b':', line).ok_or("a field line without a colon")?;
    let (name, value) = line.split_at(colon);
    match name {
        [b' ' | b'\t', ..] => Err("a field line is folded: it begins with a space"),
        [] | [.., b' ' | b'\t'] => Err("a space before the colon of a field"),
        _ => Ok((name, trim(&value[1..]))),
    }
}

/// Optional whitespace is SP and HTAB only; other "white" bytes belong to the value.
fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

fn length(value: &[u8]) -> Result<u64, &'static str> {
    const DIGITS_MAX: usize = 18;
    let valid = !value.is_empty() && value.len() <= DIGITS_MAX && value.iter().all(u8::is_ascii_digit);
    match valid {
        true => Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))),
        false => Err("Content-Length is not a number"),
    }
}

/// RFC 9112, section 7.1; extensions are read over, quoted or not.
fn chunk_length(line: &[u8]) -> Result<u64, &'static str> {
    const DIGITS_MAX: usize = 15;
    if line.len() > CHUNK_LINE_BYTES_MAX {
        return Err("a line is too long");
    }
    let (digits, extension) = match memchr(b';', line) {
        Some(at) => line.split_at(at),
        None => (line, &b""[..]),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX || extension.iter().any(|byte| byte.is_ascii_control()) {
        return Err("a chunk length is not a hexadecimal number");
    }
    digits.iter().try_fold(0, |sum, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or("a chunk length is not a hexadecimal number")?;
        Ok(sum * 16 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests;
