//! What an application reads about its user is what we say, in every spelling
//! (attack class R1, header smuggling).

use model::{
    AppId, ConnectorGroupId, Event, ExternalUrl, Origin, Snapshot, TenantId,
    app::{IdentityHeader, Name},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::sessions::session::alice;

fn app() -> App {
    let external = ExternalUrl::parse("https://wiki.example.com/").unwrap();
    let origin = Origin::parse("http://10.0.0.5:3000").unwrap();
    let header =
        IdentityHeader { name: model::app::HeaderName::parse("X-Remote-User").unwrap(), claim: Claim::Username };
    App {
        identity_headers: vec![header],
        assertion: true,
        trusted_addresses: vec!["10.1.0.0/16".parse().unwrap()],
        ..App::new(
            AppId(Uuid::from_u128(1)),
            Name::parse("wiki").unwrap(),
            external,
            origin,
            ConnectorGroupId(Uuid::from_u128(2)),
        )
    }
}

/// What the application receives.
fn sent(fields: &[(&str, &str)], peer: &str) -> Result<HeaderMap, Refusal> {
    sent_to(&app(), fields, peer)
}

fn sent_to(app: &App, fields: &[(&str, &str)], peer: &str) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let mut request = http::Request::builder().uri("/").header("host", "wiki.example.com").body(()).unwrap();
    request.headers_mut().extend(headers);
    let parts = request.into_parts().0;
    let canonical = strict::canonical::parse(&parts, Some("wiki.example.com")).unwrap();
    let user = alice();
    let added = Added {
        origin: &app.origin,
        upgrade: None,
        peer: peer.parse().unwrap(),
        request_id: "r1",
        traceparent: "t1",
        user: Some(&user),
        assertion: Some("signed"),
        client_cert: None,
        took_authorization: true,
    };
    let block = forward(&parts.headers, app, &canonical, &added)?;
    Ok(tunnel::fields::decode(&block).unwrap())
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect()
}

#[test]
fn nothing_a_client_says_about_the_user_arrives() {
    let lies = [
        ("x-remote-user", "root"),
        ("X-Remote-User", "root"),
        ("connection", "x-remote-user, postern-assertion, x-forwarded-for, close"),
        ("postern-assertion", "forged"),
        ("postern-anything", "forged"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-user", "root"),
        ("forwarded", "for=1.1.1.1"),
        ("x-real-ip", "1.1.1.1"),
        ("traceparent", "lie"),
        ("authorization", "Bearer ours"),
    ];
    let headers = sent(&lies, "192.0.2.7").unwrap();
    assert_eq!(all(&headers, "x-remote-user"), ["alice"]);
    assert_eq!(all(&headers, "postern-assertion"), ["signed"]);
    assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(all(&headers, "forwarded"), ["for=192.0.2.7;host=\"wiki.example.com\";proto=https"]);
    assert_eq!(all(&headers, "traceparent"), ["t1"]);
    for gone in ["postern-anything", "x-forwarded-user", "x-real-ip", "authorization", "connection"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn an_underscore_is_refused_where_it_imitates_and_dropped_elsewhere() {
    for imitation in
        ["x_remote_user", "X_Remote-User", "postern_assertion", "x_forwarded_for", "content_length", "host_"]
    {
        let outcome = sent(&[(imitation, "1")], "192.0.2.7");
        match imitation {
            "content_length" | "host_" => assert!(!outcome.unwrap().contains_key(imitation)),
            _ => assert!(matches!(outcome, Err(Refusal::BadRequest(_))), "{imitation}"),
        }
    }
}

#[test]
fn only_a_trusted_proxy_is_believed_about_who_is_behind_it() {
    let said = [("x-forwarded-for", "203.0.113.9, 10.1.0.4")];
    let through_proxy = sent(&said, "10.1.0.3").unwrap();
    assert_eq!(all(&through_proxy, "x-forwarded-for"), ["203.0.113.9, 10.1.0.4, 10.1.0.3"]);
    let direct = sent(&said, "192.0.2.7").unwrap();
    assert_eq!(all(&direct, "x-forwarded-for"), ["192.0.2.7"]);

    let address = |chain: &str, peer: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_str(chain).unwrap());
        client_address(&headers, &app(), peer.parse().unwrap()).to_string()
    };
    assert_eq!(address("203.0.113.9, 10.1.0.4", "10.1.0.3"), "203.0.113.9");
    assert_eq!(
        address("198.51.100.1, 203.0.113.9", "10.1.0.3"),
        "203.0.113.9",
        "what a user claims comes first in the list"
    );
    assert_eq!(address("203.0.113.9, garbage", "10.1.0.3"), "10.1.0.3");
    assert_eq!(address("203.0.113.9", "192.0.2.7"), "192.0.2.7");
    assert_eq!(address("::ffff:203.0.113.9", "::ffff:10.1.0.3"), "203.0.113.9", "one address has one spelling");
}

#[test]
fn cookies_are_joined_and_ours_stay_here() {
    let crumbs = [("cookie", "a=1"), ("cookie", "__Host-postern-x=secret; b=2"), ("cookie", " c=3 ;; ")];
    assert_eq!(all(&sent(&crumbs, "192.0.2.7").unwrap(), "cookie"), ["a=1; b=2; c=3"]);
}

fn links(authority: &str) -> UrlMap {
    let (tenant, app) = (TenantId::default_tenant(), app());
    let (mut snapshot, id) = (Snapshot::default(), app.id);
    snapshot.apply(&tenant, Event::put(app), 1);
    UrlMap::new(snapshot.tenant(&tenant).unwrap().clone(), id, authority)
}

/// PUB-25, and the fields it forgets.
#[test]
fn every_field_that_shows_an_inside_address_is_translated() {
    let cases = [
        ("location", "http://10.0.0.5:3000/x", "https://wiki.example.com/x"),
        ("content-location", "http://10.0.0.5:3000/x", "https://wiki.example.com/x"),
        ("refresh", "5; url=http://10.0.0.5:3000/x", "5; url=https://wiki.example.com/x"),
        (
            "link",
            "<http://10.0.0.5:3000/a>; rel=next, </b>; rel=x",
            "<https://wiki.example.com/a>; rel=next, </b>; rel=x",
        ),
        ("access-control-allow-origin", "http://10.0.0.5:3000", "https://wiki.example.com"),
        ("content-security-policy", "img-src http://10.0.0.5:3000 'self'", "img-src https://wiki.example.com 'self'"),
        ("set-cookie", "a=b; Domain=corp.internal; Path=/x; Secure", "a=b; Path=/x; Secure"),
        ("set-cookie", "a=b; domain=.example.com; Path=/x", "a=b; domain=.example.com; Path=/x"),
        ("set-cookie", "a=b; Domain=ample.com", "a=b"),
        ("x-other", "http://10.0.0.5:3000/", "http://10.0.0.5:3000/"),
    ];
    for (name, before, after) in cases {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(before));
        back(&mut headers, "wiki.example.com", || links("wiki.example.com"));
        assert_eq!(all(&headers, name), [after], "{name}");
    }
}

