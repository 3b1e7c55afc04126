//! Every token is believed by whom it is for, and refused with its reason.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    PublicKeys, SigningKey, TokenFault, TokenFaults, TokenKind,
    assertion::{self, Assertion},
    clients::{check_client_secret, client_secret},
    internal, named_key, session,
    statement::verify_statement,
};

const NOW_S: i64 = 1_800_000_000;

#[test]
fn a_session_token_is_believed_for_one_audience_of_one_tenant_of_one_issuer() {
    let (key, public) = es256("k1");
    let keys = PublicKeys::es256([("k1", public.as_slice())]);
    let token = session::sign(&key, &claims()).unwrap();
    let verified = verify(&token, &keys).unwrap();
    assert_eq!((verified.claims["sub"].as_str(), verified.key.as_str()), (Some("alice"), "k1"));

    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    for (claims, fault) in [
        (with("aud", json!("wiki2")), TokenFault::WrongAudience),
        (with("aud", json!(["wiki"])), TokenFault::Malformed),
        (without("aud"), TokenFault::Malformed),
        (without("exp"), TokenFault::Malformed),
        (with("tenant", json!("other")), TokenFault::WrongTenant),
        (without("tenant"), TokenFault::WrongTenant),
        (with("iss", json!("https://login.evil.example")), TokenFault::WrongIssuer),
        (without("iss"), TokenFault::WrongIssuer),
        (json!(["wiki"]), TokenFault::Malformed),
    ] {
        let token = session::sign(&key, &claims).unwrap();
        assert_eq!(verify(&token, &keys).err(), Some(fault), "{claims}");
    }
    let over = session::sign(&key, &with("exp", json!(1))).unwrap();
    assert!(verify(&over, &keys).is_ok(), "the model judges time");
}

