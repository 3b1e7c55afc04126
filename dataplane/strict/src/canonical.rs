//! The canonical form of a request: host, path and framing read in one way, or
//! refused.
//!
//! Routing, policy and forwarding all use what this module returns, so what was
//! judged is byte for byte what the application receives. What could be read in
//! two ways is refused and never repaired (attack classes R1, R3, R4, R18).

use http::{HeaderMap, Method, Version, header, request::Parts};
use thiserror::Error;

use crate::{
    fields::{OF_CONNECTION, names},
    limits::{HEADER_BYTES_MAX, HEADER_FIELD_BYTES_MAX, HEADER_FIELDS_MAX, URI_BYTES_MAX},
};

/// Why a request has no one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// It can be read in two ways, or in none; the reason names the field.
    #[error("{0}")]
    Unreadable(&'static str),
    #[error("the fields are too many or too long")]
    HeadTooLarge,
    #[error("path and query are too long")]
    UriTooLong,
    #[error("CONNECT and TRACE are not taken")]
    Method,
    #[error("the connection was opened for another host")]
    Misdirected,
}

/// A request that has one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// Lower case, without a port and without the dot of a full name.
    pub host: String,
    /// `host`, and the port if the user wrote one.
    pub authority: String,
    /// The user wrote the host with a dot at its end (RFC 3986, section 3.2.2).
    pub full_name: bool,
    /// Path and query, untouched.
    pub target: String,
    path_len: usize,
    /// `%2F` or `%5C` is in the path; the application must have opted in.
    pub encoded_slash: bool,
    /// `//` is in the path; refused where paths tell applications apart.
    pub double_slash: bool,
    /// Another protocol is asked for; whether it may be, the application says.
    pub upgrade: bool,
}

impl Canonical {
    pub fn path(&self) -> &str {
        &self.target[..self.path_len]
    }
}

/// `sni` is the host the TLS connection was opened for.
pub fn parse(parts: &Parts, sni: Option<&str>) -> Result<Canonical, Fault> {
    check_size(parts)?;
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Fault::Method);
    }
    check_framing(parts)?;
    check_scheme(parts)?;
    let (authority, full_name) = lower_without_last_dot(authority(parts)?);
    let host = host_of(&authority)?;
    if sni != Some(host.as_str()) {
        return Err(Fault::Misdirected);
    }
    let target = parts.uri.path_and_query().map_or("", |it| it.as_str());
    let path_len = target.find('?').unwrap_or(target.len());
    let path = check_path(&target[..path_len])?;
    check_query(&target[path_len..])?;
    Ok(Canonical {
        host,
        authority,
        full_name,
        target: target.to_owned(),
        path_len,
        encoded_slash: path.encoded_slash,
        double_slash: path.double_slash,
        upgrade: is_upgrade(parts)?,
    })
}

fn check_size(parts: &Parts) -> Result<(), Fault> {
    if parts.uri.path_and_query().map_or(0, |it| it.as_str().len()) > URI_BYTES_MAX {
        return Err(Fault::UriTooLong);
    }
    let mut bytes = 0;
    for (name, value) in &parts.headers {
        if name.as_str().len() + value.len() > HEADER_FIELD_BYTES_MAX {
            return Err(Fault::HeadTooLarge);
        }
        bytes += name.as_str().len() + value.len();
    }
    match bytes > HEADER_BYTES_MAX || parts.headers.len() > HEADER_FIELDS_MAX {
        true => Err(Fault::HeadTooLarge),
        false => Ok(()),
    }
}

/// A pseudo-field of HTTP/2 and HTTP/3 (RFC 9113, section 8.3.1); the libraries
/// take an empty one.
fn check_scheme(parts: &Parts) -> Result<(), Fault> {
    let known = matches!(parts.uri.scheme_str(), Some("https" | "http"));
    match parts.version > Version::HTTP_11 && !known {
        true => Err(Fault::Unreadable(":scheme is not https")),
        false => Ok(()),
    }
}

/// RFC 9112, section 6.1, without its leniency.
fn check_framing(parts: &Parts) -> Result<(), Fault> {
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Fault::Unreadable("more than one Content-Length"));
    }
    if length.is_some_and(|it| it.is_empty() || !it.as_bytes().iter().all(u8::is_ascii_digit)) {
        return Err(Fault::Unreadable("Content-Length is not a number"));
    }
    // HTTP/2 and HTTP/3 have no use for them (RFC 9113, section 8.2.2; RFC 9114, section 4.2).
    if parts.version > Version::HTTP_11
        && (OF_CONNECTION.iter().any(|it| parts.headers.contains_key(it))
            || parts.headers.get(header::TE).is_some_and(|it| it != "trailers"))
    {
        return Err(Fault::Unreadable(
            "Connection, Keep-Alive, Proxy-Connection, Transfer-Encoding, Upgrade or TE in HTTP/2 or HTTP/3",
        ));
    }
    match is_chunked(&parts.headers)? && parts.version != Version::HTTP_11 {
        true => Err(Fault::Unreadable("Transfer-Encoding in another version than HTTP/1.1")),
        false => Ok(()),
    }
}

/// Whether a body, of a request or a response, is framed by Transfer-Encoding. A
/// coding that is not just `chunked`, or stands beside a length, is read
/// differently by different parties (attack class R18).
pub fn is_chunked(headers: &HeaderMap) -> Result<bool, Fault> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Fault::Unreadable("Content-Length beside Transfer-Encoding"));
    }
    match codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        true => Ok(true),
        false => Err(Fault::Unreadable("Transfer-Encoding is not just chunked")),
    }
}

