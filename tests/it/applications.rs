//! Things nobody here wrote: a browser, JupyterLab, Node-RED, gRPC, git.

use std::{path::PathBuf, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use postern_tests::{
    origin::Origin,
    processes::{Folder, Running, binary, free_port, tool},
    until,
    world::{PASSWORD, World, app},
};
use proto::v1;

/// Runs a story of `browser/drive.mjs`. Screenshots stay in `tests/.tools/screenshots`.
fn drive(what: &str, url: &str, username: &str, password: &str) {
    drive_with(what, url, username, password, &[]);
}

fn drive_with(what: &str, url: &str, username: &str, password: &str, environment: &[(&str, &str)]) {
    let shots = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/screenshots");
    std::fs::create_dir_all(&shots).unwrap();
    assert!(tool("npm/node_modules/playwright-core").exists());
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("browser/drive.mjs");
    let output = Command::new("node")
        .arg(script)
        .args([what, url, username, password])
        .arg(&shots)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn a_browser_signs_in_uses_the_portal_and_signs_out() {
    let world = World::start().await;
    let (url, password) = (world.url("apps", "/"), world.password.clone());
    tokio::task::spawn_blocking(move || drive("portal", &url, "admin", &password)).await.unwrap();
}

#[tokio::test]
async fn a_browser_speaks_http3() {
    let world = World::with_settings("[relay]\nhttp3 = true\n").await;
    let (url, password) = (world.url("demo", "/"), world.password.clone());
    let root = runtime::tls::pem_certificates(world.authority.as_bytes()).unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(&root[0]).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, root.public_key().raw);
    let spki = STANDARD.encode(hash);
    let story = move || drive_with("http3", &url, "admin", &password, &[("ROOT_SPKI", &spki)]);
    tokio::task::spawn_blocking(story).await.unwrap();
}

/// A provider nobody here wrote, with an authority of its own and a secret.
#[tokio::test]
async fn a_browser_signs_in_with_another_openid_provider() {
    let world = World::start().await;
    let folder = Folder::default();
    let place = |name: &str| folder.0.join(name);
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    std::fs::write(place("certificate.pem"), own.cert.pem()).unwrap();
    std::fs::write(place("key.pem"), own.signing_key.serialize_pem()).unwrap();
    std::fs::write(place("secret"), "a secret: of 2 words & more\n").unwrap();
    let port = free_port();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("browser/openid_provider.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(port.to_string()).args([place("certificate.pem"), place("key.pem")]);
    let mut provider = Running::start("provider", command.arg(world.url("login", "/upstream/callback")));
    provider.line(|line| line.contains("provider listens").then_some(())).await;

    let set = world.cli(&[
        "set",
        "identity-provider",
        "name=Example",
        &format!("issuer=https://127.0.0.1:{port}"),
        "client_id=postern",
        &format!("ca_pem={}", own.cert.pem()),
        "scopes=[\"email\", \"profile\"]",
        "create_users=true",
    ]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let secret = place("secret").display().to_string();
    let set = world.cli(&["provider", "secret", "example", "--secret-file", &secret]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let listed = world.cli(&["provider", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("https://127.0.0.1"));
    world.assign("demo", "everyone").await;

    let url = world.url("demo", "/");
    tokio::task::spawn_blocking(move || drive("provider", &url, "alice", "anything")).await.unwrap();
    let alice: v1::User = world.admin.read("user", "alice").await.unwrap();
    assert_eq!((alice.email.as_str(), alice.display_name.as_str()), ("alice@corp.example", "Alice Liddell"));
}

#[tokio::test]
async fn the_fragment_of_an_address_survives_a_sign_in() {
    let world = World::start().await;
    let (url, password) = (world.url("demo", "/book#chapter-2"), world.password.clone());
    tokio::task::spawn_blocking(move || drive("fragment", &url, "admin", &password)).await.unwrap();
}

/// A redirect from another site carries no Strict cookie: the way back goes over
/// a page of our own, fragment and all (PUB-33).
#[tokio::test]
async fn a_strict_cookie_signs_in_all_the_same() {
    let world = World::start().await;
    let set = world.cli(&["app", "set", "Demo", "cookie_same_site=strict", "--wait"]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let (url, password) = (world.url("demo", "/book#chapter-2"), world.password.clone());
    tokio::task::spawn_blocking(move || drive("fragment", &url, "admin", &password)).await.unwrap();
}

#[tokio::test]
async fn jupyterlab_runs_a_cell_through_postern() {
    let world = World::start().await;
    world.user("alice").await;
    let folder = Folder::default();
    let port = free_port();
    let mut command = Command::new(tool("py/bin/jupyter-lab"));
    command
        .args(["--allow-root", "--no-browser", "--ip=127.0.0.1", "--IdentityProvider.token="])
        .args(["--ServerApp.password=", "--ServerApp.allow_remote_access=True", "--LabApp.news_url="])
        .arg(format!("--port={port}"))
        .arg(format!("--ServerApp.root_dir={}", folder.0.display()))
        .env("JUPYTER_CONFIG_DIR", &folder.0)
        .env("JUPYTER_DATA_DIR", folder.0.join("data"))
        .env("JUPYTER_RUNTIME_DIR", folder.0.join("run"))
        .env("HOME", &folder.0);
    let _jupyter = Running::start("jupyter-lab", &mut command);
    listens(port).await;
    world.publish(app("jupyter", &format!("http://127.0.0.1:{port}")), &["everyone"]).await;
    let url = world.url("jupyter", "/lab");
    tokio::task::spawn_blocking(move || drive("jupyter", &url, "alice", PASSWORD)).await.unwrap();
}

#[tokio::test]
async fn node_red_deploys_a_flow_through_postern() {
    let world = World::start().await;
    world.user("alice").await;
    let folder = Folder::default();
    let port = free_port();
    std::fs::write(folder.0.join("settings.js"), "module.exports = { uiHost: '127.0.0.1', editorTheme: { tours: false, projects: { enabled: false } }, telemetry: { enabled: false } };").unwrap();
    let mut command = Command::new("node");
    command
        .arg(tool("npm/node_modules/node-red/red.js"))
        .args(["--port", &port.to_string(), "--userDir"])
        .arg(&folder.0)
        .arg("--settings")
        .arg(folder.0.join("settings.js"));
    let _node_red = Running::start("node-red", &mut command);
    listens(port).await;
    world.publish(app("flows", &format!("http://127.0.0.1:{port}")), &["everyone"]).await;
    let url = world.url("flows", "/");
    tokio::task::spawn_blocking(move || drive("nodered", &url, "alice", PASSWORD)).await.unwrap();
}

async fn listens(port: u16) {
    until("the application listens", async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
}

#[tokio::test]
async fn git_clones_and_pushes_over_smart_http() {
    let world = World::start().await;
    let folder = Folder::default();
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@b",
                "-c",
                "protocol.version=2",
                "-c",
                "init.defaultBranch=main",
            ])
            .arg("-c")
            .arg(format!("http.curloptResolve=git.postern.localhost:{}:127.0.0.1", world.port))
            .args(arguments)
            .env("GIT_SSL_CAINFO", world.folder.0.join("data/authority.pem"))
            .current_dir(&folder.0)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    git(&["init", "--bare", "repo.git"]);
    git(&["-C", "repo.git", "config", "http.receivepack", "true"]);
    let port = free_port();
    let server = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("browser/git_server.py");
    let _server =
        Running::start("git server", Command::new("python3").arg(server).arg(port.to_string()).arg(&folder.0));
    listens(port).await;
    let passthrough = v1::App { pre_authentication: 1, ..app("git", &format!("http://127.0.0.1:{port}")) };
    world.publish(passthrough, &[]).await;
    let url = world.url("git", "/repo.git");
    git(&["clone", &url, "work"]);
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(folder.0.join("work/large"), large).unwrap();
    git(&["-C", "work", "add", "large"]);
    git(&["-C", "work", "commit", "-qm", "large"]);
    git(&["-C", "work", "push", "origin", "HEAD:main"]);
    git(&["clone", &url, "again"]);
    let same =
        std::fs::read(folder.0.join("again/large")).unwrap() == std::fs::read(folder.0.join("work/large")).unwrap();
    assert!(same);
}

#[tokio::test]
async fn grpc_calls_and_streams_pass_with_their_trailers() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let world = World::start().await;
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", tonic_health::ServingStatus::NotServing).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test's runtime")]
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let passthrough = v1::App { pre_authentication: 1, ..app("rpc", &format!("h2c://127.0.0.1:{port}")) };
    world.publish(passthrough, &[]).await;

    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(&world.authority))
        .domain_name("rpc.postern.localhost");
    let origin: http::Uri = world.url("rpc", "/").parse().unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://127.0.0.1:{}", world.port)).unwrap();
    let channel = endpoint.origin(origin).tls_config(tls).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    let answer = client.check(request("shop")).await.unwrap().into_inner();
    assert_eq!(answer.status, 2);
    let status = client.check(request("unknown")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound, "a status in trailers arrives");
    let mut stream = client.watch(request("shop")).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().status, 2);
    reporter.set_service_status("shop", tonic_health::ServingStatus::Serving).await;
    assert_eq!(stream.message().await.unwrap().unwrap().status, 1, "a server stream goes on");
}

