//! Bodies, whole and cut anywhere.

use std::io::Read;

use model::{
    App, Event, ExternalUrl, Origin, Snapshot,
    app::Name,
    ids::{AppId, ConnectorGroupId, TenantId},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn links() -> UrlMap {
    let tenant = TenantId::default_tenant();
    let mut snapshot = Snapshot::default();
    for (n, external, origin) in
        [(1, "https://wiki.example.com/", "http://wiki.corp:8080"), (2, "https://hr.example.com/", "https://hr.corp")]
    {
        let app = App::new(
            AppId(Uuid::from_u128(n)),
            Name::parse(&format!("app {n}")).unwrap(),
            ExternalUrl::parse(external).unwrap(),
            Origin::parse(origin).unwrap(),
            ConnectorGroupId(Uuid::from_u128(9)),
        );
        snapshot.apply(&tenant, Event::put(app), 1);
    }
    UrlMap::new(snapshot.tenant(&tenant).unwrap().clone(), AppId(Uuid::from_u128(1)), "wiki.example.com")
}

fn head(kind: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())])
}

/// The body as the user gets it, pushed in pieces that end where `cuts` says.
fn translated(kind: &str, depth: Translate, body: &[u8], cuts: &[usize]) -> Vec<u8> {
    let Some(mut translator) = Translator::begin(StatusCode::OK, &mut head(kind), false, depth, &links()) else {
        return body.to_vec();
    };
    run(&mut translator, body, cuts).unwrap()
}

fn run(translator: &mut Translator, body: &[u8], cuts: &[usize]) -> Result<Vec<u8>, TranslateError> {
    let mut cuts: Vec<usize> = cuts.iter().map(|it| it % (body.len() + 1)).collect();
    cuts.push(body.len());
    cuts.sort_unstable();
    let (mut out, mut from) = (Vec::new(), 0);
    for cut in cuts {
        translator.push(Bytes::copy_from_slice(&body[from..cut]));
        while let Some(bytes) = translator.take()? {
            out.extend_from_slice(&bytes);
        }
        from = cut;
    }
    out.extend_from_slice(&translator.finish()?);
    Ok(out)
}

fn page(body: &str, depth: Translate) -> String {
    String::from_utf8(translated("text/html", depth, body.as_bytes(), &[])).unwrap()
}

/// Every attribute of PUB-27, in its own words.
#[test]
fn every_tag_of_the_list_is_translated() {
    const LIST: &str = "a href; audio src; base href; button formaction; div data-background, style, data-src; \
        embed src; form action; frame src; head profile; html manifest; iframe longdesc, src; img longdesc, src; \
        input formaction, src, value; link href; menuitem icon; meta content; object archive, data, codebase; \
        script src; source src; track src; video src, poster";
    let mut checked = 0;
    for entry in LIST.split("; ") {
        let (tag, attributes) = entry.split_once(' ').unwrap();
        for attribute in attributes.split(", ") {
            let (before, after) = match attribute {
                "style" => ("background: url(http://wiki.corp:8080/x)", "background: url(https://wiki.example.com/x)"),
                _ => ("http://wiki.corp:8080/x", "https://wiki.example.com/x"),
            };
            let (page_before, page_after) =
                (format!("<{tag} {attribute}=\"{before}\">"), format!("<{tag} {attribute}=\"{after}\">"));
            assert_eq!(page(&page_before, Translate::Pages), page_after);
            checked += 1;
        }
    }
    assert_eq!(checked, 30);
}

#[test]
fn what_the_list_leaves_out_is_translated_too() {
    let cases = [
        (
            "<img srcset='http://wiki.corp:8080/1 1x, http://wiki.corp:8080/2 2x'>",
            "<img srcset=\"https://wiki.example.com/1 1x, https://wiki.example.com/2 2x\">",
        ),
        (
            "<meta http-equiv=refresh content='0; url=http://hr.corp:443/'>",
            "<meta http-equiv=refresh content='0; url=http://hr.corp:443/'>",
        ),
        (
            "<meta http-equiv=refresh content='0; url=https://hr.corp/'>",
            "<meta http-equiv=refresh content=\"0; url=https://hr.example.com/\">",
        ),
        (
            "<style>@import 'http://wiki.corp:8080/a.css'; b { background: url(//hr.corp/i) }</style>",
            "<style>@import 'https://wiki.example.com/a.css'; b { background: url(//hr.example.com/i) }</style>",
        ),
        (
            "<svg><use xlink:href='http://wiki.corp:8080/i.svg#a'/></svg>",
            "<svg><use xlink:href=\"https://wiki.example.com/i.svg#a\" /></svg>",
        ),
        ("<a href=' http://wiki.corp:8080/x'>", "<a href=\" https://wiki.example.com/x\">"),
    ];
    for (before, after) in cases {
        assert_eq!(page(before, Translate::Pages), after);
    }
}

