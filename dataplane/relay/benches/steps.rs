//! What each step of a request costs by itself, with a snapshot of 100,000
//! applications and 10,000 policies.
//!
//! `cargo bench -p relay` prints nanoseconds, and each as a share of one SHA-256
//! of 1 KiB in the same run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and stops when it cannot"
)]

use std::{hint::black_box, sync::Arc, time::Instant};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use bytes::Bytes;
use eventlog::{
    View,
    judgement::{self, Sources},
};
use http::{HeaderMap, HeaderValue, Request, header};
use model::{
    App, AppId, Assignment, ConnectorGroupId, Event, ExternalUrl, Facts, Origin, PolicyId, Principal, SessionId,
    Snapshot, TenantId, Timestamp, UserId,
    app::{Claim, HeaderName, IdentityHeader, Name},
    keys::{Key, KeyPurpose},
    kinds::TenantSettings,
    policy::{Grant, Policy, Selection},
    session::SessionClaims,
};
use proto::v1::Access;
use relay::{
    audience::{Audience, GroupNews},
    headers::{Added, forward},
    keys::Keys,
    session::{Sessions, cookie_name, presented},
};
use runtime::sealing::SealingKey;
use strict::canonical;
use uuid::Uuid;

const APPS: u128 = 100_000;
const POLICIES: u128 = 10_000;
const ROUNDS: usize = 7;
const LINKED_APPS: u128 = 6_200;
const LINKS: [u128; 2] = [3, 300];

