//! Signing in and out.

use std::time::{SystemTime, UNIX_EPOCH};

use admin_client::lists::by_name;
use postern_tests::{
    browser::{Answer, Browser},
    origin::Origin,
    processes::Folder,
    until,
    world::{PASSWORD, World, app, applied},
};
use proto::v1;
use serde_json::json;

use crate::clocks::Drill;

#[tokio::test]
async fn a_newcomer_signs_in_and_uses_the_demo_application() {
    let world = World::start().await;
    let mut browser = world.browser();
    let answer = browser.sign_in(&world.url("demo", "/hello?x=1"), "admin", &world.password).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("Hello, admin"), "{}", answer.text());
    assert!(answer.text().contains("/hello?x=1"), "the address the user wanted is where they arrive");

    let portal = browser.open(&world.url("apps", "/")).await;
    assert!(portal.text().contains("Administrator") && portal.text().contains("Demo"), "{}", portal.text());
}

#[tokio::test]
async fn a_second_start_knows_everything_and_keeps_sessions() {
    let world = World::start().await;
    let mut browser = world.browser();
    browser.sign_in(&world.url("demo", "/"), "admin", &world.password).await;
    let world = world.restart().await;
    assert!(!world.up.said().iter().any(|line| line.contains("password  ")), "a password is shown once");
    // Another port is another origin to the return address, but the same host to cookies.
    let answer = browser.open(&world.url("demo", "/")).await;
    assert!(answer.text().contains("Hello, admin"), "{}", answer.text());
}

#[tokio::test]
async fn a_connector_knows_who_the_user_is_by_the_word_of_identity() {
    let mut world = World::start().await;
    let origin = Origin::start().await;
    let app = world.publish_origin("wiki", &origin).await;
    let believed = |line: &str, user: &v1::User| {
        let about = line.contains(&app.id) && line.contains(&user.id);
        (about && line.contains("a user statement is believed")).then_some(())
    };
    let alice = world.user("alice").await;
    let mut browser = world.signed_in("wiki", "alice").await;
    world.up.line(|line| believed(line, &alice)).await;

    // Keys come and go.
    let rotated = world.cli(&["key", "rotate", "session", "--active-in", "1", "--output", "json"]);
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let key: serde_json::Value = serde_json::from_slice(&rotated.stdout).unwrap();
    let key = key["id"].as_str().unwrap();
    let bob = world.user("bob").await;
    until("a statement is signed with the new key", async || {
        let _browser = world.signed_in("wiki", "bob").await;
        world.up.said().iter().any(|line| line.contains(key) && believed(line, &bob).is_some()).then_some(())
    })
    .await;
    assert_eq!(browser.get(&world.url("wiki", "/")).await.status, 200, "the older session goes on");
}

/// More groups than a cookie holds, and fewer than a token may name.
#[tokio::test]
async fn a_user_of_many_groups_fits_into_a_cookie() {
    let world = World::start().await;
    let origin = Origin::start().await;
    let wiki = world.publish(app("wiki", &origin.url()), &[]).await;
    let user = v1::User {
        display_name: "A rather long name for a person".into(),
        email: "somebody.with.a.long.address@mail.example.com".into(),
        ..world.user("alice").await
    };
    world.admin.change(applied(), "user", json!(user)).await.unwrap();
    for n in 0..62 {
        let name = format!("group {n}");
        world.admin.create(applied(), "group", json!({ "name": name })).await.unwrap();
        let membership = json!({ "group": name, "member": "user:alice" });
        world.admin.put(applied(), "membership", membership).await.unwrap();
        if n == 40 {
            world.assign(&wiki.id, &format!("group:{name}")).await;
        }
    }
    let browser = world.signed_in("wiki", "alice").await;
    let cookies = browser.cookie_header(&world.url("wiki", "/").parse().unwrap()).unwrap();
    let session = cookies.split("; ").find(|it| it.starts_with("__Host-postern-") && it.len() > 500).unwrap();
    assert!(session.len() < 4096, "{} bytes", session.len());
}

