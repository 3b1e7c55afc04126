//! Between the wire and the model: each resource both ways.
//!
//! What comes from the wire is judged here, field by field, so that inside
//! nobody checks again. The admin API and the event codec share this module.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32, str::FromStr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use model::{
    app::{self, HeaderName, IdentityHeader, Invalid, Name, Pin, PreAuthentication, Segment},
    branding::Branding,
    directory::Username,
    edge::{
        self, CookieRules, CorsRule, CorsText, Edge, FieldPattern, HeaderAction, HeaderRule, Hsts, LocalPath, SameSite,
        Translate, UpgradeProtocol,
    },
    keys::{AcmeMethod, Certificate, Key, KeyHolder, KeyPurpose, Source},
    policy::{Control, Grant, State},
    risk::{self, OutdatedTokens, SessionRevocation, UserRevocation},
    *,
};
use proto::v1;
use thiserror::Error;

/// A field that is not what it should be, and what it should be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct FieldError {
    pub field: &'static str,
    pub problem: String,
}

pub type Parsed<T> = Result<T, FieldError>;

/// Names the field in an error about its value.
pub trait InField<T> {
    fn in_field(self, field: &'static str) -> Parsed<T>;
}

impl<T, E: std::fmt::Display> InField<T> for Result<T, E> {
    fn in_field(self, field: &'static str) -> Parsed<T> {
        self.map_err(|problem| FieldError { field, problem: problem.to_string() })
    }
}

pub fn parse<T: FromStr<Err: std::fmt::Display>>(field: &'static str, text: &str) -> Parsed<T> {
    T::from_str(text).in_field(field)
}

fn parse_all<T: FromStr<Err: std::fmt::Display>, C: FromIterator<T>>(
    field: &'static str,
    texts: &[String],
) -> Parsed<C> {
    texts.iter().map(|text| parse(field, text)).collect()
}

/// A network may be written as one address.
fn parse_networks(field: &'static str, texts: &[String]) -> Parsed<Vec<IpNet>> {
    let network = |text: &String| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    texts.iter().map(|text| network(text).map_err(|_| bad(field, "is not a network such as 10.0.0.0/8"))).collect()
}

fn bad(field: &'static str, problem: &str) -> FieldError {
    FieldError { field, problem: problem.to_owned() }
}

fn strings<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|it| it.to_string()).collect()
}

fn millis_or(value: u32, default: Duration) -> Duration {
    match value {
        0 => default,
        ms => Duration::from_millis(ms.into()),
    }
}

/// A PEM bundle of at most this many bytes.
const CA_PEM_BYTES_MAX: usize = 64 * 1024;

