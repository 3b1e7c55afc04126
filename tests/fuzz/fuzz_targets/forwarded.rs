//! What users say about their address, host and identity counts for nothing.
//!
//! Input: fields, one `name: value` a line.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use model::{
    App, AppId, ConnectorGroupId, ExternalUrl, Origin,
    app::{Claim, IdentityHeader, Name},
};
use relay::headers::{Added, client_address, forward};

fuzz_target!(|text: &str| {
    let mut headers = HeaderMap::new();
    for line in text.split('\n') {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) else { return };
        headers.append(name, value);
    }
    headers.insert("host", HeaderValue::from_static("wiki.example.com"));
    let mut request = Request::builder().uri("/x").body(()).unwrap();
    *request.headers_mut() = headers.clone();
    let (parts, ()) = request.into_parts();
    let Ok(read) = strict::canonical::parse(&parts, Some("wiki.example.com")) else { return };
    let mut app = App::new(
        AppId(uuid::Uuid::from_u128(1)),
        Name::parse("wiki").unwrap(),
        ExternalUrl::parse("https://wiki.example.com/").unwrap(),
        Origin::parse("http://10.0.0.1").unwrap(),
        ConnectorGroupId(uuid::Uuid::from_u128(2)),
    );
    let name = model::app::HeaderName::parse("X-Remote-User").unwrap();
    app.identity_headers = vec![IdentityHeader { name, claim: Claim::Username }];
    let peer = "192.0.2.7".parse().unwrap();
    assert_eq!(client_address(&headers, &app, peer), peer);
    let origin = app.origin.clone();
    let added = Added {
        origin: &origin,
        upgrade: None,
        peer,
        request_id: "r",
        traceparent: "t",
        user: None,
        assertion: None,
        client_cert: None,
        took_authorization: true,
    };
    let Ok(block) = forward(&headers, &app, &read, &added) else { return };
    let sent = tunnel::fields::decode(&block).unwrap();
    let one = |name: &str, value: &str| {
        let all: Vec<_> = sent.get_all(name).iter().map(|it| it.as_bytes()).collect();
        assert_eq!(all, [value.as_bytes()], "{name}");
    };
    one("x-forwarded-for", "192.0.2.7");
    one("x-forwarded-host", "wiki.example.com");
    one("x-forwarded-proto", "https");
    one("x-remote-user", "");
    one("x-request-id", "r");
    assert!(!sent.contains_key("authorization") && !sent.contains_key("transfer-encoding"));
    assert!(sent.keys().all(|it| !it.as_str().contains('_') && !it.as_str().starts_with("postern-")));
});