#[tokio::test]
async fn a_page_is_sent_to_sign_in_and_a_program_is_told_to() {
    let world = World::start().await;
    let page = world.browser().get(&world.url("demo", "/")).await;
    assert_eq!(page.status, 303);
    assert_eq!(page.location().unwrap().host_str(), Some("login.postern.localhost"));

    let program = world.browser().as_script().get(&world.url("demo", "/")).await;
    assert_eq!((program.status.as_u16(), program.refusal()), (401, "sign_in_required"));
    assert!(program.headers.contains_key("www-authenticate"));
    assert_eq!(program.json()["code"], "sign_in_required");

    let fetch = [("sec-fetch-mode", "cors"), ("accept", "text/html")];
    let script = world.browser().get_with(&world.url("demo", "/"), &fetch).await;
    assert_eq!(script.status, 401, "a script in a page cannot follow a sign-in");
}

#[tokio::test]
async fn wrong_passwords_are_refused_alike_and_slowed_down() {
    let world = World::start().await;
    world.user("alice").await;
    let mut browser = world.browser();
    let wrong = browser.sign_in(&world.url("demo", "/"), "alice", "wrong").await;
    let unknown = browser.sign_in(&world.url("demo", "/"), "nobody", "wrong").await;
    assert_eq!((wrong.status, unknown.status), (http::StatusCode::UNAUTHORIZED, http::StatusCode::UNAUTHORIZED));
    let message = "The username or password is not right.";
    assert!(wrong.text().contains(message) && unknown.text().contains(message));
    let mut throttled = false;
    for _ in 0..8 {
        throttled |= browser.sign_in(&world.url("demo", "/"), "alice", "wrong").await.status == 429;
    }
    assert!(throttled);
    let right = browser.sign_in(&world.url("demo", "/"), "alice", PASSWORD).await;
    assert_eq!(right.status, 429, "the right password is refused as well while it waits");
}

#[tokio::test]
async fn a_policy_asks_for_a_second_factor_and_the_user_sets_it_up() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("open", &origin).await;
    let app = world.publish_origin("vault", &origin).await;
    let require = vec![v1::Control::Mfa as i32];
    world.policy(v1::Policy { name: "vault-mfa".into(), apps: vec![app.id], require, ..Default::default() }).await;

    let mut browser = world.signed_in("open", "alice").await;
    // The password alone does not open the vault: first it is asked again, to set up the second factor.
    let page = browser.sign_in(&world.url("vault", "/"), "alice", PASSWORD).await;
    let secret = secret_shown(&page.text());
    let action = page.url.join("/code").unwrap();
    let wrong = browser.form(&action, &[("flow", &page.field("flow")), ("code", "000000")]).await;
    assert_eq!(wrong.status, 401);
    let entered = browser.form(&action, &[("flow", &page.field("flow")), ("code", &code(&secret, 0))]).await;
    assert_eq!(entered.status, 200, "{}", entered.text());
    assert_eq!(browser.get(&world.url("vault", "/x")).await.json()["path"], "/x");

    // A new browser needs both, and a code works once.
    let mut other = world.browser();
    let page = other.sign_in(&world.url("vault", "/"), "alice", PASSWORD).await;
    // Once: a step of 30 s may begin between the two.
    let used = code(&secret, 30);
    let fields = [("flow", &*page.field("flow")), ("code", &used)];
    assert_eq!(other.form(&action, &fields).await.status, 200);
    let mut thief = world.browser();
    let page = thief.sign_in(&world.url("vault", "/"), "alice", PASSWORD).await;
    let again = [("flow", &*page.field("flow")), ("code", &used)];
    assert_eq!(thief.form(&action, &again).await.status, 401, "a code that was used is used");
}

