//! Golden samples: recorded events of every kind and every shape it had, that
//! every later version must still read. `samples/KIND.hex` holds the payload,
//! `samples/KIND.txt` what it means; the next shape of a kind is `KIND.2`, and so
//! on. A new kind or shape is recorded by running the tests with
//! `POSTERN_RECORD_SAMPLES=1`; a recorded payload is never rewritten, and its
//! text only gains what a new field says when it is absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use model::{
    app::*,
    directory::*,
    edge::*,
    keys::*,
    policy::{Control, Grant, State},
    risk::*,
};
use proto::v1;

use super::*;
use crate::codec::Mark;

#[test]
#[expect(clippy::disallowed_methods, reason = "recording is asked for by hand")]
fn every_kind_reads_its_recorded_sample() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let (mut kinds, mut shapes) = (BTreeMap::new(), 0);
    for fact in one_of_each() {
        let (kind, payload) = fact.encode();
        let shape: &mut usize = kinds.entry(kind).or_default();
        *shape += 1;
        shapes += 1;
        let file = if *shape == 1 { kind.to_owned() } else { format!("{kind}.{shape}") };
        let (hex, text) = (folder.join(format!("{file}.hex")), folder.join(format!("{file}.txt")));
        if std::env::var("POSTERN_RECORD_SAMPLES").is_ok() {
            if !hex.exists() {
                fs::write(&hex, encode_hex(&payload)).unwrap();
            }
            fs::write(&text, format!("{fact:#?}\n")).unwrap();
        }
        let recorded = fs::read_to_string(&hex).unwrap_or_else(|_| panic!("{file} has no recorded sample"));
        let read = Fact::decode(kind, &decode_hex(recorded.trim())).unwrap();
        assert_eq!(format!("{read:#?}\n"), fs::read_to_string(&text).unwrap(), "{file} means something else now");
        assert_eq!(read, fact, "{file}");
    }
    for mark in marks() {
        let (kind, payload) = (mark.kind(), mark.payload());
        assert!(kinds.insert(kind, 1).is_none(), "two samples of {kind}");
        shapes += 1;
        let hex = folder.join(format!("{kind}.hex"));
        if std::env::var("POSTERN_RECORD_SAMPLES").is_ok() {
            if !hex.exists() {
                fs::write(&hex, encode_hex(&payload)).unwrap();
            }
            fs::write(folder.join(format!("{kind}.txt")), format!("{mark:#?}\n")).unwrap();
        }
        let recorded = fs::read_to_string(&hex).unwrap_or_else(|_| panic!("{kind} has no recorded sample"));
        assert_eq!(Mark::decode(kind, &decode_hex(recorded.trim())).unwrap(), Some(mark), "{kind}");
    }
    let recorded = fs::read_dir(&folder)
        .unwrap()
        .filter(|it| it.as_ref().unwrap().path().extension().is_some_and(|it| it == "hex"));
    assert_eq!(recorded.count(), shapes, "a recorded kind is not read any more");
}

#[test]
fn a_tenant_says_where_its_relays_are() {
    let relays = vec!["relay-1.example.com:443".to_owned(), "10.0.0.7:8443".to_owned()];
    let event = Event::TenantChanged { domain: "example.com".into(), public_port: 443, relays };
    let recorded = "0a0b6578616d706c652e636f6d10bb031a1772656c61792d312e6578616d706c652e636f6d3a3434331a0d31302e302e302e373a38343433";
    assert_eq!(Fact::decode("TenantChanged", &decode_hex(recorded)).unwrap(), Fact::State(event.clone()));
    assert_eq!(encode_hex(&Fact::State(event).encode().1).trim(), recorded);
}

