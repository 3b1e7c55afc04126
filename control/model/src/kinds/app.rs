//! The rules an application has to keep, and where it is indexed.

use std::collections::BTreeSet;

use crate::{
    app::{App, ExternalUrl, Origin, Scheme, Segment},
    directory::Principal,
    event::Stream,
    http_rules::{self, CorsRule, FieldPattern, HttpRules, LocalPath, SameSite, UpgradeProtocol},
    ids::AppId,
    kinds::{
        ObjectKey, Rejection,
        kind::{Bond, Broken, Change, InField, Indexes, Kind, Rank, Reference, Touch},
    },
    text::{HeaderName, Labels, Name},
};

/// A PEM bundle of at most this many bytes.
const CA_PEM_BYTES_MAX: usize = 64 * 1024;
const SEGMENTS_MAX: usize = 64;
const ORIGINS_MAX: usize = 64;
const UPGRADES_MAX: usize = 16;
const OWNERS_MAX: usize = 64;
/// The preload list asks for a year and for subdomains.
const PRELOAD_AGE_S: u32 = 31_536_000;

impl Kind for App {
    const NAME: &'static str = "app";
    const TITLE: &'static str = "application";
    const STREAM: Stream = Stream::Config;
    type Key = AppId;

    fn key(&self) -> AppId {
        self.id
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn refers_to(&self) -> Vec<Reference> {
        let owners = self.owners.iter().filter_map(|it| Reference::to_principal(*it, Bond::Needs));
        owners.chain([Reference::needs(ObjectKey::ConnectorGroup(self.group))]).collect()
    }

    fn check(&self) -> Result<(), Broken> {
        Name::parse(self.name.as_str()).in_field("name")?;
        check_addresses(self)?;
        check_trust(self)?;
        check_rules(self)?;
        check_http_rules(&self.http_rules)
    }

    fn check_change(_before: Option<&Self>, after: Option<&Self>, change: &Change<'_>) -> Result<(), Rejection> {
        after.map_or(Ok(()), |app| check_hosts(app, change))
    }

    fn index(at: &mut Indexes<'_>, before: Option<&Self>, after: Option<&Self>) {
        if let Some(app) = before {
            at.routes.remove(app);
            at.tenant.by_origin.remove(app);
        }
        if let Some(app) = after {
            at.routes.insert(at.tenant_id, app);
            at.tenant.by_origin.insert(app);
        }
    }

    fn touches(&self) -> Touch {
        Touch::App(self.id)
    }

    fn rank(_before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after {
            Some(_) => Rank::Applications,
            None => Rank::Closes,
        }
    }
}

/// An address belongs to one application, a host to one tenant.
fn check_hosts(app: &App, change: &Change<'_>) -> Result<(), Rejection> {
    let mut own = BTreeSet::new();
    for (url, _) in app.addresses() {
        // A name below another tenant's wildcard is that tenant's.
        if change.routes.on_host(&url.host).iter().any(|route| route.tenant != *change.tenant_id) {
            return Err(Rejection::HostTaken { host: url.host.to_string() });
        }
        let mut others = change.routes.named(&url.host).iter().filter(|route| route.app != app.id);
        if others.any(|route| route.path == url.path) || !own.insert(url) {
            return Err(Rejection::UrlTaken { url: url.to_string() });
        }
    }
    Ok(())
}

fn check_addresses(app: &App) -> Result<(), Broken> {
    check_pair(&app.external, &app.origin, ["external_url", "origin"])?;
    if app.segments.len() > SEGMENTS_MAX {
        return Err(Broken::new("segments", "has 64 addresses at most"));
    }
    for Segment { external, origin } in &app.segments {
        check_pair(external, origin, ["segments.external_url", "segments.origin"])?;
    }
    if app.more_origins.len() >= ORIGINS_MAX {
        return Err(Broken::new("more_origins", "has 63 origins at most"));
    }
    for more in &app.more_origins {
        Origin::parse(&more.to_string()).in_field("more_origins")?;
        if more.scheme != app.origin.scheme || more.is_wildcard() || app.origin.is_wildcard() {
            return Err(Broken::new("more_origins", "have the scheme of origin, and none of them a *"));
        }
    }
    let home = app.http_rules.home_path.as_str();
    if home != "/" && !app.external.covers(home) {
        return Err(Broken::new("home_path", "is outside the path of external_url"));
    }
    app.health_path.as_ref().map_or(Ok(()), |path| LocalPath::parse(path.as_str()).map(|_| ()).in_field("health_path"))
}

/// `*` inside needs `*` outside: something must say what it stands for.
fn check_pair(external: &ExternalUrl, origin: &Origin, fields: [&'static str; 2]) -> Result<(), Broken> {
    ExternalUrl::parse(&external.to_string()).in_field(fields[0])?;
    Origin::parse(&origin.to_string()).in_field(fields[1])?;
    match origin.is_wildcard() && !external.is_wildcard() {
        true => Err(Broken::new(fields[1], "has a * that the external URL does not have")),
        false => Ok(()),
    }
}

fn check_trust(app: &App) -> Result<(), Broken> {
    for (field, pem) in [("origin_ca_pem", &*app.origin_ca_pem), ("client_ca_pem", &*app.client_ca_pem)] {
        let fits = pem.len() <= CA_PEM_BYTES_MAX && pem.contains("-----BEGIN CERTIFICATE-----");
        if !pem.is_empty() && !fits {
            return Err(Broken::new(field, "must hold PEM certificates, 64 KiB at most"));
        }
    }
    if !app.origin_pins.is_empty() && app.origin.scheme != Scheme::Https {
        return Err(Broken::new("origin_pins", "is for https origins: others have no key to pin"));
    }
    if app.owners.len() > OWNERS_MAX || app.owners.contains(&Principal::Everyone) {
        return Err(Broken::new("owners", "are user:NAME or group:NAME, 64 at most"));
    }
    Ok(())
}

fn check_rules(app: &App) -> Result<(), Broken> {
    for header in &app.identity_headers {
        HeaderName::parse(header.name.as_str()).in_field("identity_headers.name")?;
    }
    let http_rules = &app.http_rules;
    let counts = [
        ("cors", http_rules.cors.len()),
        ("request_headers", http_rules.request_headers.len()),
        ("response_headers", http_rules.response_headers.len()),
    ];
    for (field, count) in counts {
        if count > http_rules::RULES_MAX {
            return Err(Broken::new(field, "has 64 rules at most"));
        }
    }
    for (field, rules) in
        [("request_headers", &http_rules.request_headers), ("response_headers", &http_rules.response_headers)]
    {
        for rule in rules {
            rule.check().in_field(field)?;
        }
    }
    let is_identity =
        |name: &HeaderName| app.identity_headers.iter().any(|it| it.name.as_str().eq_ignore_ascii_case(name.as_str()));
    match http_rules.request_headers.iter().any(|rule| is_identity(&rule.name)) {
        true => Err(Broken::new("request_headers", "names an identity header, which only the user's session fills")),
        false => Ok(()),
    }
}

fn check_http_rules(http_rules: &HttpRules) -> Result<(), Broken> {
    LocalPath::parse(http_rules.home_path.as_str()).in_field("home_path")?;
    if http_rules.cookie.partitioned && http_rules.cookie.same_site != SameSite::None {
        let problem = "needs cookie_same_site none: other cookies are not sent into frames";
        return Err(Broken::new("cookie_partitioned", problem));
    }
    if let Some(hsts) = http_rules.hsts
        && hsts.preload
        && !(hsts.max_age_s >= PRELOAD_AGE_S && hsts.include_subdomains)
    {
        return Err(Broken::new("hsts", "preload needs include_subdomains and max_age_s of 31536000 or more"));
    }
    http_rules.cors.iter().try_for_each(CorsRule::check).in_field("cors")?;
    if http_rules.upgrades.len() > UPGRADES_MAX {
        return Err(Broken::new("upgrades", "has 16 entries at most"));
    }
    for protocol in &http_rules.upgrades {
        UpgradeProtocol::parse(protocol.as_str()).in_field("upgrades")?;
    }
    if http_rules.passed_fields.len() > http_rules::RULES_MAX {
        return Err(Broken::new("passed_fields", "has 64 entries at most"));
    }
    for pattern in &http_rules.passed_fields {
        FieldPattern::parse(pattern.as_str()).in_field("passed_fields")?;
    }
    Ok(())
}