/// Sign-in frequency: whoever signed in long ago does it again, and is not asked twice.
#[tokio::test]
async fn a_recent_sign_in_is_asked_for_once_and_never_in_a_loop() {
    let mut folder = Folder::default();
    let clock = Drill::new(&mut folder);
    let world = World::with_settings_in(folder, "").await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    for name in ["payroll", "ledger", "vault"] {
        let app = world.publish_origin(name, &origin).await;
        let mut require = vec![v1::Control::SignInWithin.into()];
        require.extend((name == "vault").then_some(i32::from(v1::Control::Mfa)));
        let name = format!("{name}-fresh");
        let policy = v1::Policy { name, apps: vec![app.id], require, ..Default::default() };
        world.policy(v1::Policy { sign_in_within_minutes: 5, ..policy }).await;
    }
    let (payroll, vault) = (world.url("payroll", "/x"), world.url("vault", "/x"));
    let mut browser = world.signed_in("payroll", "alice").await;
    assert_eq!(browser.get(&payroll).await.json()["path"], "/x", "a sign-in of now is recent");

    // Once with a token that lives on, and once with one that has ended as well.
    for minutes in [6, 11] {
        clock.advance(minutes * 60);
        let sent = until("the sign-in is too long ago", async || redirected(browser.get(&payroll).await)).await;
        assert_eq!(asked_for(&sent), "sign-in-within:5m");
        let (passed, page) = follow(&mut browser, sent).await;
        assert_eq!((passed.len(), page.status.as_u16()), (1, 200), "at once to the page: {passed:?}");
        let (passed, answer) =
            submit(&mut browser, &page, "/signin", &[("username", "alice"), ("password", PASSWORD)]).await;
        assert_eq!(passed, ["/.postern/callback", "/x"], "with the password, and back");
        assert_eq!(answer.json()["path"], "/x");
        served_without_asking(&mut browser, &payroll).await;
        served_without_asking(&mut browser, &payroll).await;
    }
    // The same sign-in is good for another application: identity asks nothing.
    let sent = browser.get(&world.url("ledger", "/x")).await;
    let (passed, answer) = follow(&mut browser, sent).await;
    assert_eq!(
        (passed, answer.status.as_u16()),
        (vec!["/authorize".into(), "/.postern/callback".into(), "/x".into()], 200)
    );

    // A second factor beside it: set up once, and shown with each sign-in.
    let page = browser.open(&vault).await;
    let (_, page) = submit(&mut browser, &page, "/signin", &[("username", "alice"), ("password", PASSWORD)]).await;
    let secret = secret_shown(&page.text());
    let now = code(&secret, clock.ahead_s() as u64);
    let (passed, answer) = submit(&mut browser, &page, "/code", &[("code", &now)]).await;
    assert_eq!((passed, answer.status.as_u16()), (vec!["/.postern/callback".into(), "/x".into()], 200));
    served_without_asking(&mut browser, &vault).await;
    clock.advance(6 * 60);
    let sent = until("the sign-in is too long ago", async || redirected(browser.get(&vault).await)).await;
    assert_eq!(asked_for(&sent), "sign-in-within:5m", "the second factor was shown");
    let (passed, page) = follow(&mut browser, sent).await;
    assert_eq!(passed.len(), 1, "{passed:?}");
    let (passed, page) = submit(&mut browser, &page, "/signin", &[("username", "alice"), ("password", PASSWORD)]).await;
    assert_eq!((passed.len(), page.status.as_u16()), (0, 200), "on to the code");
    let now = code(&secret, clock.ahead_s() as u64);
    let (passed, answer) = submit(&mut browser, &page, "/code", &[("code", &now)]).await;
    assert_eq!(passed, ["/.postern/callback", "/x"]);
    assert_eq!(answer.json()["path"], "/x");
    served_without_asking(&mut browser, &vault).await;
    assert_eq!(browser.get(&world.url("wiki", "/")).await.status, 303, "where she never was");
    assert_eq!(browser.open(&world.url("wiki", "/")).await.status, 200, "she is known");

    // What identity does not know ends at once, on a page and not in a circle.
    let mut newcomer = world.browser();
    let sent = newcomer.get(&world.url("payroll", "/")).await;
    let mut to_identity = sent.location().unwrap();
    to_identity.query_pairs_mut().append_pair("acr_values", "compliant-device");
    let answer = newcomer.open(to_identity.as_str()).await;
    assert_eq!((answer.status.as_u16(), answer.refusal()), (400, "sign_in_failed"));
}

#[tokio::test]
async fn a_flow_of_another_browser_is_refused() {
    let world = World::start().await;
    let mut mallory = world.browser();
    let page = mallory.open(&world.url("demo", "/")).await;
    let mut alice = world.browser();
    alice.open(&world.url("demo", "/")).await;
    let action = page.url.join("/signin").unwrap();
    let answer = alice
        .form(&action, &[("flow", &page.field("flow")), ("username", "admin"), ("password", &world.password)])
        .await;
    assert_eq!(answer.status, 400, "a sign-in that somebody else began is not finished here");
}

