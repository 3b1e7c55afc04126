//! TLS as users meet it.

use std::{path::PathBuf, process::Command, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use postern_tests::{
    http3::Http3,
    origin::Origin,
    processes::tool,
    world::{World, app},
};
use proto::v1;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// sslyze, with Mozilla's intermediate profile (PUB-44).
#[tokio::test]
async fn tls_is_as_mozilla_asks() {
    let world = World::start().await;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tls/grade.py");
    let port = world.port.to_string();
    let graded = tokio::task::spawn_blocking(move || {
        Command::new(tool("py/bin/python")).arg(script).args(["apps.postern.localhost", &port]).output().unwrap()
    });
    let graded = graded.await.unwrap();
    assert!(
        graded.status.success(),
        "{}{}",
        String::from_utf8_lossy(&graded.stdout),
        String::from_utf8_lossy(&graded.stderr)
    );
}

#[tokio::test]
async fn a_recorded_handshake_is_safe_from_tomorrows_computers() {
    let world = World::start().await;
    let ders = runtime::tls::pem_certificates(world.authority.as_bytes()).unwrap();
    let roots = runtime::tls::roots(ders.iter().map(|it| it.as_ref())).unwrap();
    let agreed = async |groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>| {
        let provider = rustls::crypto::CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let tcp = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
        let name = ServerName::try_from("apps.postern.localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        session.negotiated_key_exchange_group().unwrap().name()
    };
    let hybrid = aws_lc_rs::kx_group::X25519MLKEM768;
    assert_eq!(agreed(vec![hybrid]).await, NamedGroup::X25519MLKEM768);
    let usual = aws_lc_rs::default_provider().kx_groups;
    assert_eq!(agreed(usual).await, NamedGroup::X25519MLKEM768, "with what browsers offer");
    assert_eq!(agreed(vec![aws_lc_rs::kx_group::X25519]).await, NamedGroup::X25519, "and not demanded");
}

/// An authority, and somebody's certificate of it.
fn authority() -> (String, rcgen::Certificate, KeyPair) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let own = KeyPair::generate().unwrap();
    let issuer = Issuer::new(params, key);
    let certificate = CertificateParams::new(vec!["laptop-7".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    (pem, certificate, own)
}

/// Beside the sign-in, by the application's own authority, and by no other way
/// in (PUB-43, RFC 9440; CVE-2026-53622 and kin: HTTP/3 that asks for less).
#[tokio::test]
async fn an_application_asks_for_certificates_of_its_authority() {
    let world = World::with_settings("[relay]\nhttp3 = true\n").await;
    let origin = Origin::start().await;
    world.user("alice").await;
    let (pem, certificate, key) = authority();
    let vault = v1::App { client_ca_pem: pem, ..app("vault", &origin.url()) };
    world.publish(vault, &["everyone"]).await;
    world.publish(app("wiki", &origin.url()), &["everyone"]).await;
    let url = world.url("vault", "/x");
    let without = world.browser().get(&url).await;
    assert_eq!((without.status.as_u16(), without.refusal()), (403, "client_certificate_required"));
    let (_, others, others_key) = authority();
    let stranger = world.browser().showing(&others, &others_key).get(&url).await;
    assert_eq!(stranger.refusal(), "client_certificate_required");

    let mut alice = world.browser().showing(&certificate, &key);
    assert_eq!(alice.as_script().get(&url).await.refusal(), "sign_in_required", "a certificate is no sign-in");
    let seen = alice.sign_in(&url, "alice", postern_tests::world::PASSWORD).await.json();
    let own = format!(":{}:", STANDARD.encode(certificate.der()));
    assert_eq!(seen["headers"]["client-cert"], serde_json::json!([own]));
    let forged = alice.get_with(&url, &[("client-cert", ":AAAA:"), ("client-cert-chain", ":AAAA:")]).await.json();
    assert_eq!(forged["headers"]["client-cert"], serde_json::json!([own]));
    assert!(forged["headers"]["client-cert-chain"].is_null());
    alice.open(&world.url("wiki", "/")).await;
    let plain = alice.get_with(&world.url("wiki", "/"), &[("client-cert", ":AAAA:")]).await.json();
    assert!(plain["headers"]["client-cert"].is_null(), "only where it is asked for, and never from a user");

    let cookie = alice.cookie_header(&url::Url::parse(&url).unwrap()).unwrap();
    let mut bare = world.browser();
    let stolen = bare.get_with(&url, &[("cookie", &cookie)]).await;
    assert_eq!(stolen.refusal(), "client_certificate_required", "a stolen cookie is not enough");
    let mut users = Http3::connect(&alice, &url).await;
    let elsewhere = users.ask(http::Method::GET, &url, &[("cookie", &cookie)], b"").await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.refusal()), (421, "misdirected"));
}
