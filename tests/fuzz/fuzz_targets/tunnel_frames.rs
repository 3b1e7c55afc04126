//! The tunnel's decoder is total, and cuts change nothing.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tunnel::frame::{Decoder, Item};

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, cut) = input;
    let whole = items(bytes, usize::MAX);
    let pieces = items(bytes, usize::from(cut) + 1);
    assert_eq!(whole, pieces);
});

/// What was found, pieces of data put together, and whether it ended well.
fn items(bytes: &[u8], cut: usize) -> (Vec<String>, bool) {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    let mut data: Option<(u64, Vec<u8>)> = None;
    for piece in bytes.chunks(cut) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.step() {
                Ok(Some(Item::Head(head))) => {
                    found.extend(data.take().map(|it| format!("{it:?}")));
                    found.push(format!("{head:?}"));
                }
                Ok(Some(Item::Data { exchange_id, bytes, fin })) => {
                    match &mut data {
                        Some((id, held)) if *id == exchange_id => held.extend_from_slice(&bytes),
                        _ => {
                            found.extend(data.take().map(|it| format!("{it:?}")));
                            data = Some((exchange_id, bytes.to_vec()));
                        }
                    }
                    if fin {
                        found.extend(data.take().map(|it| format!("{it:?} fin")));
                    }
                }
                Ok(None) => break,
                // What came before a fault may have been given out already.
                Err(_) => return (vec![], false),
            }
        }
    }
    found.extend(data.take().map(|it| format!("{it:?}")));
    (found, true)
}