#[tokio::test]
async fn a_callback_that_another_browser_began_is_refused() {
    let world = World::start().await;
    let mut mallory = world.browser();
    let page = mallory.open(&world.url("demo", "/")).await;
    let action = page.url.join("/signin").unwrap();
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("flow", page.field("flow").as_str()), ("username", "admin"), ("password", &world.password)])
        .finish();
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    let sent = mallory.send(http::Method::POST, &action, &kind, body.into()).await;
    let callback = sent.headers()["location"].to_str().unwrap().to_owned();
    let mut alice = world.browser();
    let answer = alice.get(&callback).await;
    assert_eq!((answer.status.as_u16(), answer.refusal()), (400, "sign_in_failed"));
    assert!(alice.cookies.values().all(|jar| jar.is_empty()), "nobody is signed in as mallory");
}

#[tokio::test]
async fn signing_out_ends_the_session_everywhere() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("one", &origin).await;
    world.publish_origin("two", &origin).await;
    let mut browser = world.signed_in("one", "alice").await;
    assert_eq!(browser.open(&world.url("two", "/")).await.status, 200, "one sign-in is enough for both");
    let page = browser.open(&world.url("one", "/.postern/signout")).await;
    let answer = browser.form(&page.url, &[("signout", "1")]).await;
    assert!(answer.text().contains("You are signed out"), "{}", answer.text());
    until("the other application refuses", async || {
        let answer = browser.as_script().get(&world.url("two", "/")).await;
        (answer.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_native_program_signs_in_with_pkce_and_uses_a_bearer_token() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let app = world.publish_origin("api", &origin).await;
    let token = native_token(&world, &app.id).await;
    let bearer = format!("Bearer {token}");
    let mut program = world.browser().as_script();
    let answer = program.get_with(&world.url("api", "/"), &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["headers"]["authorization"].is_null(), "our token ends at the relay");

    world.publish(named("other", &origin), &["everyone"]).await;
    let elsewhere = program.get_with(&world.url("other", "/"), &[("authorization", &bearer)]).await;
    assert_eq!(elsewhere.status, 401, "a token is for one application");
    let mut tampered = bearer.clone().into_bytes();
    let at = tampered.len() - 20;
    tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    assert_eq!(program.get_with(&world.url("api", "/"), &[("authorization", &tampered)]).await.status, 401);
}

#[tokio::test]
async fn redirect_targets_are_compared_as_urls() {
    let world = World::start().await;
    let origin = Origin::start().await;
    let app = world.publish_origin("api", &origin).await;
    let port = world.port;
    for evil in [
        format!("https://api.postern.localhost:{port}.evil.example/.postern/callback"),
        format!("https://evil.example/.postern/callback?x=https://api.postern.localhost:{port}"),
        format!("https://api.postern.localhost:{port}/.postern/callback/../evil"),
        format!("https://api.postern.localhost:{port}/.postern/callback?x=1"),
        format!("https://user@api.postern.localhost:{port}/.postern/callback"),
        format!("https://demo.postern.localhost:{port}/.postern/callback"),
        format!("http://api.postern.localhost:{port}/.postern/callback"),
        format!("https://api.postern.localhost:{}/.postern/callback", port.wrapping_add(1)),
        "http://127.0.0.1:1@evil.example/callback".into(),
        "http://localhost:1234/callback".into(),
        "javascript:alert(1)//callback".into(),
        "//evil.example/callback".into(),
    ] {
        let mut url = url::Url::parse(&world.url("login", "/authorize")).unwrap();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &app.id)
            .append_pair("redirect_uri", &evil)
            .append_pair("state", "s")
            .append_pair("code_challenge", &"a".repeat(43))
            .append_pair("code_challenge_method", "S256");
        let answer = world.browser().get(url.as_str()).await;
        assert_eq!(answer.status, 400, "{evil}");
        assert!(answer.location().is_none(), "{evil}");
    }
}

#[tokio::test]
async fn an_application_is_told_who_the_user_is_and_can_check_it() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let header = v1::IdentityHeader { name: "X-Remote-User".into(), claim: v1::Claim::Username.into() };
    let app = v1::App { identity_headers: vec![header], assertion: true, ..named("hr", &origin) };
    world.publish(app, &["everyone"]).await;
    let mut alice = world.signed_in("hr", "alice").await;
    let seen = alice.get(&world.url("hr", "/")).await.json();
    assert_eq!(seen["headers"]["x-remote-user"], serde_json::json!(["alice"]));
    let assertion = seen["headers"]["postern-assertion"][0].as_str().unwrap();
    let keys = alice.get(&world.url("hr", "/.postern/keys")).await.json();
    let claims = assertion.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["preferred_username"], "alice");
    assert_eq!(claims["aud"], "https://hr.postern.localhost/");
    assert_eq!(keys["keys"][0]["alg"], "ES256");
}

