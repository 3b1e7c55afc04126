//! Published forms of request smuggling (attack class R1) and what clients
//! really send, each whole and one byte at a time.

use proptest::prelude::*;

use super::*;

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\n";

/// Both ways of arriving must be judged alike.
fn judge(request: &str) -> Result<Framing, &'static str> {
    let mut whole = Framing::default();
    let at_once = whole.follow(request.as_bytes()).map_err(|it| it.why);
    let mut piece_by_piece = Framing::default();
    let in_pieces = request.as_bytes().iter().try_for_each(|byte| piece_by_piece.follow(&[*byte])).map_err(|it| it.why);
    assert_eq!(at_once, in_pieces, "{request:?}");
    if at_once.is_ok() {
        assert_eq!(whole.at, piece_by_piece.at, "{request:?}");
    }
    at_once.map(|()| whole)
}

#[test]
fn what_clients_send_passes_and_ends_where_it_should() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("{POST}Content-Length: 3\r\n\r\nabc"),
        format!("{POST}Content-Length: 0\r\n\r\n"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        format!("{POST}transfer-encoding:Chunked\r\n\r\n0A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\nx-sum: 1\r\n\r\n"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n3;name=\"value\"\r\nabc\r\n0\r\n\r\n"),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n".to_owned(),
    ];
    for request in requests {
        assert_eq!(judge(&request).unwrap().at, At::Idle, "{request:?}");
    }
}

#[test]
fn smuggling_is_seen_before_the_library_sees_it() {
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n");
    let requests = [
        ("a fragment, Envoy CVE-2021-32779", "GET /a#/../b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("CL.TE", format!("{POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n")),
        ("TE.CL", format!("{chunked}Content-Length: 4\r\n\r\n")),
        ("TE.TE", format!("{chunked}Transfer-Encoding: identity\r\n\r\n")),
        ("TE twice", format!("{chunked}Transfer-Encoding: chunked\r\n\r\n")),
        ("TE list", format!("{POST}Transfer-Encoding: gzip, chunked\r\n\r\n")),
        ("TE xchunked", format!("{POST}Transfer-Encoding: xchunked\r\n\r\n")),
        ("TE vertical tab", format!("{POST}Transfer-Encoding: \x0bchunked\r\n\r\n")),
        ("TE space before colon", format!("{POST}Transfer-Encoding : chunked\r\n\r\n")),
        ("TE folded", format!("{POST}Transfer-Encoding:\r\n chunked\r\n\r\n")),
        ("TE in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
        ("CL.CL equal", format!("{POST}Content-Length: 4\r\nContent-Length: 4\r\n\r\n")),
        ("CL.CL", format!("{POST}Content-Length: 4\r\nContent-Length: 5\r\n\r\n")),
        ("CL list", format!("{POST}Content-Length: 4, 4\r\n\r\n")),
        ("CL signed", format!("{POST}Content-Length: +4\r\n\r\n")),
        ("CL hexadecimal", format!("{POST}Content-Length: 0x4\r\n\r\n")),
        ("CL empty", format!("{POST}Content-Length:\r\n\r\n")),
        ("CL too large", format!("{POST}Content-Length: 99999999999999999999\r\n\r\n")),
        ("bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned()),
        ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned()),
        ("bare CR", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n".to_owned()),
        ("space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned()),
        ("no colon", "GET / HTTP/1.1\r\nHost\r\n\r\n".to_owned()),
        ("chunk bare LF", format!("{chunked}\r\n3\nabc\r\n0\r\n\r\n")),
        ("chunk LF after data", format!("{chunked}\r\n3\r\nabc\n0\r\n\r\n")),
        ("chunk too short", format!("{chunked}\r\n2\r\nabc\r\n0\r\n\r\n")),
        ("chunk 0x", format!("{chunked}\r\n0x3\r\nabc\r\n0\r\n\r\n")),
        ("chunk signed", format!("{chunked}\r\n+3\r\nabc\r\n0\r\n\r\n")),
        ("chunk empty", format!("{chunked}\r\n\r\nabc\r\n0\r\n\r\n")),
        ("chunk overflow", format!("{chunked}\r\n10000000000000003\r\nabc\r\n0\r\n\r\n")),
        ("chunk space", format!("{chunked}\r\n3 \r\nabc\r\n0\r\n\r\n")),
        ("chunk extension LF", format!("{chunked}\r\n3;a\nabc\r\n0\r\n\r\n")),
        ("chunk extension without end", format!("{chunked}\r\n3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(300))),
        ("trailer folded", format!("{chunked}\r\n0\r\n x: y\r\n\r\n")),
        ("early upgrade bytes", "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nGET /admin".to_owned()),
    ];
    for (name, request) in requests {
        assert!(judge(&request).is_err(), "{name}: {request:?}");
    }
}

#[test]
fn nothing_of_the_bad_line_is_handed_on() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
    let seen = Framing::default().follow(request.as_bytes()).unwrap_err();
    assert_eq!(&request[seen.good..], "Content-Length: 1\r\n\r\n");
}

#[test]
fn after_an_answer_a_switched_connection_is_not_ours_to_read() {
    let mut framing = judge("GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    framing.answered();
    assert_eq!(framing.follow(b"\x81\x05hello\n\n"), Ok(()));
}

#[test]
fn a_head_is_under_way_from_its_first_byte_to_its_last() {
    let mut framing = Framing::default();
    assert_eq!(framing.head(), None);
    for (bytes, head) in
        [("G", Some(0)), ("ET / HTTP/1.1\r", Some(0)), ("\nA: b\r\n", Some(0)), ("\r\n", None), ("G", Some(1))]
    {
        framing.follow(bytes.as_bytes()).unwrap();
        assert_eq!(framing.head(), head, "{bytes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// However the network cuts a request, the verdict is one; and what passes
    /// has at most one length and one coding, never both.
    #[test]
    fn no_cut_changes_the_verdict(pieces in prop::collection::vec(prop::sample::select(vec![
        "GET / HTTP/1.1", "POST /a HTTP/1.1", "POST / HTTP/1.0", "\r\n", "\r\n\r\n", "\n", "\r", " ", "Host: a\r\n",
        "Content-Length: 3\r\n", "content-length:0\r\n", "Content-Length: 3, 3\r\n", "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:\tchunked\r\n", "Transfer-Encoding: identity\r\n", "Connection: upgrade\r\n", "Upgrade: x\r\n",
        "abc", "3\r\nabc\r\n", "0\r\n", "0\r\n\r\n", "3;a=b\r\n", "x-trailer: 1\r\n", ":\r\n", "A\r\n", "\0",
    ]), 0..14)) {
        let request = pieces.concat();
        let passed = judge(&request).is_ok();
        let head = request.trim_start_matches("\r\n").split("\r\n\r\n").next().unwrap_or("");
        let fields = |name: &str| {
            head.split("\r\n").skip(1).filter(|line| line.to_ascii_lowercase().starts_with(name)).count()
        };
        let (lengths, codings) = (fields("content-length:"), fields("transfer-encoding:"));
        if passed && request.contains("\r\n\r\n") && !request.starts_with("\r\n\r\n") {
            prop_assert!(lengths + codings <= 1, "{request:?}");
        }
    }
}
