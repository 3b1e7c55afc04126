//! MB/s of translated bodies, beside copying them and beside lol_html with
//! nothing to do. `cargo bench -p translate`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and stops when it cannot"
)]

use std::{io::Write, time::Instant};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, StatusCode, header};
use model::{
    App, AppId, ConnectorGroupId, Event, ExternalUrl, Origin, Snapshot, TenantId, app::Name, http_rules::Translate,
    url_map::UrlMap,
};
use translate::Translator;
use uuid::Uuid;

const ROUNDS: usize = 5;
/// As the tunnel brings them.
const CHUNK_BYTES: usize = 16 * 1024;

fn main() {
    let links = links();
    let row = "<tr><td class=\"name\"><a href=\"http://wiki.corp:8080/page/1?x=y\">A page</a></td><td>Some words that \
        are about as long as words are</td><td style=\"color:red\"><img src=\"/static/icon.png\" alt=\"\"></td></tr>\n";
    let page = format!("<html><head><title>x</title></head><body><table>{}</table></body></html>", row.repeat(40_000));
    let css = ".a { color: #123456; background: url(http://wiki.corp:8080/a.png) no-repeat; }\n".repeat(100_000);
    let json = "{\"name\":\"a\",\"link\":\"http:\\/\\/wiki.corp:8080\\/x\",\"n\":12345},\n".repeat(150_000);
    let gzip = zipped(page.as_bytes());
    let copied = rate(page.len(), || {
        let mut out = Vec::new();
        page.as_bytes().chunks(CHUNK_BYTES).for_each(|it| out.extend_from_slice(it));
        out.len()
    });
    let bare = rate(page.len(), || {
        let mut out = Vec::new();
        let mut rewriter =
            lol_html::HtmlRewriter::new(lol_html::Settings::new(), |chunk: &[u8]| out.extend_from_slice(chunk));
        page.as_bytes().chunks(CHUNK_BYTES).for_each(|it| rewriter.write(it).unwrap());
        rewriter.end().unwrap();
        out.len()
    });
    let line = |what: &str, rate: f64| println!("{what:<44}{rate:>8.0} MB/s{:>8.2} x", rate / copied);
    line("copied, the yardstick", copied);
    line("HTML through lol_html, nothing to do", bare);
    let translated = |kind: &str, encoding: &str, body: &[u8]| rate(body.len(), || run(kind, encoding, body, &links));
    line("HTML, a link in each row", translated("text/html", "identity", page.as_bytes()));
    line("CSS", translated("text/css", "identity", css.as_bytes()));
    line("JSON", translated("application/json", "identity", json.as_bytes()));
    let plain = rate(page.len(), || run("text/html", "gzip", &gzip, &links));
    line("HTML, gzip in and out (MB of HTML)", plain);
}

fn run(kind: &str, encoding: &str, body: &[u8], links: &UrlMap) -> usize {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
    headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
    let mut translator = Translator::begin(StatusCode::OK, &mut headers, true, Translate::Everything, links).unwrap();
    let mut out = 0;
    for chunk in body.chunks(CHUNK_BYTES) {
        translator.push(Bytes::copy_from_slice(chunk));
        while let Some(bytes) = translator.take().unwrap() {
            out += bytes.len();
        }
    }
    out + translator.finish().unwrap().len()
}

fn rate(bytes: usize, mut work: impl FnMut() -> usize) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            assert!(std::hint::black_box(work()) > 0);
            bytes as f64 / 1e6 / started.elapsed().as_secs_f64()
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn zipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn links() -> UrlMap {
    let (tenant, id) = (TenantId::default_tenant(), AppId(Uuid::from_u128(1)));
    let app = App::new(
        id,
        Name::parse("wiki").unwrap(),
        ExternalUrl::parse("https://wiki.example.com/").unwrap(),
        Origin::parse("http://wiki.corp:8080").unwrap(),
        ConnectorGroupId(Uuid::from_u128(2)),
    );
    let mut snapshot = Snapshot::default();
    snapshot.apply(&tenant, Event::put(app), 1);
    UrlMap::new(snapshot.tenant(&tenant).unwrap().clone(), id, "wiki.example.com")
}
