//! What a lying relay says of users is not believed.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use proto::signed::Signer;
use runtime::metrics::Metrics;
use serde_json::{Value, json};
use tokens::{SigningKey, session};

use super::*;

#[tokio::test]
async fn an_honest_statement_is_believed() {
    let world = World::new();
    let user = world.user(&world.statement(&claims())).await.unwrap().unwrap();
    assert_eq!(
        (user.claims.preferred_username.as_str(), Account::of(&user.claims).to_string()),
        ("alice", "user-1".into())
    );
    assert!(world.user("").await.unwrap().is_none(), "who did not sign in is nobody");
    assert!(world.counted("").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lying_relay_is_not_believed_and_the_reason_is_counted() {
    let world = World::new();
    let honest = world.statement(&claims());
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    let (header, rest) = honest.split_once('.').unwrap();
    let signature = rest.split_once('.').unwrap().1;
    let of_mallory = world.statement(&with("sub", json!("mallory")));
    let claims_of_mallory = of_mallory.split('.').nth(1).unwrap();
    let (own_key, unknown_key) = (es256("k1"), es256("k9"));
    for (lie, fault) in [
        ("made up".to_owned(), TokenFault::Malformed),
        (format!("{header}.{claims_of_mallory}.{signature}"), TokenFault::BadSignature),
        (statement(&own_key, &claims()), TokenFault::BadSignature),
        (statement(&unknown_key, &claims()), TokenFault::UnknownKey),
        (session::sign_with_statement(&world.identity.0, &claims()).unwrap(), TokenFault::WrongAudience),
        (world.statement(&with("aud", json!("hr"))), TokenFault::WrongApplication),
        (world.statement(&with("tenant", json!("other"))), TokenFault::WrongTenant),
        (world.statement(&with("exp", json!(now_s() - 301))), TokenFault::Expired),
        (world.statement(&with("iat", json!(now_s() + 400))), TokenFault::NotYetValid),
    ] {
        assert_eq!(world.user(&lie).await.err(), Some(fault), "{lie}");
        assert!(!world.counted(fault.name()).is_empty(), "{fault:?}");
    }
    assert_eq!(world.statements.user(&[0xff], "wiki").await.err(), Some(TokenFault::Malformed));
    assert!(world.user(&honest).await.is_ok(), "and the next request is served");
}

#[tokio::test]
async fn what_is_remembered_is_judged_again_at_each_use() {
    let mut world = World::new();
    let statement = world.statement(&claims());
    assert!(world.user(&statement).await.is_ok());
    assert_eq!(world.statements.user(statement.as_bytes(), "hr").await.err(), Some(TokenFault::WrongApplication));
    world.statements.clock.skew_ms = 3600 * 1000;
    assert_eq!(world.user(&statement).await.err(), Some(TokenFault::Expired));
    world.statements.clock.skew_ms = 0;
    world.statements.learn(&[world.event(&world.controller, "KeyRetired", "default", 2, &Key::default())]);
    assert_eq!(world.user(&statement).await.err(), Some(TokenFault::RetiredKey));
    world.statements.learn(&[world.published()]);
    assert_eq!(world.user(&statement).await.err(), Some(TokenFault::RetiredKey), "an older event brings nothing back");
}

#[tokio::test]
async fn only_the_controller_says_which_keys_are_identitys() {
    let world = World::new();
    let mallory = es256("k1");
    let (forged, public_key) = (statement(&mallory, &claims()), mallory.1);
    let key = Key { purpose: KeyPurpose::Session.into(), public_key, ..Key::default() };
    let relay = Signer::new(Ed25519KeyPair::generate().unwrap());
    let assertion = Key { purpose: KeyPurpose::Assertion.into(), ..key.clone() };
    for (event, fault) in [
        (
            world.event(&relay, "KeyPublished", "default", 9, &key),
            KeyFault::Untrusted(Untrusted::UnknownKey(relay.key_id().into())),
        ),
        (world.event(&world.controller, "KeyPublished", "other", 9, &key), KeyFault::Tenant("other".into())),
        (world.event(&world.controller, "AppPublished", "default", 9, &key), KeyFault::Kind("AppPublished".into())),
        (world.event(&world.controller, "KeyPublished", "default", 9, &assertion), KeyFault::Purpose),
        (bytes::Bytes::from_static(b"\xff"), KeyFault::Untrusted(Untrusted::Malformed)),
    ] {
        let believed = world.statements.known.write().unwrap().believe("default", &event);
        assert_eq!(believed.err(), Some(fault));
        world.statements.learn(&[event]);
        assert_eq!(world.user(&forged).await.err(), Some(TokenFault::BadSignature));
    }
    assert!(world.user(&world.statement(&claims())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_statement_may_come_before_its_key_but_not_long() {
    let world = World::unknowing();
    let statement = world.statement(&claims());
    assert_eq!(world.user(&statement).await.err(), Some(TokenFault::UnknownKey));
    let late = async {
        tokio::time::sleep(KEY_WAIT / 2).await;
        world.statements.learn(&[world.published()]);
    };
    let (user, ()) = tokio::join!(world.user(&statement), late);
    assert!(user.is_ok());
}

/// A connector, and one key of identity's that it knows.
struct World {
    controller: Signer,
    identity: (SigningKey, Vec<u8>),
    statements: Statements,
    metrics: Metrics,
}

impl World {
    fn new() -> Self {
        let world = Self::unknowing();
        world.statements.learn(&[world.published()]);
        world
    }

    fn unknowing() -> Self {
        let controller = Signer::new(Ed25519KeyPair::generate().unwrap());
        let identity = es256("k1");
        let metrics = Metrics::default();
        let faults = TokenFaults::register(&metrics);
        let writers = vec![controller.public_key().to_vec()];
        let statements = Statements::new("default", writers, faults, Clock::default());
        Self { controller, identity, statements, metrics }
    }

    fn published(&self) -> bytes::Bytes {
        let key = Key { purpose: KeyPurpose::Session.into(), public_key: self.identity.1.clone(), ..Key::default() };
        self.event(&self.controller, "KeyPublished", "default", 1, &key)
    }

    fn event(&self, signer: &Signer, kind: &str, tenant: &str, version: u64, key: &Key) -> bytes::Bytes {
        let payload = Key { id: "k1".into(), ..key.clone() }.encode_to_vec().into();
        let body = EventBody { kind: kind.into(), tenant: tenant.into(), version, payload, ..Default::default() };
        signer.sign(vec![body.encode_to_vec()]).remove(0).encode_to_vec().into()
    }

    fn statement(&self, claims: &Value) -> String {
        statement(&self.identity, claims)
    }

    async fn user(&self, statement: &str) -> Result<Option<Arc<VerifiedStatement>>, TokenFault> {
        self.statements.user(statement.as_bytes(), "wiki").await
    }

    /// Lines of the metric about a fault.
    fn counted(&self, fault: &str) -> Vec<String> {
        let text = self.metrics.text();
        let lines = text.lines().filter(|it| it.starts_with("postern_token_faults_total{token=\"statement\""));
        lines.filter(|it| it.contains(fault)).map(str::to_owned).collect()
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://login.example.com",
        "aud": "wiki",
        "sub": "user-1",
        "sid": "session-1",
        "preferred_username": "alice",
        "iat": now_s(),
        "exp": now_s() + 600,
        "tenant": "default",
    })
}

fn now_s() -> i64 {
    Clock::default().now_ms() / 1000
}

/// The statement in a session token that a key signs, as a relay takes it out.
fn statement((key, public): &(SigningKey, Vec<u8>), claims: &Value) -> String {
    let token = session::sign_with_statement(key, claims).unwrap();
    let keys = PublicKeys::es256([(key.id(), public.as_slice())]);
    let (audience, tenant) = (claims["aud"].as_str().unwrap(), claims["tenant"].as_str().unwrap());
    let expected = session::Session { audience, tenant, is_issuer: &|_| true };
    session::verify::<Value>(&token, &keys, &expected).unwrap().statement.unwrap()
}

/// A key and its public point.
fn es256(id: &str) -> (SigningKey, Vec<u8>) {
    runtime::install_crypto();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    (SigningKey::es256(id, pkcs8.as_ref()), pair.public_key().as_ref().to_vec())
}