pub fn app_from(wire: v1::App) -> Parsed<App> {
    let pre_authentication = match wire.pre_authentication() {
        v1::PreAuthentication::SignIn => PreAuthentication::SignIn,
        v1::PreAuthentication::Passthrough => PreAuthentication::Passthrough,
    };
    let host_header = match wire.host_header() {
        v1::HostHeader::External => app::HostHeader::External,
        v1::HostHeader::Origin => app::HostHeader::Origin,
    };
    let header = |it: &v1::IdentityHeader| {
        Ok(IdentityHeader {
            name: HeaderName::parse(&it.name).in_field("identity_headers.name")?,
            claim: claim_from(it.claim()).ok_or(bad("identity_headers.claim", "is missing"))?,
        })
    };
    for (field, pem) in [("origin_ca_pem", &wire.origin_ca_pem), ("client_ca_pem", &wire.client_ca_pem)] {
        let fits = pem.len() <= CA_PEM_BYTES_MAX && pem.contains("-----BEGIN CERTIFICATE-----");
        if !pem.is_empty() && !fits {
            return Err(bad(field, "must hold PEM certificates, 64 KiB at most"));
        }
    }
    let edge = edge_from(&wire)?;
    let external = ExternalUrl::parse(&wire.external_url).in_field("external_url")?;
    if !wire.home_path.is_empty() && wire.home_path != "/" && !external.covers(&wire.home_path) {
        return Err(bad("home_path", "is outside the path of external_url"));
    }
    let is_identity =
        |rule: &HeaderRule| wire.identity_headers.iter().any(|it| it.name.eq_ignore_ascii_case(rule.name.as_str()));
    if edge.request_headers.iter().any(is_identity) {
        return Err(bad("request_headers", "names an identity header, which only the user's session fills"));
    }
    let origin = origin_behind(&external, &wire.origin, "origin")?;
    let (segments, more_origins) = (segments_from(&wire)?, more_origins_from(&wire, &origin)?);
    let health_path = match wire.health_path.as_str() {
        "" => None,
        path => Some(LocalPath::parse(path).in_field("health_path")?),
    };
    let origin_pins = wire.origin_pins.iter().map(|it| pin_from(it)).collect::<Parsed<Vec<_>>>()?;
    if !origin_pins.is_empty() && origin.scheme != app::Scheme::Https {
        return Err(bad("origin_pins", "is for https origins: others have no key to pin"));
    }
    Ok(App {
        id: parse("id", &wire.id)?,
        name: Name::parse(&wire.name).in_field("name")?,
        external,
        origin,
        group: parse("connector_group", &wire.connector_group)?,
        pre_authentication,
        identity_headers: wire.identity_headers.iter().map(header).collect::<Parsed<_>>()?,
        assertion: wire.assertion,
        connect_timeout: millis_or(wire.connect_timeout_ms, app::CONNECT_TIMEOUT),
        response_timeout: millis_or(wire.response_timeout_ms, app::RESPONSE_TIMEOUT),
        idle_timeout: millis_or(wire.idle_timeout_ms, app::IDLE_TIMEOUT),
        origin_ca_pem: wire.origin_ca_pem,
        client_ca_pem: wire.client_ca_pem.into(),
        origin_server_name: wire.origin_server_name,
        staleness_max: match wire.staleness_max_s {
            0 => app::STALENESS_MAX,
            seconds => Duration::from_secs(seconds.into()),
        },
        serve_when_stale: wire.serve_when_stale,
        hidden: wire.hidden,
        trusted_addresses: parse_networks("trusted_addresses", &wire.trusted_addresses)?,
        host_header,
        encoded_slashes: wire.encoded_slashes,
        edge,
        segments,
        more_origins,
        health_path,
        sticky: wire.sticky,
        origin_pins,
    })
}

const SEGMENTS_MAX: usize = 64;
const ORIGINS_MAX: usize = 64;

/// `*` inside needs `*` outside: something must say what it stands for.
fn origin_behind(external: &ExternalUrl, origin: &str, field: &'static str) -> Parsed<Origin> {
    let origin = Origin::parse(origin).in_field(field)?;
    match origin.is_wildcard() && !external.is_wildcard() {
        true => Err(bad(field, "has a * that the external URL does not have")),
        false => Ok(origin),
    }
}

fn segments_from(wire: &v1::App) -> Parsed<Vec<Segment>> {
    if wire.segments.len() > SEGMENTS_MAX {
        return Err(bad("segments", "has 64 addresses at most"));
    }
    let segment = |it: &v1::Segment| {
        let external = ExternalUrl::parse(&it.external_url).in_field("segments.external_url")?;
        let origin = origin_behind(&external, &it.origin, "segments.origin")?;
        Ok(Segment { external, origin })
    };
    wire.segments.iter().map(segment).collect()
}

fn more_origins_from(wire: &v1::App, origin: &Origin) -> Parsed<Vec<Origin>> {
    if wire.more_origins.len() >= ORIGINS_MAX {
        return Err(bad("more_origins", "has 63 origins at most"));
    }
    let more = |text: &String| {
        let it = Origin::parse(text).in_field("more_origins")?;
        match it.scheme == origin.scheme && !it.is_wildcard() && !origin.is_wildcard() {
            true => Ok(it),
            false => Err(bad("more_origins", "have the scheme of origin, and none of them a *")),
        }
    };
    wire.more_origins.iter().map(more).collect()
}

