//! Where HTTP/1 messages end does not depend on where the network cuts them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strict::framing::Framing;

fuzz_target!(|input: (&[u8], Vec<u8>)| {
    let (bytes, cuts) = input;
    let mut whole = Framing::default();
    let verdict = whole.follow(bytes).map_err(|it| (it.good, it.why));
    let mut cut = Framing::default();
    let mut at = 0usize;
    let mut verdict_cut = Ok(());
    for length in cuts.iter().map(|it| usize::from(*it) + 1).chain(std::iter::repeat(usize::MAX)) {
        let end = at.saturating_add(length).min(bytes.len());
        if let Err(bad) = cut.follow(&bytes[at..end]) {
            verdict_cut = Err((at + bad.good, bad.why));
            break;
        }
        at = end;
        if at == bytes.len() {
            break;
        }
    }
    match (verdict, verdict_cut) {
        (Ok(()), Ok(())) => assert_eq!((whole.head(), whole.is_switching()), (cut.head(), cut.is_switching())),
        // A cut inside a line may blame it a little earlier, never differently.
        (Err((_, why)), Err((_, why_cut))) => assert_eq!(why, why_cut),
        (one, other) => panic!("{one:?} whole, {other:?} in pieces"),
    }
});
