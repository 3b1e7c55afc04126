//! Where HTTP/3 frames begin, as far as needed to see one that is longer than any
//! head may be (RFC 9114, section 4.2.2).

use crate::limits::HEADER_BYTES_MAX;

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