#[test]
fn a_token_that_was_tampered_with_says_how() {
    let (key, public) = es256("k1");
    let (other, _) = es256("k1");
    let keys = PublicKeys::es256([("k1", public.as_slice())]);
    let token = session::sign(&key, &claims()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = |value: Value| format!("{}.{}.{}", part(&value), parts[1], parts[2]);
    let (foreign, _) = es256("k2");
    for (token, fault) in [
        (session::sign(&other, &claims()).unwrap(), TokenFault::BadSignature),
        (format!("{}.{}.{}", parts[0], part(&json!({"aud": "wiki"})), parts[2]), TokenFault::BadSignature),
        (session::sign(&foreign, &claims()).unwrap(), TokenFault::UnknownKey),
        (header(json!({"alg": "ES256"})), TokenFault::UnknownKey),
        (header(json!({"alg": "HS256", "kid": "k1"})), TokenFault::WrongAlgorithm),
        (header(json!({"alg": "EdDSA", "kid": "k1"})), TokenFault::WrongAlgorithm),
        (header(json!({"alg": "none", "kid": "k1"})), TokenFault::Malformed),
        (String::new(), TokenFault::Malformed),
        ("a.b.c".into(), TokenFault::Malformed),
        (format!("{}.{}", parts[0], parts[1]), TokenFault::Malformed),
        ("a".repeat(100_000), TokenFault::TooLong),
    ] {
        assert_eq!(verify(&token, &keys).err(), Some(fault), "{token:.80}");
    }
}

#[test]
fn a_retired_key_is_told_from_one_that_never_was() {
    let ((old, old_public), (new, new_public)) = (es256("old"), es256("new"));
    let before = PublicKeys::es256([("old", old_public.as_slice())]);
    let both = PublicKeys::es256([("old", old_public.as_slice()), ("new", new_public.as_slice())]).succeeding(&before);
    let after = PublicKeys::es256([("new", new_public.as_slice())]).succeeding(&both);
    let later = PublicKeys::es256([("new", new_public.as_slice())]).succeeding(&after);
    let of_old = session::sign(&old, &claims()).unwrap();
    let of_new = session::sign(&new, &claims()).unwrap();
    assert!(verify(&of_old, &both).is_ok());
    for keys in [&after, &later] {
        assert!(verify(&of_new, keys).is_ok());
        assert_eq!(verify(&of_old, keys).err(), Some(TokenFault::RetiredKey));
        assert_eq!(keys.check("older"), Err(TokenFault::UnknownKey));
    }
    let back = PublicKeys::es256([("old", old_public.as_slice())]).succeeding(&later);
    assert!(verify(&of_old, &back).is_ok(), "a key that is published again is trusted again");
}

#[test]
fn an_assertion_is_for_one_application_and_one_minute() {
    let (key, public) = es256("k1");
    let keys = PublicKeys::es256([("k1", public.as_slice())]);
    let claims = Assertion {
        iss: "https://login.example.com",
        aud: "https://wiki.example.com/",
        sub: "alice".into(),
        sid: "1".into(),
        iat: NOW_S,
        exp: NOW_S + 60,
        amr: &[],
        preferred_username: "alice",
        name: "",
        email: "",
        groups: &[],
    };
    let text = assertion::sign(&key, &claims).unwrap();
    let verify = |url: &str, now_s: i64| assertion::verify(&text, &keys, url, now_s).map(|it| it.sub);
    assert_eq!(verify("https://wiki.example.com/", NOW_S), Ok("alice".into()));
    assert_eq!(verify("https://wiki.example.com/", NOW_S + 119), Ok("alice".into()), "clocks may differ a little");
    assert_eq!(verify("https://wiki.example.com/", NOW_S + 120), Err(TokenFault::Expired));
    assert_eq!(verify("https://hr.example.com/", NOW_S), Err(TokenFault::WrongAudience));
}

#[test]
fn an_internal_call_is_no_session_and_the_other_way_round() {
    runtime::install_crypto();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let raw = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap().public_key().as_ref().to_vec();
    let (ours, keys) = (SigningKey::ed25519("me", pkcs8.as_ref()), PublicKeys::ed25519("me", &raw));
    let call = internal::sign(&ours, "default", NOW_S).unwrap();
    assert_eq!(internal::verify(&call, &keys, NOW_S).unwrap().tenant, "default");
    assert_eq!(internal::verify(&call, &keys, NOW_S + 120).err(), Some(TokenFault::Expired));
    assert_eq!(named_key(&call), Ok("me".into()));

    let (session_key, public) = es256("k1");
    let session_keys = PublicKeys::es256([("k1", public.as_slice())]);
    let token = session::sign(&session_key, &claims()).unwrap();
    assert_eq!(internal::verify(&token, &keys, NOW_S).err(), Some(TokenFault::UnknownKey));
    assert_eq!(verify(&call, &session_keys).err(), Some(TokenFault::UnknownKey));
    let forged = internal::sign(&SigningKey::es256("k1", &es256_pkcs8()), "default", NOW_S).unwrap();
    assert_eq!(internal::verify(&forged, &keys, NOW_S).err(), Some(TokenFault::UnknownKey));
    let misused = internal::sign(&session_key, "default", NOW_S).unwrap();
    assert_eq!(verify(&misused, &session_keys).err(), Some(TokenFault::WrongAudience));
}

#[test]
fn a_session_token_carries_a_statement_that_only_identity_can_make() {
    let (key, public) = es256("k1");
    let keys = PublicKeys::es256([("k1", public.as_slice())]);
    let plain = session::sign(&key, &claims()).unwrap();
    assert_eq!(verify(&plain, &keys).unwrap().statement, None);
    let token = session::sign_with_statement(&key, &claims()).unwrap();
    assert!(token.len() - plain.len() < 150, "the cookie grows by {}", token.len() - plain.len());
    let text = verify(&token, &keys).unwrap().statement.unwrap();
    let check = |text: &str, tenant: &str, app: &str, now_s: i64| {
        verify_statement(text, &keys, tenant, app, now_s).map(|it| it.claims)
    };
    let said = check(&text, "default", "wiki", NOW_S).unwrap();
    assert_eq!((said.sub.as_str(), said.sid.as_str(), said.preferred_username.as_str()), ("alice", "1", "Alice"));

    assert_eq!(check(&text, "default", "hr", NOW_S), Err(TokenFault::WrongApplication));
    assert_eq!(check(&text, "other", "wiki", NOW_S), Err(TokenFault::WrongTenant));
    assert!(check(&text, "default", "wiki", NOW_S + 299).is_ok(), "clocks may differ by five minutes");
    assert_eq!(check(&text, "default", "wiki", NOW_S + 300), Err(TokenFault::Expired));
    assert_eq!(check(&text, "default", "wiki", NOW_S - 600 - 301), Err(TokenFault::NotYetValid));
    assert_eq!(check(&token, "default", "wiki", NOW_S), Err(TokenFault::WrongAudience), "a session is no statement");
    assert_eq!(verify(&text, &keys).err(), Some(TokenFault::WrongAudience), "and a statement opens nothing");

    // A relay knows every claim, and has no signature for others.
    let parts: Vec<&str> = text.split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let changed = URL_SAFE_NO_PAD.encode(claims.replace("alice", "mallory"));
    let changed = format!("{}.{changed}.{}", parts[0], parts[2]);
    assert_eq!(check(&changed, "default", "wiki", NOW_S), Err(TokenFault::BadSignature));
    let outer = token.rsplit('.').next().unwrap();
    assert_eq!(
        check(&format!("{}.{}.{outer}", parts[0], parts[1]), "default", "wiki", NOW_S),
        Err(TokenFault::BadSignature)
    );
    let (relays, _) = es256("k1");
    let forged = session::sign_with_statement(&relays, &self::claims()).unwrap();
    assert_eq!(verify(&forged, &keys).err(), Some(TokenFault::BadSignature));
}

#[test]
fn a_client_secret_is_of_one_client_and_one_shared_secret() {
    let shared = [b"one", b"two"].map(|it| runtime::secret::SharedSecret::new(it));
    let secret = client_secret(&shared[1], "wiki");
    assert_eq!(check_client_secret(&shared, "wiki", &secret), Ok(()));
    assert_eq!(check_client_secret(&shared, "hr", &secret), Err(TokenFault::WrongSecret));
    assert_eq!(check_client_secret(&shared[..1], "wiki", &secret), Err(TokenFault::WrongSecret));
    assert_eq!(check_client_secret(&shared, "wiki", ""), Err(TokenFault::WrongSecret));
}

#[test]
fn each_fault_is_counted_by_a_name_of_its_own() {
    let metrics = runtime::metrics::Metrics::default();
    let faults = TokenFaults::register(&metrics);
    for fault in TokenFault::ALL {
        let noted: Result<(), _> = faults.noted(TokenKind::Session, Err(fault));
        assert_eq!(noted, Err(fault));
        let line = format!("postern_token_faults_total{{token=\"session\",fault=\"{}\"}} 1\n", fault.name());
        assert!(metrics.text().contains(&line), "{line}{}", metrics.text());
    }
    let good: Result<i32, TokenFault> = faults.noted(TokenKind::Session, Ok(1));
    assert_eq!(good, Ok(1));
}

fn claims() -> Value {
    json!({
        "iss": "https://login.example.com",
        "aud": "wiki",
        "sub": "alice",
        "sid": "1",
        "preferred_username": "Alice",
        "iat": NOW_S - 600,
        "exp": NOW_S,
        "tenant": "default",
    })
}

fn verify(token: &str, keys: &PublicKeys) -> Result<session::VerifiedSession<Value>, TokenFault> {
    let is_issuer = |iss: &str| iss == "https://login.example.com";
    session::verify(token, keys, &session::Session { audience: "wiki", tenant: "default", is_issuer: &is_issuer })
}

fn es256_pkcs8() -> Vec<u8> {
    runtime::install_crypto();
    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap().as_ref().to_vec()
}

/// A key and its public point.
fn es256(id: &str) -> (SigningKey, Vec<u8>) {
    let pkcs8 = es256_pkcs8();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).unwrap();
    (SigningKey::es256(id, &pkcs8), pair.public_key().as_ref().to_vec())
}
