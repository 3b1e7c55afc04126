//! Links to the inside in response bodies, replaced as the bytes pass
//! (PUB-26 to PUB-29).
//!
//! HTML goes through lol_html, attribute by attribute; CSS, JSON and scripts
//! through a scanner for whole URLs. Never a whole body in memory, never more
//! than `PIECE_BYTES` of input at a time, so a compressed bomb is met with the
//! user's own pace. What cannot be read safely passes as it is.
//!
//! Reading order: this file, `scanner`, `html`. Not here: which links lead
//! where (`model::url_map`), header fields (the relay).

mod html;
mod scanner;

use std::io::Write;

use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, MultiGzDecoder},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::{http_rules::Translate, url_map::UrlMap};
use thiserror::Error;

use crate::{html::Html, scanner::Scanner};

/// Input that is worked on at once. gzip makes at most 1,032 times of it.
pub const PIECE_BYTES: usize = 4 * 1024;

#[derive(Debug, Error)]
pub enum TranslateError {
    #[error("the body is not the gzip it says it is")]
    Gzip(#[source] std::io::Error),
    #[error("the page cannot be rewritten")]
    Html(#[source] lol_html::errors::RewritingError),
}

/// How a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Html,
    /// Whole URLs, wherever they stand.
    Text,
}

/// One body on its way out.
pub struct Translator {
    links: UrlMap,
    body: Body,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    encoder: Option<GzEncoder<Vec<u8>>>,
    waiting: Bytes,
    ended: bool,
}

enum Body {
    Html(Box<Html>),
    Text(Scanner),
}

impl Translator {
    /// For a response with this head; changes the head to fit what will be
    /// sent. `None` where the body passes as it is.
    pub fn begin(
        status: StatusCode,
        headers: &mut HeaderMap,
        takes_gzip: bool,
        depth: Translate,
        links: &UrlMap,
    ) -> Option<Self> {
        let kind = kind(headers, depth)?;
        // A part of a body cannot be read; no body need not be.
        let whole = status != StatusCode::PARTIAL_CONTENT
            && status != StatusCode::NO_CONTENT
            && status != StatusCode::NOT_MODIFIED;
        let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let gzip = match encoding {
            None | Some(b"identity") => false,
            Some(b"gzip" | b"x-gzip") => true,
            // Not asked for; an application that sends it anyway is not read.
            Some(_) => return None,
        };
        let body = match kind {
            Kind::Html => Body::Html(Box::new(Html::new(charset(headers)?, links.clone(), depth))),
            Kind::Text => Body::Text(Scanner::default()),
        };
        if !whole {
            return None;
        }
        let zips = takes_gzip && gzip;
        if !zips {
            headers.remove(header::CONTENT_ENCODING);
        }
        headers.remove(header::CONTENT_LENGTH);
        // These name bytes that will not be sent (RFC 9530, RFC 9110 section 14.3).
        for name in ["content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"] {
            headers.remove(name);
        }
        weaken(headers);
        Some(Self {
            links: links.clone(),
            body,
            decoder: gzip.then(|| MultiGzDecoder::new(Vec::new())),
            encoder: zips.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
            waiting: Bytes::new(),
            ended: false,
        })
    }

    /// More of the body. Only when `take` gave nothing.
    pub fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.waiting.is_empty());
        self.waiting = bytes;
    }

    /// The next bytes to send, or `None` when more must be pushed.
    pub fn take(&mut self) -> Result<Option<Bytes>, TranslateError> {
        while !self.waiting.is_empty() {
            let piece = self.waiting.split_to(self.waiting.len().min(PIECE_BYTES));
            let out = self.piece(&piece)?;
            if !out.is_empty() {
                return Ok(Some(out));
            }
        }
        Ok(None)
    }

    /// The last bytes, when the body has ended. Asked once.
    pub fn finish(&mut self) -> Result<Bytes, TranslateError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(Bytes::new());
        }
        let plain = match &mut self.decoder {
            Some(decoder) => {
                decoder.try_finish().map_err(TranslateError::Gzip)?;
                std::mem::take(decoder.get_mut())
            }
            None => Vec::new(),
        };
        let mut out = self.rewrite(&plain)?;
        match &mut self.body {
            Body::Html(html) => out.extend(html.end()?),
            Body::Text(scanner) => scanner.push(&self.links, b"", true, &mut out),
        }
        match self.encoder.take() {
            Some(mut encoder) => {
                encoder.write_all(&out).map_err(TranslateError::Gzip)?;
                Ok(encoder.finish().map_err(TranslateError::Gzip)?.into())
            }
            None => Ok(out.into()),
        }
    }

    fn piece(&mut self, piece: &[u8]) -> Result<Bytes, TranslateError> {
        let out = match &mut self.decoder {
            Some(decoder) => {
                decoder.write_all(piece).map_err(TranslateError::Gzip)?;
                let plain = std::mem::take(decoder.get_mut());
                self.rewrite(&plain)?
            }
            None => self.rewrite(piece)?,
        };
        match &mut self.encoder {
            Some(encoder) => {
                encoder.write_all(&out).map_err(TranslateError::Gzip)?;
                // What is ready leaves: a page appears while it is made.
                encoder.flush().map_err(TranslateError::Gzip)?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            None => Ok(out.into()),
        }
    }

    fn rewrite(&mut self, plain: &[u8]) -> Result<Vec<u8>, TranslateError> {
        match &mut self.body {
            Body::Html(html) => html.push(plain),
            Body::Text(scanner) => {
                let mut out = Vec::with_capacity(plain.len() + 64);
                scanner.push(&self.links, plain, false, &mut out);
                Ok(out)
            }
        }
    }
}

/// What a translated application is asked for: nothing else can be read here.
pub fn accepted_encoding(takes_gzip: bool) -> &'static str {
    if takes_gzip { "gzip" } else { "identity" }
}

/// The whole URLs in a header field such as Link, Refresh or a content policy.
pub fn text(links: &UrlMap, value: &str) -> Option<String> {
    let mut out = Vec::new();
    Scanner::default().push(links, value.as_bytes(), true, &mut out);
    String::from_utf8(out).ok().filter(|it| it != value)
}

fn kind(headers: &HeaderMap, depth: Translate) -> Option<Kind> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let everything = depth == Translate::Everything;
    match essence.as_str() {
        _ if depth == Translate::Headers => None,
        "text/html" | "application/xhtml+xml" => Some(Kind::Html),
        "text/css" | "image/svg+xml" => Some(Kind::Text),
        "application/json" | "text/javascript" | "application/javascript" | "application/xml" | "text/xml"
            if everything =>
        {
            Some(Kind::Text)
        }
        other if everything && (other.ends_with("+json") || other.ends_with("+xml")) => Some(Kind::Text),
        _ => None,
    }
}

/// UTF-8 unless the header says otherwise (PUB-26); `None` for encodings in
/// which ASCII does not mean itself.
fn charset(headers: &HeaderMap) -> Option<lol_html::AsciiCompatibleEncoding> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let named = value.split(';').skip(1).find_map(|it| {
        let (name, value) = it.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    match named {
        None => Some(lol_html::AsciiCompatibleEncoding::utf_8()),
        Some(label) => lol_html::AsciiCompatibleEncoding::new(encoding_rs::Encoding::for_label(label.as_bytes())?),
    }
}

/// The bytes differ from what the application tagged, the meaning does not.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).filter(|it| !it.as_bytes().starts_with(b"W/")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        headers.insert(header::ETAG, weak);
    }
}

#[cfg(test)]
mod tests;
