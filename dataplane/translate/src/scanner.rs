//! Whole URLs in text: `http://`, `https://`, `ws://`, `wss://`, `"//HOST`, and
//! the same with the slashes escaped, as JSON writes them.
//!
//! A URL may be cut anywhere between two pushes; what could be the beginning of
//! one is held back until it can be told.

use memchr::memchr;
use model::url_map::UrlMap;

/// A URL longer than this is judged by what is there.
const URL_BYTES_MAX: usize = 2048;
/// `https:\/\/`, the longest beginning of a URL.
const BEGIN_BYTES: usize = 10;

/// What is before a URL tells whether it is one.
const CONTEXT_BYTES: usize = 8;

#[derive(Default)]
pub(crate) struct Scanner {
    /// The last bytes that were written, and those that wait.
    kept: Vec<u8>,
    written: usize,
}

/// A place where a URL may begin.
struct Candidate {
    /// Of the scheme, or of the slashes where there is none.
    start: usize,
    /// After the two slashes.
    authority: usize,
    escaped: bool,
}

impl Scanner {
    /// Writes what is certain to `out`; everything when `last`.
    pub(crate) fn push(&mut self, links: &UrlMap, bytes: &[u8], last: bool, out: &mut Vec<u8>) {
        self.kept.extend_from_slice(bytes);
        let written = scan(links, &self.kept, self.written, last, out);
        let context = written.saturating_sub(CONTEXT_BYTES);
        self.kept.drain(..context);
        self.written = written - context;
        if last {
            *self = Self::default();
        }
    }
}

/// Reads `text`, of which `written` bytes are out already; how many are then.
fn scan(links: &UrlMap, text: &[u8], written: usize, last: bool, out: &mut Vec<u8>) -> usize {
    let (mut written, mut position) = (written, written);
    let mut hold = if last { text.len() } else { tail(text) };
    while let Some(found) = memchr(b'/', &text[position..]) {
        let slash = position + found;
        let Some(candidate) = candidate(text, slash).filter(|it| it.start >= written) else {
            position = slash + 1;
            continue;
        };
        let end = end_of_url(text, &candidate);
        if end == text.len() && !last && end - candidate.start < URL_BYTES_MAX {
            hold = hold.min(candidate.start);
            break;
        }
        position = candidate.authority;
        if let Some((consumed, becomes)) = replaced(links, text, &candidate, end) {
            out.extend_from_slice(&text[written..candidate.start]);
            out.extend_from_slice(becomes.as_bytes());
            written = candidate.start + consumed;
            position = written;
        }
    }
    let hold = hold.max(written);
    out.extend_from_slice(&text[written..hold]);
    hold
}

/// The end of what can be no beginning of a URL; never inside a character.
fn tail(text: &[u8]) -> usize {
    let from = text.len().saturating_sub(BEGIN_BYTES);
    text[from..].iter().rposition(|it| !it.is_ascii()).map_or(from, |at| from + at + 1)
}

/// `slash` is the first of the two.
fn candidate(text: &[u8], slash: usize) -> Option<Candidate> {
    let escaped = slash > 0 && text[slash - 1] == b'\\' && text.get(slash + 1) == Some(&b'\\');
    let (before, second) = if escaped { (slash - 1, slash + 2) } else { (slash, slash + 1) };
    if text.get(second) != Some(&b'/') {
        return None;
    }
    let authority = second + 1;
    match before.checked_sub(1).map(|it| text[it]) {
        Some(b':') => {
            let colon = before - 1;
            let letters = text[..colon].iter().rev().take_while(|it| it.is_ascii_alphanumeric()).take(6).count();
            let scheme = &text[colon - letters..colon];
            let known = [&b"http"[..], b"https", b"ws", b"wss"].iter().any(|it| scheme.eq_ignore_ascii_case(it));
            known.then_some(Candidate { start: colon - letters, authority, escaped })
        }
        Some(b'"' | b'\'' | b'(') => Some(Candidate { start: before, authority, escaped }),
        Some(_) | None => None,
    }
}

fn end_of_url(text: &[u8], candidate: &Candidate) -> usize {
    let mut at = candidate.authority;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if candidate.escaped && text.get(at + 1) == Some(&b'/') => {}
            b'\\' if candidate.escaped && at + 1 == text.len() => return text.len(),
            b'\\' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'(' | b')' | b'{' | b'}' | b'|' | b'^' | b',' | b';' => break,
            _ if byte.is_ascii_whitespace() || !byte.is_ascii() => break,
            _ if at - candidate.start >= URL_BYTES_MAX => break,
            _ => {}
        }
        at += 1;
    }
    at
}

/// How many bytes go, and what comes.
fn replaced(links: &UrlMap, text: &[u8], candidate: &Candidate, end: usize) -> Option<(usize, String)> {
    let url = std::str::from_utf8(&text[candidate.start..end]).ok()?;
    match candidate.escaped {
        false => links.front(url).map(|front| (front.len, front.becomes)),
        true => {
            let front = links.front(&url.replace("\\/", "/"))?;
            // Two of its slashes were escaped, and are again.
            Some((front.len + 2, front.becomes.replace('/', "\\/")))
        }
    }
}
