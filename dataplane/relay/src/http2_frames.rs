//! Where HTTP/2 frames begin, as far as needed to see a header block that does
//! not end (RFC 9113, section 6.10; CONTINUATION floods, CVE-2024-27316 and kin).
//! The library bounds the size of a block and not its time.

const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

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
}

impl Default for Frames {
    fn default() -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], filled: 0, block: None, blocks: 0 }
    }
}

impl Frames {
    /// The number of the header block that has begun and not ended.
    pub fn head(&self) -> Option<u64> {
        self.block.map(|_| self.blocks)
    }

    pub fn follow(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0 && self.block == Some(true) && self.filled == 0 {
                self.block = None;
                self.blocks += 1;
            }
            if bytes.is_empty() {
                return;
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

    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.filled = 0;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.block = Some(flags & END_HEADERS != 0);
        }
    }
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
            bytes.chunks(piece).for_each(|piece| frames.follow(piece));
            assert_eq!(frames.head(), Some(1));
            frames.follow(&last[..last.len() - 1]);
            assert_eq!(frames.head(), Some(1));
            frames.follow(&last[last.len() - 1..]);
            assert_eq!(frames.head(), None);
            frames.follow(&frame(HEADERS, END_HEADERS, 0));
            assert_eq!(frames.head(), None);
        }
    }
}
