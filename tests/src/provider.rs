//! An OpenID provider that can break one rule at a time. Each path below its
//! address is a provider of its own, with its own behaviour.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use url::{Url, form_urlencoded};

type Body = BoxBody<Bytes, io::Error>;

fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub const CLIENT_ID: &str = "postern";
pub const SUBJECT: &str = "4711";

/// Who signs an ID token, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    Es256,
    Rs256,
    /// RSA, as PSS says RS256: never right.
    OtherKey,
    /// Nobody.
    None,
    /// HS256 with the published key as its secret.
    PublicKeyAsSecret,
    /// HS256 with the client's secret.
    ClientSecret,
    /// A key that is published for encryption.
    Encryption,
}

/// What one provider does. The default does everything right.
#[derive(Clone)]
pub struct Behaviour {
    pub signer: Signer,
    pub discovery: fn(&mut Value),
    pub keys: fn(&mut Value),
    pub header: fn(&mut Value),
    pub claims: fn(&mut Value),
    /// The compact text of the token.
    pub token: fn(String) -> String,
    /// The answer of the token endpoint.
    pub answer: fn(&mut Value),
    pub user_info: fn(&mut Value),
    /// What goes back to the redirect URI.
    pub back: fn(&mut Vec<(String, String)>),
    /// Whole answers in place of the right ones, by the end of the path.
    pub instead: Option<(&'static str, Instead)>,
    /// Does it sign people in who are not asked again (`prompt=login`)?
    pub obeys_prompt: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Instead {
    Status(u16),
    Text(&'static str),
    /// 1 MiB of JSON.
    Huge,
    /// Nothing for a long time.
    Slow,
    /// To the right document, elsewhere.
    Redirect,
    /// Ends in the middle.
    Cut,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            signer: Signer::Es256,
            discovery: |_| (),
            keys: |_| (),
            header: |_| (),
            claims: |_| (),
            token: |it| it,
            answer: |_| (),
            user_info: |_| (),
            back: |_| (),
            instead: None,
            obeys_prompt: true,
        }
    }
}

/// A user was sent to it, and came with this.
#[derive(Clone, Debug)]
struct Visit {
    query: HashMap<String, String>,
    used: bool,
}

struct State {
    address: String,
    behaviours: Mutex<HashMap<String, Behaviour>>,
    visits: Mutex<HashMap<String, Visit>>,
    requests: Mutex<HashMap<String, u32>>,
    es256: EcdsaKeyPair,
    other: EcdsaKeyPair,
    rs256: aws_lc_rs::signature::RsaKeyPair,
    small: PublicKeyComponents<Vec<u8>>,
}

#[derive(Clone)]
pub struct Provider {
    state: Arc<State>,
    _tasks: Arc<JoinSet<()>>,
}

fn ecdsa() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let small = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let small: PublicKeyComponents<Vec<u8>> = small.public_key().into();
        let state = Arc::new(State {
            address,
            behaviours: Mutex::default(),
            visits: Mutex::default(),
            requests: Mutex::default(),
            es256: ecdsa(),
            other: ecdsa(),
            rs256: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            small,
        });
        let served = state.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = served.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let state = state.clone();
                        async move { Ok::<_, Infallible>(state.answer(request).await) }
                    });
                    let _ended = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { state, _tasks: Arc::new(tasks) }
    }

    /// The issuer of a provider, and from now on its behaviour.
    pub fn behaves(&self, name: &str, behaviour: Behaviour) -> String {
        self.state.behaviours.lock().unwrap().insert(name.to_owned(), behaviour);
        self.issuer(name)
    }

    pub fn issuer(&self, name: &str) -> String {
        format!("{}/{name}", self.state.address)
    }

    /// How often an endpoint of a provider was asked.
    pub fn requests(&self, name: &str, endpoint: &str) -> u32 {
        self.state.requests.lock().unwrap().get(&format!("{name}/{endpoint}")).copied().unwrap_or(0)
    }

    /// A user is sent here and signs in: where they go back to.
    pub fn visit(&self, url: &Url) -> Url {
        let name = url.path().trim_matches('/').split('/').next().unwrap().to_owned();
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let code = format!("code-{}", uuid::Uuid::new_v4());
        let mut back = vec![
            ("code".to_owned(), code.clone()),
            ("state".to_owned(), query["state"].clone()),
            ("iss".to_owned(), self.issuer(&name)),
        ];
        let mut url = Url::parse(&query["redirect_uri"]).unwrap();
        self.state.visits.lock().unwrap().insert(code, Visit { query, used: false });
        (self.state.behaviour(&name).back)(&mut back);
        url.query_pairs_mut().extend_pairs(back);
        url
    }
}

impl State {
    fn behaviour(&self, name: &str) -> Behaviour {
        self.behaviours.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().trim_matches('/').to_owned();
        let (name, rest) = path.split_once('/').unwrap_or((&path, ""));
        *self.requests.lock().unwrap().entry(path.clone()).or_default() += 1;
        let behaviour = self.behaviour(name);
        if let Some((end, instead)) = behaviour.instead
            && rest.ends_with(end)
        {
            return instead_of(instead, &self.address).await;
        }
        let body = request.into_body().collect().await.map(|it| it.to_bytes()).unwrap_or_default();
        match rest {
            ".well-known/openid-configuration" => json_of(200, self.discovery(name, &behaviour)),
            "keys" => json_of(200, self.key_set(&behaviour)),
            "token" => self.token(name, &behaviour, &body),
            "userinfo" => {
                let mut info =
                    json!({ "sub": SUBJECT, "email": "alice@corp.example", "email_verified": true, "name": "Alice" });
                (behaviour.user_info)(&mut info);
                json_of(200, info)
            }
            _ => json_of(404, json!({})),
        }
    }

