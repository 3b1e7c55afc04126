//! Signing in with somebody else's OpenID provider, and with one that lies.

use postern_tests::{
    browser::{Answer, Browser},
    origin::Origin,
    provider::{Behaviour, CLIENT_ID, Instead, Provider, SUBJECT, Signer},
    until,
    world::{PASSWORD, World, app, applied},
};
use proto::v1;
use serde_json::{Value, json};

/// A provider's object, and more fields over the usual ones.
async fn put(world: &World, provider: &Provider, name: &str, more: Value) -> String {
    let mut fields =
        json!({ "name": name, "issuer": provider.issuer(name), "client_id": CLIENT_ID, "create_users": true });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let put = world.admin.put(applied(), "identity-provider", fields).await.unwrap();
    put.objects[0].key.clone()
}

/// Chooses a provider on the page and does what a user does there.
async fn sign_in(world: &World, browser: &mut Browser, provider: &Provider, id: &str) -> Answer {
    let page = browser.open(&world.url("wiki", "/")).await;
    choose(browser, provider, &page, &[("provider", id)]).await
}

async fn choose(browser: &mut Browser, provider: &Provider, page: &Answer, fields: &[(&str, &str)]) -> Answer {
    let flow = page.field("flow");
    let fields: Vec<(&str, &str)> = [("flow", &*flow)].into_iter().chain(fields.iter().copied()).collect();
    let answer = browser.form(&page.url.join("/identify").unwrap(), &fields).await;
    visits(browser, provider, answer).await
}

/// Follows the user to the provider and back, as often as they are sent there.
async fn visits(browser: &mut Browser, provider: &Provider, mut answer: Answer) -> Answer {
    for _ in 0..4 {
        let Some(to) = answer.location().filter(|it| it.scheme() == "http") else { return answer };
        answer = browser.open(provider.visit(&to).as_str()).await;
    }
    panic!("sent to the provider again and again")
}

#[tokio::test]
async fn a_provider_signs_people_in_and_says_which_groups_they_are_in() {
    let world = World::start().await;
    let (provider, origin) = (Provider::start().await, Origin::start().await);
    world.admin.create(applied(), "group", json!({ "name": "staff" })).await.unwrap();
    world.publish(app("wiki", &origin.url()), &["group:staff"]).await;
    fn in_staff(it: &mut Value) {
        it["groups"] = json!(["Staff of Corp", "others"]);
    }
    provider.behaves("corp", Behaviour { claims: in_staff, ..Behaviour::default() });
    let groups = json!([{ "value": "Staff of Corp", "group": "staff" }]);
    let id = put(&world, &provider, "corp", json!({ "domains": ["corp.example"], "groups": groups })).await;

    // The domain of what is typed says where to go, and so does the button.
    let mut alice = world.browser();
    let page = alice.open(&world.url("wiki", "/a")).await;
    assert!(page.text().contains("Continue with corp"), "{}", page.text());
    let fields = [("flow", &*page.field("flow")), ("username", "Alice@CORP.example")];
    let to = alice.form(&page.url.join("/identify").unwrap(), &fields).await.location().unwrap();
    assert!(to.as_str().contains("login_hint=alice%40corp.example"), "{to}");
    let answer = alice.open(provider.visit(&to).as_str()).await;
    assert_eq!(answer.json()["path"], "/a");
    assert_eq!(sign_in(&world, &mut world.browser(), &provider, &id).await.status, 200);
    let users: Vec<v1::User> = world.admin.read_all("user").await.unwrap();
    let made: Vec<_> = users.iter().filter(|it| it.username == "alice@corp.example").collect();
    assert_eq!(made.len(), 1, "made once, and known the second time");
    assert_eq!((made[0].display_name.as_str(), made[0].email.as_str()), ("Alice", "alice@corp.example"));
    let links: Vec<v1::LinkedIdentity> = world.admin.read_all("linked-identity").await.unwrap();
    assert_eq!((links.len(), links[0].subject.as_str()), (1, SUBJECT));

    // Whoever leaves the group there leaves it here with the next sign-in.
    provider.behaves("corp", Behaviour::default());
    let refused = sign_in(&world, &mut world.browser(), &provider, &id).await;
    assert_eq!(refused.refusal(), "not_assigned");
    assert_eq!(alice.as_script().get(&world.url("wiki", "/")).await.status, 403, "also where they are signed in");

    // What happened can be read, and the provider cannot be removed unseen.
    let history = world.cli(&["history", "--kind", "membership"]);
    let history = String::from_utf8_lossy(&history.stdout).into_owned();
    assert!(history.contains("identity"), "{history}");
    let kept = world.admin.remove(applied(), "group", admin_client::lists::by_name("staff")).await.unwrap_err();
    assert!(kept.message().contains("in use by"), "{kept}");
}