fn pin_from(text: &str) -> Parsed<Pin> {
    let bytes = STANDARD.decode(text).ok().and_then(|it| it.try_into().ok());
    bytes
        .map(Pin)
        .ok_or(bad("origin_pins", "is a SHA-256 in base64, as `openssl dgst -sha256 -binary | base64` prints"))
}

fn edge_from(wire: &v1::App) -> Parsed<Edge> {
    let same_site = match wire.cookie_same_site() {
        v1::SameSite::Lax => SameSite::Lax,
        v1::SameSite::Strict => SameSite::Strict,
        v1::SameSite::None => SameSite::None,
    };
    if wire.cookie_partitioned && same_site != SameSite::None {
        return Err(bad("cookie_partitioned", "needs cookie_same_site none: other cookies are not sent into frames"));
    }
    let counts = [
        ("cors", wire.cors.len()),
        ("request_headers", wire.request_headers.len()),
        ("response_headers", wire.response_headers.len()),
    ];
    for (field, count) in counts {
        if count > edge::RULES_MAX {
            return Err(bad(field, "has 64 rules at most"));
        }
    }
    let cors = wire.cors.iter().map(|it| {
        CorsRule::parse(CorsText {
            path: it.path.clone(),
            origins: it.origins.clone(),
            methods: it.methods.clone(),
            headers: it.headers.clone(),
            max_age_s: it.max_age_s,
        })
        .in_field("cors")
    });
    Ok(Edge {
        maintenance: wire.maintenance,
        requests_per_minute: NonZeroU32::new(wire.requests_per_minute),
        home_path: LocalPath::parse(&wire.home_path).in_field("home_path")?,
        hsts: wire.hsts.as_ref().map(hsts_from).transpose()?,
        cookie: CookieRules { same_site, persistent: wire.cookie_persistent, partitioned: wire.cookie_partitioned },
        cors: cors.collect::<Parsed<_>>()?,
        request_headers: header_rules("request_headers", &wire.request_headers)?,
        response_headers: header_rules("response_headers", &wire.response_headers)?,
        translate: match wire.translate() {
            v1::Translate::Headers => Translate::Headers,
            v1::Translate::Pages => Translate::Pages,
            v1::Translate::Everything => Translate::Everything,
        },
        upgrades: at_most("upgrades", &wire.upgrades, UPGRADES_MAX)?
            .map(|it| UpgradeProtocol::parse(it).in_field("upgrades"))
            .collect::<Parsed<_>>()?,
        passed_fields: at_most("passed_fields", &wire.passed_fields, edge::RULES_MAX)?
            .map(|it| FieldPattern::parse(it).in_field("passed_fields"))
            .collect::<Parsed<_>>()?,
    })
}

const UPGRADES_MAX: usize = 16;

fn at_most<'a, T>(field: &'static str, items: &'a [T], most: usize) -> Parsed<std::slice::Iter<'a, T>> {
    match items.len() <= most {
        true => Ok(items.iter()),
        false => Err(bad(field, "has more entries than are allowed")),
    }
}

/// The preload list asks for a year and for subdomains.
const PRELOAD_AGE_S: u32 = 31_536_000;

fn hsts_from(wire: &v1::Hsts) -> Parsed<Hsts> {
    let ready = wire.max_age_s >= PRELOAD_AGE_S && wire.include_subdomains;
    if wire.preload && !ready {
        return Err(bad("hsts", "preload needs include_subdomains and max_age_s of 31536000 or more"));
    }
    Ok(Hsts { max_age_s: wire.max_age_s, include_subdomains: wire.include_subdomains, preload: wire.preload })
}

fn header_rules(field: &'static str, rules: &[v1::HeaderRule]) -> Parsed<Vec<HeaderRule>> {
    let rule = |it: &v1::HeaderRule| {
        let action = match it.action() {
            v1::HeaderAction::Set => HeaderAction::Set(it.value.as_str().into()),
            v1::HeaderAction::Add => HeaderAction::Add(it.value.as_str().into()),
            v1::HeaderAction::Remove if it.value.is_empty() => HeaderAction::Remove,
            v1::HeaderAction::Remove => return Err(bad(field, "remove takes no value")),
        };
        HeaderRule::parse(&it.name, action).in_field(field)
    };
    rules.iter().map(rule).collect()
}