    fn discovery(&self, name: &str, behaviour: &Behaviour) -> Value {
        let at = |path: &str| format!("{}/{name}{path}", self.address);
        let mut document = json!({
            "issuer": at(""),
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/keys"),
            "userinfo_endpoint": at("/userinfo"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256"],
            "authorization_response_iss_parameter_supported": true,
        });
        (behaviour.discovery)(&mut document);
        document
    }

    fn key_set(&self, behaviour: &Behaviour) -> Value {
        let point = |key: &EcdsaKeyPair| {
            let public = key.public_key().as_ref();
            (URL_SAFE_NO_PAD.encode(&public[1..33]), URL_SAFE_NO_PAD.encode(&public[33..65]))
        };
        let ((x, y), (ex, ey)) = (point(&self.es256), point(&self.other));
        let rsa: PublicKeyComponents<Vec<u8>> = self.rs256.public_key().into();
        let rsa = (URL_SAFE_NO_PAD.encode(rsa.n), URL_SAFE_NO_PAD.encode(rsa.e));
        let mut keys = json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "alg": "ES256", "x": x, "y": y },
            { "kty": "RSA", "kid": "rsa", "use": "sig", "n": rsa.0, "e": rsa.1 },
            { "kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc", "x": ex, "y": ey },
            { "kty": "RSA", "kid": "short", "use": "sig", "n": URL_SAFE_NO_PAD.encode(&self.small.n[..128]), "e": "AQAB" },
            { "kty": "future", "kid": "unknown" },
        ]});
        (behaviour.keys)(&mut keys);
        keys
    }

    fn token(&self, name: &str, behaviour: &Behaviour, body: &[u8]) -> Response<Body> {
        let form: HashMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
        let refused = || json_of(400, json!({ "error": "invalid_grant" }));
        let visit = {
            let mut visits = self.visits.lock().unwrap();
            let Some(visit) = form.get("code").and_then(|it| visits.get_mut(it)) else { return refused() };
            let verifier = form.get("code_verifier").cloned().unwrap_or_default();
            let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
            let fits = !visit.used
                && visit.query["code_challenge"] == challenge
                && visit.query["code_challenge_method"] == "S256"
                && form.get("redirect_uri") == visit.query.get("redirect_uri")
                && form["grant_type"] == "authorization_code";
            if !fits {
                return refused();
            }
            visit.used = true;
            visit.clone()
        };
        let (access, now) = ("an access token", now_s());
        let again = visit.query.get("prompt").is_some_and(|it| it == "login") && behaviour.obeys_prompt;
        let hash = digest(&SHA256, access.as_bytes());
        let mut claims = json!({
            "iss": format!("{}/{name}", self.address),
            "sub": SUBJECT,
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "auth_time": if again { now } else { now - 3600 },
            "nonce": visit.query["nonce"],
            "at_hash": URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]),
            "preferred_username": "alice@corp.example",
            "email": "alice@corp.example",
            "email_verified": true,
            "name": "Alice",
        });
        if visit.query.contains_key("acr_values") {
            claims["amr"] = json!(["pwd", "mfa"]);
        }
        (behaviour.claims)(&mut claims);
        let token = (behaviour.token)(self.signed(behaviour, &claims));
        let mut answer =
            json!({ "access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": token });
        (behaviour.answer)(&mut answer);
        json_of(200, answer)
    }

    fn signed(&self, behaviour: &Behaviour, claims: &Value) -> String {
        let (algorithm, kid) = match behaviour.signer {
            Signer::Es256 | Signer::OtherKey => ("ES256", "ec"),
            Signer::Rs256 => ("RS256", "rsa"),
            Signer::None => ("none", "ec"),
            Signer::PublicKeyAsSecret | Signer::ClientSecret => ("HS256", "ec"),
            Signer::Encryption => ("ES256", "enc"),
        };
        let mut header = json!({ "alg": algorithm, "typ": "JWT", "kid": kid });
        (behaviour.header)(&mut header);
        let part = |it: &Value| URL_SAFE_NO_PAD.encode(it.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let ecdsa = |key: &EcdsaKeyPair| key.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec();
        let hmac = |secret: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes()).as_ref().to_vec()
        };
        let signature = match behaviour.signer {
            Signer::Es256 => ecdsa(&self.es256),
            Signer::OtherKey | Signer::Encryption => ecdsa(&self.other),
            Signer::Rs256 => {
                let mut signature = vec![0; self.rs256.public_modulus_len()];
                self.rs256.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
            Signer::None => vec![],
            Signer::PublicKeyAsSecret => hmac(self.es256.public_key().as_ref()),
            Signer::ClientSecret => hmac(b"a secret"),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[expect(clippy::disallowed_methods, reason = "tokens are of the real time")]
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn json_of(status: u16, body: Value) -> Response<Body> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(whole(body.to_string())).unwrap()
}

async fn instead_of(instead: Instead, address: &str) -> Response<Body> {
    let text = |status: StatusCode, text: String| Response::builder().status(status).body(whole(text)).unwrap();
    match instead {
        Instead::Status(status) => text(StatusCode::from_u16(status).unwrap(), "{}".into()),
        Instead::Text(it) => text(StatusCode::OK, it.into()),
        Instead::Huge => text(StatusCode::OK, format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20))),
        Instead::Slow => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            text(StatusCode::OK, "{}".into())
        }
        Instead::Redirect => {
            let location = format!("{address}/right/.well-known/openid-configuration");
            Response::builder().status(302).header(header::LOCATION, location).body(whole("")).unwrap()
        }
        Instead::Cut => {
            let parts = [Ok(Frame::data("{".into())), Err(io::Error::other("gone"))];
            Response::new(BodyExt::boxed(StreamBody::new(stream::iter(parts))))
        }
    }
}