#[tokio::test]
async fn curl_and_a_python_openid_client_work() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let published = world.publish_origin("api", &origin).await;
    let authority = world.folder.0.join("data/authority.pem");
    let curl = Command::new("curl")
        .args(["-sS", "--http2", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--cacert"])
        .arg(&authority)
        .arg("--resolve")
        .arg(format!("api.postern.localhost:{}:127.0.0.1", world.port))
        .arg(world.url("api", "/"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "401 2", "{}", String::from_utf8_lossy(&curl.stderr));

    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("browser/openid_client.py");
    let mut client = Command::new(tool("py/bin/python"));
    client
        .arg(script)
        .args([&world.url("login", ""), &published.id, &world.url("api", "/from-python"), "alice", PASSWORD])
        .env("REQUESTS_CA_BUNDLE", &authority);
    // The application answers on this thread meanwhile.
    let output = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("/from-python"), "{said}");
}

/// PUB-50 and PUB-51: a native client with a token, both halves of its channel
/// open at once, and silence between the bytes.
#[tokio::test]
async fn both_halves_of_a_remote_desktop_channel_stream_through() {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    let world = World::start().await;
    world.user("alice").await;
    let origin = Origin::start().await;
    world.publish_origin("rdg", &origin).await;
    let alice = world.signed_in("rdg", "alice").await;
    let url = url::Url::parse(&world.url("rdg", "/remoteDesktopGateway/")).unwrap();
    // The client has no cookies: what it was signed in with is its bearer token.
    let cookies = alice.cookie_header(&url).unwrap();
    let token =
        cookies.split("; ").filter_map(|it| it.split_once('=')).find(|(_, value)| value.matches('.').count() == 2);
    let token = token.unwrap().1;
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let head = |method: &str, framing: &str| {
        format!(
            "{method} {} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\n{framing}\r\n\r\n",
            url.path()
        )
    };
    let stranger = format!("RDG_OUT_DATA {} HTTP/1.1\r\nhost: {authority}\r\n\r\n", url.path());
    let mut refused = BufReader::new(alice.connect(&url).await);
    refused.write_all(stranger.as_bytes()).await.unwrap();
    let mut line = String::new();
    refused.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("HTTP/1.1 401"), "{line}");

    let mut out = BufReader::new(alice.connect(&url).await);
    out.write_all(head("RDG_OUT_DATA", "content-length: 0").as_bytes()).await.unwrap();
    let mut answered = String::new();
    while !answered.ends_with("\r\n\r\n") {
        assert!(out.read_line(&mut answered).await.unwrap() > 0, "{answered}");
    }
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    let mut into = alice.connect(&url).await;
    into.write_all(head("RDG_IN_DATA", "transfer-encoding: chunked").as_bytes()).await.unwrap();
    for n in 0..50u8 {
        into.write_all(&[b"4\r\n", &[n, 0, 255, n][..], b"\r\n"].concat()).await.unwrap();
        into.flush().await.unwrap();
        // A chunk of the same four bytes, while both halves stay open.
        let mut size = String::new();
        out.read_line(&mut size).await.unwrap();
        assert_eq!(size, "4\r\n");
        let mut bytes = [0; 6];
        out.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [n, 0, 255, n, b'\r', b'\n']);
    }
}

