//! Who may call what, and how connectors come to be.

use admin_client::{Admin, Credential, Tokens, lists::wanted};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use controller::permits::{Permits, Verb};
use postern_tests::{
    browser::Browser,
    origin::Origin,
    processes::{Folder, Running, binary, free_port},
    until,
    world::{PASSWORD, World, app, applied},
};
use proto::v1;
use serde_json::json;
use std::process::Command;

/// Every method and every role, asked for real. The table is `roles.txt`.
#[tokio::test]
async fn every_role_may_do_what_the_table_says_and_no_more() {
    let world = World::start().await;
    let roles = [(v1::Role::Auditor, 1), (v1::Role::Admin, 2), (v1::Role::Owner, 3)];
    let mut callers = vec![(0, anonymous(&world, None)), (0, anonymous(&world, Some("not.a.token")))];
    for (role, rank) in roles {
        let name = format!("u{rank}");
        let user = world.user(&name).await;
        world
            .admin
            .put(applied(), "role", json!(v1::RoleAssignment { user: user.id, role: role.into() }))
            .await
            .unwrap();
        callers.push((rank, anonymous(&world, Some(&cli_token(&world, &name).await))));
    }
    // Somebody who can sign in but has no role.
    world.user("u0").await;
    callers.push((0, anonymous(&world, Some(&cli_token(&world, "u0").await))));

    let table = controller::callers::RoleTable::load().unwrap();
    let mut asked = 0;
    for (method, needs) in table.methods().filter(|(method, _)| method.starts_with("/postern.v1.")) {
        let least = match needs {
            controller::callers::Needs::Anybody => 0,
            controller::callers::Needs::Person | controller::callers::Needs::Role(model::Role::Auditor) => 1,
            controller::callers::Needs::Role(model::Role::Admin) => 2,
            controller::callers::Needs::Role(model::Role::Owner) => 3,
            controller::callers::Needs::Identity => 9,
        };
        // It ends when whoever called goes away.
        let endless = method.ends_with("/Watch");
        for (rank, credential) in callers.iter().filter(|_| !endless) {
            let code = call(credential, method).await;
            let refused = matches!(code, tonic::Code::Unauthenticated | tonic::Code::PermissionDenied);
            // Enrolment refuses an empty token by itself.
            if method.contains("Enrolment") {
                continue;
            }
            assert_eq!(refused, *rank < least, "{method} as rank {rank}: {code:?}");
            asked += 1;
        }
    }
    for (rank, credential) in &callers {
        asked += objects_may(credential, *rank, &table.permits).await;
    }
    assert!(asked > 200, "{asked}");
}

/// Every kind of object and what is done to it, asked by somebody of a rank.
async fn objects_may(credential: &Credential, rank: u32, permits: &Permits) -> usize {
    let Ok(admin) = Admin::connect(credential).await else { panic!("no connection") };
    let least = |kind, verb| match permits.least(kind, verb).as_str() {
        "auditor" => 1,
        "admin" => 2,
        "owner" => 3,
        _ => 9,
    };
    let mut asked = 0;
    for kind in permits.kinds() {
        let fields = || vec![wanted(kind.as_str(), json!({ "name": "x", "id": "x" }), v1::Wish::Put)];
        let put = v1::ApplyRequest { objects: fields(), dry_run: true, ..Default::default() };
        let remove = v1::ApplyRequest { removed: fields(), dry_run: true, ..Default::default() };
        let list = v1::ListObjectsRequest { kind: kind.as_str().into(), ..Default::default() };
        let answers = [
            (Verb::Read, admin.objects().list(list).await.err()),
            (Verb::Put, admin.apply(put).await.err()),
            (Verb::Remove, admin.apply(remove).await.err()),
        ];
        for (verb, refused) in answers {
            let code = refused.map(|it| it.code());
            let refused = matches!(code, Some(tonic::Code::Unauthenticated | tonic::Code::PermissionDenied));
            assert_eq!(refused, rank < least(kind, verb), "{verb:?} {} as rank {rank}: {code:?}", kind.as_str());
            asked += 1;
        }
    }
    asked
}

