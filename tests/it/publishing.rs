//! What administrators can ask of the edge, row by row (PUB and ERR of the
//! parity table).

use bytes::Bytes;
use http::{Method, header};
use postern_tests::{
    browser::{Answer, Browser},
    origin::Origin,
    until,
    world::{World, app, applied},
};
use proto::v1;
use serde_json::json;

/// A world with one application, as described, and alice signed in to it.
async fn world_with(described: v1::App) -> (World, Origin, Browser, v1::App) {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let described = v1::App { origin: origin.url(), ..described };
    let published = world.publish(described, &["everyone"]).await;
    let browser = world.signed_in(&published.name, "alice").await;
    (world, origin, browser, published)
}

async fn change(world: &World, app: v1::App) {
    world.admin.change(applied(), "app", json!(app)).await.unwrap();
}

fn field<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |it| it.to_str().unwrap())
}

#[tokio::test]
async fn maintenance_closes_an_application_and_opens_it_again() {
    let (world, origin, mut alice, wiki) = world_with(app("wiki", "")).await;
    change(&world, v1::App { maintenance: true, ..wiki.clone() }).await;
    let asked = origin.requests.load(std::sync::atomic::Ordering::SeqCst);
    let answer = alice.get(&world.url("wiki", "/x")).await;
    assert_eq!((answer.status.as_u16(), answer.refusal()), (503, "maintenance"));
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert!(answer.text().contains("Closed for maintenance"));
    assert_eq!(origin.requests.load(std::sync::atomic::Ordering::SeqCst), asked, "nothing reaches it");
    change(&world, wiki).await;
    assert_eq!(alice.get(&world.url("wiki", "/x")).await.status, 200);
}

/// Each user has their own measure, and refusals come from the relay (ERR-07).
#[tokio::test]
async fn an_application_is_asked_no_more_often_than_it_says() {
    let (world, origin, mut alice, wiki) = world_with(app("wiki", "")).await;
    world.user("bob").await;
    let mut bob = world.signed_in("wiki", "bob").await;
    let limited = v1::App { requests_per_minute: 3, ..wiki.clone() };
    change(&world, limited).await;
    let before = origin.requests.load(std::sync::atomic::Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(alice.get(&world.url("wiki", "/x")).await.status, 200);
    }
    let refused = alice.get(&world.url("wiki", "/x")).await;
    assert_eq!((refused.status.as_u16(), refused.refusal()), (429, "too_many_requests"));
    let seconds: u32 = field(&refused, "retry-after").parse().unwrap();
    assert!((1..=20).contains(&seconds), "one comes free every 20 s: {seconds}");
    assert_eq!(bob.get(&world.url("wiki", "/x")).await.status, 200);
    assert_eq!(origin.requests.load(std::sync::atomic::Ordering::SeqCst) - before, 4);
    change(&world, wiki).await;
    assert_eq!(alice.get(&world.url("wiki", "/x")).await.status, 200);
}

#[tokio::test]
async fn crawlers_are_sent_away_and_hsts_is_on_every_answer() {
    let hsts = v1::Hsts { max_age_s: 31_536_000, include_subdomains: true, preload: true };
    let (world, _origin, mut alice, _) = world_with(v1::App { hsts: Some(hsts), ..app("wiki", "") }).await;
    let robots = world.browser().get(&world.url("wiki", "/robots.txt")).await;
    assert_eq!((robots.status.as_u16(), robots.text().as_str()), (200, "User-agent: *\nDisallow: /\n"));
    const HSTS: &str = "max-age=31536000; includeSubDomains; preload";
    assert_eq!(field(&robots, "strict-transport-security"), HSTS);
    assert_eq!(field(&alice.get(&world.url("wiki", "/x")).await, "strict-transport-security"), HSTS);
    let stranger = world.browser().as_script().get(&world.url("wiki", "/x")).await;
    assert_eq!((stranger.status.as_u16(), field(&stranger, "strict-transport-security")), (401, HSTS));
}

#[tokio::test]
async fn the_portal_leads_to_the_home_page() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.publish(v1::App { home_path: "/start?tab=1".into(), ..app("wiki", &origin.url()) }, &["everyone"]).await;
    let mut admin = world.browser();
    let portal = admin.sign_in(&world.url("apps", "/"), "admin", &world.password).await;
    assert!(portal.text().contains(&world.url("wiki", "/start?tab=1")), "{}", portal.text());
}

