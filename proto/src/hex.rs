//! Bytes as hexadecimal text: key ids, fingerprints, keys in files.

/// Lower case, two digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` for anything but pairs of hexadecimal digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let all_digits = text.len().is_multiple_of(2) && text.bytes().all(|it| it.is_ascii_hexdigit());
    let digits = all_digits.then_some(text)?;
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_of_digits_are_bytes() {
        assert_eq!(decode(&encode(&[0, 15, 16, 255])), Some(vec![0, 15, 16, 255]));
        assert_eq!(decode("0AfF"), Some(vec![10, 255]));
        assert_eq!(decode(""), Some(vec![]));
        for broken in ["0", "0g", "+1", "-1", " 1", "00 ", "é"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }
}