/// PUB-46: WebDAV, and whatever else is a method.
#[tokio::test]
async fn unusual_methods_and_grpc_web_pass() {
    let world = World::start().await;
    world.user("alice").await;
    let origin = Origin::start().await;
    let dav = v1::App { host_header: v1::HostHeader::Origin.into(), ..app("dav", &origin.url()) };
    world.publish(dav, &["everyone"]).await;
    let mut alice = world.signed_in("dav", "alice").await;
    let url = world.url("dav", "/folder/a");
    for method in
        ["PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "PATCH", "QUERY"]
    {
        let there = world.url("dav", "/folder/b");
        let fields = [("destination", there.as_str()), ("depth", "1"), ("content-type", "application/xml")];
        let name = http::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = alice.ask(name, &url, &fields, bytes::Bytes::from_static(b"<x/>")).await.json();
        assert_eq!((answer["method"].as_str(), answer["path"].as_str()), (Some(method), Some("/folder/a")));
        assert_eq!(answer["headers"]["destination"][0], format!("{}/folder/b", origin.url()));
        assert_eq!(answer["headers"]["depth"][0], "1");
    }
    let message = bytes::Bytes::from_static(b"\0\0\0\0\x02hi\x80\0\0\0\x0fgrpc-status:0\r\n");
    let fields = [("x-say-content-type", "application/grpc-web+proto"), ("content-type", "application/grpc-web+proto")];
    let answer = alice.ask(http::Method::POST, &world.url("dav", "/say"), &fields, message.clone()).await;
    assert_eq!((answer.body, answer.headers["content-type"].as_bytes()), (message, &b"application/grpc-web+proto"[..]));
}

#[tokio::test]
async fn activity_is_valid_ocsf() {
    let world = World::start().await;
    let mut browser = world.browser();
    browser.sign_in(&world.url("demo", "/"), "admin", "wrong").await;
    browser.sign_in(&world.url("demo", "/"), "admin", &world.password).await;
    let file = world.folder.0.join("data/activity.ocsf.jsonl");
    until("both classes are exported", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        (text.contains("\"class_uid\":3002") && text.contains("\"class_uid\":4002")).then_some(())
    })
    .await;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("ocsf/check.py");
    let output = Command::new(tool("py/bin/python")).arg(script).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn the_command_line_does_what_it_says() {
    let world = World::start().await;
    let run = |arguments: &[&str]| {
        let output = world.cli(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    assert!(run(&["user", "create", "bob", "--email", "bob@example.com"]).1.contains("password"));
    assert!(run(&["group", "create", "staff"]).0);
    assert!(run(&["group", "add", "staff", "user:bob"]).0);
    assert!(run(&["publish", "http://127.0.0.1:9", "--name", "wiki", "--assign", "group:staff"]).0);
    let (_, listed, _) = run(&["app", "list", "--output", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert!(listed.as_array().unwrap().iter().any(|app| app["name"] == "wiki"));

    let (ok, _, error) = run(&["publish", "http://127.0.0.1:9", "--name", "wiki"]);
    assert!(!ok && error.contains("another") && error.contains("choose another"), "{error}");
    let (ok, _, error) = run(&["app", "assign", "wiki", "group:nobody"]);
    assert!(!ok && error.contains("nobody") && error.contains("principal"), "{error}");
    let (ok, _, error) = run(&["publish", "ftp://x", "--name", "other"]);
    assert!(!ok && error.contains("origin") && error.contains("http://"), "{error}");

    // A request id makes a repetition harmless.
    let first = run(&["--request-id", "r1", "group", "create", "twice"]);
    let second = run(&["--request-id", "r1", "group", "create", "twice"]);
    assert_eq!((first.0, &first.1), (true, &second.1));
    let (ok, _, error) = run(&["--expected-position", "1", "group", "create", "late"]);
    assert!(!ok && error.contains("expected_position"), "{error}");

    // What is exported is applied elsewhere, and again without a change.
    let (_, exported, _) = run(&["export"]);
    assert!(exported.contains("group:staff") && exported.contains("wiki"), "{exported}");
    let folder = Folder::default();
    let file = folder.0.join("all.yaml");
    std::fs::write(&file, &exported).unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(run(&["apply", "-f", path]).1.trim(), "nothing to change");
    std::fs::write(&file, exported.replace("http://127.0.0.1:9\n", "http://127.0.0.1:10\n")).unwrap();
    let (_, planned, _) = run(&["apply", "-f", path, "--dry-run"]);
    assert!(planned.contains("~ app wiki: origin: \"http://127.0.0.1:9\" -> \"http://127.0.0.1:10\""), "{planned}");
    assert!(run(&["apply", "-f", path]).1.contains("1 changed"));
    assert!(run(&["app", "show", "wiki"]).1.contains("127.0.0.1:10"));
    std::fs::write(&file, "apps:\n  - name: x\n    orign: http://a\n").unwrap();
    let (ok, _, error) = run(&["apply", "-f", path]);
    assert!(!ok && error.contains("orign"), "{error}");

    let (_, history, _) = run(&["history", "--size", "50"]);
    assert!(history.contains("admin created application wiki"), "{history}");
    let completion = Command::new(binary("postern")).args(["completion", "bash"]).output().unwrap();
    assert!(String::from_utf8_lossy(&completion.stdout).contains("postern"));
    let url = world.url("login", "/.well-known/openid-configuration");
    // Nothing listens at port 10, which the doctor would find.
    assert!(run(&["app", "retire", "wiki", "--wait"]).0);
    let (ok, healthy, error) = run(&["doctor", &url]);
    assert!(ok && healthy.contains("clocks agree") && healthy.contains("has links"), "{healthy}{error}");
    let (ok, sick, _) = run(&["doctor", &world.url("wiki", "/").replace(&world.port.to_string(), "1")]);
    assert!(!ok && sick.contains("FAULT port 1"), "{sick}");
}