/// A call with an empty message: whether it is let in, not what it does.
async fn call(credential: &Credential, method: &str) -> tonic::Code {
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(&credential.authority))
        .domain_name("controller.postern.internal");
    let endpoint = tonic::transport::Endpoint::from_shared(credential.controller.clone()).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(v1::GetTenantRequest {});
    if let Some(token) = &credential.token {
        request.metadata_mut().insert("authorization", format!("Bearer {}", token.access).parse().unwrap());
    }
    let codec: tonic_prost::ProstCodec<v1::GetTenantRequest, v1::GetTenantRequest> = Default::default();
    match grpc.unary(request, method.parse().unwrap(), codec).await {
        Ok(_) => tonic::Code::Ok,
        Err(status) => status.code(),
    }
}

pub(crate) fn anonymous(world: &World, token: Option<&str>) -> Credential {
    let (_, owner) = Credential::find(Some(&world.folder.0.join("data/owner.json"))).unwrap();
    let token = token.map(|access| Tokens {
        access: access.into(),
        refresh: String::new(),
        expires_s: i64::MAX,
        token_url: String::new(),
    });
    Credential { certificate: None, key: None, token, ..owner }
}

/// `postern login`, with a browser that answers.
pub(crate) async fn cli_token(world: &World, username: &str) -> String {
    let save = world.folder.0.join(format!("login-{username}.json"));
    let mut login = Command::new(binary("postern"));
    login
        .args(["login", "--url", &world.url("login", ""), "--controller", "https://127.0.0.1:1", "--ca"])
        .arg(world.folder.0.join("data/authority.pem"))
        .arg("--save")
        .arg(&save);
    let mut login = Running::start("postern login", &mut login);
    let address = login.line(|line| line.trim().strip_prefix("https://").map(|it| format!("https://{it}"))).await;
    let mut browser: Browser = world.browser();
    let answer = browser.sign_in(&address, username, PASSWORD).await;
    let back = answer.location().unwrap();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", back.port().unwrap())).await.unwrap();
    let target = &back[url::Position::BeforePath..];
    let request = format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    assert!(login.ended().await.success(), "{}", login.said().join("\n"));
    Credential::find(Some(&save)).unwrap().1.token.unwrap().access
}

