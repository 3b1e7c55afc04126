//! Header blocks of HTTP/2 are seen the same however the network cuts them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strict::http2_frames::Frames;

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, cut) = input;
    let (mut whole, mut pieces) = (Frames::default(), Frames::default());
    let verdict = whole.follow(bytes);
    let cut_up = bytes.chunks(usize::from(cut) + 1).try_for_each(|piece| pieces.follow(piece));
    assert_eq!(verdict, cut_up);
    if verdict.is_ok() {
        assert_eq!(whole.head(), pieces.head());
    }
});