#[tokio::test]
async fn a_provider_is_asked_for_a_second_factor_and_for_a_fresh_sign_in() {
    let world = World::start().await;
    let (provider, origin) = (Provider::start().await, Origin::start().await);
    let wiki = world.publish_origin("wiki", &origin).await;
    let fresh = world.publish_origin("payroll", &origin).await;
    let id = put(&world, &provider, "corp", json!({ "mfa_values": ["mfa"], "mfa_acr": "urn:corp:mfa" })).await;
    let require = vec![v1::Control::Mfa.into()];
    world.policy(v1::Policy { name: "mfa".into(), apps: vec![wiki.id], require, ..Default::default() }).await;
    let require = vec![v1::Control::SignInWithin.into()];
    let policy = v1::Policy { name: "fresh".into(), apps: vec![fresh.id], require, ..Default::default() };
    world.policy(v1::Policy { sign_in_within_minutes: 30, ..policy }).await;

    let mut alice = world.browser();
    let page = alice.open(&world.url("wiki", "/")).await;
    let answer =
        alice.form(&page.url.join("/identify").unwrap(), &[("flow", &page.field("flow")), ("provider", &id)]).await;
    let first = answer.location().unwrap();
    let second = alice.open(provider.visit(&first).as_str()).await.location().unwrap();
    assert!(second.as_str().contains("acr_values=urn%3Acorp%3Amfa"), "{second}");
    let answer = alice.open(provider.visit(&second).as_str()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    // The user signed in there an hour ago, which is too long ago for this one.
    let sent = alice.open(&world.url("payroll", "/x")).await.location().unwrap();
    assert!(sent.as_str().contains("prompt=login") && sent.as_str().contains("max_age=0"), "{sent}");
    let answer = alice.open(provider.visit(&sent).as_str()).await;
    assert_eq!(answer.json()["path"], "/x");
    assert_eq!(alice.get(&world.url("payroll", "/y")).await.json()["path"], "/y", "and is not asked again");
}

/// Everybody may be sent on without a page, but nobody is signed in unseen on
/// somebody else's device.
#[tokio::test]
async fn one_provider_needs_no_page_and_a_device_needs_a_fresh_sign_in() {
    let world = World::start().await;
    let (provider, origin) = (Provider::start().await, Origin::start().await);
    world.publish_origin("wiki", &origin).await;
    put(&world, &provider, "corp", json!({ "direct": true })).await;
    let mut alice = world.browser();
    let sent = alice.open(&world.url("wiki", "/x")).await;
    assert!(sent.location().unwrap().as_str().starts_with(&provider.issuer("corp")), "no page between");
    assert!(sent.location().unwrap().as_str().len() < 2000, "{}", sent.location().unwrap());
    assert_eq!(visits(&mut alice, &provider, sent).await.json()["path"], "/x");

    // Who has a password here asks for the page.
    let mut to_identity = world.browser().get(&world.url("wiki", "/")).await.location().unwrap();
    to_identity.query_pairs_mut().append_pair("prompt", "select_account");
    assert!(world.browser().open(to_identity.as_str()).await.text().contains("Continue with corp"));

    let device = url::Url::parse(&world.url("login", "/device_authorization")).unwrap();
    let device = alice.form(&device, &[("client_id", "postern-cli")]).await.json();
    let entered = url::Url::parse(&world.url("login", "/device")).unwrap();
    let sent = alice.form(&entered, &[("user_code", device["user_code"].as_str().unwrap())]).await;
    assert!(sent.location().unwrap().as_str().contains("prompt=login"), "{}", sent.location().unwrap());
    let signed_in = visits(&mut alice, &provider, sent).await;
    assert!(signed_in.text().contains("Device signed in"), "{}", signed_in.text());
}

#[tokio::test]
async fn who_comes_is_linked_by_a_verified_address_and_never_by_a_name() {
    let world = World::start().await;
    let (provider, origin) = (Provider::start().await, Origin::start().await);
    world.publish_origin("wiki", &origin).await;
    let alice = v1::User { email: "alice@corp.example".into(), ..world.user("alice").await };
    world.admin.change(applied(), "user", json!(alice)).await.unwrap();
    let mut tried = Vec::new();
    let mut attempt = async |name: &str, more: Value, claims: fn(&mut Value)| {
        provider.behaves(name, Behaviour { claims, ..Behaviour::default() });
        let id = put(&world, &provider, name, more).await;
        let answer = sign_in(&world, &mut world.browser(), &provider, &id).await;
        tried.push((name.to_owned(), answer.status.as_u16()));
        answer
    };
    let trusted = json!({ "domains": ["corp.example"], "create_users": false });
    attempt("unverified", trusted.clone(), |it| it["email_verified"] = json!(false)).await;
    attempt("as-text", trusted.clone(), |it| it["email_verified"] = json!("true")).await;
    attempt("elsewhere", json!({ "domains": ["other.example"], "create_users": false }), |_| ()).await;
    attempt("same-name", json!({}), |it| it["preferred_username"] = json!("alice")).await;
    attempt("no-name", json!({}), |it| it["preferred_username"] = json!("Ａlice <script>")).await;
    attempt("a-link", trusted, |_| ()).await;
    let expected = [
        ("unverified", 401),
        ("as-text", 401),
        ("elsewhere", 401),
        ("same-name", 401),
        ("no-name", 401),
        ("a-link", 200),
    ];
    assert_eq!(tried, expected.map(|(name, status)| (name.to_owned(), status)));
    let links: Vec<v1::LinkedIdentity> = world.admin.read_all("linked-identity").await.unwrap();
    assert_eq!(links.iter().map(|it| &it.user).collect::<Vec<_>>(), [&alice.id]);

    // Nobody takes over an administrator by an address.
    let owner: v1::User = world.admin.read("user", "admin").await.unwrap();
    let owner = v1::User { email: "root@corp.example".into(), ..owner };
    world.admin.change(applied(), "user", json!(owner)).await.unwrap();
    let root = |it: &mut Value| {
        it["email"] = json!("root@corp.example");
        it["sub"] = json!("root");
    };
    provider.behaves("root", Behaviour { claims: root, ..Behaviour::default() });
    let id = put(&world, &provider, "root", json!({ "domains": ["corp.example"], "create_users": false })).await;
    let answer = sign_in(&world, &mut world.browser(), &provider, &id).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("you have no account here"), "{}", answer.text());

    // A person who is disabled here is out, whatever the provider says.
    world.admin.change(applied(), "user", json!({ "id": "alice", "disabled": true })).await.unwrap();
    let answer =
        sign_in(&world, &mut world.browser(), &provider, &put(&world, &provider, "a-link", json!({})).await).await;
    assert_eq!(answer.status, 401);
    // Passwords go on beside providers.
    world.user("bob").await;
    let mut bob = world.browser();
    let page = bob.open(&world.url("wiki", "/")).await;
    let page = choose(&mut bob, &provider, &page, &[("username", "bob")]).await;
    let fields = [("flow", &*page.field("flow")), ("username", "bob"), ("password", PASSWORD)];
    assert_eq!(bob.form(&page.url.join("/signin").unwrap(), &fields).await.status, 200);
}

