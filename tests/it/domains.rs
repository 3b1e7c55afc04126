//! Whose a domain is (PUB-12).

use postern_tests::{
    names::NameServer,
    world::{World, app},
};
use proto::v1;
use serde_json::Value;
use serde_json::json;
use tonic::Code;

#[tokio::test]
async fn a_domain_is_proven_before_anything_is_published_under_it() {
    let names = NameServer::default();
    let settings = format!("[controller.domains]\nverify = true\ndns_server = \"127.0.0.1:{}\"\n", names.port);
    let world = World::with_settings(&settings).await;
    let publish = async |name: &str, host: &str| {
        let external_url = format!("https://{host}/");
        let app = Some(v1::App { external_url, ..app(name, "http://127.0.0.1:9") });
        let request = v1::PublishAppRequest { app, ..Default::default() };
        world.admin.applications().publish(request).await.map(|it| it.into_inner().app.unwrap())
    };
    let proofs = |domain: &str| -> Vec<(String, String, bool)> {
        let shown = world.cli(&["domain", domain, "--output", "json"]);
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        let proofs: Vec<Value> = serde_json::from_slice(&shown.stdout).unwrap();
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        proofs.iter().map(|it| (text(&it["name"]), text(&it["value"]), it["found"].as_bool().unwrap())).collect()
    };
    // Its own domain needs no proof, another does, and the refusal says which.
    publish("own", "own.postern.localhost").await.unwrap();
    let shown = proofs("wiki.example.test");
    let hosts: Vec<_> = shown.iter().map(|(name, _, found)| (name.as_str(), *found)).collect();
    assert_eq!(hosts, [("_postern.wiki.example.test", false), ("_postern.example.test", false)]);
    let refused = publish("wiki", "wiki.example.test").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for (name, value, _) in &shown {
        assert!(refused.message().starts_with("external_url: "), "{refused}");
        assert!(refused.message().contains(&format!("{name} TXT \"{value}\"")), "{refused}");
    }

    // A text that is not ours proves nothing, nor does one for another domain.
    names.set_text("_postern.example.test", &shown[0].1).await;
    assert_eq!(publish("wiki", "wiki.example.test").await.unwrap_err().code(), Code::FailedPrecondition);
    // One record proves all below it, wildcards too.
    names.set_text("_postern.example.test", &shown[1].1).await;
    assert!(proofs("wiki.example.test")[1].2);
    let wiki = publish("wiki", "wiki.example.test").await.unwrap();
    publish("any", "*.apps.example.test").await.unwrap();
    assert_eq!(publish("other", "example.org").await.unwrap_err().code(), Code::FailedPrecondition);

    // What is published can be changed, but for its host.
    let update = async |app: v1::App| world.admin.change(None, "app", json!(app)).await;
    update(v1::App { maintenance: true, ..wiki.clone() }).await.unwrap();
    let moved = update(v1::App { external_url: "https://other.test/".into(), ..wiki }).await.unwrap_err();
    assert_eq!(moved.code(), Code::FailedPrecondition);
}

/// Without an answer nobody knows, and nothing is published.
#[tokio::test]
async fn no_domain_is_proven_by_silence() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = silent.local_addr().unwrap();
    let settings = format!("[controller.domains]\nverify = true\ndns_server = \"{server}\"\n");
    let world = World::with_settings(&settings).await;
    let app = Some(v1::App { external_url: "https://example.test/".into(), ..app("wiki", "http://127.0.0.1:9") });
    let request = v1::PublishAppRequest { app, ..Default::default() };
    let refused = world.admin.applications().publish(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("domains.dns_server"), "{refused}");
}