#[test]
fn rules_of_the_administrator_count_and_users_cannot_undo_them() {
    let rule = |name: &str, action| HeaderRule::parse(name, action).unwrap();
    let mut app = app();
    app.http_rules.request_headers = vec![
        rule("X-Zone", HeaderAction::Set("outside".into())),
        rule("X-Debug", HeaderAction::Remove),
        rule("X-Tag", HeaderAction::Add("b".into())),
    ];
    let headers =
        sent_to(&app, &[("x-zone", "inside"), ("x-debug", "1"), ("x-tag", "a"), ("x-kept", "1")], "192.0.2.7");
    let headers = headers.unwrap();
    assert_eq!(all(&headers, "x-zone"), ["outside"]);
    assert_eq!(all(&headers, "x-debug"), Vec::<&str>::new());
    assert_eq!(all(&headers, "x-tag"), ["a", "b"]);
    assert_eq!(all(&headers, "x-kept"), ["1"]);
}

#[test]
fn a_translated_application_is_asked_for_what_can_be_read() {
    let mut app = app();
    app.http_rules.translate = Translate::Pages;
    for (sent, asked) in [("br, gzip;q=0.5", "gzip"), ("gzip;q=0", "identity"), ("br", "identity")] {
        let headers = sent_to(&app, &[("accept-encoding", sent)], "192.0.2.7").unwrap();
        assert_eq!(all(&headers, "accept-encoding"), [asked], "{sent}");
    }
}

#[test]
fn an_application_with_its_inside_name_finds_it_wherever_it_compares() {
    let mut app = app();
    app.host_header = HostHeader::Origin;
    let fields = [
        ("origin", "https://wiki.example.com"),
        ("referer", "https://wiki.example.com/a?b"),
        ("destination", "https://wiki.example.com/new"),
    ];
    let headers = sent_to(&app, &fields, "192.0.2.7").unwrap();
    assert_eq!(all(&headers, "host"), ["10.0.0.5:3000"]);
    assert_eq!(all(&headers, "origin"), ["http://10.0.0.5:3000"]);
    assert_eq!(all(&headers, "referer"), ["http://10.0.0.5:3000/a?b"]);
    assert_eq!(all(&headers, "destination"), ["http://10.0.0.5:3000/new"]);
    let elsewhere = sent_to(&app, &[("origin", "https://wiki.example.com.evil.test")], "192.0.2.7").unwrap();
    assert_eq!(all(&elsewhere, "origin"), ["https://wiki.example.com.evil.test"], "another site stays another site");
}