/// PUB-28: text, scripts and other people's links stay, unless asked for.
#[test]
fn what_is_no_link_stays() {
    let untouched = [
        "<p>http://wiki.corp:8080/x</p>",
        "<script>fetch('http://wiki.corp:8080/api')</script>",
        "<a href='https://elsewhere.test/?to=http://wiki.corp:8080/'>",
        "<a href='http%3A%2F%2Fwiki.corp:8080/'>",
        "<a href='/relative'>",
        "<a title='http://wiki.corp:8080/'>",
        "<!-- <a href='http://wiki.corp:8080/'> -->",
        "<textarea><a href='http://wiki.corp:8080/'></textarea>",
    ];
    for body in untouched {
        assert_eq!(page(body, Translate::Pages), body);
        assert_eq!(page(body, Translate::Headers), body);
    }
    let script = "<script>fetch('http://wiki.corp:8080/api'); // http://wiki.corp:8081</script>";
    let after = "<script>fetch('https://wiki.example.com/api'); // http://wiki.corp:8081</script>";
    assert_eq!(page(script, Translate::Everything), after);
}

#[test]
fn json_is_translated_where_asked_with_its_escapes() {
    let body = br#"{"a":"http:\/\/wiki.corp:8080\/x","b":"https://hr.corp","c":"\"ws:\/\/wiki.corp:8080\""}"#;
    let after =
        br#"{"a":"https:\/\/wiki.example.com\/x","b":"https://hr.example.com","c":"\"wss:\/\/wiki.example.com\""}"#;
    let said = translated("application/problem+json; charset=utf-8", Translate::Everything, body, &[]);
    assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(after));
    assert_eq!(translated("application/json", Translate::Pages, body, &[]), body);
}

#[test]
fn charsets_keep_their_bytes() {
    let body = b"<p title='\xe9'>\xe9 <a href='http://wiki.corp:8080/\xe9'>";
    let said = translated("text/html; charset=iso-8859-1", Translate::Pages, body, &[]);
    assert_eq!(said, b"<p title='\xe9'>\xe9 <a href=\"https://wiki.example.com/\xe9\">");
    let utf16: Vec<u8> = "<a href='http://wiki.corp:8080/'>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(translated("text/html; charset=utf-16le", Translate::Pages, &utf16, &[]), utf16);
}

#[test]
fn the_head_says_what_the_body_is() {
    let mut headers = head("text/html");
    for (name, value) in [("content-length", "10"), ("etag", "\"a\""), ("digest", "x"), ("accept-ranges", "bytes")] {
        headers.insert(name, value.parse().unwrap());
    }
    assert!(Translator::begin(StatusCode::OK, &mut headers, true, Translate::Pages, &links()).is_some());
    assert_eq!(
        headers,
        HeaderMap::from_iter([
            (header::CONTENT_TYPE, "text/html".parse().unwrap()),
            (header::ETAG, "W/\"a\"".parse().unwrap()),
        ])
    );
    let passes = |status: StatusCode, kind: &str, encoding: &str| {
        let mut headers = head(kind);
        headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        headers.insert(header::CONTENT_LENGTH, "10".parse().unwrap());
        let before = headers.clone();
        let passes = Translator::begin(status, &mut headers, true, Translate::Pages, &links()).is_none();
        assert!(!passes || headers == before, "a head that passes is not touched");
        passes
    };
    assert!(passes(StatusCode::OK, "text/html", "br"));
    assert!(passes(StatusCode::OK, "image/png", "identity"));
    assert!(passes(StatusCode::PARTIAL_CONTENT, "text/html", "identity"));
    assert!(passes(StatusCode::NOT_MODIFIED, "text/html", "identity"));
    assert!(!passes(StatusCode::OK, "text/html", "gzip"));
}