fn header_rules_to(rules: &[HeaderRule]) -> Vec<v1::HeaderRule> {
    let rule = |it: &HeaderRule| {
        let (action, value) = match &it.action {
            HeaderAction::Set(value) => (v1::HeaderAction::Set, value.to_string()),
            HeaderAction::Add(value) => (v1::HeaderAction::Add, value.to_string()),
            HeaderAction::Remove => (v1::HeaderAction::Remove, String::new()),
        };
        v1::HeaderRule { name: it.name.as_str().to_owned(), action: action.into(), value }
    };
    rules.iter().map(rule).collect()
}

fn cors_to(rule: &CorsRule) -> v1::CorsRule {
    v1::CorsRule {
        path: rule.path.as_str().to_owned(),
        origins: strings(&rule.origins),
        methods: strings(&rule.methods),
        headers: strings(&rule.headers),
        max_age_s: rule.max_age_s,
    }
}

pub fn app_to(app: &App) -> v1::App {
    let pre_authentication = match app.pre_authentication {
        PreAuthentication::SignIn => v1::PreAuthentication::SignIn,
        PreAuthentication::Passthrough => v1::PreAuthentication::Passthrough,
    };
    let header = |it: &IdentityHeader| v1::IdentityHeader {
        name: it.name.as_str().to_owned(),
        claim: claim_to(it.claim).into(),
    };
    v1::App {
        id: app.id.to_string(),
        name: app.name.to_string(),
        external_url: app.external.to_string(),
        origin: app.origin.to_string(),
        connector_group: app.group.to_string(),
        pre_authentication: pre_authentication.into(),
        identity_headers: app.identity_headers.iter().map(header).collect(),
        assertion: app.assertion,
        connect_timeout_ms: app.connect_timeout.as_millis() as u32,
        response_timeout_ms: app.response_timeout.as_millis() as u32,
        idle_timeout_ms: app.idle_timeout.as_millis() as u32,
        origin_ca_pem: app.origin_ca_pem.clone(),
        client_ca_pem: app.client_ca_pem.to_string(),
        origin_server_name: app.origin_server_name.clone(),
        staleness_max_s: app.staleness_max.as_secs() as u32,
        serve_when_stale: app.serve_when_stale,
        hidden: app.hidden,
        trusted_addresses: strings(&app.trusted_addresses),
        host_header: match app.host_header {
            app::HostHeader::External => v1::HostHeader::External.into(),
            app::HostHeader::Origin => v1::HostHeader::Origin.into(),
        },
        encoded_slashes: app.encoded_slashes,
        upgrades: app.edge.upgrades.iter().map(|it| it.as_str().to_owned()).collect(),
        passed_fields: app.edge.passed_fields.iter().map(|it| it.as_str().to_owned()).collect(),
        maintenance: app.edge.maintenance,
        requests_per_minute: app.edge.requests_per_minute.map_or(0, NonZeroU32::get),
        home_path: app.edge.home_path.as_str().to_owned(),
        hsts: app.edge.hsts.map(|it| v1::Hsts {
            max_age_s: it.max_age_s,
            include_subdomains: it.include_subdomains,
            preload: it.preload,
        }),
        cookie_same_site: match app.edge.cookie.same_site {
            SameSite::Lax => v1::SameSite::Lax.into(),
            SameSite::Strict => v1::SameSite::Strict.into(),
            SameSite::None => v1::SameSite::None.into(),
        },
        cookie_persistent: app.edge.cookie.persistent,
        cookie_partitioned: app.edge.cookie.partitioned,
        cors: app.edge.cors.iter().map(cors_to).collect(),
        request_headers: header_rules_to(&app.edge.request_headers),
        response_headers: header_rules_to(&app.edge.response_headers),
        translate: match app.edge.translate {
            Translate::Headers => v1::Translate::Headers.into(),
            Translate::Pages => v1::Translate::Pages.into(),
            Translate::Everything => v1::Translate::Everything.into(),
        },
        segments: app
            .segments
            .iter()
            .map(|it| v1::Segment { external_url: it.external.to_string(), origin: it.origin.to_string() })
            .collect(),
        more_origins: strings(&app.more_origins),
        health_path: app.health_path.as_ref().map_or(String::new(), |it| it.as_str().to_owned()),
        sticky: app.sticky,
        origin_pins: app.origin_pins.iter().map(|it| STANDARD.encode(it.0)).collect(),
    }
}

