//! What has one meaning passes unchanged; what has two is refused (attack
//! classes R3, R4, R18).

use http::Request;
use proptest::prelude::*;

use super::*;

const HOST: &str = "wiki.example.com";

fn parts(method: &str, target: &str, fields: &[(&str, &str)]) -> Option<Parts> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

fn read(target: &str) -> Option<Result<Canonical, Fault>> {
    Some(parse(&parts("GET", target, &[("host", HOST)])?, Some(HOST)))
}

#[test]
fn hosts_are_one_name_and_a_port() {
    let good = ["wiki.example.com", "WIKI.example.com", "wiki.example.com:443", "wiki.example.com:8443"];
    for host in good {
        let parts = parts("GET", "/", &[("host", host)]).unwrap();
        let canonical = parse(&parts, Some(HOST)).unwrap();
        assert_eq!((canonical.host.as_str(), canonical.authority.as_str()), (HOST, &*host.to_ascii_lowercase()));
        assert!(!canonical.full_name);
    }
    for (full, usual) in [("wiki.example.com.", HOST), ("WIKI.example.com.:8443", "wiki.example.com:8443")] {
        let parts = parts("GET", "/", &[("host", full)]).unwrap();
        let canonical = parse(&parts, Some(HOST)).unwrap();
        assert_eq!((canonical.host.as_str(), canonical.authority.as_str(), canonical.full_name), (HOST, usual, true));
    }
    let bad = [
        "",
        "wiki.example.com:",
        "wiki.example.com:0",
        "wiki.example.com:080",
        "wiki.example.com:65536",
        "a@wiki.example.com",
        "wiki.example.com, evil.com",
        "wiki.example.com/",
        "wiki.example.com evil",
        "wiki.example.com:80:80",
        "wiki.example.com..",
        ".",
        ".:443",
        "wiki_.example.com#",
        "[::1]",
        "wiki.example.com%00",
    ];
    for host in bad {
        let parts = parts("GET", "/", &[("host", host)]).unwrap();
        assert!(matches!(parse(&parts, Some(HOST)), Err(Fault::Unreadable(_) | Fault::Misdirected)), "{host:?}");
    }
}

#[test]
fn a_connection_is_for_the_host_it_was_opened_for() {
    let other = parts("GET", "/", &[("host", "other.example.com")]).unwrap();
    assert_eq!(parse(&other, Some(HOST)), Err(Fault::Misdirected));
    assert_eq!(parse(&other, None), Err(Fault::Misdirected));
    let both = parts("GET", "https://other.example.com/", &[("host", HOST)]).unwrap();
    assert!(matches!(parse(&both, Some(HOST)), Err(Fault::Unreadable(_))));
    let absolute = parts("GET", "https://wiki.example.com/a", &[("host", HOST)]).unwrap();
    assert_eq!(parse(&absolute, Some(HOST)).unwrap().target, "/a");
}

#[test]
fn ambiguous_paths_are_refused_and_marked() {
    let bad = [
        "/a/../b",
        "/..",
        "/a/.",
        "/./a",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a/.%2e",
        "/..;/a",
        "/a/..;x=1/b",
        "/a%2f..%2fb",
        "/a%5c..%5cb",
        "/a%2f%2e%2e",
        "/%00",
        "/a%0d%0ab",
        "/a%7f",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a\\b",
    ];
    for target in bad {
        // What the HTTP library refuses by itself is refused as well.
        if let Some(read) = read(target) {
            assert!(matches!(read, Err(Fault::Unreadable(_))), "{target}: {read:?}");
        }
    }
    let encoded = read("/a%2Fb").unwrap().unwrap();
    assert!(encoded.encoded_slash && !encoded.double_slash);
    assert!(read("/a%5cb").unwrap().unwrap().encoded_slash);
    assert!(read("/a//b").unwrap().unwrap().double_slash);
    for fine in ["/...", "/a..b/c", "/.well-known/x", "/a/..b", "/a;v=1/b", "/%C3%A9", "/?q=../..&r=%2F"] {
        assert_eq!(read(fine).unwrap().unwrap().target, fine);
    }
}

#[test]
fn an_upgrade_has_no_body_and_says_so_twice() {
    let upgrade = |method, fields: &[(&str, &str)]| {
        let fields = [&[("host", HOST)], fields].concat();
        parse(&parts(method, "/", &fields).unwrap(), Some(HOST)).map(|it| it.upgrade)
    };
    let asks = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
    assert_eq!(upgrade("GET", &asks), Ok(true));
    assert_eq!(upgrade("GET", &asks[1..]), Ok(false), "not named in Connection");
    assert!(upgrade("POST", &asks).is_err());
    assert!(upgrade("GET", &[asks[0], asks[1], ("content-length", "5")]).is_err());
}

#[test]
fn sizes_are_bounded() {
    let long = format!("/{}", "a".repeat(URI_BYTES_MAX));
    assert_eq!(read(&long).unwrap(), Err(Fault::UriTooLong));
    let with = |fields: &[(&str, &str)]| {
        let fields = [&[("host", HOST)], fields].concat();
        parse(&parts("GET", "/", &fields).unwrap(), Some(HOST))
    };
    assert_eq!(with(&[("x", &"a".repeat(HEADER_FIELD_BYTES_MAX))]), Err(Fault::HeadTooLarge));
    let wide = "a".repeat(HEADER_FIELD_BYTES_MAX - 10);
    assert!(with(&[("x", &wide), ("y", &wide)]).is_ok());
    assert_eq!(with(&[("x", &wide), ("y", &wide), ("z", &wide), ("w", &wide)]), Err(Fault::HeadTooLarge));
    assert!(with(&[("x", "1"); HEADER_FIELDS_MAX - 1]).is_ok());
    assert_eq!(with(&[("x", "1"); HEADER_FIELDS_MAX]), Err(Fault::HeadTooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// The path policy judges is the path that is sent, byte for byte, and no
    /// reader that normalises comes to another (RFC 3986, section 6.2.2.3).
    #[test]
    fn what_passes_is_unchanged_and_normal(target in "/([a-z.;%/25efEF\\\\0-]|%2e|%2F|\\.\\./|\\./|//){0,24}(\\?[a-z/.%&=]{0,8})?") {
        if let Some(Ok(canonical)) = read(&target) {
            prop_assert_eq!(&canonical.target, &target);
            let url = url::Url::parse(&format!("https://{HOST}{target}")).unwrap();
            prop_assert_eq!(url.path(), canonical.path());
        }
    }
}

#[test]
fn a_host_is_one_for_which_something_can_be_published() {
    let long = "a.".repeat(126) + "a";
    let hosts =
        ["a", "a.b", "0-1.b", "", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "A.b", "a_b", "*.b", "[::1]", "ä.b", &long];
    for host in hosts {
        assert_eq!(is_host(host), model::app::is_host(host), "{host}");
    }
    let (label, longer) = ("a".repeat(63), "a.".repeat(127) + "a");
    assert!(is_host(&label) && !is_host(&(label.clone() + "a")) && is_host(&long) && !is_host(&longer));
}

proptest! {
    #[test]
    fn a_target_that_is_forwarded_is_one_for_its_receiver_too(target in "/([a-z0-9./%;?&= ]|%2[efEF]|\\\\){0,24}") {
        let Some(read) = read(&target) else { return Ok(()) };
        match read {
            Ok(canonical) => prop_assert_eq!(check_target(&canonical.target), Ok(())),
            Err(fault) => prop_assert_eq!(check_target(&target), Err(fault)),
        }
    }
}
