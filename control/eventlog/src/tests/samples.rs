//! Golden samples: recorded events of every kind and every shape it had, that
//! every later version must still read. `samples/KIND.hex` holds the payload,
//! `samples/KIND.txt` what it means; the next shape of a kind is `KIND.2`, and so
//! on. A new kind or shape is recorded by running the tests with
//! `POSTERN_RECORD_SAMPLES=1`; a recorded payload is never rewritten, and its
//! text only gains what a new field says when it is absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use model::{
    app::*,
    directory::Username,
    http_rules::*,
    keys::*,
    kinds::{AllSessionsEnded, Credentials, IdentityKey, ProviderSecret, TenantSettings},
    policy::{Grant, Minutes, Requirement, Selection, State},
    risk::*,
};
use proto::v1;

use super::*;
use crate::codec::Mark;

#[test]
fn every_recorded_event_is_still_read_and_means_what_it_meant() {
    let mut read = 0;
    for file in recorded() {
        let kind = file.split_once('#').map_or(file.as_str(), |(kind, _)| kind);
        let payload = decode_hex(&fs::read_to_string(sample(&file, "hex")).unwrap());
        let meaning = match Mark::decode(kind, &payload).unwrap() {
            Some(mark) => format!("{mark:#?}\n"),
            None => format!("{:#?}\n", Fact::decode(kind, &payload).unwrap_or_else(|it| panic!("{file}: {it:?}"))),
        };
        if recording() {
            fs::write(sample(&file, "txt"), &meaning).unwrap();
        }
        assert_eq!(meaning, fs::read_to_string(sample(&file, "txt")).unwrap(), "{file} means something else now");
        read += 1;
    }
    assert!(read > 60, "{read} samples");
}

#[test]
fn every_kind_has_a_recorded_sample_and_is_written_as_it_was() {
    let mut kinds = BTreeMap::<String, usize>::new();
    let facts = one_of_each().into_iter().map(|fact| fact.encode());
    let marks = marks().map(|mark| (mark.kind().to_owned(), mark.payload()));
    for (kind, payload) in facts.chain(marks) {
        let shape = kinds.entry(kind.clone()).or_insert_with(|| shapes_of_the_past(&kind));
        *shape += 1;
        let file = if *shape == 1 { kind.clone() } else { format!("{kind}#{shape}") };
        if recording() && !sample(&file, "hex").exists() {
            fs::write(sample(&file, "hex"), encode_hex(&payload)).unwrap();
        }
        let known = fs::read_to_string(sample(&file, "hex")).unwrap_or_else(|_| panic!("{file} has no sample"));
        assert_eq!(encode_hex(&payload), known, "{file}");
    }
    for kind in KindName::ALL.iter().filter(|it| it.as_str() != "toy") {
        for happened in ["put", "removed"] {
            let name = format!("{}.{happened}", kind.as_str());
            assert!(kinds.contains_key(&name), "{name} has no sample");
        }
    }
}

/// Recorded once, still read, and not written like this any more.
fn shapes_of_the_past(kind: &str) -> usize {
    match kind {
        // Lists without their scope.
        "policy.put" => 2,
        _ => 0,
    }
}

/// A rule for what is written now says nothing about what was written then.
#[test]
fn what_todays_rules_refuse_is_still_read() {
    for (file, field) in [
        ("AppChanged#3", "identity_headers.name"),
        ("AppChanged#4", "hsts"),
        ("UserChanged#2", "email"),
        ("PolicyChanged#2", "name"),
    ] {
        let kind = file.split_once('#').unwrap().0;
        let payload = decode_hex(&fs::read_to_string(sample(file, "hex")).unwrap());
        let Fact::State(event) = Fact::decode(kind, &payload).unwrap() else { panic!("{file}") };
        let mut snapshot = model::Snapshot::default();
        snapshot.apply(&TenantId::default_tenant(), event.clone(), 1);
        assert!(snapshot.tenant(&TenantId::default_tenant()).unwrap().contains(&event.key()));
        let Event::Put(object) = event else { panic!("{file}") };
        assert_eq!(object.check().unwrap_err().field, field);
    }
}

fn recorded() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap().map(|it| it.unwrap().path());
    let hex = files.filter(|it| it.extension().is_some_and(|it| it == "hex"));
    let mut names: Vec<_> = hex.map(|it| it.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")
}

fn sample(file: &str, extension: &str) -> PathBuf {
    folder().join(format!("{file}.{extension}"))
}

#[expect(clippy::disallowed_methods, reason = "recording is asked for by hand")]
fn recording() -> bool {
    std::env::var("POSTERN_RECORD_SAMPLES").is_ok()
}

#[test]
fn a_tenant_says_where_its_relays_are() {
    let relays = vec!["relay-1.example.com:443".to_owned(), "10.0.0.7:8443".to_owned()];
    let event = Event::put(TenantSettings { domain: "example.com".into(), public_port: 443, relays });
    let recorded = "0a0b6578616d706c652e636f6d10bb031a1772656c61792d312e6578616d706c652e636f6d3a3434331a0d31302e302e302e373a38343433";
    assert_eq!(Fact::decode("TenantChanged", &decode_hex(recorded)).unwrap(), Fact::State(event.clone()));
    assert_eq!(encode_hex(&Fact::State(event).encode().1).trim(), recorded);
}