fn claim_from(claim: v1::Claim) -> Option<app::Claim> {
    match claim {
        v1::Claim::Unspecified => None,
        v1::Claim::Username => Some(app::Claim::Username),
        v1::Claim::Email => Some(app::Claim::Email),
        v1::Claim::DisplayName => Some(app::Claim::DisplayName),
        v1::Claim::UserId => Some(app::Claim::UserId),
        v1::Claim::Groups => Some(app::Claim::Groups),
    }
}

fn claim_to(claim: app::Claim) -> v1::Claim {
    match claim {
        app::Claim::Username => v1::Claim::Username,
        app::Claim::Email => v1::Claim::Email,
        app::Claim::DisplayName => v1::Claim::DisplayName,
        app::Claim::UserId => v1::Claim::UserId,
        app::Claim::Groups => v1::Claim::Groups,
    }
}

pub fn connector_group_from(wire: v1::ConnectorGroup) -> Parsed<ConnectorGroup> {
    Ok(ConnectorGroup { id: parse("id", &wire.id)?, name: Name::parse(&wire.name).in_field("name")? })
}

pub fn connector_group_to(group: &ConnectorGroup) -> v1::ConnectorGroup {
    v1::ConnectorGroup { id: group.id.to_string(), name: group.name.to_string() }
}

pub fn connector_from(wire: v1::Connector) -> Parsed<Connector> {
    Ok(Connector {
        id: parse("id", &wire.id)?,
        name: Name::parse(&wire.name).in_field("name")?,
        group: parse("group", &wire.group)?,
        public_key: wire.public_key,
        join_token: parse("join_token", &wire.join_token)?,
        revoked: wire.revoked,
    })
}

pub fn connector_to(connector: &Connector) -> v1::Connector {
    v1::Connector {
        id: connector.id.to_string(),
        name: connector.name.to_string(),
        group: connector.group.to_string(),
        public_key: connector.public_key.clone(),
        join_token: connector.join_token.to_string(),
        revoked: connector.revoked,
    }
}

pub fn join_token_from(wire: v1::JoinToken) -> Parsed<JoinToken> {
    Ok(JoinToken {
        id: parse("id", &wire.id)?,
        group: parse("group", &wire.group)?,
        secret_hash: wire.secret_hash,
        expires: Timestamp(wire.expires_ms),
    })
}

pub fn join_token_to(token: &JoinToken) -> v1::JoinToken {
    v1::JoinToken {
        id: token.id.to_string(),
        group: token.group.to_string(),
        secret_hash: token.secret_hash.clone(),
        expires_ms: token.expires.0,
    }
}

pub fn user_from(wire: v1::User) -> Parsed<User> {
    let fits = |text: &str| text.len() <= 256 && !text.chars().any(char::is_control);
    if !fits(&wire.display_name) {
        return Err(bad("display_name", "has at most 256 bytes and no control characters"));
    }
    if !fits(&wire.email) || !(wire.email.is_empty() || wire.email.contains('@')) {
        return Err(bad("email", "is not an address such as alice@example.com"));
    }
    Ok(User {
        id: parse("id", &wire.id)?,
        username: Username::parse(&wire.username).in_field("username")?,
        display_name: wire.display_name.into(),
        email: wire.email.into(),
        disabled: wire.disabled,
    })
}

