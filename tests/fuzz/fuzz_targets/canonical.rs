//! A request is read once or refused; what is read is what was sent.
//!
//! Input: method, target, Host and SNI, one a line.
#![no_main]

use http::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, target, host, sni) = (line(), line(), line(), line());
    let Ok(request) = Request::builder().method(method).uri(target).header("host", host).body(()) else { return };
    let (parts, ()) = request.into_parts();
    let Ok(read) = strict::canonical::parse(&parts, Some(sni)) else { return };
    assert_eq!(read.host, sni, "only the host the connection was opened for");
    assert!(read.authority.eq_ignore_ascii_case(&without_last_dot(host)) || parts.uri.authority().is_some());
    assert!(!read.host.ends_with('.'), "{}", read.host);
    let sent = parts.uri.path_and_query().unwrap().as_str();
    assert_eq!(read.target, sent, "byte for byte");
    let path = read.path();
    assert!(path.starts_with('/') && !path.contains(['?', '#', '\\', ' ']));
    let mut decoded = path.to_ascii_lowercase();
    while decoded.contains("%2e") {
        decoded = decoded.replace("%2e", ".");
    }
    assert!(!decoded.split('/').any(|segment| segment == "." || segment == ".."), "{path}");
    assert!(!decoded.contains("%00"), "{path}");
});

/// The host less the dot of a name written in full (RFC 3986, section 3.2.2).
fn without_last_dot(host: &str) -> String {
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    format!("{}{port}", name.strip_suffix('.').unwrap_or(name))
}