fn zipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn unzipped(gzip: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut plain).unwrap();
    plain
}

fn gzip_translator(takes_gzip: bool) -> (Translator, HeaderMap) {
    let mut headers = head("text/html");
    headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    let translator = Translator::begin(StatusCode::OK, &mut headers, takes_gzip, Translate::Pages, &links()).unwrap();
    (translator, headers)
}

#[test]
fn compressed_pages_are_read_and_compressed_again_for_those_who_take_it() {
    let body = zipped(b"<a href='http://wiki.corp:8080/'>");
    let (mut translator, headers) = gzip_translator(true);
    assert_eq!(unzipped(&run(&mut translator, &body, &[5]).unwrap()), b"<a href=\"https://wiki.example.com/\">");
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    let (mut translator, headers) = gzip_translator(false);
    assert_eq!(run(&mut translator, &body, &[5]).unwrap(), b"<a href=\"https://wiki.example.com/\">");
    assert!(!headers.contains_key(header::CONTENT_ENCODING));
}

#[test]
fn broken_gzip_is_an_error_and_never_a_short_success() {
    let body = zipped(&b"<p>words</p>".repeat(10_000));
    let (mut translator, _) = gzip_translator(false);
    assert!(run(&mut translator, &body[..body.len() - 12], &[]).is_err(), "cut off");
    let (mut translator, _) = gzip_translator(false);
    assert!(run(&mut translator, b"this is not gzip at all, whatever it says", &[]).is_err());
}

/// A thousand spaces a byte: what is made at once stays small.
#[test]
fn a_bomb_comes_out_in_small_pieces() {
    let bomb = zipped(&vec![b' '; 8 * 1024 * 1024]);
    let (mut translator, _) = gzip_translator(false);
    let (mut total, mut largest) = (0, 0);
    translator.push(bomb.into());
    while let Some(bytes) = translator.take().unwrap() {
        total += bytes.len();
        largest = largest.max(bytes.len());
    }
    total += translator.finish().unwrap().len();
    assert_eq!(total, 8 * 1024 * 1024);
    assert!(largest <= 1_040 * PIECE_BYTES, "{largest}");
}

/// A tag without an end may not fill memory; it passes and nothing is lost.
#[test]
fn an_endless_tag_passes_as_it_is() {
    let body =
        [b"<style>a{b:url(http://wiki.corp:8080/)} http:</style><a title='".as_slice(), &vec![b'x'; 3 << 20], b"'>"]
            .concat();
    let said = translated("text/html", Translate::Pages, &body, &[100_000, 1_500_000]);
    let after =
        [b"<style>a{b:url(https://wiki.example.com/)} http:</style><a title='".as_slice(), &vec![b'x'; 3 << 20], b"'>"]
            .concat();
    assert!(said == after);
}

proptest! {
    /// Cuts change nothing, wherever they fall.
    #[test]
    fn a_body_is_the_same_however_it_is_cut(
        parts in proptest::collection::vec(prop_oneof![
            Just("http://wiki.corp:8080/a"), Just("https://hr.corp"), Just("\"//hr.corp/x\""), Just("http:\\/\\/wiki.corp:8080\\/"),
            Just("https://elsewhere.test/"), Just("url(ws://wiki.corp:8080)"), Just(" "), Just("h"), Just("http"), Just("http:/"),
            Just("<a href='http://wiki.corp:8080/b'>"), Just("<style>"), Just("</style>"), Just("é"), Just("\\"), Just("/"), Just(":"),
        ], 0..24),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let body = parts.concat();
        for kind in ["text/html", "text/css", "application/json"] {
            let whole = translated(kind, Translate::Everything, body.as_bytes(), &[]);
            let cut = translated(kind, Translate::Everything, body.as_bytes(), &cuts);
            prop_assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&cut), "{}", kind);
        }
    }

    /// Bytes that hold no link pass as they are.
    #[test]
    fn nothing_else_is_changed(body in proptest::collection::vec(any::<u8>(), 0..600), cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
        prop_assert_eq!(translated("text/css", Translate::Everything, &body, &cuts), body);
    }
}