pub fn user_to(user: &User) -> v1::User {
    v1::User {
        id: user.id.to_string(),
        username: user.username.as_str().to_owned(),
        display_name: user.display_name.to_string(),
        email: user.email.to_string(),
        disabled: user.disabled,
    }
}

pub fn credentials_from(wire: v1::Credentials) -> Parsed<Credentials> {
    Ok(Credentials { user: parse("user", &wire.user)?, password: wire.password, totp: wire.totp })
}

pub fn credentials_to(it: &Credentials) -> v1::Credentials {
    v1::Credentials { user: it.user.to_string(), password: it.password.clone(), totp: it.totp.clone() }
}

pub fn group_from(wire: v1::Group) -> Parsed<Group> {
    Ok(Group { id: parse("id", &wire.id)?, name: Name::parse(&wire.name).in_field("name")? })
}

pub fn group_to(group: &Group) -> v1::Group {
    v1::Group { id: group.id.to_string(), name: group.name.to_string() }
}

pub fn policy_from(wire: v1::Policy) -> Parsed<Policy> {
    let state = match wire.state() {
        v1::PolicyState::On => State::On,
        v1::PolicyState::Off => State::Off,
        v1::PolicyState::ReportOnly => State::ReportOnly,
    };
    let controls = wire
        .require()
        .map(|control| match control {
            v1::Control::Mfa => Ok(Control::Mfa),
            v1::Control::Unspecified => Err(bad("require", "has an unknown control; known: mfa")),
        })
        .collect::<Parsed<BTreeSet<_>>>()?;
    let grant = match (wire.block, controls.is_empty(), wire.require_any) {
        (true, true, _) => Grant::Block,
        (true, false, _) => return Err(bad("block", "cannot be combined with require; make two policies")),
        (false, true, _) => return Err(bad("require", "is empty: say block, or what to require")),
        (false, false, true) => Grant::RequireAny(controls),
        (false, false, false) => Grant::RequireAll(controls),
    };
    Ok(Policy {
        id: parse("id", &wire.id)?,
        name: Name::parse(&wire.name).in_field("name")?,
        state,
        include: parse_all("include", &wire.include)?,
        exclude: parse_all("exclude", &wire.exclude)?,
        apps: parse_all("apps", &wire.apps)?,
        exclude_apps: parse_all("exclude_apps", &wire.exclude_apps)?,
        networks: parse_networks("networks", &wire.networks)?,
        exclude_networks: parse_networks("exclude_networks", &wire.exclude_networks)?,
        grant,
    })
}

pub fn policy_to(policy: &Policy) -> v1::Policy {
    let (block, controls, require_any) = match &policy.grant {
        Grant::Block => (true, &BTreeSet::new(), false),
        Grant::RequireAll(controls) => (false, controls, false),
        Grant::RequireAny(controls) => (false, controls, true),
    };
    v1::Policy {
        id: policy.id.to_string(),
        name: policy.name.to_string(),
        state: policy_state_to(policy.state).into(),
        include: strings(&policy.include),
        exclude: strings(&policy.exclude),
        apps: strings(&policy.apps),
        exclude_apps: strings(&policy.exclude_apps),
        networks: strings(&policy.networks),
        exclude_networks: strings(&policy.exclude_networks),
        block,
        require: controls.iter().map(|it| control_to(*it).into()).collect(),
        require_any,
    }
}

pub fn policy_state_to(state: State) -> v1::PolicyState {
    match state {
        State::On => v1::PolicyState::On,
        State::Off => v1::PolicyState::Off,
        State::ReportOnly => v1::PolicyState::ReportOnly,
    }
}

pub fn control_to(control: Control) -> v1::Control {
    match control {
        Control::Mfa => v1::Control::Mfa,
    }
}

pub fn role_from(role: v1::Role) -> Option<Role> {
    match role {
        v1::Role::Unspecified => None,
        v1::Role::Auditor => Some(Role::Auditor),
        v1::Role::Admin => Some(Role::Admin),
        v1::Role::Owner => Some(Role::Owner),
    }
}

