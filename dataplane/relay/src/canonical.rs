//! One reading of a request, or none.
//!
//! Routing, policy and forwarding all use what this module returns, so what was
//! judged is byte for byte what the application receives. What could be read in
//! two ways is refused and never repaired (attack classes R1, R3, R4, R18).

use http::{HeaderMap, HeaderName, Method, Version, header, request::Parts};
use model::app::is_host;
use tunnel::fields::OF_CONNECTION;

use crate::{
    refusal::Refusal,
    settings::{HEADER_BYTES_MAX, HEADER_FIELD_BYTES_MAX, HEADER_FIELDS_MAX, URI_BYTES_MAX},
};

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
pub fn parse(parts: &Parts, sni: Option<&str>) -> Result<Canonical, Refusal> {
    check_size(parts)?;
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Refusal::Method);
    }
    check_framing(parts)?;
    check_scheme(parts)?;
    let (authority, full_name) = lower_without_last_dot(authority(parts)?);
    let host = host_of(&authority)?;
    if sni != Some(host.as_str()) {
        return Err(Refusal::Misdirected);
    }
    let target = parts.uri.path_and_query().map_or("", |it| it.as_str());
    let path_len = target.find('?').unwrap_or(target.len());
    let path = check_path(&target[..path_len])?;
    if !target[path_len..].bytes().all(is_uri_byte) {
        return Err(Refusal::BadRequest("the query has a byte that must be percent-encoded"));
    }
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

fn check_size(parts: &Parts) -> Result<(), Refusal> {
    if parts.uri.path_and_query().map_or(0, |it| it.as_str().len()) > URI_BYTES_MAX {
        return Err(Refusal::UriTooLong);
    }
    let mut bytes = 0;
    for (name, value) in &parts.headers {
        if name.as_str().len() + value.len() > HEADER_FIELD_BYTES_MAX {
            return Err(Refusal::HeadTooLarge);
        }
        bytes += name.as_str().len() + value.len();
    }
    match bytes > HEADER_BYTES_MAX || parts.headers.len() > HEADER_FIELDS_MAX {
        true => Err(Refusal::HeadTooLarge),
        false => Ok(()),
    }
}

/// A pseudo-field of HTTP/2 and HTTP/3 (RFC 9113, section 8.3.1); the libraries
/// take an empty one.
fn check_scheme(parts: &Parts) -> Result<(), Refusal> {
    let known = matches!(parts.uri.scheme_str(), Some("https" | "http"));
    match parts.version > Version::HTTP_11 && !known {
        true => Err(Refusal::BadRequest(":scheme is not https")),
        false => Ok(()),
    }
}

/// RFC 9112, section 6.1, without its leniency.
fn check_framing(parts: &Parts) -> Result<(), Refusal> {
    let codings = parts.headers.get_all(header::TRANSFER_ENCODING);
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Refusal::BadRequest("more than one Content-Length"));
    }
    if length.is_some_and(|it| it.is_empty() || !it.as_bytes().iter().all(u8::is_ascii_digit)) {
        return Err(Refusal::BadRequest("Content-Length is not a number"));
    }
    // HTTP/2 and HTTP/3 have no use for them (RFC 9113, section 8.2.2; RFC 9114, section 4.2).
    if parts.version > Version::HTTP_11
        && (OF_CONNECTION.iter().any(|it| parts.headers.contains_key(it))
            || parts.headers.get(header::TE).is_some_and(|it| it != "trailers"))
    {
        return Err(Refusal::BadRequest(
            "Connection, Keep-Alive, Proxy-Connection, Transfer-Encoding, Upgrade or TE in HTTP/2 or HTTP/3",
        ));
    }
    let mut codings = codings.iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let chunked_only = codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (chunked_only, length.is_some(), parts.version == Version::HTTP_11) {
        (true, false, true) => Ok(()),
        (_, true, _) => Err(Refusal::BadRequest("Content-Length beside Transfer-Encoding")),
        (false, false, _) => Err(Refusal::BadRequest("Transfer-Encoding is not just chunked")),
        (true, false, false) => Err(Refusal::BadRequest("Transfer-Encoding in another version than HTTP/1.1")),
    }
}

