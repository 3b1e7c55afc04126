//! A sign-in that somebody else began, changed or answered does not end well
//! (attack classes R5 to R7).

use super::*;
use crate::sessions::session::alice;

use model::{ConnectorGroupId, ExternalUrl, Origin, app::Name, http_rules::HttpRules, session::SessionClaims};
use url::Url;
use uuid::Uuid;

/// Ways to begin an address that some parser takes for another host.
const BEGINS: [&str; 37] = [
    "//",
    "///",
    "////",
    "https://",
    "http://",
    "HTTPS://",
    "https:",
    "http:",
    "https:/",
    "https:///",
    "\\\\",
    "/\\",
    "\\/",
    "/\\/",
    "/\t/",
    "\t//",
    "/\n/",
    "/\r/",
    " //",
    "/ /",
    "\u{0}//",
    "/\u{0}/",
    "javascript:",
    "data:text/html,",
    "vbscript:",
    "ftp://",
    "file://",
    "ws://",
    "blob:https://",
    "@",
    "?",
    "#",
    "",
    ".",
    "./\\",
    "/\u{2028}/",
    "／／",
];
const HOSTS: [&str; 8] = [
    "evil.com",
    "evil.com/",
    "evil.com/%2e%2e",
    "user@evil.com",
    "wiki.example.com@evil.com",
    "evil.com#wiki.example.com",
    "evil%E3%80%82com",
    "1.1.1.1:443",
];

fn app(cookie: CookieRules) -> App {
    let external = ExternalUrl::parse("https://wiki.example.com/").unwrap();
    let origin = Origin::parse("http://10.0.0.5:3000").unwrap();
    let (id, group) = (AppId(Uuid::from_u128(1)), ConnectorGroupId(Uuid::from_u128(2)));
    App {
        http_rules: HttpRules { cookie, ..HttpRules::default() },
        ..App::new(id, Name::parse("wiki").unwrap(), external, origin, group)
    }
}

fn session(started_s: i64) -> Session {
    let claims = SessionClaims { started_ms: started_s * 1000, ..alice() };
    Session::of("token", claims)
}

/// 296 addresses, judged by the parser browsers use (attack class R5).
#[test]
fn a_sign_in_ends_on_the_host_it_began_on() {
    let (app, session, now) = (app(CookieRules::default()), session(0), Timestamp(0));
    let here = Url::parse("https://wiki.example.com/.postern/callback").unwrap();
    let mut tried = 0;
    for back in BEGINS.iter().flat_map(|begin| HOSTS.iter().map(move |host| format!("{begin}{host}"))) {
        let response = finish(&app, &session, &back, now).unwrap();
        let location = response.headers()[header::LOCATION].to_str().unwrap();
        let there = here.join(location).unwrap();
        assert_eq!((there.scheme(), there.host_str()), ("https", Some("wiki.example.com")), "{back:?}");
        tried += 1;
    }
    assert_eq!(tried, 296);
    let response = finish(&app, &session, "/wiki/page?a=b", now).unwrap();
    assert_eq!(response.headers()[header::LOCATION], "/wiki/page?a=b");
}

/// PUB-30 to PUB-33.
#[test]
fn the_cookie_is_as_the_administrator_wants_and_never_less_than_safe() {
    let cookie = |rules: CookieRules| {
        let response = finish(&app(rules), &session(1_000), "/x", Timestamp(61_000 + 1_000_000)).unwrap();
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
        assert!(cookie.starts_with("__Host-postern-"), "{cookie}");
        (cookie.split_once("; ").unwrap().1.to_owned(), response)
    };
    let (plain, response) = cookie(CookieRules::default());
    assert_eq!(plain, "Path=/; Secure; HttpOnly; SameSite=Lax");
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let framed = CookieRules { same_site: SameSite::None, partitioned: true, persistent: false };
    assert_eq!(cookie(framed).0, "Path=/; Secure; HttpOnly; SameSite=None; Partitioned");
    let kept = CookieRules { persistent: true, ..CookieRules::default() };
    assert_eq!(cookie(kept).0, format!("Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={}", SESSION_LIFE_S - 61));
    let (strict, response) = cookie(CookieRules { same_site: SameSite::Strict, ..CookieRules::default() });
    assert_eq!(strict, "Path=/; Secure; HttpOnly; SameSite=Strict");
    assert_eq!(response.status(), StatusCode::OK, "a redirect would lose a Strict cookie");
    assert!(String::from_utf8_lossy(response.body()).contains("<a href=\"/x\">"));
}

#[test]
fn the_step_of_a_strict_sign_in_writes_no_markup_of_others() {
    let rules = CookieRules { same_site: SameSite::Strict, ..CookieRules::default() };
    let response = finish(&app(rules), &session(0), "/\"><script>alert(1)</script>", Timestamp(0)).unwrap();
    assert!(!String::from_utf8_lossy(response.body()).contains("<script>alert"));
}

#[test]
fn the_verifier_depends_on_browser_and_flow() {
    let secret = SharedSecret::new(b"0123456789abcdef0123456789abcdef");
    let one = verifier(&secret, "browser", "flow");
    assert!((43..=128).contains(&one.len()), "RFC 7636, section 4.1");
    assert_ne!(one, verifier(&secret, "browser", "other"));
    assert_ne!(one, verifier(&secret, "other", "flow"));
}
