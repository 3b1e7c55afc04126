//! Where HTTP/2 frames begin, as far as needed to see a header block that does
//! not end (RFC 9113, section 6.10; CONTINUATION floods, CVE-2024-27316 and kin),
//! and trailers with a pseudo-field (section 8.1). The library bounds the size of
//! a block and not its time, and drops such fields without a word.
//!
//! Not here: pseudo-fields that trailers take from the dynamic table (RFC 7541,
//! section 2.3.2). To see those, every block would have to be decoded twice; no
//! trailer of a user is forwarded anyway.

use crate::limits::HEADER_BYTES_MAX;

const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// Longer trailers are over the library's limit too.
const TRAILER_BYTES_MAX: usize = HEADER_BYTES_MAX;

#[derive(Debug)]
pub struct Frames {
    /// Bytes to pass over before the next frame.
    skip: usize,
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// In a header block, and whether its last frame has begun.
    block: Option<bool>,
    /// Header blocks that ended.
    blocks: u64,
    /// The newest stream: a head on an older one is its trailers.
    newest: u32,
    trailers: Option<Trailers>,
}

/// A trailer block that is under way.
#[derive(Debug, Default)]
struct Trailers {
    block: Vec<u8>,
    /// Where the current frame begins in it, and that frame's flags.
    frame: usize,
    flags: u8,
}

/// Trailers that name a method, a path or another pseudo-field.
#[derive(Debug, PartialEq, Eq)]
pub struct PseudoTrailer;

impl Default for Frames {
    fn default() -> Self {
        let (skip, head) = (PREFACE_BYTES, [0; HEAD_BYTES]);
        Self { skip, head, filled: 0, block: None, blocks: 0, newest: 0, trailers: None }
    }
}

impl Frames {
    /// The number of the header block that has begun and not ended.
    pub fn head(&self) -> Option<u64> {
        self.block.map(|_| self.blocks)
    }

    pub fn follow(&mut self, mut bytes: &[u8]) -> Result<(), PseudoTrailer> {
        loop {
            let skipped = self.skip.min(bytes.len());
            if let Some(trailers) = &mut self.trailers {
                let room = TRAILER_BYTES_MAX.saturating_sub(trailers.block.len());
                trailers.block.extend_from_slice(&bytes[..skipped.min(room)]);
            }
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0 && self.filled == 0 {
                self.end()?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let taken = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD_BYTES {
                self.begin();
            }
        }
    }

    /// A frame begins: its head has come.
    fn begin(&mut self) {
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        self.filled = 0;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.block = Some(flags & END_HEADERS != 0);
        }
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        match kind {
            HEADERS if stream <= self.newest => self.trailers = Some(Trailers { flags, ..Trailers::default() }),
            HEADERS => self.newest = stream,
            CONTINUATION => {
                if let Some(trailers) = &mut self.trailers {
                    (trailers.frame, trailers.flags) = (trailers.block.len(), 0);
                }
            }
            _ => {}
        }
    }

    /// A frame has ended.
    fn end(&mut self) -> Result<(), PseudoTrailer> {
        if let Some(trailers) = &mut self.trailers {
            trailers.strip();
        }
        if self.block == Some(true) {
            self.block = None;
            self.blocks += 1;
            if self.trailers.take().is_some_and(|it| names_pseudo_field(&it.block)) {
                return Err(PseudoTrailer);
            }
        }
        Ok(())
    }
}

impl Trailers {
    /// Takes away what a HEADERS frame has around its block (RFC 9113, section 6.2).
    fn strip(&mut self) {
        let flags = std::mem::take(&mut self.flags);
        let mut front = 0;
        if flags & PADDED != 0 {
            let padding = self.block.get(self.frame).map_or(0, |it| usize::from(*it));
            self.block.truncate(self.block.len().saturating_sub(padding).max(self.frame));
            front += 1;
        }
        if flags & PRIORITY != 0 {
            front += 5;
        }
        let end = (self.frame + front).min(self.block.len());
        self.block.drain(self.frame.min(end)..end);
        self.frame = self.block.len();
    }
}

/// Reads the representations of a block without its tables (RFC 7541, section 6).
fn names_pseudo_field(mut block: &[u8]) -> bool {
    /// Entries 1 to 14 of the static table (appendix A).
    const LAST_PSEUDO: usize = 14;
    while let Some(&first) = block.first() {
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            // A change of the table's size.
            0x20.. => {
                let Some((_, rest)) = integer(block, 5) else { return false };
                block = rest;
                continue;
            }
            _ => 4,
        };
        let Some((index, rest)) = integer(block, prefix) else { return false };
        block = rest;
        if (1..=LAST_PSEUDO).contains(&index) {
            return true;
        }
        if first >= 0x80 {
            continue;
        }
        if index == 0 {
            let Some((name, coded, rest)) = string(block) else { return false };
            // `:` in Huffman's code is the seven bits 1011100 (appendix B).
            let begins = |it: &u8| if coded { it >> 1 == 0b101_1100 } else { *it == b':' };
            if name.first().is_some_and(begins) {
                return true;
            }
            block = rest;
        }
        let Some((_, _, rest)) = string(block) else { return false };
        block = rest;
    }
    false
}