/// Exactly one authority, from wherever this version of HTTP has it.
fn authority(parts: &Parts) -> Result<String, Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|it| it.to_str().map_err(|_| Refusal::BadRequest("Host has bytes beyond ASCII")));
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host"));
    }
    let host = host.transpose()?;
    let from_uri = parts.uri.authority().map(|it| it.as_str());
    let path = parts.uri.path_and_query().map_or("", |it| it.as_str());
    if !path.starts_with('/') {
        return Err(Refusal::BadRequest("the request target is not a path that begins with /"));
    }
    match (from_uri, host) {
        (Some(uri), Some(host)) if !uri.eq_ignore_ascii_case(host) => {
            Err(Refusal::BadRequest("Host differs from :authority or from the request target"))
        }
        (Some(uri), _) => Ok(uri.to_owned()),
        (None, Some(host)) => Ok(host.to_owned()),
        (None, None) => Err(Refusal::BadRequest("Host or :authority is missing")),
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

fn host_of(authority: &str) -> Result<String, Refusal> {
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let port_valid = port.is_none_or(|it| it.parse::<u16>().is_ok_and(|port| port.to_string() == it && port != 0));
    match port_valid && is_host(host) {
        true => Ok(host.to_owned()),
        false => Err(Refusal::BadRequest("Host or :authority is not a DNS name with an optional port")),
    }
}

struct PathTraits {
    encoded_slash: bool,
    double_slash: bool,
}

fn check_path(path: &str) -> Result<PathTraits, Refusal> {
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
                    0 => return Err(Refusal::BadRequest("%00 in the path")),
                    b'/' | b'\\' => traits.encoded_slash = true,
                    byte if byte.is_ascii_control() => {
                        return Err(Refusal::BadRequest("an encoded control byte (%01 to %1F, %7F) in the path"));
                    }
                    _ => {}
                }
                at += 3;
            }
            byte if is_uri_byte(byte) && byte != b'?' => at += 1,
            _ => return Err(Refusal::BadRequest("the path has a byte that must be percent-encoded")),
        }
    }
    if dots && path.split('/').any(is_dot_segment) {
        return Err(Refusal::BadRequest("the path has a segment . or .., plain or encoded"));
    }
    Ok(traits)
}

fn decoded(bytes: &[u8], at: usize) -> Result<u8, Refusal> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    match (digit(at + 1), digit(at + 2)) {
        (Some(high), Some(low)) => Ok((high * 16 + low) as u8),
        _ => Err(Refusal::BadRequest("the path has a % without two hexadecimal digits")),
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

fn is_upgrade(parts: &Parts) -> Result<bool, Refusal> {
    if !parts.headers.contains_key(header::UPGRADE) {
        return Ok(false);
    }
    // Asked for without naming it in Connection: not asked for (RFC 9110, 7.8).
    if !names(&parts.headers, &header::CONNECTION).any(|it| it.eq_ignore_ascii_case("upgrade")) {
        return Ok(false);
    }
    match parts.method == Method::GET && parts.version == Version::HTTP_11 && !has_body(&parts.headers) {
        true => Ok(true),
        false => Err(Refusal::BadRequest("Upgrade with a body, or with another method than GET")),
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|it| it.as_bytes() != b"0")
}

/// The members of a comma-separated field.
pub fn names<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|it| !it.is_empty())
}

/// The members of a field with weights (RFC 9110, section 12.4.2). What cannot
/// be read weighs nothing.
pub fn weighted<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = (&'a str, f32)> {
    names(headers, name).map(|member| {
        let (value, weight) = member.split_once(';').unwrap_or((member, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|it| it.parse().ok());
        (value.trim(), weight.unwrap_or(0.0))
    })
}

#[cfg(test)]
mod tests;
