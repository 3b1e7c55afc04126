//! A body is translated the same however it is cut, and never grows wild.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use libfuzzer_sys::fuzz_target;
use model::{
    App, AppId, ConnectorGroupId, Event, ExternalUrl, Origin, Snapshot, TenantId, app::Name, http_rules::Translate,
    url_map::UrlMap,
};
use translate::Translator;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, cut, body) = input;
    let (kind, encoding) = match kind % 4 {
        0 => ("text/html", "identity"),
        1 => ("text/css", "identity"),
        2 => ("application/json", "identity"),
        _ => ("text/html", "gzip"),
    };
    let whole = translated(kind, encoding, body, usize::MAX);
    let pieces = translated(kind, encoding, body, usize::from(cut) + 1);
    match (whole, pieces) {
        (Some(whole), Some(pieces)) => {
            assert_eq!(whole, pieces);
            assert!(encoding == "gzip" || whole.len() <= 8 * body.len() + 64);
        }
        (None, None) => {}
        (whole, pieces) => panic!("{} whole, {} in pieces", whole.is_some(), pieces.is_some()),
    }
});

fn translated(kind: &str, encoding: &str, body: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
    headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
    let mut translator = Translator::begin(StatusCode::OK, &mut headers, false, Translate::Everything, &links())?;
    let mut out = Vec::new();
    for piece in body.chunks(cut) {
        translator.push(Bytes::copy_from_slice(piece));
        while let Some(bytes) = translator.take().ok()? {
            out.extend_from_slice(&bytes);
        }
    }
    out.extend_from_slice(&translator.finish().ok()?);
    Some(out)
}

fn links() -> UrlMap {
    let tenant = TenantId::default_tenant();
    let app = App::new(
        AppId(uuid::Uuid::from_u128(1)),
        Name::parse("wiki").unwrap(),
        ExternalUrl::parse("https://wiki.example.com/").unwrap(),
        Origin::parse("http://a.b").unwrap(),
        ConnectorGroupId(uuid::Uuid::from_u128(2)),
    );
    let mut snapshot = Snapshot::default();
    snapshot.apply(&tenant, Event::put(app), 1);
    UrlMap::new(snapshot.tenant(&tenant).unwrap().clone(), AppId(uuid::Uuid::from_u128(1)), "wiki.example.com")
}
