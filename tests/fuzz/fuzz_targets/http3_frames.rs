//! Frames of HTTP/3 are judged the same however the network cuts them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strict::http3_frames::Frames;

fuzz_target!(|input: (&[u8], u8, bool)| {
    let (bytes, cut, control) = input;
    let begin = || if control { Frames::of_control() } else { Frames::of_request() };
    let (mut whole, mut pieces) = (begin(), begin());
    let judged = whole.follow(bytes);
    let mut cut_up = bytes.chunks(usize::from(cut) + 1);
    assert_eq!(cut_up.try_for_each(|piece| pieces.follow(piece)), judged);
});
