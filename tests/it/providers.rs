//! Signing in with somebody else's OpenID provider, and with one that lies.

mod lies;

use postern_tests::{
    browser::{Answer, Browser},
    origin::Origin,
    provider::{Behaviour, CLIENT_ID, Provider, SUBJECT},
    until,
    world::{PASSWORD, World, app, applied},
};
use proto::v1;
use serde_json::{Value, json};

use self::lies::{honest, lies};

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
