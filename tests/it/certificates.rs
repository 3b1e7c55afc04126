//! Certificates that browsers see: brought, ordered, renewed (PUB-13, PUB-14).

use std::{path::Path, process::Command};

use http::header;
use postern_tests::{
    browser::Browser,
    names::NameServer,
    origin::Origin,
    processes::{Folder, Running, free_port},
    until,
    world::{PASSWORD, World, app, applied},
};
use proto::v1;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority browsers know, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Public authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Chain and key.
    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, host);
        (params.signed_by(&key, &self.issuer).unwrap().pem() + &self.pem, key.serialize_pem())
    }
}

fn browser(world: &World, roots: &str) -> Browser {
    Browser::new(&(world.authority.clone() + roots))
}

fn der(pem: &str) -> Vec<u8> {
    runtime::tls::pem_certificates(pem.as_bytes()).unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_certificate_is_brought_and_shown_at_the_next_handshake() {
    let world = World::start().await;
    world.user("alice").await;
    let (origin, authority, folder) = (Origin::start().await, Authority::new(), Folder::default());
    let shop = v1::App { external_url: "https://shop.example.test/".into(), ..app("shop", &origin.url()) };
    world.publish(shop, &["everyone"]).await;
    let url = format!("https://shop.example.test:{}/", world.port);
    let (chain, key) = authority.issue("shop.example.test");
    let (chain_file, key_file) = (folder.0.join("chain.pem"), folder.0.join("key.pem"));
    std::fs::write(&chain_file, &chain).unwrap();
    std::fs::write(&key_file, &key).unwrap();
    let install = |arguments: &[&str]| {
        let output = world.cli(&[&["certificate", "install"], arguments].concat());
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let installed = install(&[text(&chain_file), "--key", text(&key_file), "--wait"]);
    assert!(installed.0, "{}", installed.1);
    let mut alice = browser(&world, &authority.pem);
    assert_eq!(alice.certificate(&url).await, der(&chain));
    let answer = alice.sign_in(&url, "alice", PASSWORD).await;
    assert_eq!((answer.status.as_u16(), answer.url.host_str()), (200, Some("shop.example.test")));

    // A second one, as Windows writes it; the one that lasts longer counts.
    let (other, other_key) = authority.issue("*.example.test");
    std::fs::write(&chain_file, other.clone() + &other_key).unwrap();
    std::fs::write(folder.0.join("password"), "s3cret\n").unwrap();
    let pfx = folder.0.join("shop.pfx");
    let made = Command::new("openssl")
        .args(["pkcs12", "-export", "-passout", "pass:s3cret", "-in", text(&chain_file), "-out", text(&pfx)])
        .status()
        .unwrap();
    assert!(made.success());
    let refused = install(&[text(&pfx)]);
    assert!(!refused.0 && refused.1.contains("--password-file"), "{}", refused.1);
    let installed = install(&[text(&pfx), "--password-file", text(&folder.0.join("password")), "--wait"]);
    assert!(installed.0, "{}", installed.1);
    let elsewhere = format!("https://else.example.test:{}/", world.port);
    assert_eq!(alice.certificate(&elsewhere).await, der(&other));

    // Over the installation's own names too, and its connectors stay.
    let (own, own_key) = authority.issue("*.postern.localhost");
    std::fs::write(&chain_file, own.clone() + &own_key).unwrap();
    assert!(install(&[text(&chain_file), "--wait"]).0);
    assert_eq!(alice.certificate(&world.url("demo", "/")).await, der(&own));
    let world = world.restart().await;
    let mut alice = browser(&world, &authority.pem);
    let answer = alice.sign_in(&format!("https://shop.example.test:{}/", world.port), "alice", PASSWORD).await;
    assert_eq!(answer.status, 200, "connectors trust their own authority");

    let listed = String::from_utf8(world.cli(&["certificate", "list"]).stdout).unwrap();
    assert!(listed.contains("uploaded") && listed.contains("own"), "{listed}");
    let all: Vec<v1::Certificate> = world.admin.read_all("certificate").await.unwrap();
    let id = |host: &str| all.iter().find(|it| it.hosts.contains(&host.to_owned())).unwrap().id.clone();
    assert!(all.iter().all(|it| it.sealed_private_key.is_empty()), "keys are shown to nobody");
    let removed = world.cli(&["certificate", "remove", &id("shop.example.test"), "--wait"]);
    assert!(removed.status.success());
    let url = format!("https://shop.example.test:{}/", world.port);
    // A browser that was here before resumes its session and sees no certificate.
    assert_eq!(browser(&world, &authority.pem).certificate(&url).await, der(&other), "the next best");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_certificate_that_would_not_work_is_refused_with_its_fault() {
    let world = World::start().await;
    let authority = Authority::new();
    let (chain, key) = authority.issue("shop.example.test");
    let (_, other_key) = authority.issue("shop.example.test");
    let own = rcgen::generate_simple_self_signed(["shop.example.test".to_owned()]).unwrap();
    let mut old = CertificateParams::new(["shop.example.test".to_owned()]).unwrap();
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let old_key = KeyPair::generate().unwrap();
    let old = old.signed_by(&old_key, &authority.issuer).unwrap().pem() + &old_key.serialize_pem();
    let cases = [
        ("words".to_owned(), "no unencrypted private key"),
        (chain.clone(), "no unencrypted private key"),
        (key.clone(), "no certificate"),
        (chain.clone() + &other_key, "not the first certificate's"),
        (own.cert.pem() + &own.signing_key.serialize_pem(), "its own issuer"),
        (old, "has expired"),
        ("x".repeat(65 * 1024), "64 KiB"),
    ];
    for (pem, fault) in cases {
        let request = v1::InstallCertificateRequest { change: applied(), pem };
        let refused = world.admin.certificates().install(request).await.unwrap_err();
        assert!(refused.message().starts_with("pem: ") && refused.message().contains(fault), "{fault}: {refused}");
    }
}

/// Pebble, the ACME server its authors test clients with, and its DNS.
struct Pebble {
    root: String,
    _running: Running,
}

impl Pebble {
    async fn start(
        folder: &Folder,
        names: &NameServer,
        listen: u16,
        tls_port: u16,
        http_port: u16,
        life_s: u32,
    ) -> Self {
        let management = free_port();
        let any = |port: u16| format!("127.0.0.1:{port}");
        let config = serde_json::json!({ "pebble": {
            "listenAddress": any(listen),
            "managementListenAddress": any(management),
            "certificate": folder.0.join("acme.pem"),
            "privateKey": folder.0.join("acme.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "certificateValidityPeriod": life_s,
        }});
        std::fs::write(folder.0.join("pebble.json"), config.to_string()).unwrap();
        let server = Running::start(
            "pebble",
            Command::new("pebble")
                .args(["-config", text(&folder.0.join("pebble.json")), "-dnsserver", &any(names.port)])
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_WFE_NONCEREJECT", "0"),
        );
        let roots = format!("https://127.0.0.1:{management}/roots/0");
        let root = until("pebble answers", async || {
            let output = Command::new("curl").args(["-sk", &roots]).output().unwrap();
            let pem = String::from_utf8(output.stdout).unwrap();
            pem.contains("BEGIN CERTIFICATE").then_some(pem)
        })
        .await;
        Self { root, _running: server }
    }
}

/// A world that knows where certificates are ordered.
async fn world_with_acme(folder: &Folder, names: &NameServer, listen: u16, http: u16) -> World {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.0.join("acme.pem"), own.cert.pem()).unwrap();
    std::fs::write(folder.0.join("acme.key"), own.signing_key.serialize_pem()).unwrap();
    let hook = folder.0.join("hook");
    // The test's DNS server takes records over HTTP.
    let script = format!(
        "#!/bin/sh\ncase $1 in set) what=set-txt ;; clear) what=clear-txt ;; esac\n\
         exec curl -sf -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://127.0.0.1:{}/$what\n",
        names.management
    );
    std::fs::write(&hook, script).unwrap();
    let settings = format!(
        "[controller.acme]\ndirectory = \"https://127.0.0.1:{}/dir\"\nterms_agreed = true\nroots = {:?}\ndns_hook = {hook:?}\n\
         [relay]\nhttp_listen = \"127.0.0.1:{http}\"\n",
        listen,
        folder.0.join("acme.pem"),
    );
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, executable).unwrap();
    World::with_settings(&settings).await
}

/// Over the relays, by text, and by DNS; all against a real server.
#[tokio::test]
async fn certificates_are_ordered_in_three_ways() {
    let (folder, names, listen, http) = (Folder::default(), NameServer::default(), free_port(), free_port());
    let world = world_with_acme(&folder, &names, listen, http).await;
    let pebble = Pebble::start(&folder, &names, listen, world.port, http, 86_400).await;
    let browser = browser(&world, &pebble.root);
    let order = |arguments: &[&str]| {
        let output = world.cli(&[&["certificate", "order"], arguments].concat());
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let origin = Origin::start().await;
    for (name, arguments) in [
        ("one", ["one.example.test", "--method", "tls-alpn-01"]),
        ("two", ["two.example.test", "--method", "http-01"]),
        ("three", ["*.three.example.test", "--method", "dns-01"]),
    ] {
        let ordered = order(&arguments);
        assert!(ordered.0, "{name}: {}", ordered.1);
        let host = arguments[0].replace('*', "any");
        let url = format!("https://{host}:{}/", world.port);
        world.publish(v1::App { external_url: url.clone(), ..app(name, &origin.url()) }, &["everyone"]).await;
        // The handshake fails unless the public authority signed it for this host.
        assert!(!browser.certificate(&url).await.is_empty(), "{host}");
    }
    let challenges = world.admin.read_all::<v1::Certificate>("certificate").await.unwrap();
    assert!(challenges.iter().all(|it| it.source() != v1::CertificateSource::Challenge), "proofs are withdrawn");
    let refused = order(&["*.four.example.test"]);
    assert!(!refused.0 && refused.1.contains("dns_01"), "{}", refused.1);

    // Plain HTTP leads to HTTPS, for what is published.
    let plain = |host: &str, path: &str| {
        let url = format!("http://{host}:{http}{path}");
        let resolve = format!("{host}:{http}:127.0.0.1");
        let output = Command::new("curl").args(["-s", "-i", "--resolve", &resolve, &url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let answer = plain("one.example.test", "/a?b");
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    let location = format!("location: https://one.example.test:{}/a?b\r\n", world.port);
    assert!(answer.contains(&location), "{answer}");
    assert!(plain("evil.test", "/").starts_with("HTTP/1.1 404"));
    assert!(plain("one.example.test", "/.well-known/acme-challenge/x").starts_with("HTTP/1.1 308"));
}

#[tokio::test]
async fn an_ordered_certificate_is_renewed_before_it_ends() {
    let (folder, names, listen, http) = (Folder::default(), NameServer::default(), free_port(), free_port());
    let world = world_with_acme(&folder, &names, listen, http).await;
    let pebble = Pebble::start(&folder, &names, listen, world.port, http, 12).await;
    let ordered = world.cli(&["certificate", "order", "one.example.test"]);
    assert!(ordered.status.success(), "{}", String::from_utf8_lossy(&ordered.stderr));
    let browser = browser(&world, &pebble.root);
    let url = format!("https://one.example.test:{}/", world.port);
    let before = browser.certificate(&url).await;
    until("a new certificate", async || (browser.certificate(&url).await != before).then_some(())).await;
}

#[tokio::test]
async fn an_order_that_fails_says_what_to_do() {
    let world = World::start().await;
    let order = async |method: v1::AcmeMethod| {
        let hosts = vec!["one.example.test".to_owned()];
        let request = v1::OrderCertificateRequest { change: applied(), hosts, method: method.into() };
        world.admin.certificates().order(request).await.unwrap_err().message().to_owned()
    };
    assert!(order(v1::AcmeMethod::TlsAlpn01).await.contains("controller.acme.directory"));
    let mut browser = world.browser();
    assert_eq!(browser.get(&world.url("demo", "/.well-known/acme-challenge/x")).await.status, 303, "nothing special");
    assert!(browser.get(&world.url("demo", "/x")).await.headers.contains_key(header::LOCATION));
}
