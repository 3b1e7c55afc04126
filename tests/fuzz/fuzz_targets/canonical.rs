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
    let Ok(read) = relay::canonical::parse(&parts, Some(sni)) else { return };
    assert_eq!(read.host, sni, "only the host the connection was opened for");
    assert!(read.authority.eq_ignore_ascii_case(host) || parts.uri.authority().is_some());
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
