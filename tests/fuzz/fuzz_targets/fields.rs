//! A field block of a malicious peer holds fields or is refused.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(fields) = tunnel::fields::decode(&Bytes::copy_from_slice(bytes)) else { return };
    for value in fields.values() {
        assert!(!value.as_bytes().iter().any(|it| matches!(it, b'\r' | b'\n' | 0)));
    }
    let again = tunnel::fields::decode(&tunnel::fields::encode(&fields)).unwrap();
    assert_eq!(fields, again);
});