/// Exactly one authority, from wherever this version of HTTP has it.
fn authority(parts: &Parts) -> Result<String, Fault> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|it| it.to_str().map_err(|_| Fault::Unreadable("Host has bytes beyond ASCII")));
    if hosts.next().is_some() {
        return Err(Fault::Unreadable("more than one Host"));
    }
    let host = host.transpose()?;
    let from_uri = parts.uri.authority().map(|it| it.as_str());
    let path = parts.uri.path_and_query().map_or("", |it| it.as_str());
    if !path.starts_with('/') {
        return Err(Fault::Unreadable(NO_PATH));
    }
    match (from_uri, host) {
        (Some(uri), Some(host)) if !uri.eq_ignore_ascii_case(host) => {
            Err(Fault::Unreadable("Host differs from :authority or from the request target"))
        }
        (Some(uri), _) => Ok(uri.to_owned()),
        (None, Some(host)) => Ok(host.to_owned()),
        (None, None) => Err(Fault::Unreadable("Host or :authority is missing")),
    }
}

/// `app.example.com.` is the same name, written in full; browsers send it.
fn lower_without_last_dot(mut authority: String) -> (String, bool) {
    authority.make_ascii_lowercase();
    let host_end = authority.find(':').unwrap_or(authority.len());
    let full_name = authority[..host_end].ends_with('.');
    if full_name {
        authority.remove(host_end - 1);
    }
    (authority, full_name)
}

fn host_of(authority: &str) -> Result<String, Fault> {
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let port_valid = port.is_none_or(|it| it.parse::<u16>().is_ok_and(|port| port.to_string() == it && port != 0));
    match port_valid && is_host(host) {
        true => Ok(host.to_owned()),
        false => Err(Fault::Unreadable("Host or :authority is not a DNS name with an optional port")),
    }
}

/// Names of the DNS in lower case, as external URLs have them. A twin of the
/// model's: connectors use this crate and may not know the model.
fn is_host(host: &str) -> bool {
    host.len() <= 253 && host.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether path and query have one reading, for those who got them from a relay.
pub fn check_target(target: &str) -> Result<(), Fault> {
    if !target.starts_with('/') {
        return Err(Fault::Unreadable(NO_PATH));
    }
    let path_len = target.find('?').unwrap_or(target.len());
    check_path(&target[..path_len])?;
    check_query(&target[path_len..])
}

const NO_PATH: &str = "the request target is not a path that begins with /";

fn check_query(query: &str) -> Result<(), Fault> {
    match query.bytes().all(is_uri_byte) {
        true => Ok(()),
        false => Err(Fault::Unreadable("the query has a byte that must be percent-encoded")),
    }
}

struct PathTraits {
    encoded_slash: bool,
    double_slash: bool,
}

fn check_path(path: &str) -> Result<PathTraits, Fault> {
    let bytes = path.as_bytes();
    let mut traits = PathTraits { encoded_slash: false, double_slash: path.contains("//") };
    let mut at = 0;
    let mut dots = false;
    while at < bytes.len() {
        match bytes[at] {
            b'.' => {
                dots = true;
                at += 1;
            }
            b'%' => {
                match decoded(bytes, at)? {
                    b'.' => dots = true,
                    0 => return Err(Fault::Unreadable("%00 in the path")),
                    b'/' | b'\\' => traits.encoded_slash = true,
                    byte if byte.is_ascii_control() => {
                        return Err(Fault::Unreadable("an encoded control byte (%01 to %1F, %7F) in the path"));
                    }
                    _ => {}
                }
                at += 3;
            }
            byte if is_uri_byte(byte) && byte != b'?' => at += 1,
            _ => return Err(Fault::Unreadable("the path has a byte that must be percent-encoded")),
        }
    }
    if dots && path.split('/').any(is_dot_segment) {
        return Err(Fault::Unreadable("the path has a segment . or .., plain or encoded"));
    }
    Ok(traits)
}

fn decoded(bytes: &[u8], at: usize) -> Result<u8, Fault> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    match (digit(at + 1), digit(at + 2)) {
        (Some(high), Some(low)) => Ok((high * 16 + low) as u8),
        _ => Err(Fault::Unreadable("the path has a % without two hexadecimal digits")),
    }
}

/// `.` and `..`, plain or encoded, also with parameters behind (`..;x`), also
/// cut off by an encoded slash.
fn is_dot_segment(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    plain.split('/').any(|part| matches!(part.split(';').next(), Some("." | "..")))
}

/// RFC 3986 characters and the few that browsers leave unencoded. No backslash,
/// no space, no control byte, nothing beyond ASCII, no fragment.
fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%|^`{}\"<>".contains(&byte)
}

fn is_upgrade(parts: &Parts) -> Result<bool, Fault> {
    if !parts.headers.contains_key(header::UPGRADE) {
        return Ok(false);
    }
    // Asked for without naming it in Connection: not asked for (RFC 9110, 7.8).
    if !names(&parts.headers, &header::CONNECTION).any(|it| it.eq_ignore_ascii_case("upgrade")) {
        return Ok(false);
    }
    match parts.method == Method::GET && parts.version == Version::HTTP_11 && !has_body(&parts.headers) {
        true => Ok(true),
        false => Err(Fault::Unreadable("Upgrade with a body, or with another method than GET")),
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|it| it.as_bytes() != b"0")
}

#[cfg(test)]
mod tests;