/// One rule broken at a time: nobody is let in, and the log names the rule.
#[tokio::test]
async fn a_provider_that_lies_signs_nobody_in() {
    let world = World::start().await;
    let (provider, origin) = (Provider::start().await, Origin::start().await);
    world.publish_origin("wiki", &origin).await;
    let lies = lies();
    assert!(lies.len() >= 100, "{}", lies.len());
    let named = |n: usize| format!("liar-{n}");
    let mut ids = Vec::new();
    for (n, (_, _, behaviour)) in lies.iter().enumerate() {
        provider.behaves(&named(n), behaviour.clone());
        ids.push(put(&world, &provider, &named(n), json!({})).await);
    }
    let mut wrong = Vec::new();
    for (n, (about, fault, _)) in lies.iter().enumerate() {
        let mut browser = world.browser();
        let answer = sign_in(&world, &mut browser, &provider, &ids[n]).await;
        let refused = [400, 401, 503].contains(&answer.status.as_u16());
        let signed_in = browser.cookies.values().any(|jar| jar.contains_key("__Host-sso"));
        let (provider, fault) = (format!("provider=\"{}\"", named(n)), format!("fault=\"{fault}\""));
        let said = until("the log says why", async || {
            let said: Vec<_> = world.up.said().into_iter().filter(|it| it.contains(&provider)).collect();
            (!said.is_empty()).then_some(said)
        });
        let said = said.await;
        if !refused || signed_in || !said.iter().any(|it| it.contains(&fault)) {
            wrong.push(format!("{about}: {} signed in {signed_in}, wanted {fault}, said {said:?}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lies.len(), wrong.join("\n"));
    // Keys nobody publishes are asked about once, not with each token.
    let unknown = lies.iter().position(|it| it.0 == "a key that is not published").unwrap();
    for _ in 0..5 {
        sign_in(&world, &mut world.browser(), &provider, &ids[unknown]).await;
    }
    assert!(provider.requests(&named(unknown), "keys") <= 2, "{}", provider.requests(&named(unknown), "keys"));

    // And honest ones sign in, with what is allowed to differ.
    for (n, behaviour) in honest().into_iter().enumerate() {
        let name = format!("honest-{n}");
        provider.behaves(&name, behaviour);
        let id = put(&world, &provider, &name, json!({ "username_claim": "sub" })).await;
        let answer = sign_in(&world, &mut world.browser(), &provider, &id).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        // The next one is somebody new again.
        world.admin.remove(applied(), "user", admin_client::lists::by_name(SUBJECT)).await.unwrap();
    }
}

/// What comes back of another browser, twice, or changed is nobody's sign-in.
#[tokio::test]
async fn an_answer_belongs_to_the_browser_and_the_sign_in_it_was_asked_for() {
    let world = World::start().await;
    let (provider, origin) = (Provider::start().await, Origin::start().await);
    world.publish_origin("wiki", &origin).await;
    let id = put(&world, &provider, "corp", json!({})).await;
    let begin = async |browser: &mut Browser| {
        let page = browser.open(&world.url("wiki", "/")).await;
        let fields = [("flow", &*page.field("flow")), ("provider", &*id)];
        browser.form(&page.url.join("/identify").unwrap(), &fields).await.location().unwrap()
    };
    let (mut alice, mut mallory) = (world.browser(), world.browser());
    let (of_alice, of_mallory) = (begin(&mut alice).await, begin(&mut mallory).await);
    let back = provider.visit(&of_mallory);
    let stolen = alice.open(back.as_str()).await;
    assert_eq!(stolen.status, 400, "nobody is signed in as mallory");

    // Mallory's code in alice's answer: it was got with another verifier.
    let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let mut mixed = provider.visit(&of_alice);
    let pairs: Vec<(String, String)> = mixed.query_pairs().into_owned().collect();
    let pairs =
        pairs.into_iter().map(|(name, value)| if name == "code" { (name, code.clone()) } else { (name, value) });
    let pairs: Vec<_> = pairs.collect();
    mixed.query_pairs_mut().clear().extend_pairs(pairs);
    assert_eq!(alice.open(mixed.as_str()).await.status, 401);

    // Changed, old, or none at all.
    let mut changed = back.clone();
    changed.query_pairs_mut().clear().append_pair("code", &code).append_pair("state", "x");
    assert_eq!(mallory.open(changed.as_str()).await.status, 400);
    assert_eq!(mallory.open(&world.url("login", "/upstream/callback")).await.status, 400);
    assert_eq!(mallory.open(back.as_str()).await.status, 200);
    let again = mallory.open(back.as_str()).await;
    assert_eq!(again.status, 401, "a code works once");
    assert_eq!(mallory.get(&world.url("wiki", "/")).await.status, 200, "and who is signed in stays so");
}

type Lie = (&'static str, &'static str, Behaviour);

fn honest() -> Vec<Behaviour> {
    let right = Behaviour::default;
    vec![
        right(),
        Behaviour { signer: Signer::Rs256, ..right() },
        // A JWT needs no key id where one key fits, and may have fields we do not know.
        Behaviour {
            header: |it| {
                it.as_object_mut().unwrap().remove("kid");
                it["x"] = json!(1);
            },
            ..right()
        },
        Behaviour { claims: |it| it["aud"] = json!([CLIENT_ID]), ..right() },
        Behaviour {
            claims: |it| {
                it["aud"] = json!(["api", CLIENT_ID]);
                it["azp"] = json!(CLIENT_ID);
            },
            ..right()
        },
        // Times may have fractions, and clocks differ a little.
        Behaviour {
            claims: |it| {
                it["exp"] = json!(it["exp"].as_f64().unwrap() + 0.5);
                it["iat"] = json!(it["iat"].as_u64().unwrap() + 30);
            },
            ..right()
        },
        Behaviour {
            claims: |it| {
                it.as_object_mut().unwrap().remove("at_hash");
                it.as_object_mut().unwrap().remove("auth_time");
            },
            ..right()
        },
        Behaviour {
            claims: |it| {
                it.as_object_mut().unwrap().remove("email");
            },
            ..right()
        },
        Behaviour {
            discovery: |it| it["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"]),
            ..right()
        },
        Behaviour {
            discovery: |it| {
                it.as_object_mut().unwrap().remove("userinfo_endpoint");
            },
            ..right()
        },
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn lies() -> Vec<Lie> {
    let right = Behaviour::default;
    let discovery = |discovery: fn(&mut Value)| Behaviour { discovery, ..right() };
    let keys = |keys: fn(&mut Value)| Behaviour { keys, ..right() };
    let header = |header: fn(&mut Value)| Behaviour { header, ..right() };
    let claims = |claims: fn(&mut Value)| Behaviour { claims, ..right() };
    let token = |token: fn(String) -> String| Behaviour { token, ..right() };
    let answer = |answer: fn(&mut Value)| Behaviour { answer, ..right() };
    let back = |back: fn(&mut Vec<(String, String)>)| Behaviour { back, ..right() };
    let signer = |signer| Behaviour { signer, ..right() };
    let instead = |end, instead| Behaviour { instead: Some((end, instead)), ..right() };
    let user_info = |user_info: fn(&mut Value)| Behaviour { user_info, ..lacking() };
    fn lacking() -> Behaviour {
        Behaviour {
            claims: |it| {
                it.as_object_mut().unwrap().remove("email");
            },
            ..Behaviour::default()
        }
    }
    let info_instead = |instead| Behaviour { instead: Some(("userinfo", instead)), ..lacking() };
    const DOCUMENT: &str = "openid-configuration";
    vec![
        // Discovery.
        ("another issuer", "issuer", discovery(|it| it["issuer"] = json!("https://evil.example"))),
        (
            "its issuer with a slash",
            "issuer",
            discovery(|it| it["issuer"] = json!(format!("{}/", it["issuer"].as_str().unwrap()))),
        ),
        (
            "no issuer",
            "not_json",
            discovery(|it| {
                it.as_object_mut().unwrap().remove("issuer");
            }),
        ),
        ("a number as issuer", "not_json", discovery(|it| it["issuer"] = json!(7))),
        (
            "no authorization endpoint",
            "endpoint",
            discovery(|it| {
                it.as_object_mut().unwrap().remove("authorization_endpoint");
            }),
        ),
        (
            "a plain authorization endpoint",
            "endpoint",
            discovery(|it| it["authorization_endpoint"] = json!("http://evil.example/a")),
        ),
        (
            "a script as authorization endpoint",
            "endpoint",
            discovery(|it| it["authorization_endpoint"] = json!("javascript:alert(1)")),
        ),
        (
            "no token endpoint",
            "endpoint",
            discovery(|it| {
                it.as_object_mut().unwrap().remove("token_endpoint");
            }),
        ),
        ("a plain token endpoint", "endpoint", discovery(|it| it["token_endpoint"] = json!("http://10.0.0.1/t"))),
        ("a file as token endpoint", "endpoint", discovery(|it| it["token_endpoint"] = json!("file:///etc/passwd"))),
        (
            "a password in an endpoint",
            "endpoint",
            discovery(|it| it["token_endpoint"] = json!("https://a:b@evil.example/")),
        ),
        ("a fragment in an endpoint", "endpoint", discovery(|it| it["jwks_uri"] = json!("https://evil.example/#x"))),
        (
            "no keys",
            "endpoint",
            discovery(|it| {
                it.as_object_mut().unwrap().remove("jwks_uri");
            }),
        ),
        ("plain keys", "endpoint", discovery(|it| it["jwks_uri"] = json!("http://169.254.169.254/latest"))),
        (
            "a name that begins like this machine",
            "endpoint",
            discovery(|it| it["jwks_uri"] = json!("http://127.0.0.1.evil.example/")),
        ),
        (
            "plain user information",
            "endpoint",
            discovery(|it| it["userinfo_endpoint"] = json!("http://evil.example/u")),
        ),
        ("no document", "status", instead(DOCUMENT, Instead::Status(404))),
        ("an error", "status", instead(DOCUMENT, Instead::Status(500))),
        ("no content", "status", instead(DOCUMENT, Instead::Status(304))),
        ("a redirect to a right document", "status", instead(DOCUMENT, Instead::Redirect)),
        ("a page", "not_json", instead(DOCUMENT, Instead::Text("<html>"))),
        ("a list", "not_json", instead(DOCUMENT, Instead::Text("[]"))),
        ("nothing", "not_json", instead(DOCUMENT, Instead::Text(""))),
        ("null", "not_json", instead(DOCUMENT, Instead::Text("null"))),
        ("a megabyte", "too_large", instead(DOCUMENT, Instead::Huge)),
        ("half a document", "unreachable", instead(DOCUMENT, Instead::Cut)),
        ("a document that does not come", "slow", instead(DOCUMENT, Instead::Slow)),
        // Keys.
        ("keys of another shape", "not_json", keys(|it| *it = json!({ "k": [] }))),
        ("an empty key set", "token_key", keys(|it| it["keys"] = json!([]))),
        (
            "a key without an id",
            "token_key",
            keys(|it| {
                it["keys"][0].as_object_mut().unwrap().remove("kid");
            }),
        ),
        (
            "two keys of one id",
            "token_key",
            keys(|it| {
                let key = it["keys"][0].clone();
                it["keys"].as_array_mut().unwrap().push(key);
            }),
        ),
        ("a key for encryption", "token_key", keys(|it| it["keys"][0]["use"] = json!("enc"))),
        ("a key that may only sign", "token_key", keys(|it| it["keys"][0]["key_ops"] = json!(["sign"]))),
        ("a key of another algorithm", "token_algorithm", keys(|it| it["keys"][0]["alg"] = json!("ES384"))),
        ("a key of another curve", "token_algorithm", keys(|it| it["keys"][0]["crv"] = json!("P-384"))),
        (
            "a point that is none",
            "token_signature",
            keys(|it| it["keys"][0]["x"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ),
        ("keys that are gone", "status", instead("keys", Instead::Status(404))),
        ("a megabyte of keys", "too_large", instead("keys", Instead::Huge)),
        ("keys elsewhere", "status", instead("keys", Instead::Redirect)),
        ("a page as keys", "not_json", instead("keys", Instead::Text("<html>"))),
        ("half of the keys", "unreachable", instead("keys", Instead::Cut)),
        // Who signs.
        ("nobody signs", "token_algorithm", signer(Signer::None)),
        ("None signs", "token_algorithm", Behaviour { signer: Signer::None, ..header(|it| it["alg"] = json!("None")) }),
        ("NONE signs", "token_algorithm", Behaviour { signer: Signer::None, ..header(|it| it["alg"] = json!("NONE")) }),
        ("nothing signs", "token_algorithm", Behaviour { signer: Signer::None, ..header(|it| it["alg"] = json!("")) }),
        ("the public key as a secret", "token_algorithm", signer(Signer::PublicKeyAsSecret)),
        ("the client's secret", "token_algorithm", signer(Signer::ClientSecret)),
        (
            "a published secret",
            "token_algorithm",
            Behaviour {
                signer: Signer::ClientSecret,
                ..keys(|it| it["keys"] = json!([{ "kty": "oct", "kid": "ec", "alg": "HS256", "k": "YSBzZWNyZXQ" }]))
            },
        ),
        ("another key", "token_signature", signer(Signer::OtherKey)),
        ("a key published for encryption", "token_key", signer(Signer::Encryption)),
        // The header.
        ("an RSA algorithm with an EC key", "token_algorithm", header(|it| it["alg"] = json!("RS256"))),
        ("a longer algorithm than the key", "token_algorithm", header(|it| it["alg"] = json!("ES384"))),
        ("EdDSA with an EC key", "token_algorithm", header(|it| it["alg"] = json!("EdDSA"))),
        ("HS512", "token_algorithm", header(|it| it["alg"] = json!("HS512"))),
        ("RS512", "token_algorithm", header(|it| it["alg"] = json!("RS512"))),
        ("an algorithm of the future", "token_algorithm", header(|it| it["alg"] = json!("XX999"))),
        (
            "PSS in name only",
            "token_signature",
            Behaviour { signer: Signer::Rs256, ..header(|it| it["alg"] = json!("PS256")) },
        ),
        (
            "a short RSA key",
            "token_algorithm",
            Behaviour { signer: Signer::Rs256, ..header(|it| it["kid"] = json!("short")) },
        ),
        (
            "no algorithm",
            "token_malformed",
            header(|it| {
                it.as_object_mut().unwrap().remove("alg");
            }),
        ),
        ("a number as algorithm", "token_malformed", header(|it| it["alg"] = json!(256))),
        ("a key that is not published", "token_key", header(|it| it["kid"] = json!("mine"))),
        ("a path as key", "token_key", header(|it| it["kid"] = json!("../../../dev/null"))),
        ("a query as key", "token_key", header(|it| it["kid"] = json!("' or 1=1 --"))),
        (
            "a key elsewhere (jku)",
            "token_key",
            header(|it| {
                it["kid"] = json!("mine");
                it["jku"] = json!("https://evil.example/keys");
            }),
        ),
        (
            "a certificate elsewhere (x5u)",
            "token_key",
            header(|it| {
                it["kid"] = json!("mine");
                it["x5u"] = json!("https://evil.example/c");
            }),
        ),
        (
            "its own key (jwk)",
            "token_signature",
            Behaviour {
                signer: Signer::OtherKey,
                ..header(|it| it["jwk"] = json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }))
            },
        ),
        (
            "a rule we do not know (crit)",
            "token_malformed",
            header(|it| {
                it["crit"] = json!(["exp"]);
            }),
        ),
        (
            "an empty crit",
            "token_malformed",
            header(|it| {
                it["crit"] = json!([]);
            }),
        ),
        (
            "an unencoded payload (b64)",
            "token_malformed",
            header(|it| {
                it["b64"] = json!(false);
                it["crit"] = json!(["b64"]);
            }),
        ),
        // The text.
        ("no token", "token_malformed", token(|_| String::new())),
        ("two parts", "token_malformed", token(|it| it.rsplit_once('.').unwrap().0.to_owned())),
        ("four parts", "token_malformed", token(|it| it + ".AA")),
        ("an encrypted token", "token_malformed", token(|it| it + ".AA.AA")),
        ("no signature", "token_signature", token(|it| it.rsplit_once('.').unwrap().0.to_owned() + ".")),
        (
            "a signature of zeros",
            "token_signature",
            token(|it| it.rsplit_once('.').unwrap().0.to_owned() + "." + &"A".repeat(86)),
        ),
        (
            "another payload",
            "token_signature",
            token(|it| {
                let at = it.find('.').unwrap();
                format!("{}.{}{}", &it[..at], "eyJzdWIiOiJhZG1pbiJ9", &it[it.rfind('.').unwrap()..])
            }),
        ),
        ("padding", "token_malformed", token(|it| it + "==")),
        ("a line end", "token_malformed", token(|it| it + "\n")),
        ("a token of 100 KB", "token_too_long", claims(|it| it["x"] = json!("x".repeat(100_000)))),
        // The claims.
        ("an ID token of another issuer", "token_issuer", claims(|it| it["iss"] = json!("https://evil.example"))),
        (
            "an issuer with a slash",
            "token_issuer",
            claims(|it| it["iss"] = json!(format!("{}/", it["iss"].as_str().unwrap()))),
        ),
        (
            "an issuer in capitals",
            "token_issuer",
            claims(|it| it["iss"] = json!(it["iss"].as_str().unwrap().to_uppercase())),
        ),
        (
            "no issuer in the token",
            "token_malformed",
            claims(|it| {
                it.as_object_mut().unwrap().remove("iss");
            }),
        ),
        ("another audience", "token_audience", claims(|it| it["aud"] = json!("other"))),
        ("an audience that begins like ours", "token_audience", claims(|it| it["aud"] = json!("postern2"))),
        ("a list without us", "token_audience", claims(|it| it["aud"] = json!(["a", "b"]))),
        ("nobody as audience", "token_audience", claims(|it| it["aud"] = json!([]))),
        (
            "no audience",
            "token_malformed",
            claims(|it| {
                it.as_object_mut().unwrap().remove("aud");
            }),
        ),
        ("an object as audience", "token_malformed", claims(|it| it["aud"] = json!({ "postern": 1 }))),
        ("others beside us, and no azp", "token_party", claims(|it| it["aud"] = json!([CLIENT_ID, "b"]))),
        ("given to another (azp)", "token_party", claims(|it| it["azp"] = json!("other"))),
        (
            "given to another of two",
            "token_party",
            claims(|it| {
                it["aud"] = json!([CLIENT_ID, "b"]);
                it["azp"] = json!("b");
            }),
        ),
        ("an expired token", "token_expired", claims(|it| it["exp"] = json!(it["iat"].as_u64().unwrap() - 120))),
        ("a token that expired in 1970", "token_expired", claims(|it| it["exp"] = json!(0))),
        (
            "a token that never expires",
            "token_malformed",
            claims(|it| {
                it.as_object_mut().unwrap().remove("exp");
            }),
        ),
        ("a text as expiry", "token_malformed", claims(|it| it["exp"] = json!("9999999999"))),
        ("a token of tomorrow", "token_early", claims(|it| it["iat"] = json!(it["iat"].as_u64().unwrap() + 86400))),
        (
            "a token without its time",
            "token_malformed",
            claims(|it| {
                it.as_object_mut().unwrap().remove("iat");
            }),
        ),
        ("a token not valid yet", "token_early", claims(|it| it["nbf"] = json!(it["iat"].as_u64().unwrap() + 600))),
        ("another nonce", "token_nonce", claims(|it| it["nonce"] = json!("other"))),
        ("an empty nonce", "token_nonce", claims(|it| it["nonce"] = json!(""))),
        (
            "no nonce",
            "token_nonce",
            claims(|it| {
                it.as_object_mut().unwrap().remove("nonce");
            }),
        ),
        (
            "a nonce in capitals",
            "token_nonce",
            claims(|it| it["nonce"] = json!(it["nonce"].as_str().unwrap().to_uppercase())),
        ),
        (
            "no subject",
            "token_malformed",
            claims(|it| {
                it.as_object_mut().unwrap().remove("sub");
            }),
        ),
        ("an empty subject", "token_subject", claims(|it| it["sub"] = json!(""))),
        ("a number as subject", "token_malformed", claims(|it| it["sub"] = json!(4711))),
        ("a long subject", "token_subject", claims(|it| it["sub"] = json!("x".repeat(256)))),
        ("two lines as subject", "token_subject", claims(|it| it["sub"] = json!("a\nb"))),
        ("a NUL in the subject", "token_subject", claims(|it| it["sub"] = json!("admin\0x"))),
        ("another access token", "token_access", claims(|it| it["at_hash"] = json!("AAAAAAAAAAAAAAAAAAAAAA"))),
        ("an empty hash", "token_access", claims(|it| it["at_hash"] = json!(""))),
        ("a sign-in of 1970, also when asked again", "token_age", claims(|it| it["auth_time"] = json!(1))),
        // The token endpoint.
        (
            "no ID token",
            "not_json",
            answer(|it| {
                it.as_object_mut().unwrap().remove("id_token");
            }),
        ),
        ("a number as ID token", "not_json", answer(|it| it["id_token"] = json!(1))),
        ("a code that is refused", "code", instead("token", Instead::Status(400))),
        ("a client that is refused", "code", instead("token", Instead::Status(401))),
        ("an error of the token endpoint", "status", instead("token", Instead::Status(502))),
        ("tokens elsewhere", "status", instead("token", Instead::Redirect)),
        ("a page as token", "not_json", instead("token", Instead::Text("<html>"))),
        ("a megabyte of tokens", "too_large", instead("token", Instead::Huge)),
        ("half a token", "unreachable", instead("token", Instead::Cut)),
        // The way back.
        (
            "the user is refused",
            "denied",
            back(|it| *it = [it[1].clone(), it[2].clone(), ("error".into(), "access_denied".into())].into()),
        ),
        ("an error beside a code", "denied", back(|it| it.push(("error".into(), "x".into())))),
        (
            "no code",
            "callback",
            back(|it| {
                it.remove(0);
            }),
        ),
        ("a made-up code", "code", back(|it| it[0].1 = "guess".into())),
        ("the answer of another provider", "wrong_issuer", back(|it| it[2].1 = "https://evil.example".into())),
        (
            "an answer that does not say whose",
            "wrong_issuer",
            back(|it| {
                it.pop();
            }),
        ),
        // User information.
        ("information about another", "user_info_subject", user_info(|it| it["sub"] = json!("other"))),
        (
            "information about nobody",
            "user_info_subject",
            user_info(|it| {
                it.as_object_mut().unwrap().remove("sub");
            }),
        ),
        ("no information", "status", info_instead(Instead::Status(403))),
        ("information elsewhere", "status", info_instead(Instead::Redirect)),
        ("a page of information", "not_json", info_instead(Instead::Text("<html>"))),
        ("a megabyte of information", "too_large", info_instead(Instead::Huge)),
        // Who it is here.
        ("no name", "no_username", claims(|it| it["preferred_username"] = json!(""))),
        ("the name of the administrator", "name_taken", claims(|it| it["preferred_username"] = json!("admin"))),
        (
            "the name of the administrator in capitals",
            "name_taken",
            claims(|it| it["preferred_username"] = json!("ADMIN")),
        ),
        ("a list as name", "no_username", claims(|it| it["preferred_username"] = json!(["admin"]))),
    ]
}
