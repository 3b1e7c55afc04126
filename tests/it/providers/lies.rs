//! Ways in which a provider may be wrong, from discovery to user information, and
//! ways in which one may differ and be right.

use postern_tests::provider::{Behaviour, CLIENT_ID, Instead, Signer};
use serde_json::{Value, json};

/// What is wrong, the fault it has, and how it is done.
pub(super) type Lie = (&'static str, &'static str, Behaviour);

/// Providers that differ from the usual in what is allowed.
pub(super) fn honest() -> Vec<Behaviour> {
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

/// One broken rule each.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn lies() -> Vec<Lie> {
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