#[expect(clippy::too_many_lines, reason = "one list of what is measured")]
fn main() {
    let tenant = TenantId::default_tenant();
    let (secret, public) = key();
    let mut snapshot = Snapshot::default();
    snapshot.apply(
        &tenant,
        Event::put(TenantSettings { domain: "example.com".into(), public_port: 443, relays: vec![] }),
        1,
    );
    let session_key = Key {
        id: "k".into(),
        purpose: KeyPurpose::Session,
        active_from: Timestamp(0),
        public_key: public,
        sealed: vec![],
    };
    snapshot.apply(&tenant, Event::put(session_key), 1);
    for n in 0..APPS {
        snapshot.apply(&tenant, Event::put(app(n)), 1);
        snapshot.apply(
            &tenant,
            Event::put(Assignment { app: AppId(Uuid::from_u128(n)), principal: Principal::Everyone }),
            1,
        );
    }
    for n in 0..POLICIES {
        snapshot.apply(&tenant, Event::put(blocking(n)), 1);
    }
    let mine = AppId(Uuid::from_u128(APPS / 2));
    let of_tenant = snapshot.tenant(&tenant).unwrap();
    let (host, path) = (format!("a{}.example.com", APPS / 2), "/wiki/page?a=b");
    let token = token(&secret, mine);
    let request = Request::builder()
        .uri(path)
        .header(header::HOST, &host)
        .header(header::ACCEPT, "text/html,application/xhtml+xml")
        .header(header::ACCEPT_ENCODING, "gzip, deflate, br")
        .header(header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140 Safari/537.36")
        .header(header::ACCEPT_LANGUAGE, "en,de;q=0.5")
        .header(header::COOKIE, format!("theme=dark; {}={token}", cookie_name(mine)))
        .body(())
        .unwrap();
    let (parts, ()) = request.into_parts();
    let read = canonical::parse(&parts, Some(&host)).unwrap();
    let keys = Keys::derive(&snapshot, &SealingKey::generate());
    let trusted = &keys.tenants[&tenant];
    let sessions = Sessions::default();
    let session = sessions.verify(&token, mine, &tenant, trusted).expect("a good token");
    let facts = Facts::new(mine, "192.0.2.7".parse().unwrap(), Some(session.signed_in()), Timestamp(0));
    assert!(of_tenant.authorize(&facts).is_ok());
    let published = of_tenant.app(mine).unwrap();
    let added = Added {
        origin: &published.origin,
        upgrade: None,
        peer: "192.0.2.7".parse().unwrap(),
        request_id: "01a2147947f270f196dafe4751b47283",
        traceparent: "00-01a2147947f270f196dafe4751b47283-0123456789abcdef-00",
        user: Some(&session.claims),
        assertion: Some("header.claims.signature"),
        client_cert: None,
        took_authorization: false,
    };
    let block = forward(&parts.headers, published, &read, &added).unwrap();
    let mut fields = HeaderMap::new();
    fields.insert("content-type", HeaderValue::from_static("text/html; charset=utf-8"));
    fields.insert("content-length", HeaderValue::from_static("1024"));
    let payload = Bytes::from(vec![7; 1024]);
    let kilobyte = [7; 1024];

    let yardstick = measure(|| digest(&SHA256, black_box(&kilobyte)));
    let line = |what: &str, nanoseconds: f64| {
        println!("{what:<58}{nanoseconds:>9.0} ns{:>9.2} x", nanoseconds / yardstick);
    };
    line("SHA-256 of 1 KiB, the yardstick", yardstick);
    line("read the request (canonical)", measure(|| canonical::parse(black_box(&parts), Some(&host))));
    line("find the application of 100,000", measure(|| snapshot.routes.find(black_box(&host), path)));
    line("find the session's token", measure(|| presented(black_box(&parts.headers), mine)));
    line("verify it again (remembered)", measure(|| sessions.verify(black_box(&token), mine, &tenant, trusted)));
    line("verify it the first time (ES256)", measure(|| Sessions::default().verify(&token, mine, &tenant, trusted)));
    line("judge by 10,000 policies", measure(|| of_tenant.authorize(black_box(&facts))));
    let decided = of_tenant.authorize(&facts);
    let mut access = Access { address: facts.address.to_string(), ..Access::default() };
    let record = measure(|| {
        let sources = Sources { groups: session.recorded_groups.clone(), directory: 1, risk: 1 };
        judgement::write(black_box(&mut access), &facts, sources, &decided);
    });
    line("record the judgement in the access", record);
    line("make the fields for the application", measure(|| forward(&parts.headers, published, &read, &added)));
    line("read a field block", measure(|| tunnel::fields::decode(black_box(&block))));
    line("write the fields of an answer", measure(|| tunnel::fields::encode(black_box(&fields))));
    line("frame 1 KiB for the tunnel", measure(|| tunnel::frame::Chunk::data(7, true, black_box(payload.clone()))));
    let mut next = snapshot.clone();
    let mut n = 0;
    let update = measure(|| {
        n += 1;
        next.apply(&tenant, Event::put(app(n % APPS)), 2);
    });
    line("fold a changed application into a snapshot in use", update);
    for links in LINKS {
        let what = format!("tell {links} links of one of 6,200 applications that changed");
        line(&what, tell_links(links));
    }
}

/// One change until every link knows what is news to it: the connectors' groups
/// have their share of the applications each.
fn tell_links(links: u128) -> f64 {
    let tenant = TenantId::default_tenant();
    let mut view = View {
        snapshot: Arc::default(),
        confirmed: Instant::now(),
        quarantine: None,
        signed_apps: Arc::default(),
        signed_tenants: Arc::default(),
        signed_keys: Arc::default(),
    };
    let publish = |view: &mut View, n: u128, version: u64| {
        let app = App { group: ConnectorGroupId(Uuid::from_u128(n % links)), ..app(n) };
        let signed = Bytes::from(format!("{version}").repeat(200));
        Arc::make_mut(&mut view.signed_apps).insert(app.id, signed);
        Arc::make_mut(&mut view.snapshot).apply(&tenant, Event::put(app), version);
    };
    for n in 0..LINKED_APPS {
        publish(&mut view, n, 1);
    }
    let audience = Audience::default();
    audience.tell(&view);
    let group = |n| audience.of_group(&TenantId::default_tenant(), ConnectorGroupId(Uuid::from_u128(n)));
    let mut following: Vec<_> = (0..links).map(|n| (group(n), GroupNews::default())).collect();
    let mut version = 1;
    let mut tell = || {
        version += 1;
        publish(&mut view, u128::from(version) * 7 % LINKED_APPS, version);
        let started = Instant::now();
        audience.tell(&view);
        for (news, told) in &mut following {
            if news.has_changed().unwrap() {
                let now = news.borrow_and_update().clone();
                black_box(now.apps_since(told));
                *told = now;
            }
        }
        started.elapsed().as_secs_f64() * 1e9
    };
    tell();
    let mut changes: Vec<f64> = (0..1_000).map(|_| tell()).collect();
    changes.sort_by(f64::total_cmp);
    changes[changes.len() / 2]
}

/// The median of several rounds, each long enough to be measured.
fn measure<T>(mut step: impl FnMut() -> T) -> f64 {
    let started = Instant::now();
    let mut warm = 0u32;
    while started.elapsed().as_millis() < 50 {
        black_box(step());
        warm += 1;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..warm {
                black_box(step());
            }
            started.elapsed().as_secs_f64() * 1e9 / f64::from(warm)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn app(n: u128) -> App {
    let name = Name::parse(&format!("app {n}")).unwrap();
    let external = ExternalUrl::parse(&format!("https://a{n}.example.com/")).unwrap();
    let origin = Origin::parse(&format!("http://10.0.0.1:{}", 1 + n % 60_000)).unwrap();
    let header = IdentityHeader { name: HeaderName::parse("X-Remote-User").unwrap(), claim: Claim::Username };
    let plain = App::new(AppId(Uuid::from_u128(n)), name, external, origin, ConnectorGroupId(Uuid::from_u128(1)));
    App { identity_headers: vec![header], assertion: true, ..plain }
}

/// Twenty for every application, the rest for one each.
fn blocking(n: u128) -> Policy {
    let apps = if n < 20 { Selection::default() } else { Selection::only([AppId(Uuid::from_u128(n))]) };
    let networks = Selection::only([format!("10.{}.0.0/16", n % 256).parse().unwrap()]);
    let name = Name::parse(&format!("policy {n}")).unwrap();
    Policy { apps, networks, ..Policy::new(PolicyId(Uuid::from_u128(n)), name, Grant::Block) }
}

fn key() -> (Vec<u8>, Vec<u8>) {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    (pkcs8.as_ref().to_vec(), pair.public_key().as_ref().to_vec())
}

fn token(secret: &[u8], app: AppId) -> String {
    let claims = SessionClaims {
        iss: "https://login.example.com".into(),
        aud: app.to_string(),
        sub: UserId(Uuid::from_u128(3)),
        sid: SessionId(Uuid::from_u128(4)),
        iat: 0,
        exp: 4_000_000_000,
        started_ms: 0,
        directory: 1,
        satisfied: Default::default(),
        amr: vec!["pwd".into()],
        tenant: TenantId::default_tenant(),
        preferred_username: "alice".into(),
        name: "Alice".into(),
        email: "alice@example.com".into(),
        groups: vec![],
        groups_left_out: false,
        group_names: vec![],
        nonce: None,
    };
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some("k".into());
    jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_ec_der(secret)).unwrap()
}