/// The compiler asks for a sample of each new kind here.
#[expect(clippy::too_many_lines, reason = "one entry for each kind")]
fn one_of_each() -> Vec<Fact> {
    let id = Uuid::from_u128(0x0192_3456_789a_7bcd_8123_4567_89ab_cdef);
    let name = Name::parse("Wiki").unwrap();
    let app = App {
        id: AppId(id),
        name: name.clone(),
        external: ExternalUrl::parse("https://wiki.example.com/team/").unwrap(),
        origin: Origin::parse("https://wiki.internal:8443").unwrap(),
        group: ConnectorGroupId(id),
        pre_authentication: PreAuthentication::SignIn,
        identity_headers: vec![IdentityHeader {
            name: HeaderName::parse("X-Remote-User").unwrap(),
            claim: Claim::Username,
        }],
        assertion: true,
        connect_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(85),
        idle_timeout: Duration::from_secs(85),
        client_ca_pem: Default::default(),
        origin_ca_pem: "-----BEGIN CERTIFICATE-----".into(),
        origin_server_name: "wiki.internal".into(),
        staleness_max: Duration::from_secs(300),
        serve_when_stale: true,
        hidden: true,
        trusted_addresses: vec!["10.0.0.0/8".parse().unwrap()],
        host_header: HostHeader::Origin,
        encoded_slashes: true,
        http_rules: HttpRules::default(),
        segments: vec![],
        more_origins: vec![],
        health_path: None,
        sticky: false,
        origin_pins: vec![],
        owners: vec![],
        labels: Default::default(),
    };
    let http_rules = HttpRules {
        maintenance: true,
        home_path: LocalPath::parse("/team/start").unwrap(),
        hsts: Some(Hsts { max_age_s: 31_536_000, include_subdomains: true, preload: true }),
        cookie: CookieRules { same_site: SameSite::None, persistent: true, partitioned: true },
        cors: vec![CorsRule {
            path: LocalPath::parse("/api").unwrap(),
            origins: vec!["https://portal.example.com".into()],
            methods: vec!["PUT".into()],
            headers: vec!["x-app-*".into()],
            max_age_s: 600,
        }],
        request_headers: vec![HeaderRule::parse("X-Zone", HeaderAction::Set("outside".into())).unwrap()],
        response_headers: vec![HeaderRule::parse("Server", HeaderAction::Remove).unwrap()],
        translate: Translate::Everything,
        requests_per_minute: None,
        upgrades: vec![],
        passed_fields: vec![],
    };
    let segment = Segment {
        external: ExternalUrl::parse("https://*.wiki.example.com/").unwrap(),
        origin: Origin::parse("https://*.wiki.internal").unwrap(),
    };
    let changed = App {
        http_rules,
        segments: vec![segment],
        more_origins: vec![Origin::parse("https://wiki2.internal").unwrap()],
        health_path: Some(LocalPath::parse("/health").unwrap()),
        sticky: true,
        origin_pins: vec![Pin([7; 32])],
        ..app.clone()
    };
    let upgrading = HttpRules {
        upgrades: vec![UpgradeProtocol::parse("tcp/1").unwrap()],
        passed_fields: vec![FieldPattern::parse("X-Amz-*").unwrap()],
        ..HttpRules::default()
    };
    let changed_again = App { http_rules: upgrading, ..app.clone() };
    let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
    let group = ConnectorGroup { id: ConnectorGroupId(id), name: name.clone(), labels: labels.clone() };
    let connector = Connector {
        id: ConnectorId(id),
        name: name.clone(),
        group: group.id,
        public_key: vec![1, 2],
        join_token: JoinTokenId(id),
        revoked: false,
    };
    let policy = Policy {
        id: PolicyId(id),
        name: name.clone(),
        state: State::ReportOnly,
        people: Selection::only([Principal::User(UserId(id))]).except([Principal::Group(GroupId(id))]),
        apps: Selection::only([app.id]).except([app.id]),
        networks: Selection::only(["10.0.0.0/8".parse().unwrap()]).except(["2001:db8::/32".parse().unwrap()]),
        grant: Grant::RequireAny(BTreeSet::from([
            Requirement::Mfa,
            Requirement::SignInWithin(Minutes::parse(60).unwrap()),
        ])),
        labels: Default::default(),
    };
    let user = User {
        id: UserId(id),
        username: Username::parse("alice").unwrap(),
        display_name: "Alice".into(),
        email: "alice@example.com".into(),
        disabled: false,
        labels: Default::default(),
    };
    let people = Group { id: GroupId(id), name, labels };
    let principal = Principal::User(user.id);
    let puts: Vec<Object> = vec![
        TenantSettings { domain: "example.com".into(), public_port: 443, relays: vec![] }.into(),
        model::branding::Branding::recorded("Example", "#2f5d50", "mailto:help@example.com").into(),
        app.clone().into(),
        changed.into(),
        changed_again.into(),
        group.clone().into(),
        JoinToken { id: JoinTokenId(id), group: group.id, secret_hash: vec![3], expires: Timestamp(4) }.into(),
        connector.clone().into(),
        Connector { revoked: true, ..connector }.into(),
        Assignment { app: app.id, principal }.into(),
        policy.clone().into(),
        Policy { grant: Grant::Block, ..policy }.into(),
        RoleAssignment { user: user.id, role: Role::Owner }.into(),
        Key {
            id: "k1".into(),
            purpose: KeyPurpose::Session,
            active_from: Timestamp(10),
            public_key: vec![5],
            sealed: vec![(KeyHolder::Identity, vec![6])],
        }
        .into(),
        Certificate {
            id: CertificateId(id),
            hosts: vec!["*.example.com".into()],
            chain: vec![vec![7]],
            sealed_private_key: vec![8],
            expires: Timestamp(9),
            source: model::keys::Source::Own,
        }
        .into(),
        User { disabled: true, ..user.clone() }.into(),
        Credentials { user: user.id, password: vec![10], totp: vec![11] }.into(),
        Credential { user: user.id, proof: Proof::Totp, sealed: vec![11] }.into(),
        LinkedIdentity {
            identity: IdentityKey { issuer: "https://login.example.com/".into(), subject: "auth0|5f7c8ec7".into() },
            user: user.id,
        }
        .into(),
        IdentityProvider {
            id: ProviderId(id),
            name: Name::recorded("Example"),
            issuer: "https://login.example.com/realm".into(),
            client_id: "postern".into(),
            ca_pem: "-----BEGIN CERTIFICATE-----".into(),
            scopes: vec!["email".into()],
            domains: vec!["example.com".into()],
            create_users: true,
            username_claim: "email".into(),
            groups_claim: "roles".into(),
            groups: [("staff".to_owned(), people.id)].into(),
            mfa_values: vec!["mfa".into()],
            mfa_acr: "urn:mfa".into(),
            direct: true,
            disabled: true,
            labels: [("team".to_owned(), "web".to_owned())].into(),
        }
        .into(),
        ProviderSecret { provider: ProviderId(id), sealed: vec![19] }.into(),
        people.clone().into(),
        Membership { group: people.id, member: principal }.into(),
        SessionRevocation { session: SessionId(id), at: Timestamp(12) }.into(),
        UserRevocation { user: user.id, sessions_before: Timestamp(13), directory: 14 }.into(),
        AllSessionsEnded { before: Timestamp(18) }.into(),
        OutdatedTokens {
            slot: 3,
            directory: 15,
            users: [user.id, UserId(Uuid::max())].into(),
            everyone: 16,
            at: Timestamp(17),
        }
        .into(),
    ];
    let removed: BTreeSet<ObjectKey> = puts.iter().map(Object::key).collect();
    let states = puts.into_iter().map(Event::Put).chain(removed.into_iter().map(Event::Removed));
    let activities = [
        Activity::SignIn(v1::SignInAttempt {
            username: "alice".into(),
            outcome: "success".into(),
            ..Default::default()
        }),
        Activity::Access(v1::Access { request_id: "r1".into(), status: 200, ..Default::default() }),
        Activity::Accesses(v1::Accesses {
            accesses: vec![v1::Access { request_id: "r1".into(), status: 200, time_ms: 7, ..Default::default() }],
        }),
        Activity::Accesses(v1::Accesses { accesses: vec![judged_access(id)] }),
        Activity::Connector(v1::ConnectorActivity { what: "linked".into(), ..Default::default() }),
        Activity::Gap(v1::ActivityGap { writer: "relay".into(), dropped: 15 }),
    ];
    states.map(Fact::State).chain(activities.into_iter().map(Fact::Activity)).collect()
}

/// With every field of a judgement.
fn judged_access(id: Uuid) -> v1::Access {
    let judgement = v1::Judgement {
        groups: id.as_bytes().repeat(2).into(),
        groups_left_out: true,
        satisfied: vec!["mfa".into()],
        signed_in_ago_s: Some(0),
        directory: 5,
        risk: 6,
        verdict: v1::Verdict::Challenged.into(),
        missing: vec!["sign-in-within:60m".into()],
        blocked_by: id.to_string(),
    };
    v1::Access { request_id: "r2".into(), status: 303, time_ms: 8, judgement: Some(judgement), ..Default::default() }
}

fn marks() -> [Mark; 2] {
    let stream = "config".to_owned();
    [
        Mark::Checkpoint(v1::Checkpoint { stream: stream.clone(), position: 7, subjects: 5, root: vec![9; 32] }),
        Mark::Restored(v1::LogRestored { stream, epoch: 1_700_000_000_000 }),
    ]
}

fn encode_hex(bytes: &[u8]) -> String {
    proto::hex::encode(bytes) + "\n"
}

fn decode_hex(text: &str) -> Vec<u8> {
    let text = text.trim();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