#[tokio::test]
async fn preflights_are_answered_at_the_edge_and_answers_can_be_read() {
    let rule = v1::CorsRule {
        path: "/api".into(),
        origins: vec!["https://portal.example.com".into()],
        methods: vec!["PUT".into()],
        headers: vec!["content-type".into(), "x-app-*".into()],
        max_age_s: 600,
    };
    let anybody = v1::CorsRule { path: "/open".into(), origins: vec!["*".into()], ..Default::default() };
    let (world, origin, alice, _) = world_with(v1::App { cors: vec![rule, anybody], ..app("api", "") }).await;
    let asked = origin.requests.load(std::sync::atomic::Ordering::SeqCst);
    let preflight = async |path: &str, from: &str, method: &str, headers: &str| {
        let fields =
            [("origin", from), ("access-control-request-method", method), ("access-control-request-headers", headers)];
        let url = world.url("api", path);
        world.browser().as_script().ask(Method::OPTIONS, &url, &fields, Bytes::new()).await
    };
    const PORTAL: &str = "https://portal.example.com";
    let allowed = preflight("/api/x", PORTAL, "PUT", "Content-Type, X-App-Id").await;
    assert_eq!(allowed.status, 204);
    assert_eq!(field(&allowed, "access-control-allow-origin"), PORTAL);
    assert_eq!(field(&allowed, "access-control-allow-credentials"), "true");
    assert_eq!(field(&allowed, "access-control-allow-methods"), "PUT");
    assert_eq!(field(&allowed, "access-control-allow-headers"), "Content-Type, X-App-Id");
    assert_eq!(field(&allowed, "access-control-max-age"), "600");
    assert_eq!(field(&allowed, "vary"), "Origin");
    for (path, from, method, headers) in [
        ("/api/x", "https://portal.example.com.evil.test", "PUT", ""),
        ("/api/x", "HTTPS://portal.example.com", "PUT", ""),
        ("/api/x", "null", "PUT", ""),
        ("/api/x", PORTAL, "DELETE", ""),
        ("/api/x", PORTAL, "PUT", "x-other"),
        ("/apix", PORTAL, "PUT", ""),
    ] {
        let refused = preflight(path, from, method, headers).await;
        assert_eq!(refused.status, 403, "{path} {from} {method} {headers}");
    }
    assert_eq!(origin.requests.load(std::sync::atomic::Ordering::SeqCst), asked, "the application is not asked");

    let fields = [("origin", PORTAL), ("x-say-access-control-allow-origin", "*")];
    let read = alice.as_script().ask(Method::GET, &world.url("api", "/api/x"), &fields, Bytes::new()).await;
    assert_eq!((read.status.as_u16(), field(&read, "access-control-allow-origin")), (200, PORTAL));
    let signed_out = world.browser().as_script().get_with(&world.url("api", "/api/x"), &[("origin", PORTAL)]).await;
    assert_eq!((signed_out.status.as_u16(), field(&signed_out, "access-control-allow-origin")), (401, PORTAL));
    let open = world.browser().as_script().get_with(&world.url("api", "/open"), &[("origin", "https://a.test")]).await;
    assert_eq!(field(&open, "access-control-allow-origin"), "*");
    assert_eq!(field(&open, "access-control-allow-credentials"), "");
    let elsewhere = [("origin", "https://a.test"), ("x-say-access-control-allow-origin", "https://a.test")];
    let url = world.url("api", "/say");
    let elsewhere = alice.as_script().ask(Method::POST, &url, &elsewhere, Bytes::new()).await;
    assert_eq!((elsewhere.status.as_u16(), field(&elsewhere, "access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn header_rules_hold_both_ways() {
    let rule = |name: &str, action: v1::HeaderAction, value: &str| v1::HeaderRule {
        name: name.into(),
        action: action.into(),
        value: value.into(),
    };
    let described = v1::App {
        request_headers: vec![rule("X-Zone", v1::HeaderAction::Set, "outside")],
        response_headers: vec![
            rule("Server", v1::HeaderAction::Remove, ""),
            rule("X-Frame-Options", v1::HeaderAction::Set, "DENY"),
        ],
        ..app("wiki", "")
    };
    let (world, _origin, mut alice, wiki) = world_with(described).await;
    let answer = alice.get_with(&world.url("wiki", "/x"), &[("x-zone", "inside")]).await;
    assert_eq!(answer.json()["headers"]["x-zone"], serde_json::json!(["outside"]));
    let said = [("x-say-server", "secret/1.0"), ("x-say-x-frame-options", "ALLOW")];
    let answer = alice.ask(Method::POST, &world.url("wiki", "/say"), &said, Bytes::new()).await;
    assert_eq!((field(&answer, "server"), field(&answer, "x-frame-options")), ("", "DENY"));

    for (name, problem) in [("Host", "belongs to HTTP"), ("Set-Cookie", "belongs to HTTP"), ("a b", "letters, digits")]
    {
        let bad = v1::App { response_headers: vec![rule(name, v1::HeaderAction::Set, "x")], ..wiki.clone() };
        let refused = world.admin.change(applied(), "app", json!(bad)).await.unwrap_err();
        assert!(refused.message().contains("response_headers") && refused.message().contains(problem), "{refused}");
    }
}

/// PUB-25 to PUB-29, over both versions of HTTP, compressed and not.
#[tokio::test]
async fn links_to_the_inside_lead_outside() {
    let (world, origin, mut alice, _) =
        world_with(v1::App { translate: v1::Translate::Pages.into(), ..app("wiki", "") }).await;
    let hr = Origin::start().await;
    world.publish_origin("hr", &hr).await;
    let (own, outside) = (origin.url(), world.url("wiki", ""));
    let (other, other_outside) = (hr.url(), world.url("hr", ""));
    let url = world.url("wiki", "/say");
    let page =
        format!("<a href='{own}/a'>1</a><img srcset='{other}/b 2x'><style>i{{background:url({own}/c)}}</style>{own}");
    let translated = format!(
        "<a href=\"{outside}/a\">1</a><img srcset=\"{other_outside}/b 2x\"><style>i{{background:url({outside}/c)}}</style>{own}"
    );
    let html = [("x-say-content-type", "text/html; charset=utf-8"), ("x-say-location", &format!("{other}/next"))];
    let answer = alice.ask(Method::POST, &url, &html, page.clone().into()).await;
    assert_eq!(answer.text(), translated);
    assert_eq!(field(&answer, "location"), format!("{other_outside}/next"));
    assert_eq!(field(&answer, "content-length"), "");

    let large: String = (0..20_000).map(|n| format!("<a href='{own}/{n}'>{n}</a>")).collect();
    let large_after: String = (0..20_000).map(|n| format!("<a href=\"{outside}/{n}\">{n}</a>")).collect();
    let zipped = gzip(large.as_bytes());
    let html =
        [("x-say-content-type", "text/html"), ("x-say-content-encoding", "gzip"), ("accept-encoding", "gzip, br")];
    let answer = alice.ask(Method::POST, &url, &html, zipped.clone().into()).await;
    assert_eq!(field(&answer, "content-encoding"), "gzip");
    assert!(gunzip(&answer.body) == large_after.as_bytes());
    let html = [("x-say-content-type", "text/html"), ("x-say-content-encoding", "gzip")];
    let answer = alice.ask(Method::POST, &url, &html, zipped.into()).await;
    assert!(answer.text() == large_after && field(&answer, "content-encoding").is_empty());

    let json = [("x-say-content-type", "application/json")];
    let body = format!("{{\"a\":\"{own}/x\"}}");
    assert_eq!(alice.ask(Method::POST, &url, &json, body.clone().into()).await.text(), body, "not unless asked for");
}

/// A page that says it is gzip and is not must not look like a whole page.
#[tokio::test]
async fn a_page_that_cannot_be_read_is_cut_and_never_a_short_success() {
    let (world, _origin, mut alice, _) =
        world_with(v1::App { translate: v1::Translate::Pages.into(), ..app("wiki", "") }).await;
    let whole = gzip(&b"<p>words</p>".repeat(50_000));
    let fields = [("x-say-content-type", "text/html"), ("x-say-content-encoding", "gzip")];
    let url = url::Url::parse(&world.url("wiki", "/say")).unwrap();
    let half = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    let answer = alice.send(Method::POST, &url, &fields, half).await;
    assert!(http_body_util::BodyExt::collect(answer.into_body()).await.is_err());
}

/// ERR-02 and ERR-06: a page in the reader's language and the house's colours.
#[tokio::test]
async fn refusals_speak_the_readers_language_and_name_the_stage() {
    let world = World::start().await;
    let branding =
        ["--name", "Müller & <Söhne>", "--accent", "#aa3300", "--support-url", "mailto:hilfe@example.com", "--wait"];
    let changed = world.cli(&[&["branding"], branding.as_slice()].concat());
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    let closed = postern_tests::processes::free_port();
    world.publish(app("closed", &format!("http://127.0.0.1:{closed}")), &["everyone"]).await;
    world.publish(app("nowhere", "http://nowhere.invalid"), &["everyone"]).await;
    let plain = Origin::start().await;
    world.publish(app("plain", &format!("https://127.0.0.1:{}", plain.port)), &["everyone"]).await;
    let mut admin = world.browser();
    admin.sign_in(&world.url("demo", "/"), "admin", &world.password).await;
    for (name, code) in [("closed", "origin_connect"), ("nowhere", "origin_dns"), ("plain", "origin_tls")] {
        admin.open(&world.url(name, "/")).await;
        let german = admin.get_with(&world.url(name, "/"), &[("accept-language", "de-DE, en;q=0.5")]).await;
        let page = german.text();
        assert_eq!((german.status.as_u16(), german.refusal()), (502, code));
        assert!(page.contains("<html lang=\"de\">") && page.contains("Die Anwendung antwortet nicht"), "{page}");
        assert!(page.contains(&format!("<dd>502 {code}</dd>")) && page.contains(" UTC</dd>"), "{page}");
        assert!(page.contains("Müller &#38; &#60;Söhne&#62;") && page.contains("--mark: #aa3300"), "{page}");
        assert!(page.contains("href=\"mailto:hilfe@example.com\""), "{page}");
        assert!(!page.contains("127.0.0.1") && !page.contains("nowhere.invalid"), "nothing of the inside");
    }
    let json = admin.as_script().get_with(&world.url("closed", "/"), &[("accept-language", "de")]).await.json();
    assert_eq!(json["message"], "The application does not answer", "programs read one language");
    let bad = world.cli(&["branding", "--accent", "red"]);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("accent: is a colour such as #2f5d50"));
}

#[tokio::test]
async fn bad_settings_name_their_field_and_what_to_write() {
    let world = World::start().await;
    let good = app("wiki", "http://127.0.0.1:1");
    let cors = |rule: v1::CorsRule| v1::App { cors: vec![rule], ..good.clone() };
    let cases = [
        (cors(v1::CorsRule::default()), "cors"),
        (cors(v1::CorsRule { origins: vec!["https://a.test/".into()], ..Default::default() }), "cors"),
        (v1::App { home_path: "//evil.test".into(), ..good.clone() }, "home_path"),
        (v1::App { cookie_partitioned: true, ..good.clone() }, "cookie_partitioned"),
        (v1::App { hsts: Some(v1::Hsts { preload: true, ..Default::default() }), ..good.clone() }, "hsts"),
    ];
    for (bad, field) in cases {
        let request = v1::PublishAppRequest { change: applied(), app: Some(bad), assign_caller: false };
        let refused = world.admin.applications().publish(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(field), "{refused}");
    }
    let set = |value: &str| world.cli(&["app", "set", "Demo", value]);
    assert!(set("translate=pages").status.success());
    assert!(set("hsts={\"max_age_s\":600}").status.success());
    assert!(set("cookie_same_site=strict").status.success());
    let refused = set("translate=all");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("translate"));
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(zipped: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(zipped).read_to_end(&mut plain).unwrap();
    plain
}

/// PUB-07: a page that asks for what lies beside its application's path.
#[tokio::test]
async fn what_pages_ask_for_in_vain_is_listed() {
    let world = World::start().await;
    let origin = Origin::start().await;
    let shop = v1::App { external_url: "https://shop.postern.localhost/shop/".into(), ..app("shop", &origin.url()) };
    world.publish(shop, &["everyone"]).await;
    let missing = || {
        let shown = world.cli(&["app", "missing", "shop", "--output", "json"]);
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        serde_json::from_slice::<serde_json::Value>(&shown.stdout).unwrap()
    };
    assert_eq!(missing(), serde_json::json!([]));

    let mut anybody = world.browser();
    let page = [("referer", world.url("shop", "/shop/basket"))];
    let other = [("referer", world.url("demo", "/shop/"))];
    for (path, headers) in [
        ("/static/app.js", &page[..]),
        ("/static/app.css?v=2", &page[..]),
        ("/images/a.png", &page[..]),
        // Whoever looks for holes, and a page from elsewhere.
        ("/.git/config", &[][..]),
        ("/wp-admin/", &other[..]),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = anybody.get_with(&world.url("shop", path), &headers).await;
        assert_eq!((answer.status.as_u16(), answer.refusal()), (404, "not_published"));
    }
    let listed = until("two paths that are missing", async || {
        let all = missing();
        (all.as_array().unwrap().len() >= 2).then_some(all)
    })
    .await;
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|it| (&it["url"], &it["requests"])).collect();
    let url = |path: &str| serde_json::json!(format!("https://shop.postern.localhost{path}"));
    let (first, second) = (url("/static/"), url("/images/"));
    assert_eq!(listed, [(&first, &serde_json::json!(2)), (&second, &serde_json::json!(1))]);
}