#[tokio::test]
async fn a_device_signs_in_with_a_code() {
    let world = World::start().await;
    let user = world.user("alice").await;
    world.admin.put(applied(), "role", json!({ "user": user.id, "role": "auditor" })).await.unwrap();
    let (_, owner) = Credential::find(Some(&world.folder.0.join("data/owner.json"))).unwrap();
    let save = world.folder.0.join("login.json");
    let mut login = Command::new(binary("postern"));
    login
        .args(["login", "--device", "--url", &world.url("login", ""), "--controller", &owner.controller, "--ca"])
        .arg(world.folder.0.join("data/authority.pem"))
        .arg("--save")
        .arg(&save);
    let mut login = Running::start("postern login", &mut login);
    let code = login
        .line(|line| {
            let code = line.trim();
            (code.len() == 9 && code.as_bytes()[4] == b'-').then(|| code.to_owned())
        })
        .await;
    let mut browser = world.browser();
    let device = url::Url::parse(&world.url("login", "/device")).unwrap();
    let wrong = browser.form(&device, &[("user_code", "BCDF-BCDF")]).await;
    assert_eq!(wrong.status, 400);
    let page = browser.form(&device, &[("user_code", &code.to_lowercase())]).await;
    let action = device.join("/signin").unwrap();
    let fields = [("flow", page.field("flow")), ("username", "alice".into()), ("password", PASSWORD.into())];
    let answer = browser.form(&action, &fields.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    assert!(answer.text().contains("Device signed in"), "{}", answer.text());
    assert!(login.ended().await.success(), "{}", login.said().join("\n"));
    let (_, credential) = Credential::find(Some(&save)).unwrap();
    let admin = Admin::connect(&credential).await.unwrap();
    let me = admin.tenants().get(v1::GetTenantRequest {}).await.unwrap().into_inner();
    assert_eq!((me.caller.as_str(), me.role()), ("alice", v1::Role::Auditor));
}

async fn token(world: &World, life_s: u32) -> String {
    let request = v1::IssueTokenRequest { change: applied(), group: "default".into(), life_s };
    world.admin.connectors().issue_token(request).await.unwrap().into_inner().token
}

fn join(folder: &Folder, name: &str, token: &str) -> std::process::Output {
    Command::new(binary("postern-connector"))
        .args(["join", token, "--name", name, "--state"])
        .arg(folder.0.join(name))
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_join_token_works_once_and_only_as_it_was_issued() {
    let world = World::start().await;
    let folder = Folder::default();
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let good = token(&world, 0).await;
    let first = join(&folder, "first", &good);
    assert!(first.status.success(), "{}", text(&first));
    let second = join(&folder, "second", &good);
    assert!(!second.status.success() && text(&second).contains("used before or has expired"), "{}", text(&second));

    let short = token(&world, 1).await;
    until("the token has ended", async || {
        let late = join(&folder, "late", &short);
        // It may still be in time at first; then it joins, and the next one is refused.
        (!late.status.success()).then_some(())
    })
    .await;

    let mut json: serde_json::Value = {
        use base64::Engine;
        let encoded = token(&world, 0).await;
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        serde_json::from_slice(&engine.decode(encoded.strip_prefix("postern1.").unwrap()).unwrap()).unwrap()
    };
    let encode = |json: &serde_json::Value| {
        use base64::Engine;
        format!("postern1.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string()))
    };
    let authority = json["authority"].take();
    json["authority"] = "00".repeat(32).into();
    let stranger = join(&folder, "stranger", &encode(&json));
    assert!(!stranger.status.success() && text(&stranger).contains("TLS"), "{}", text(&stranger));
    json["authority"] = authority;
    json["secret"] = "AAAA".into();
    let forged = join(&folder, "forged", &encode(&json));
    assert!(!forged.status.success() && text(&forged).contains("used before or has expired"), "{}", text(&forged));
    let garbage = join(&folder, "garbage", "hello");
    assert!(!garbage.status.success() && text(&garbage).contains("copy the whole line"), "{}", text(&garbage));
}

#[tokio::test]
async fn a_list_of_connectors_says_where_they_are_and_how_busy() {
    let world = World::start().await;
    let folder = Folder::default();
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("hr", &origin).await;
    let alice = world.signed_in("hr", "alice").await;
    let _socket = world.web_socket(&alice, &world.url("hr", "/ws")).await;
    let listed = |name: &str| -> Option<serde_json::Value> {
        let printed = world.cli(&["connector", "list", "--output", "json"]);
        let all: Vec<serde_json::Value> = serde_json::from_slice(&printed.stdout).unwrap();
        all.into_iter().find(|it| it["name"] == name)
    };
    let busy = until("the open WebSocket is the connector's load", async || {
        listed("local").filter(|it| it["load"].as_u64().is_some_and(|it| it > 0))
    })
    .await;
    assert_eq!((&busy["state"], &busy["address"]), (&json!("online"), &json!("127.0.0.1")));
    assert_eq!(busy["version"], env!("CARGO_PKG_VERSION"));
    assert!(busy["online_since_ms"].as_i64() <= busy["last_seen_ms"].as_i64(), "{busy}");

    assert!(join(&folder, "other", &token(&world, 0).await).status.success());
    let mut run = Command::new(binary("postern-connector"));
    let mut running = Running::start("connector", run.args(["run", "--state"]).arg(folder.0.join("other")));
    let state = async |state: &str| until(state, async || listed("other").filter(|it| it["state"] == state)).await;
    assert_ne!(state("online").await["last_seen"], "");
    running.kill();
    let gone = state("offline").await;
    assert!(gone["last_seen_ms"].is_i64() && gone["version"].is_null() && gone["load"].is_null(), "{gone}");
    assert!(world.cli(&["connector", "revoke", "other"]).status.success(), "by its name");
    state("revoked").await;

    let table = |arguments: &[&str]| String::from_utf8(world.cli(arguments).stdout).unwrap();
    for printed in [table(&["connector", "list"]), table(&["list", "connector"])] {
        let (head, rows) = printed.split_once('\n').unwrap();
        let columns: Vec<_> = head.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect();
        let expected = ["NAME", "GROUP", "STATE", "ONLINE SINCE", "VERSION", "ADDRESS", "LOAD", "LAST SEEN"];
        assert_eq!(columns, expected, "{printed}");
        assert!(rows.contains("default") && rows.contains("revoked"), "{printed}");
        assert!(!rows.contains(busy["id"].as_str().unwrap()), "ids are for machines: {printed}");
    }
}

#[tokio::test]
async fn a_connector_goes_out_through_a_proxy_that_asks_for_a_password() {
    let world = World::start().await;
    let folder = Folder::default();
    let port = free_port();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/connect_proxy.py");
    let mut proxy =
        Running::start("proxy", Command::new("python3").arg(script).args([&port.to_string(), "user:secret"]));
    proxy.line(|line| line.contains("listens").then_some(())).await;
    let invitation = token(&world, 0).await;
    let connector = |arguments: &[&str], proxy: &str| {
        let mut command = Command::new(binary("postern-connector"));
        command.args(arguments).arg("--state").arg(folder.0.join("c")).env("HTTPS_PROXY", proxy);
        command
    };
    let wrong = connector(&["join", &invitation], &format!("http://127.0.0.1:{port}")).output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("407"), "{said}");
    let through = format!("http://user:secret@127.0.0.1:{port}");
    assert!(connector(&["join", &invitation], &through).output().unwrap().status.success());
    let mut running = Running::start("connector", &mut connector(&["run"], &through));
    running.line(|line| line.contains("link up").then_some(())).await;
    assert!(proxy.said().iter().filter(|line| line.contains("tunnel")).count() >= 2, "{:?}", proxy.said());
}

#[tokio::test]
async fn an_application_is_reached_over_verified_tls_only() {
    let world = World::start().await;
    world.user("alice").await;
    let folder = Folder::default();
    let port = free_port();
    let certified = rcgen::generate_simple_self_signed(["inside.test".to_owned()]).unwrap();
    std::fs::write(folder.0.join("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(folder.0.join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let mut server = Command::new("openssl");
    server
        .args([
            "s_server",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-cert",
            "cert.pem",
            "-key",
            "key.pem",
            "-www",
            "-quiet",
        ])
        .current_dir(&folder.0);
    let _server = Running::start("openssl s_server", &mut server);
    until("the server listens", async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
    let pem = std::fs::read_to_string(folder.0.join("cert.pem")).unwrap();
    let origin = format!("https://127.0.0.1:{port}");
    let trusting = v1::App { origin_ca_pem: pem, origin_server_name: "inside.test".into(), ..app("trusted", &origin) };
    world.publish(app("untrusted", &origin), &["everyone"]).await;
    world
        .publish(
            v1::App { name: "wrong-name".into(), origin_server_name: "other.test".into(), ..trusting.clone() },
            &["everyone"],
        )
        .await;
    world.publish(trusting, &["everyone"]).await;
    let mut alice = world.browser();
    alice.sign_in(&world.url("demo", "/"), "alice", PASSWORD).await;
    assert_eq!(alice.open(&world.url("untrusted", "/")).await.refusal(), "origin_tls");
    assert_eq!(alice.open(&world.url("wrong-name", "/")).await.refusal(), "origin_tls");
    assert_eq!(alice.open(&world.url("trusted", "/")).await.refusal(), "");
}

#[tokio::test]
async fn keys_are_rotated_while_everybody_works_and_retired_for_good() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish(v1::App { assertion: true, ..app("wiki", &origin.url()) }, &["everyone"]).await;
    let mut alice = world.signed_in("wiki", "alice").await;
    let json = |arguments: &[&str]| {
        let printed = world.cli(&[arguments, &["--output", "json", "--wait"]].concat());
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        serde_json::from_slice::<serde_json::Value>(&printed.stdout).unwrap()
    };
    let key_of = |assertion: &serde_json::Value| {
        let token = assertion["headers"]["postern-assertion"][0].as_str().unwrap().to_owned();
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<serde_json::Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    let url = world.url("wiki", "/");
    let old = key_of(&alice.get(&url).await.json());
    let mut rotated = Vec::new();
    for purpose in ["session", "assertion", "relay-secret"] {
        rotated.push(json(&["key", "rotate", purpose, "--active-in", "1"])["id"].as_str().unwrap().to_owned());
    }
    let known = alice.get(&world.url("wiki", "/.postern/keys")).await.text();
    assert!(known.contains(&old) && known.contains(&rotated[1]), "applications know a key before it signs: {known}");
    until("the new key signs", async || {
        let answer = alice.get(&url).await;
        assert_eq!(answer.status, 200, "the session goes on");
        (key_of(&answer.json()) == rotated[1]).then_some(())
    })
    .await;
    let keys = until("all three are in use", async || {
        let keys = json(&["key", "list"]);
        let in_use = keys.as_array().unwrap().iter().filter(|it| it["in_use"] == true);
        let in_use: Vec<&str> = in_use.map(|it| it["id"].as_str().unwrap()).collect();
        rotated.iter().all(|key| in_use.contains(&key.as_str())).then_some(keys.clone())
    })
    .await;
    assert!(!keys.to_string().contains("ciphertext"), "secrets stay where they are");
    let refused = world.cli(&["key", "retire", &rotated[0]]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("rotate first"), "{refused:?}");

    // The old session key leaked: with it gone, what it signed opens nothing.
    let retired = keys.as_array().unwrap().iter().filter(|it| it["purpose"] == "session" && it["in_use"] == false);
    for key in retired {
        json(&["key", "retire", key["id"].as_str().unwrap()]);
    }
    assert_eq!(alice.as_script().get(&url).await.status, 401);
    // The user at a browser notices nothing but a redirect.
    assert_eq!(alice.open(&url).await.json()["path"], "/");
}

#[tokio::test]
async fn an_administrator_tests_the_way_to_an_application_stage_by_stage() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.publish_origin("wiki", &origin).await;
    let closed = format!("http://127.0.0.1:{}", free_port());
    world.publish(app("closed", &closed), &["everyone"]).await;
    world.publish(app("nowhere", "http://does-not-exist.invalid:80"), &["everyone"]).await;
    let test = |name: &str| {
        let printed = world.cli(&["app", "test", name]);
        (printed.status.success(), String::from_utf8_lossy(&[printed.stdout, printed.stderr].concat()).into_owned())
    };
    let (reached, said) = test("wiki");
    assert!(reached && said.contains("reached through connector"), "{said}");
    assert_eq!(origin.requests.load(std::sync::atomic::Ordering::SeqCst), 0, "the application is asked nothing");
    for (name, code) in [("closed", "origin_connect"), ("nowhere", "origin_dns")] {
        let (reached, said) = test(name);
        assert!(!reached && said.contains(code), "{said}");
    }
    let own_name = v1::App { external_url: "https://wiki.does-not-exist.invalid/".into(), ..app("own", &origin.url()) };
    world.publish(own_name, &[]).await;
    let doctor = world.cli(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(!doctor.status.success());
    assert!(said.contains("FAULT closed at http://127.0.0.1") && said.contains("ok    wiki is reached"), "{said}");
    assert!(said.contains("FAULT wiki.does-not-exist.invalid does not resolve"), "{said}");

    // A stranger learns nothing, whatever permit it makes up, and a permit is for one host.
    let mut stranger = world.browser();
    let permit = world.admin.applications().test(v1::GetRequest { id: "closed".into() }).await.unwrap().into_inner();
    let made_up = format!("Postern-Permit {}", permit.permit.replace('A', "B"));
    let real = format!("Postern-Permit {}", permit.permit);
    for (host, authorization) in [("closed", ""), ("closed", made_up.as_str()), ("wiki", real.as_str())] {
        let answer = stranger.get_with(&world.url(host, "/.postern/test"), &[("authorization", authorization)]).await;
        assert_eq!(answer.refusal(), "not_published");
    }
    let answer = stranger.get_with(&world.url("closed", "/.postern/test"), &[("authorization", &real)]).await;
    assert_eq!(answer.refusal(), "origin_connect");
}
