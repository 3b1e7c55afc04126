//! Cookies and bearer tokens of strangers are read without trust or harm.
#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use model::{AppId, TenantId};
use relay::{
    keys::Keys,
    session::{Presented, Sessions, cookie_name, presented},
};

fuzz_target!(|input: (&[u8], &[u8])| {
    let app = AppId(uuid::Uuid::from_u128(1));
    let (cookie, authorization) = input;
    let mut headers = HeaderMap::new();
    let named = [cookie_name(app).as_bytes(), b"=", cookie].concat();
    for value in [cookie, named.as_slice()] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(header::COOKIE, value);
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(authorization) {
        headers.append(header::AUTHORIZATION, value);
    }
    let token = match presented(&headers, app) {
        Presented::Cookie(token) | Presented::Bearer(token) => token.to_owned(),
        Presented::Nothing => return,
    };
    let keys = Keys::derive(&snapshot(), &runtime::sealing::SealingKey::generate());
    let tenant = TenantId::default_tenant();
    let trusted = &keys.tenants[&tenant];
    assert!(Sessions::default().verify(&token, app, &tenant, trusted).is_err(), "nobody signed it");
});

fn snapshot() -> model::Snapshot {
    let mut snapshot = model::Snapshot::default();
    let event = model::Event::put(model::kinds::TenantSettings { domain: "example.com".into(), public_port: 443, relays: vec![] });
    snapshot.apply(&TenantId::default_tenant(), event, 1);
    snapshot
}