#[test]
fn answers_lose_what_is_about_connections_and_show_no_inside_address() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("postern-refusal", "blocked_by_policy"),
        ("set-cookie", "app=1"),
        ("set-cookie", "__Host-postern-x=evil; Path=/"),
        ("location", "http://10.0.0.5:3000/next?a=b"),
    ] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    back(&mut headers, "wiki.example.com:8443", || links("wiki.example.com:8443"));
    assert_eq!(all(&headers, "set-cookie"), ["app=1"]);
    assert_eq!(all(&headers, "location"), ["https://wiki.example.com:8443/next?a=b"]);
    assert_eq!(headers.len(), 2);
    for elsewhere in
        ["http://10.0.0.5:3001/x", "http://10.0.0.5:3000.evil.com/", "/relative", "https://other.example.com/"]
    {
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_str(elsewhere).unwrap());
        back(&mut headers, "wiki.example.com", || links("wiki.example.com"));
        assert_eq!(all(&headers, "location"), [elsewhere]);
    }
}

proptest! {
    /// Whatever a client sends, each of our fields arrives once and says what we say.
    #[test]
    fn our_fields_are_ours(fields in prop::collection::vec(
        ("(x-remote-user|X_REMOTE_USER|x-forwarded-for|forwarded|postern-[a-z]{1,4}|connection|te|[a-z-]{1,8})",
         "[ -~]{0,12}"), 0..12)) {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let Ok(headers) = sent(&fields, "192.0.2.7") else { return Ok(()) };
        prop_assert_eq!(all(&headers, "x-remote-user"), ["alice"]);
        prop_assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        prop_assert_eq!(all(&headers, "postern-assertion"), ["signed"]);
        prop_assert!(headers.keys().all(|name| !name.as_str().contains('_')));
        prop_assert!(!headers.keys().any(|name| name.as_str().starts_with("postern-") && name != "postern-assertion"));
    }
}

/// RFC 3875, section 4.1.18: what is no letter or digit becomes `_`.
#[test]
fn a_name_that_becomes_the_variable_of_ours_is_refused_whatever_stands_between() {
    for name in
        ["x_remote_user", "x.remote.user", "X~Remote-User", "x-remote+user", "postern.assertion", "x!forwarded!for"]
    {
        let refused = sent(&[(name, "root")], "203.0.113.9");
        assert!(matches!(refused, Err(Refusal::BadRequest(_))), "{name}");
    }
    let arrived = sent(&[("x.other", "1"), ("x_other", "1"), ("x-other", "2")], "203.0.113.9").unwrap();
    assert_eq!(all(&arrived, "x-other"), ["2"]);
    assert!(!arrived.contains_key("x.other") && !arrived.contains_key("x_other"), "servers read them as x-other");
}

#[test]
fn what_servers_believe_of_a_proxy_no_user_says_unless_the_application_asks() {
    for (believed, _) in BELIEVED {
        let name = believed.replace('*', "anything");
        if is_ours(&name) {
            continue;
        }
        assert!(!sent(&[(&name, "evil")], "203.0.113.9").unwrap().contains_key(&name), "{name}");
        let mut asking = app();
        asking.http_rules.passed_fields = vec![model::http_rules::FieldPattern::parse(believed).unwrap()];
        assert_eq!(all(&sent_to(&asking, &[(&name, "meant")], "203.0.113.9").unwrap(), &name), ["meant"]);
    }
    for plain in
        ["x-requested-with", "x-csrf-token", "content-type", "range", "sec-fetch-mode", "x-api-key", "if-match"]
    {
        assert!(sent(&[(plain, "1")], "203.0.113.9").unwrap().contains_key(plain), "{plain}");
    }
    let mut asking = app();
    asking.http_rules.passed_fields = vec![model::http_rules::FieldPattern::parse("x-*").unwrap()];
    let arrived =
        sent_to(&asking, &[("x-remote-user", "root"), ("x-forwarded-for", "1.1.1.1")], "203.0.113.9").unwrap();
    assert_eq!(all(&arrived, "x-remote-user"), ["alice"], "what we say stays ours");
    assert_eq!(all(&arrived, "x-forwarded-for"), ["203.0.113.9"]);
}

#[test]
fn the_documented_table_of_believed_fields_is_this_one() {
    let mut table = String::from("| field | believed by |\n|---|---|\n");
    for (name, who) in BELIEVED {
        table += &format!("| `{name}` | {who} |\n");
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/fields.md")).unwrap();
    assert!(page.contains(&table), "docs/fields.md must contain:\n{table}");
    assert!(BELIEVED.is_sorted(), "sorted, so that a name is found");
}