/// The compiler asks for a sample of each new kind here.
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
        edge: Edge::default(),
        segments: vec![],
        more_origins: vec![],
        health_path: None,
        sticky: false,
        origin_pins: vec![],
    };
    let edge = Edge {
        maintenance: true,
        home_path: LocalPath::parse("/team/start").unwrap(),
        hsts: Some(Hsts { max_age_s: 31_536_000, include_subdomains: true, preload: true }),
        cookie: CookieRules { same_site: SameSite::None, persistent: true, partitioned: true },
        cors: vec![
            CorsRule::parse(CorsText {
                path: "/api".into(),
                origins: vec!["https://portal.example.com".into()],
                methods: vec!["PUT".into()],
                headers: vec!["x-app-*".into()],
                max_age_s: 600,
            })
            .unwrap(),
        ],
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
        edge,
        segments: vec![segment],
        more_origins: vec![Origin::parse("https://wiki2.internal").unwrap()],
        health_path: Some(LocalPath::parse("/health").unwrap()),
        sticky: true,
        origin_pins: vec![Pin([7; 32])],
        ..app.clone()
    };
    let upgrading = Edge {
        upgrades: vec![UpgradeProtocol::parse("tcp/1").unwrap()],
        passed_fields: vec![FieldPattern::parse("X-Amz-*").unwrap()],
        ..Edge::default()
    };
    let changed_again = App { edge: upgrading, ..app.clone() };
    let group = ConnectorGroup { id: ConnectorGroupId(id), name: name.clone() };
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
        include: vec![Principal::Everyone],
        exclude: vec![Principal::Group(GroupId(id))],
        apps: BTreeSet::from([app.id]),
        exclude_apps: BTreeSet::from([app.id]),
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        exclude_networks: vec!["2001:db8::/32".parse().unwrap()],
        grant: Grant::RequireAny(BTreeSet::from([Control::Mfa])),
    };
    let user = User {
        id: UserId(id),
        username: Username::parse("alice").unwrap(),
        display_name: "Alice".into(),
        email: "alice@example.com".into(),
        disabled: false,
    };
    let people = Group { id: GroupId(id), name };
    let principal = Principal::User(user.id);
    let states = [
        Event::TenantChanged { domain: "example.com".into(), public_port: 443, relays: vec![] },
        Event::BrandingChanged(
            model::branding::Branding::parse("Example", "#2f5d50", "mailto:help@example.com").unwrap(),
        ),
        Event::AppPublished(Box::new(app.clone())),
        Event::AppChanged(Box::new(changed)),
        Event::AppChanged(Box::new(changed_again)),
        Event::AppRetired(app.id),
        Event::ConnectorGroupCreated(group.clone()),
        Event::ConnectorGroupChanged(group.clone()),
        Event::ConnectorGroupRetired(group.id),
        Event::JoinTokenIssued(JoinToken {
            id: JoinTokenId(id),
            group: group.id,
            secret_hash: vec![3],
            expires: Timestamp(4),
        }),
        Event::ConnectorEnrolled(connector.clone()),
        Event::ConnectorRevoked(Connector { revoked: true, ..connector }),
        Event::Assigned { app: app.id, principal },
        Event::Unassigned { app: app.id, principal },
        Event::PolicyCreated(policy.clone()),
        Event::PolicyChanged(Policy { grant: Grant::Block, ..policy.clone() }),
        Event::PolicyRemoved(policy.id),
        Event::RoleGranted { user: user.id, role: Role::Owner },
        Event::RoleWithdrawn { user: user.id },
        Event::KeyPublished(Key {
            id: "k1".into(),
            purpose: KeyPurpose::Session,
            active_from: Timestamp(10),
            public_key: vec![5],
            sealed: vec![(KeyHolder::Identity, vec![6])],
        }),
        Event::KeyRetired("k1".into()),
        Event::CertificateInstalled(Certificate {
            id: CertificateId(id),
            hosts: vec!["*.example.com".into()],
            chain: vec![vec![7]],
            sealed_private_key: vec![8],
            expires: Timestamp(9),
            source: model::keys::Source::Own,
        }),
        Event::CertificateRemoved(CertificateId(id)),
        Event::UserCreated(user.clone()),
        Event::UserChanged(User { disabled: true, ..user.clone() }),
        Event::UserRemoved(user.id),
        Event::CredentialsChanged(Credentials { user: user.id, password: vec![10], totp: vec![11] }),
        Event::GroupCreated(people.clone()),
        Event::GroupChanged(people.clone()),
        Event::GroupRemoved(people.id),
        Event::MemberAdded { group: people.id, member: principal },
        Event::MemberRemoved { group: people.id, member: principal },
        Event::SessionRevoked(SessionRevocation { session: SessionId(id), at: Timestamp(12) }),
        Event::UserRevoked(UserRevocation { user: user.id, sessions_before: Timestamp(13), directory: 14 }),
        Event::AllSessionsEnded { before: Timestamp(18) },
        Event::TokensOutdated(OutdatedTokens {
            slot: 3,
            directory: 15,
            users: [user.id, UserId(Uuid::max())].into(),
            everyone: 16,
            at: Timestamp(17),
        }),
    ];
    for event in &states {
        has_a_sample(event);
    }
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
        Activity::Connector(v1::ConnectorActivity { what: "linked".into(), ..Default::default() }),
        Activity::Gap(v1::ActivityGap { writer: "relay".into(), dropped: 15 }),
    ];
    states.into_iter().map(Fact::State).chain(activities.into_iter().map(Fact::Activity)).collect()
}

fn marks() -> [Mark; 2] {
    let stream = "config".to_owned();
    [
        Mark::Checkpoint(v1::Checkpoint { stream: stream.clone(), position: 7, subjects: 5, root: vec![9; 32] }),
        Mark::Restored(v1::LogRestored { stream, epoch: 1_700_000_000_000 }),
    ]
}

/// A new variant fails to compile here, and whoever adds it sees why.
fn has_a_sample(event: &Event) {
    match event {
        Event::TenantChanged { .. }
        | Event::BrandingChanged(_)
        | Event::AppPublished(_)
        | Event::AppChanged(_)
        | Event::AppRetired(_)
        | Event::ConnectorGroupCreated(_)
        | Event::ConnectorGroupChanged(_)
        | Event::ConnectorGroupRetired(_)
        | Event::JoinTokenIssued(_)
        | Event::ConnectorEnrolled(_)
        | Event::ConnectorRevoked(_)
        | Event::Assigned { .. }
        | Event::Unassigned { .. }
        | Event::PolicyCreated(_)
        | Event::PolicyChanged(_)
        | Event::PolicyRemoved(_)
        | Event::RoleGranted { .. }
        | Event::RoleWithdrawn { .. }
        | Event::KeyPublished(_)
        | Event::KeyRetired(_)
        | Event::CertificateInstalled(_)
        | Event::CertificateRemoved(_)
        | Event::UserCreated(_)
        | Event::UserChanged(_)
        | Event::UserRemoved(_)
        | Event::CredentialsChanged(_)
        | Event::GroupCreated(_)
        | Event::GroupChanged(_)
        | Event::GroupRemoved(_)
        | Event::MemberAdded { .. }
        | Event::MemberRemoved { .. }
        | Event::SessionRevoked(_)
        | Event::UserRevoked(_)
        | Event::TokensOutdated(_)
        | Event::AllSessionsEnded { .. } => {}
    }
}

fn encode_hex(bytes: &[u8]) -> String {
    proto::hex::encode(bytes) + "\n"
}

fn decode_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