pub fn role_to(role: Role) -> v1::Role {
    match role {
        Role::Auditor => v1::Role::Auditor,
        Role::Admin => v1::Role::Admin,
        Role::Owner => v1::Role::Owner,
    }
}

pub fn key_from(wire: v1::Key) -> Parsed<Key> {
    let purpose = match wire.purpose() {
        v1::KeyPurpose::Session => KeyPurpose::Session,
        v1::KeyPurpose::Assertion => KeyPurpose::Assertion,
        v1::KeyPurpose::Authority => KeyPurpose::Authority,
        v1::KeyPurpose::RelaySecret => KeyPurpose::RelaySecret,
        v1::KeyPurpose::AcmeAccount => KeyPurpose::AcmeAccount,
        v1::KeyPurpose::Unspecified => return Err(bad("purpose", "is unknown")),
    };
    let sealed = |it: v1::SealedKey| {
        let holder = match it.holder() {
            v1::KeyHolder::Relay => KeyHolder::Relay,
            v1::KeyHolder::Identity => KeyHolder::Identity,
            v1::KeyHolder::Controller => KeyHolder::Controller,
            v1::KeyHolder::Unspecified => return Err(bad("sealed.holder", "is unknown")),
        };
        Ok((holder, it.ciphertext))
    };
    let sealed = wire.sealed.into_iter().map(sealed).collect::<Parsed<_>>()?;
    Ok(Key { id: wire.id, purpose, active_from: Timestamp(wire.active_from_ms), public_key: wire.public_key, sealed })
}

pub fn key_to(key: &Key) -> v1::Key {
    let purpose = match key.purpose {
        KeyPurpose::Session => v1::KeyPurpose::Session,
        KeyPurpose::Assertion => v1::KeyPurpose::Assertion,
        KeyPurpose::Authority => v1::KeyPurpose::Authority,
        KeyPurpose::RelaySecret => v1::KeyPurpose::RelaySecret,
        KeyPurpose::AcmeAccount => v1::KeyPurpose::AcmeAccount,
    };
    let sealed = |(holder, ciphertext): &(KeyHolder, Vec<u8>)| {
        let holder = match holder {
            KeyHolder::Relay => v1::KeyHolder::Relay,
            KeyHolder::Identity => v1::KeyHolder::Identity,
            KeyHolder::Controller => v1::KeyHolder::Controller,
        };
        v1::SealedKey { holder: holder.into(), ciphertext: ciphertext.clone() }
    };
    v1::Key {
        id: key.id.clone(),
        purpose: purpose.into(),
        public_key: key.public_key.clone(),
        sealed: key.sealed.iter().map(sealed).collect(),
        active_from_ms: key.active_from.0,
    }
}

pub fn certificate_from(wire: v1::Certificate) -> Parsed<Certificate> {
    let source = match wire.source() {
        v1::CertificateSource::Own => Source::Own,
        v1::CertificateSource::Uploaded => Source::Uploaded,
        v1::CertificateSource::Acme => Source::Acme(acme_method_from(wire.method())),
        v1::CertificateSource::Challenge => Source::Challenge { key_authorization: wire.key_authorization },
    };
    Ok(Certificate {
        id: parse("id", &wire.id)?,
        hosts: wire.hosts,
        chain: wire.chain,
        sealed_private_key: wire.sealed_private_key,
        expires: Timestamp(wire.expires_ms),
        source,
    })
}

pub fn acme_method_from(method: v1::AcmeMethod) -> AcmeMethod {
    match method {
        v1::AcmeMethod::TlsAlpn01 => AcmeMethod::TlsAlpn01,
        v1::AcmeMethod::Http01 => AcmeMethod::Http01,
        v1::AcmeMethod::Dns01 => AcmeMethod::Dns01,
    }
}

fn acme_method_to(method: AcmeMethod) -> v1::AcmeMethod {
    match method {
        AcmeMethod::TlsAlpn01 => v1::AcmeMethod::TlsAlpn01,
        AcmeMethod::Http01 => v1::AcmeMethod::Http01,
        AcmeMethod::Dns01 => v1::AcmeMethod::Dns01,
    }
}

