//! Fields that hold lists, and those that end with their connection.

use http::{HeaderMap, HeaderName, header};

/// About one connection, so none of these passes on to another (RFC 9110,
/// section 7.6.1), but for a switch of protocols.
pub const OF_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

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
