//! A sign-in that somebody else began, changed or answered does not end well
//! (attack classes R5 to R7).

use super::*;

const EVIL: [&str; 14] = [
    "//evil.com",
    "///evil.com",
    "https://evil.com",
    "http:evil.com",
    "javascript:alert(1)",
    "\\\\evil.com",
    "/\\evil.com",
    "/\\/evil.com",
    "evil.com",
    "",
    "@evil.com",
    "?x",
    "#x",
    "data:text/html,x",
];

#[test]
fn a_sign_in_ends_on_the_host_it_began_on() {
    let app = AppId(uuid::Uuid::from_u128(1));
    for back in EVIL {
        let response = finish(app, "token", back).unwrap();
        assert_eq!(response.headers()[header::LOCATION], "/", "{back:?}");
    }
    let response = finish(app, "token", "/wiki/page?a=b").unwrap();
    assert_eq!(response.headers()[header::LOCATION], "/wiki/page?a=b");
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(
        cookie.starts_with("__Host-postern-") && cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
}

#[test]
fn the_verifier_depends_on_browser_and_flow() {
    let secret = SharedSecret::new(b"0123456789abcdef0123456789abcdef");
    let one = verifier(&secret, "browser", "flow");
    assert!((43..=128).contains(&one.len()), "RFC 7636, section 4.1");
    assert_ne!(one, verifier(&secret, "browser", "other"));
    assert_ne!(one, verifier(&secret, "other", "flow"));
}