pub fn certificate_to(it: &Certificate) -> v1::Certificate {
    let none = (v1::AcmeMethod::default(), String::new());
    let (source, (method, key_authorization)) = match &it.source {
        Source::Own => (v1::CertificateSource::Own, none),
        Source::Uploaded => (v1::CertificateSource::Uploaded, none),
        Source::Acme(method) => (v1::CertificateSource::Acme, (acme_method_to(*method), String::new())),
        Source::Challenge { key_authorization } => {
            (v1::CertificateSource::Challenge, (v1::AcmeMethod::default(), key_authorization.clone()))
        }
    };
    v1::Certificate {
        id: it.id.to_string(),
        hosts: it.hosts.clone(),
        chain: it.chain.clone(),
        sealed_private_key: it.sealed_private_key.clone(),
        expires_ms: it.expires.0,
        source: source.into(),
        method: method.into(),
        key_authorization,
    }
}

pub fn branding_from(wire: v1::Branding) -> Parsed<Branding> {
    Branding::parse(&wire.name, &wire.accent, &wire.support_url).in_field("branding")
}

pub fn branding_to(it: &Branding) -> v1::Branding {
    v1::Branding { name: it.name.clone(), accent: it.accent.clone(), support_url: it.support_url.clone() }
}

pub fn session_revocation_from(wire: v1::SessionRevocation) -> Parsed<SessionRevocation> {
    Ok(SessionRevocation { session: parse("session", &wire.session)?, at: Timestamp(wire.at_ms) })
}

pub fn session_revocation_to(it: &SessionRevocation) -> v1::SessionRevocation {
    v1::SessionRevocation { session: it.session.to_string(), at_ms: it.at.0 }
}

pub fn user_revocation_from(wire: v1::UserRevocation) -> Parsed<UserRevocation> {
    Ok(UserRevocation {
        user: parse("user", &wire.user)?,
        sessions_before: Timestamp(wire.sessions_before_ms),
        directory: wire.directory,
    })
}

pub fn user_revocation_to(it: &UserRevocation) -> v1::UserRevocation {
    v1::UserRevocation { user: it.user.to_string(), sessions_before_ms: it.sessions_before.0, directory: it.directory }
}

pub fn outdated_tokens_from(wire: v1::OutdatedTokens) -> Parsed<OutdatedTokens> {
    const ID_BYTES: usize = 16;
    let slot = u8::try_from(wire.slot).ok().filter(|slot| *slot < risk::OUTDATED_SLOTS);
    let (ids, rest) = wire.users.as_chunks::<ID_BYTES>();
    let in_order = ids.is_sorted_by(|one, next| one < next);
    if !rest.is_empty() || !in_order || ids.len() != wire.count as usize {
        return Err(bad("users", "are ids in order, each once, as many as count says"));
    }
    Ok(OutdatedTokens {
        slot: slot.ok_or(bad("slot", "is one of the slots"))?,
        directory: wire.directory,
        users: ids.iter().map(|id| UserId(uuid::Uuid::from_bytes(*id))).collect(),
        everyone: wire.everyone,
        at: Timestamp(wire.at_ms),
    })
}

pub fn outdated_tokens_to(it: &OutdatedTokens) -> v1::OutdatedTokens {
    v1::OutdatedTokens {
        slot: it.slot.into(),
        directory: it.directory,
        users: it.users.iter().flat_map(|user| user.0.into_bytes()).collect(),
        count: it.users.len() as u32,
        everyone: it.everyone,
        at_ms: it.at.0,
    }
}

/// A domain of the tenant: a DNS name.
pub fn tenant_from(wire: v1::Tenant) -> Parsed<(String, u16, Vec<String>)> {
    let public_port = u16::try_from(wire.public_port).map_err(|_| bad("public_port", "is a port"))?;
    match app::is_host(&wire.domain) {
        true => Ok((wire.domain, public_port, wire.relays)),
        false => Err(Invalid("a domain is a DNS name in lower case")).in_field("domain"),
    }
}