#[tokio::test]
async fn a_removed_user_is_out_at_once() {
    let world = World::start().await;
    let origin = Origin::start().await;
    let alice = world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    let mut browser = world.signed_in("wiki", "alice").await;
    world.admin.remove(applied(), "user", by_name(&alice.id)).await.unwrap();
    let answer = browser.as_script().get(&world.url("wiki", "/")).await;
    assert_eq!(answer.status, 401);
    let answer = browser.sign_in(&world.url("wiki", "/"), "alice", PASSWORD).await;
    assert_eq!(answer.status, 401);
}

// ---------------------------------------------------------------- helpers

pub(crate) fn named(name: &str, origin: &Origin) -> v1::App {
    app(name, &origin.url())
}

/// Where an answer sends the browser, and it has not gone yet.
fn redirected(answer: Answer) -> Option<Answer> {
    answer.status.is_redirection().then_some(answer)
}

/// What identity is to ask for.
fn asked_for(sent: &Answer) -> String {
    let to = sent.location().unwrap();
    assert_eq!((to.host_str(), to.path()), (Some("login.postern.localhost"), "/authorize"));
    to.query_pairs().find(|(name, _)| name == "acr_values").unwrap().1.into_owned()
}

/// Every address on the way of a redirect, and where it ends.
async fn follow(browser: &mut Browser, mut answer: Answer) -> (Vec<String>, Answer) {
    let mut passed = vec![];
    while let Some(next) = answer.location() {
        assert!(passed.len() < 10, "in a loop: {passed:?}");
        passed.push(next.path().to_owned());
        answer = browser.get(next.as_str()).await;
    }
    (passed, answer)
}

async fn submit(browser: &mut Browser, page: &Answer, path: &str, fields: &[(&str, &str)]) -> (Vec<String>, Answer) {
    let flow = page.field("flow");
    let body =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("flow", &flow).extend_pairs(fields).finish();
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    let action = page.url.join(path).unwrap();
    let answer = browser.ask(http::Method::POST, action.as_str(), &kind, body.into()).await;
    follow(browser, answer).await
}

async fn served_without_asking(browser: &mut Browser, url: &str) {
    for _ in 0..4 {
        assert_eq!(browser.get(url).await.status, 200, "asked again");
        assert_eq!(browser.as_script().get(url).await.status, 200);
    }
}

/// The base32 secret of the set-up page.
pub(crate) fn secret_shown(page: &str) -> String {
    let shown = page.split("class=\"secret\">").nth(1).unwrap_or_else(|| panic!("no set-up page:\n{page}"));
    shown.split('<').next().unwrap().replace(' ', "")
}

#[expect(clippy::disallowed_methods, reason = "codes are of the real time")]
pub(crate) fn code(secret: &str, ahead_s: u64) -> String {
    let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).with_account_name("x").build().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    totp.generate(now + ahead_s).to_string()
}

/// What an OpenID client library does on a user's machine.
async fn native_token(world: &World, client: &str) -> String {
    let verifier = "v".repeat(43);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    let challenge = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, digest);
    let redirect = "http://127.0.0.1:7/callback";
    let mut url = url::Url::parse(&world.url("login", "/authorize")).unwrap();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client)
        .append_pair("redirect_uri", redirect)
        .append_pair("state", "s")
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256");
    let mut browser: Browser = world.browser();
    let answer = browser.sign_in(url.as_str(), "alice", PASSWORD).await;
    let back = answer.location().unwrap();
    assert!(back.as_str().starts_with(redirect), "{back}");
    let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", &code),
        ("redirect_uri", redirect),
        ("code_verifier", &verifier),
    ];
    let token_url = url::Url::parse(&world.url("login", "/token")).unwrap();
    let wrong = browser
        .form(
            &token_url,
            &fields
                .map(|(name, value)| match name {
                    "code_verifier" => (name, "w".repeat(43)),
                    _ => (name, value.to_owned()),
                })
                .each_ref()
                .map(|(name, value)| (*name, value.as_str())),
        )
        .await;
    assert_eq!(wrong.status, 400, "a wrong verifier opens nothing");
    let answer = browser.form(&token_url, &fields).await;
    let token = answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned();
    assert_eq!(browser.form(&token_url, &fields).await.status, 400, "a code works once");
    token
}
