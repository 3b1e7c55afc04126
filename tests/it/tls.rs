//! TLS as users meet it.

use std::{path::PathBuf, process::Command, sync::Arc};

use postern_tests::{processes::tool, world::World};
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