/// An integer whose first byte has `prefix` bits for it (section 5.1).
fn integer(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let max = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & max;
    if value == max {
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value, rest));
            }
        }
        return None;
    }
    Some((value, rest))
}

/// Its bytes, and whether they are Huffman's code (section 5.2).
fn string(bytes: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let coded = bytes.first()? & 0x80 != 0;
    let (length, rest) = integer(bytes, 7)?;
    let (string, rest) = rest.split_at_checked(length)?;
    Some((string, coded, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + payload, 0);
        frame
    }

    #[test]
    fn a_block_ends_with_the_last_byte_of_the_frame_that_says_so() {
        let mut bytes = vec![0; PREFACE_BYTES];
        for (kind, flags, payload) in [(4, 0, 18), (HEADERS, END_HEADERS, 700), (0, 0, 300), (HEADERS, 0, 40)] {
            bytes.extend(frame(kind, flags, payload));
        }
        bytes.extend(frame(CONTINUATION, 0, 0));
        let last = frame(CONTINUATION, END_HEADERS, 5);
        for piece in [1, 7, 4096] {
            let mut frames = Frames::default();
            bytes.chunks(piece).for_each(|piece| frames.follow(piece).unwrap());
            assert_eq!(frames.head(), Some(1));
            frames.follow(&last[..last.len() - 1]).unwrap();
            assert_eq!(frames.head(), Some(1));
            frames.follow(&last[last.len() - 1..]).unwrap();
            assert_eq!(frames.head(), None);
            frames.follow(&frame(HEADERS, END_HEADERS, 0)).unwrap();
            assert_eq!(frames.head(), None);
        }
    }

    /// Trailers of stream 1, in one HEADERS frame.
    fn trailers(flags: u8, block: &[u8]) -> Vec<u8> {
        let frame = |kind: u8, flags: u8, payload: &[u8]| {
            let head = [0, (payload.len() >> 8) as u8, payload.len() as u8, kind, flags, 0, 0, 0, 1];
            [&head, payload].concat()
        };
        let head = frame(HEADERS, END_HEADERS, &[0x82, 0x87, 0x84]);
        [vec![0; PREFACE_BYTES], head, frame(0, 0, b"body"), frame(HEADERS, END_HEADERS | flags, block)].concat()
    }

    #[test]
    fn trailers_with_a_pseudo_field_are_seen_however_it_is_written() {
        let field = |front: &[u8], name: &[u8]| [front, &[name.len() as u8], name, &[1, b'x']].concat();
        let pseudo = [
            vec![0x84],
            [field(&[0], b"x-sum"), vec![0x82]].concat(),
            field(&[0], b":path"),
            field(&[0x40], b":x"),
            field(&[0x10], b":authority"),
            vec![0x44, 1, b'/'],
            vec![0x04, 1, b'/'],
            vec![0x3f, 0xe1, 0x1f, 0x84],
            // `:path` in Huffman's code.
            vec![0, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'x'],
        ];
        let honest = [
            field(&[0], b"x-sum"),
            field(&[0x40], b"grpc-status"),
            // x-sum in Huffman's code, a name of the static table, one of the dynamic.
            [vec![0, 0x84, 0xf2, 0xb2, 0x4a, 0x7f, 1, b'x'], vec![0x0f, 0x01, 1, b'x'], vec![0xbe]].concat(),
            vec![],
        ];
        let read = |bytes: &[u8], piece: usize| {
            let mut frames = Frames::default();
            bytes.chunks(piece).try_for_each(|piece| frames.follow(piece))
        };
        for piece in [1, 5, 4096] {
            for (blocks, verdict) in [(&pseudo[..], Err(PseudoTrailer)), (&honest[..], Ok(()))] {
                for block in blocks {
                    assert_eq!(read(&trailers(0, block), piece), verdict, "{block:x?}");
                    let padded = [&[3], &block[..], &[0; 3]].concat();
                    assert_eq!(read(&trailers(PADDED, &padded), piece), verdict, "padded {block:x?}");
                    let both = [&[3, 0, 0, 0, 0, 16], &block[..], &[0; 3]].concat();
                    assert_eq!(read(&trailers(PADDED | PRIORITY, &both), piece), verdict, "padded {block:x?}");
                }
            }
        }
    }
}
