//! HTTP/2 that breaks its grammar, section by section (RFC 9113, RFC 7541), as
//! an attacker writes it. The cases follow the sections that conformance suites
//! test; each has a connection of its own.

use postern_tests::{
    http2::{self, *},
    origin::Origin,
    world::{World, open_app},
};

/// What a peer may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// The connection ends, with an error or without a word.
    Close,
    /// The stream is reset, the request refused, or the connection ends.
    Refuse,
    /// The request that follows is answered.
    Tolerate,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Closed,
    Reset,
    Refused,
    Answered,
}

type Frames = Vec<(u8, u8, u32, Vec<u8>)>;

/// A request head with other fields than usual; pseudo-fields first.
fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

fn request(host: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/x")]
}

/// A usual request with fields in place of, or beside, the usual ones.
fn with(host: &str, change: &[(&str, &str)]) -> Vec<u8> {
    let mut fields: Vec<(&str, &str)> = request(host).to_vec();
    for (name, value) in change {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => fields.push((name, value)),
        }
    }
    head(&fields)
}

fn without(host: &str, name: &str) -> Vec<u8> {
    let fields: Vec<(&str, &str)> = request(host).into_iter().filter(|(known, _)| *known != name).collect();
    head(&fields)
}

const WHOLE: u8 = END_HEADERS | END_STREAM;

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases(host: &str) -> Vec<(&'static str, Must, Frames)> {
    use Must::{Close, Refuse, Tolerate};
    let get = with(host, &[]);
    let post = with(host, &[(":method", "POST")]);
    let one = |kind: u8, flags: u8, stream: u32, payload: &[u8]| vec![(kind, flags, stream, payload.to_vec())];
    let setting = |id: u16, value: u32| [id.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()].concat();
    let opened = |then: Frames| [vec![(HEADERS, END_HEADERS, 1, post.clone())], then].concat();
    let asked = |block: Vec<u8>| vec![(HEADERS, WHOLE, 1, block)];
    let beside = |name: &str, value: &str| [get.clone(), field(name, value)].concat();
    vec![
        ("4.1 a frame of an unknown kind", Tolerate, one(0xbe, 0xff, 0, b"whatever")),
        ("4.1 unknown flags", Tolerate, one(PING, 0x16, 0, &[0; 8])),
        ("4.2 a DATA frame that is too large", Close, opened(one(DATA, END_STREAM, 1, &[0; 16_385]))),
        ("4.2 a HEADERS frame that is too large", Close, one(HEADERS, WHOLE, 1, &[0; 16_385])),
        ("4.3 a field block that is none", Close, asked(vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        (
            "4.3 another frame inside a field block",
            Close,
            [one(HEADERS, END_STREAM, 1, &get), one(PING, 0, 0, &[0; 8])].concat(),
        ),
        (
            "4.3 another stream inside a field block",
            Close,
            [one(HEADERS, END_STREAM, 1, &get), one(HEADERS, WHOLE, 3, &get)].concat(),
        ),
        (
            "4.3 an unknown frame inside a field block",
            Close,
            [one(HEADERS, END_STREAM, 1, &get), one(0xbe, 0, 0, b"x")].concat(),
        ),
        ("5.1 DATA on an idle stream", Close, one(DATA, END_STREAM, 1, b"x")),
        ("5.1 RST_STREAM on an idle stream", Close, one(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("5.1 WINDOW_UPDATE on an idle stream", Close, one(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])),
        ("5.1 CONTINUATION on an idle stream", Close, one(CONTINUATION, END_HEADERS, 1, &get)),
        ("5.1 DATA after the end", Refuse, [asked(get.clone()), one(DATA, END_STREAM, 1, b"x")].concat()),
        ("5.1 HEADERS after the end", Refuse, [asked(get.clone()), asked(get.clone())].concat()),
        ("5.1.1 an even number", Close, one(HEADERS, WHOLE, 2, &get)),
        ("5.1.1 a smaller number", Close, [one(HEADERS, WHOLE, 5, &get), one(HEADERS, WHOLE, 3, &get)].concat()),
        (
            "5.3.1 a stream that depends on itself",
            Refuse,
            one(HEADERS, WHOLE | PRIORITISED, 1, &[&[0, 0, 0, 1, 15][..], &get].concat()),
        ),
        ("6.1 DATA on stream 0", Close, opened(one(DATA, END_STREAM, 0, b"x"))),
        ("6.1 DATA with more padding than payload", Close, opened(one(DATA, END_STREAM | PADDED, 1, &[6, b'x', b'y']))),
        ("6.2 HEADERS on stream 0", Close, one(HEADERS, WHOLE, 0, &get)),
        (
            "6.2 HEADERS with more padding than payload",
            Close,
            one(HEADERS, WHOLE | PADDED, 1, &[&[255][..], &get].concat()),
        ),
        ("6.3 PRIORITY on stream 0", Close, one(PRIORITY, 0, 0, &[0, 0, 0, 0, 1])),
        ("6.3 PRIORITY of another size", Close, one(PRIORITY, 0, 1, &[0, 0, 0, 1])),
        ("6.4 RST_STREAM on stream 0", Close, one(RST_STREAM, 0, 0, &[0, 0, 0, 8])),
        ("6.4 RST_STREAM of another size", Close, opened(one(RST_STREAM, 0, 1, &[0, 0, 8]))),
        ("6.5 SETTINGS with ACK and a payload", Close, one(SETTINGS, ACK, 0, &setting(3, 100))),
        ("6.5 SETTINGS on a stream", Close, one(SETTINGS, 0, 1, &setting(3, 100))),
        ("6.5 SETTINGS of another size", Close, one(SETTINGS, 0, 0, &[0, 3, 0])),
        ("6.5.2 ENABLE_PUSH of 2", Close, one(SETTINGS, 0, 0, &setting(2, 2))),
        ("6.5.2 a window beyond its limit", Close, one(SETTINGS, 0, 0, &setting(4, 1 << 31))),
        ("6.5.2 a frame size below its limit", Close, one(SETTINGS, 0, 0, &setting(5, 16_383))),
        ("6.5.2 a frame size beyond its limit", Close, one(SETTINGS, 0, 0, &setting(5, 1 << 24))),
        ("6.5.2 an unknown setting", Tolerate, one(SETTINGS, 0, 0, &setting(0xff, 1))),
        (
            "6.6 PUSH_PROMISE from a client",
            Close,
            opened(one(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get].concat())),
        ),
        ("6.7 PING with ACK that nobody asked for", Tolerate, one(PING, ACK, 0, &[7; 8])),
        ("6.7 PING on a stream", Close, one(PING, 0, 1, &[0; 8])),
        ("6.7 PING of another size", Close, one(PING, 0, 0, &[0; 6])),
        ("6.8 GOAWAY on a stream", Close, one(GOAWAY, 0, 1, &[0; 8])),
        ("6.9 WINDOW_UPDATE of 0", Close, one(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("6.9 WINDOW_UPDATE of 0 on a stream", Refuse, opened(one(WINDOW_UPDATE, 0, 1, &[0; 4]))),
        ("6.9 WINDOW_UPDATE of another size", Close, one(WINDOW_UPDATE, 0, 0, &[0, 0, 1])),
        (
            "6.9.1 a window that overflows",
            Close,
            [one(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), one(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])]
                .concat(),
        ),
        (
            "6.10 CONTINUATION after the end of a block",
            Close,
            [asked(get.clone()), one(CONTINUATION, END_HEADERS, 1, &field("a", "b"))].concat(),
        ),
        (
            "6.10 CONTINUATION on stream 0",
            Close,
            [one(HEADERS, END_STREAM, 1, &get), one(CONTINUATION, END_HEADERS, 0, b"")].concat(),
        ),
        (
            "8.1 a second head that does not end the stream",
            Refuse,
            opened(one(HEADERS, END_HEADERS, 1, &field("a", "b"))),
        ),
        ("8.2.1 a field name in capitals", Refuse, asked(beside("X-Name", "1"))),
        ("8.2.1 a field name with a space", Refuse, asked(beside("x name", "1"))),
        ("8.2.1 a field name with a colon", Refuse, asked(beside("x:name", "1"))),
        ("8.2.1 a field value with a line end", Refuse, asked(beside("x-name", "1\r\nevil: 2"))),
        ("8.2.1 a field value with NUL", Refuse, asked(beside("x-name", "1\0"))),
        ("8.2.2 Connection", Refuse, asked(beside("connection", "close"))),
        ("8.2.2 Transfer-Encoding (H2.TE)", Refuse, asked(beside("transfer-encoding", "chunked"))),
        ("8.2.2 Upgrade", Refuse, asked(beside("upgrade", "websocket"))),
        ("8.2.2 Keep-Alive", Refuse, asked(beside("keep-alive", "1"))),
        ("8.2.2 Proxy-Connection", Refuse, asked(beside("proxy-connection", "close"))),
        ("8.2.2 TE beyond trailers", Refuse, asked(beside("te", "trailers, deflate"))),
        ("8.3 an unknown pseudo-field", Refuse, asked(with(host, &[(":test", "x")]))),
        ("8.3 a response's pseudo-field", Refuse, asked(with(host, &[(":status", "200")]))),
        ("8.3 a pseudo-field after others", Refuse, asked([field("a", "b"), get.clone()].concat())),
        ("8.3 a pseudo-field in trailers", Refuse, opened(one(HEADERS, WHOLE, 1, &field(":path", "/y")))),
        ("8.3 two paths", Refuse, asked(beside(":path", "/y"))),
        ("8.3 two methods", Refuse, asked(beside(":method", "POST"))),
        ("8.3 two authorities", Refuse, asked(beside(":authority", "evil.test"))),
        ("8.3.1 an empty path", Refuse, asked(with(host, &[(":path", "")]))),
        ("8.3.1 a path without a slash", Refuse, asked(with(host, &[(":path", "x")]))),
        ("8.3.1 no method", Refuse, asked(without(host, ":method"))),
        ("8.3.1 an empty scheme", Refuse, asked(with(host, &[(":scheme", "")]))),
        ("8.3.1 a scheme that is none", Refuse, asked(with(host, &[(":scheme", "ftp")]))),
        ("8.3.1 no scheme", Refuse, asked(without(host, ":scheme"))),
        ("8.3.1 no path", Refuse, asked(without(host, ":path"))),
        ("8.3.1 no authority and no host", Refuse, asked(without(host, ":authority"))),
        ("8.3.1 Host of another name", Refuse, asked(beside("host", "evil.test"))),
        ("8.3.1 an authority with a user name", Refuse, asked(with(host, &[(":authority", &format!("u@{host}"))]))),
        ("8.3.1 a method that is no token", Refuse, asked(with(host, &[(":method", "GE T")]))),
        (
            "8.3.1 a path with a line end (H2 request splitting)",
            Refuse,
            asked(with(host, &[(":path", "/x HTTP/1.1\r\nHost: evil\r\n\r\nGET /")])),
        ),
        ("8.3.1 a path with a space", Refuse, asked(with(host, &[(":path", "/a b")]))),
        ("8.5 CONNECT", Refuse, asked(head(&[(":method", "CONNECT"), (":authority", host)]))),
        (
            "8.1.1 a body longer than its length (H2.CL)",
            Refuse,
            [
                one(HEADERS, END_HEADERS, 1, &with(host, &[(":method", "POST"), ("content-length", "1")])),
                one(DATA, END_STREAM, 1, b"test"),
            ]
            .concat(),
        ),
        (
            "8.1.1 a body shorter than its length (H2.CL)",
            Refuse,
            [
                one(HEADERS, END_HEADERS, 1, &with(host, &[(":method", "POST"), ("content-length", "9")])),
                one(DATA, END_STREAM, 1, b"test"),
            ]
            .concat(),
        ),
        ("8.1.1 a length and no body", Refuse, asked(with(host, &[(":method", "POST"), ("content-length", "9")]))),
        (
            "8.1.1 two lengths",
            Refuse,
            [
                one(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &head(&[&request(host)[..], &[("content-length", "4"), ("content-length", "5")]].concat()),
                ),
                one(DATA, END_STREAM, 1, b"test"),
            ]
            .concat(),
        ),
        ("HPACK 2.3.3 an index that is not there", Close, asked(vec![0xff, 0x00])),
        ("HPACK 4.2 a table size beyond its limit", Close, asked([vec![0x3f, 0xe1, 0xff, 0x7f], get.clone()].concat())),
        ("HPACK 4.2 a table size at the end of a block", Close, asked([get.clone(), vec![0x20]].concat())),
        (
            "HPACK 5.2 padding longer than 7 bits",
            Close,
            asked([get.clone(), vec![0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff]].concat()),
        ),
        (
            "HPACK 5.2 padding of zeros",
            Close,
            asked([get.clone(), vec![0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x87, 0xff, 0x83, 0x49, 0x50, 0x90]].concat()),
        ),
        (
            "HPACK 5.2 the end-of-string symbol",
            Close,
            asked(
                [
                    get.clone(),
                    vec![0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x87, 0x49, 0x51, 0xff, 0xff, 0xff, 0xfa, 0x7f],
                ]
                .concat(),
            ),
        ),
        ("HPACK 6.1 index 0", Close, asked([get.clone(), vec![0x80]].concat())),
    ]
}

/// What comes of it. An answer may overtake an error, so a PING is asked for
/// last: what went wrong before it is said before its answer.
async fn outcome(connection: &mut Http2, stream: u32) -> Outcome {
    // Until the ping is answered, what was sent before it may still end the connection.
    let (mut seen, mut pinged) = (None, false);
    loop {
        match connection.read().await {
            None => return Outcome::Closed,
            Some(frame) if frame.kind == GOAWAY => return Outcome::Closed,
            // Whole answers may end what the user was still sending (RFC 9113, section 8.1).
            Some(frame) if frame.kind == RST_STREAM && frame.payload == [0; 4] && seen.is_some() => {}
            Some(frame) if frame.kind == RST_STREAM => seen = Some(Outcome::Reset),
            Some(frame) if frame.kind == PING && frame.payload == b"the end?" => pinged = true,
            // `:status: 200` is one byte.
            Some(frame) if frame.kind == HEADERS && frame.stream == stream => {
                let answered = frame.payload.first() == Some(&0x88);
                seen.get_or_insert(if answered { Outcome::Answered } else { Outcome::Refused });
            }
            Some(_) => {}
        }
        if let Some(seen) = seen.take_if(|_| pinged) {
            return seen;
        }
    }
}

#[tokio::test]
async fn every_section_of_http2_is_kept() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.publish(open_app("open", &origin.url()), &[]).await;
    let host = format!("open.postern.localhost:{}", world.port);
    let url = url::Url::parse(&world.url("open", "/")).unwrap();
    let (mut failed, mut count) = (Vec::new(), 0);
    for (name, must, mut frames) in cases(&host) {
        let mut connection = Http2::begin(world.browser().connect_for(&url, b"h2").await).await;
        if must == Must::Tolerate {
            frames.push((HEADERS, END_HEADERS | END_STREAM, 1, http2::get(&host)));
        }
        frames.push((PING, 0, 0, b"the end?".to_vec()));
        let seen = match connection.write_together(&frames).await {
            true => outcome(&mut connection, 1).await,
            false => Outcome::Closed,
        };
        let right = match must {
            Must::Close => seen == Outcome::Closed,
            Must::Refuse => seen != Outcome::Answered,
            Must::Tolerate => seen == Outcome::Answered,
        };
        count += 1;
        if !right {
            failed.push(format!("{name}: must {must:?}, was {seen:?}"));
        }
    }
    assert_eq!(count, 88);
    assert!(failed.is_empty(), "{} of {count}:\n{}", failed.len(), failed.join("\n"));
    // Whatever came of them, the next one is served.
    assert_eq!(world.browser().get(&world.url("open", "/x")).await.status, 200);
}
