//! Applications on the wire.

use std::num::NonZeroU32;

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    App, ExternalUrl, Origin,
    app::{self, HeaderName, IdentityHeader, Name, Pin, PreAuthentication, Segment},
    http_rules::{
        CookieRules, CorsRule, FieldPattern, HeaderAction, HeaderRule, Hsts, HttpRules, LocalPath, SameSite, Translate,
        UpgradeProtocol,
    },
};
use proto::v1;

use super::{
    Happened, InField, Link, Parsed, Words, bad, millis_or, parse, parse_all, parse_networks, seconds_or, strings,
};

impl Words for App {
    type Message = v1::App;
    const PAST: &'static [(&'static str, Happened)] =
        &[("AppPublished", Happened::Put), ("AppChanged", Happened::Put), ("AppRetired", Happened::Removed)];

    fn to_wire(&self) -> v1::App {
        let pre_authentication = match self.pre_authentication {
            PreAuthentication::SignIn => v1::PreAuthentication::SignIn,
            PreAuthentication::Passthrough => v1::PreAuthentication::Passthrough,
        };
        let header = |it: &IdentityHeader| v1::IdentityHeader {
            name: it.name.as_str().to_owned(),
            claim: claim_to(it.claim).into(),
        };
        v1::App {
            id: self.id.to_string(),
            name: self.name.to_string(),
            external_url: self.external.to_string(),
            origin: self.origin.to_string(),
            connector_group: self.group.to_string(),
            pre_authentication: pre_authentication.into(),
            identity_headers: self.identity_headers.iter().map(header).collect(),
            assertion: self.assertion,
            connect_timeout_ms: self.connect_timeout.as_millis() as u32,
            response_timeout_ms: self.response_timeout.as_millis() as u32,
            idle_timeout_ms: self.idle_timeout.as_millis() as u32,
            origin_ca_pem: self.origin_ca_pem.clone(),
            client_ca_pem: self.client_ca_pem.to_string(),
            origin_server_name: self.origin_server_name.clone(),
            staleness_max_s: self.staleness_max.as_secs() as u32,
            serve_when_stale: self.serve_when_stale,
            hidden: self.hidden,
            trusted_addresses: strings(&self.trusted_addresses),
            host_header: match self.host_header {
                app::HostHeader::External => v1::HostHeader::External.into(),
                app::HostHeader::Origin => v1::HostHeader::Origin.into(),
            },
            encoded_slashes: self.encoded_slashes,
            upgrades: self.http_rules.upgrades.iter().map(|it| it.as_str().to_owned()).collect(),
            passed_fields: self.http_rules.passed_fields.iter().map(|it| it.as_str().to_owned()).collect(),
            maintenance: self.http_rules.maintenance,
            requests_per_minute: self.http_rules.requests_per_minute.map_or(0, NonZeroU32::get),
            home_path: self.http_rules.home_path.as_str().to_owned(),
            hsts: self.http_rules.hsts.map(|it| v1::Hsts {
                max_age_s: it.max_age_s,
                include_subdomains: it.include_subdomains,
                preload: it.preload,
            }),
            cookie_same_site: match self.http_rules.cookie.same_site {
                SameSite::Lax => v1::SameSite::Lax.into(),
                SameSite::Strict => v1::SameSite::Strict.into(),
                SameSite::None => v1::SameSite::None.into(),
            },
            cookie_persistent: self.http_rules.cookie.persistent,
            cookie_partitioned: self.http_rules.cookie.partitioned,
            cors: self.http_rules.cors.iter().map(cors_to).collect(),
            request_headers: header_rules_to(&self.http_rules.request_headers),
            response_headers: header_rules_to(&self.http_rules.response_headers),
            translate: match self.http_rules.translate {
                Translate::Headers => v1::Translate::Headers.into(),
                Translate::Pages => v1::Translate::Pages.into(),
                Translate::Everything => v1::Translate::Everything.into(),
            },
            segments: self
                .segments
                .iter()
                .map(|it| v1::Segment { external_url: it.external.to_string(), origin: it.origin.to_string() })
                .collect(),
            more_origins: strings(&self.more_origins),
            health_path: self.health_path.as_ref().map_or(String::new(), |it| it.as_str().to_owned()),
            sticky: self.sticky,
            origin_pins: self.origin_pins.iter().map(|it| STANDARD.encode(it.0)).collect(),
            owners: strings(&self.owners),
            labels: self.labels.clone(),
        }
    }

    fn from_wire(wire: v1::App) -> Parsed<Self> {
        let http_rules = http_rules_from(&wire)?;
        let segment = |it: &v1::Segment| {
            Ok(Segment {
                external: ExternalUrl::recorded(&it.external_url).in_field("segments.external_url")?,
                origin: Origin::recorded(&it.origin).in_field("segments.origin")?,
            })
        };
        let more = |text: &String| Origin::recorded(text).in_field("more_origins");
        Ok(Self {
            id: parse("id", &wire.id)?,
            name: Name::recorded(&wire.name),
            external: ExternalUrl::recorded(&wire.external_url).in_field("external_url")?,
            origin: Origin::recorded(&wire.origin).in_field("origin")?,
            group: parse("connector_group", &wire.connector_group)?,
            pre_authentication: match wire.pre_authentication() {
                v1::PreAuthentication::SignIn => PreAuthentication::SignIn,
                v1::PreAuthentication::Passthrough => PreAuthentication::Passthrough,
            },
            host_header: match wire.host_header() {
                v1::HostHeader::External => app::HostHeader::External,
                v1::HostHeader::Origin => app::HostHeader::Origin,
            },
            identity_headers: wire.identity_headers.iter().map(identity_header_from).collect::<Parsed<_>>()?,
            assertion: wire.assertion,
            connect_timeout: millis_or(wire.connect_timeout_ms, app::CONNECT_TIMEOUT),
            response_timeout: millis_or(wire.response_timeout_ms, app::RESPONSE_TIMEOUT),
            idle_timeout: millis_or(wire.idle_timeout_ms, app::IDLE_TIMEOUT),
            staleness_max: seconds_or(wire.staleness_max_s, app::STALENESS_MAX),
            serve_when_stale: wire.serve_when_stale,
            hidden: wire.hidden,
            trusted_addresses: parse_networks("trusted_addresses", &wire.trusted_addresses)?,
            encoded_slashes: wire.encoded_slashes,
            http_rules,
            segments: wire.segments.iter().map(segment).collect::<Parsed<_>>()?,
            more_origins: wire.more_origins.iter().map(more).collect::<Parsed<_>>()?,
            health_path: match wire.health_path.as_str() {
                "" => None,
                path => Some(LocalPath::recorded(path)),
            },
            sticky: wire.sticky,
            origin_pins: wire.origin_pins.iter().map(|it| pin_from(it)).collect::<Parsed<_>>()?,
            owners: parse_all("owners", &wire.owners)?,
            origin_ca_pem: wire.origin_ca_pem,
            client_ca_pem: wire.client_ca_pem.into(),
            origin_server_name: wire.origin_server_name,
            labels: wire.labels,
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::App {
        v1::App { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::App) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn id(wire: &mut v1::App) -> Option<&mut String> {
        Some(&mut wire.id)
    }

    fn links(wire: &mut v1::App) -> Vec<Link<'_>> {
        let group = Link::connector_group("connector_group", &mut wire.connector_group);
        let owners = wire.owners.iter_mut().map(|it| Link::principal("owners", it));
        std::iter::once(group).chain(owners).collect()
    }
}

fn identity_header_from(it: &v1::IdentityHeader) -> Parsed<IdentityHeader> {
    Ok(IdentityHeader {
        name: HeaderName::recorded(&it.name).in_field("identity_headers.name")?,
        claim: claim_from(it.claim()).ok_or(bad("identity_headers.claim", "is missing"))?,
    })
}

fn pin_from(text: &str) -> Parsed<Pin> {
    let bytes = STANDARD.decode(text).ok().and_then(|it| it.try_into().ok());
    bytes
        .map(Pin)
        .ok_or(bad("origin_pins", "is a SHA-256 in base64, as `openssl dgst -sha256 -binary | base64` prints"))
}

fn http_rules_from(wire: &v1::App) -> Parsed<HttpRules> {
    let same_site = match wire.cookie_same_site() {
        v1::SameSite::Lax => SameSite::Lax,
        v1::SameSite::Strict => SameSite::Strict,
        v1::SameSite::None => SameSite::None,
    };
    let hsts = |it: &v1::Hsts| Hsts {
        max_age_s: it.max_age_s,
        include_subdomains: it.include_subdomains,
        preload: it.preload,
    };
    Ok(HttpRules {
        maintenance: wire.maintenance,
        requests_per_minute: NonZeroU32::new(wire.requests_per_minute),
        home_path: LocalPath::recorded(&wire.home_path),
        hsts: wire.hsts.as_ref().map(hsts),
        cookie: CookieRules { same_site, persistent: wire.cookie_persistent, partitioned: wire.cookie_partitioned },
        cors: wire.cors.iter().map(cors_from).collect(),
        request_headers: header_rules_from("request_headers", &wire.request_headers)?,
        response_headers: header_rules_from("response_headers", &wire.response_headers)?,
        translate: match wire.translate() {
            v1::Translate::Headers => Translate::Headers,
            v1::Translate::Pages => Translate::Pages,
            v1::Translate::Everything => Translate::Everything,
        },
        upgrades: wire.upgrades.iter().map(|it| UpgradeProtocol::recorded(it)).collect(),
        passed_fields: wire.passed_fields.iter().map(|it| FieldPattern::recorded(it)).collect(),
    })
}

fn header_rules_from(field: &'static str, rules: &[v1::HeaderRule]) -> Parsed<Vec<HeaderRule>> {
    let rule = |it: &v1::HeaderRule| {
        let action = match it.action() {
            v1::HeaderAction::Set => HeaderAction::Set(it.value.as_str().into()),
            v1::HeaderAction::Add => HeaderAction::Add(it.value.as_str().into()),
            v1::HeaderAction::Remove if it.value.is_empty() => HeaderAction::Remove,
            v1::HeaderAction::Remove => return Err(bad(field, "remove takes no value")),
        };
        Ok(HeaderRule { name: HeaderName::recorded(&it.name).in_field(field)?, action })
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

fn cors_from(wire: &v1::CorsRule) -> CorsRule {
    CorsRule {
        path: LocalPath::recorded(&wire.path),
        origins: wire.origins.iter().map(|it| it.as_str().into()).collect(),
        methods: wire.methods.iter().map(|it| it.as_str().into()).collect(),
        headers: wire.headers.iter().map(|it| it.to_ascii_lowercase().into()).collect(),
        max_age_s: wire.max_age_s,
    }
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
