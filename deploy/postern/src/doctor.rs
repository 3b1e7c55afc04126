//! `postern doctor`: the way from here to an application, step by step, in
//! plain words.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use admin_client::{
    Admin, Credential, sign_in,
    web::{Web, dialled},
};
use anyhow::bail;
use controller::admin::JOIN_TOKEN;
use model::hosts::Hosts;
use proto::v1;
use runtime::telemetry::chain;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use url::Url;

use crate::{
    commands::address as address_of,
    output::say,
    reachability::{reach, words},
};

const STEP_TIMEOUT: Duration = Duration::from_secs(5);
const CLOCK_TOLERANCE_S: i64 = 60;
const DAY_S: i64 = 24 * 3600;
const CERTIFICATE_WARNING_S: i64 = 14 * DAY_S;
/// Renewal is tried every ten minutes; a day of that is no accident.
const RENEWAL_LATE_S: i64 = DAY_S;
const AUTHORITY_WARNING_DAYS: i64 = 365;
/// It lives 30 days and is written anew after 20.
const OWNER_WARNING_DAYS: i64 = 7;

struct Report {
    faults: usize,
}

impl Report {
    fn good(&self, what: &str) {
        say(&format!("ok    {what}"));
    }

    fn bad(&mut self, what: &str, remedy: &str) {
        self.faults += 1;
        say(&format!("FAULT {what}\n      {remedy}"));
    }
}

pub async fn run(credential: Option<&Path>, url: Option<String>) -> anyhow::Result<()> {
    let mut report = Report { faults: 0 };
    let (path, credential) = Credential::find(credential)?;
    let credential = sign_in::refreshed(&path, credential).await?;
    report.good(&format!("credential {}", path.display()));
    let admin = match Admin::connect(&credential).await {
        Ok(admin) => admin,
        Err(error) => {
            report.bad(&chain(&error), "start the controller, or check the address in the credential file");
            bail!("1 fault; the rest needs the controller");
        }
    };
    let tenant = match admin.tenants().get(v1::GetTenantRequest {}).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            let why = chain(&credential.explain(&path, &status));
            report.bad(&why, "use a credential of somebody with a role, or ask an owner");
            bail!("1 fault; the rest needs the admin API");
        }
    };
    report.good(&format!("controller {} knows you as {}", credential.controller, tenant.caller));
    endings(&tenant.endings, &credential, &path, &mut report);
    connectors(&admin, &mut report).await?;
    certificates(&admin, &mut report).await?;
    let apps: Vec<v1::App> = admin.read_all("app").await?;
    audit(&admin, &mut report).await?;
    let login_host = Hosts::of(&tenant.domain).login();
    let login = apps.iter().find(|app| app.external_url == format!("https://{login_host}/"));
    if login.is_none() {
        report.bad("the sign-in page is not published", "start the controller once more; it publishes it");
    }
    let discovery = format!("https://{login_host}/.well-known/openid-configuration");
    let checked = url.unwrap_or_else(|| address_of(&discovery, tenant.public_port));
    address(&checked, &credential.authority, &mut report).await;
    names(&apps, &tenant.domain, &mut report).await;
    applications(&admin, &credential.authority, &apps, &mut report).await;
    match report.faults {
        0 => Ok(()),
        1 => bail!("1 fault"),
        count => bail!("{count} faults"),
    }
}

/// A connector whose last word was that it lost its links is away.
async fn connectors(admin: &Admin, report: &mut Report) -> anyhow::Result<()> {
    let connectors = admin.all("connector").await?;
    let request = v1::ListHistoryRequest {
        stream: "activity".into(),
        subject_contains: ".connector".into(),
        size: 500,
        ..Default::default()
    };
    let history = admin.history().list(request).await?.into_inner().entries;
    for group in admin.read_all::<v1::ConnectorGroup>("connector-group").await? {
        let of_group = connectors.iter().filter_map(|object| {
            let connector: v1::Connector = serde_json::from_str(&object.fields).ok()?;
            (connector.group == group.id && !connector.revoked).then_some((connector, object))
        });
        let members: Vec<_> = of_group.collect();
        if members.is_empty() {
            report.bad(
                &format!("connector group {} has no connector", group.name),
                &format!(
                    "postern connector token --group {:?}, then postern-connector join on its machine",
                    group.name
                ),
            );
        }
        for (connector, object) in members {
            let status: serde_json::Value = serde_json::from_str(&object.status).unwrap_or_default();
            match status["online"] == true {
                true => {
                    let ends = certificate_end(&history, &connector.id);
                    report.good(&format!("connector {} of {} has links{ends}", connector.name, group.name));
                }
                false => report.bad(
                    &format!("connector {} of {} has no link", connector.name, group.name),
                    "is postern-connector running there, and may it reach the relay's port?",
                ),
            }
        }
    }
    Ok(())
}

/// Objects that could not be written today: a rule was tightened since they were.
async fn audit(admin: &Admin, report: &mut Report) -> anyhow::Result<()> {
    let findings = admin.objects().audit(v1::AuditRequest {}).await?.into_inner().findings;
    for it in findings {
        let remedy = format!("postern set {} --name {:?} {}=...", it.kind, it.name, it.field);
        report.bad(&format!("{} {}: {} {}", it.kind, it.name, it.field, it.problem), &remedy);
    }
    Ok(())
}

/// What the relay said of the newest link's certificate.
fn certificate_end(history: &[v1::HistoryEntry], connector: &str) -> String {
    let details = history.iter().filter_map(|entry| {
        let said: serde_json::Value = serde_json::from_str(&entry.summary).ok()?;
        let detail = said["detail"].as_str()?.to_owned();
        (said["connector"] == connector && said["what"] == "linked" && !detail.is_empty()).then_some(detail)
    });
    details.map(|it| format!("; {it}")).next().unwrap_or_default()
}

/// A name of one's own that leads elsewhere hands its users to whoever is there
/// (dangling DNS records, OWASP WSTG-CONF-10).
async fn names(apps: &[v1::App], domain: &str, report: &mut Report) {
    let login_host = Hosts::of(domain).login();
    let relays = resolve(&login_host).await;
    let urls = apps
        .iter()
        .flat_map(|it| std::iter::once(&it.external_url).chain(it.segments.iter().map(|it| &it.external_url)));
    let hosts: BTreeSet<&str> = urls.filter_map(|it| it.strip_prefix("https://")?.split(['/', ':']).next()).collect();
    for host in hosts.into_iter().filter(|it| !it.ends_with(&format!(".{domain}"))) {
        let found = resolve(&host.replacen('*', "postern", 1)).await;
        let elsewhere: Vec<String> = found.difference(&relays).map(ToString::to_string).collect();
        match (found.is_empty(), elsewhere.is_empty()) {
            (true, _) => report.bad(
                &format!("{host} does not resolve"),
                "add a DNS record that points to your relays, or retire what is published there",
            ),
            (false, false) => report.bad(
                &format!("{host} leads to {}, where {login_host} does not", elsewhere.join(", ")),
                "is that a relay of yours? If not, whoever owns it now gets your users: change the DNS record",
            ),
            (false, true) => report.good(&format!("{host} leads to your relays")),
        }
    }
}

async fn resolve(host: &str) -> BTreeSet<IpAddr> {
    let found = timeout(STEP_TIMEOUT, lookup_host((dialled(host), 443))).await;
    found.ok().and_then(Result::ok).map(|it| it.map(|it| it.ip()).collect()).unwrap_or_default()
}

/// Applications looked at; the others can be named to `postern app test`.
const APPLICATIONS_MAX: usize = 50;

/// From a relay through a connector to the door of each application.
async fn applications(admin: &Admin, authority: &str, apps: &[v1::App], report: &mut Report) {
    for app in apps.iter().take(APPLICATIONS_MAX) {
        match reach(admin, authority, &app.id).await {
            Ok((outcome, true)) => report.good(&format!("{} is {}", app.name, words(&outcome))),
            Ok((outcome, false)) => report.bad(&format!("{} at {}", app.name, app.origin), &words(&outcome)),
            Err(error) => report.bad(&format!("{}: {error:#}", app.name), "look at the faults above first"),
        }
    }
    if apps.len() > APPLICATIONS_MAX {
        report.good(&format!("{} more applications were not looked at", apps.len() - APPLICATIONS_MAX));
    }
}

/// DNS, port, certificate, clock, answer.
async fn address(url: &str, authority: &str, report: &mut Report) {
    let Ok(parsed) = Url::parse(url) else {
        return report.bad(&format!("{url} is not an address"), "write https://HOST/");
    };
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let port = parsed.port_or_known_default().unwrap_or(443);
    let dial = dialled(&host);
    match lookup_host((dial, port)).await.map(|mut it| it.next()) {
        Ok(Some(found)) => report.good(&format!("{host} is {}", found.ip())),
        Ok(None) | Err(_) => {
            return report.bad(&format!("{host} does not resolve"), "add a DNS record that points to your relays");
        }
    }
    match timeout(STEP_TIMEOUT, TcpStream::connect((dial, port))).await {
        Ok(Ok(_)) => report.good(&format!("port {port} is open")),
        Ok(Err(_)) | Err(_) => {
            return report.bad(
                &format!("port {port} of {dial} is closed"),
                "is the relay running, and does a firewall let you through?",
            );
        }
    }
    let web = match Web::trusting(authority) {
        Ok(web) => web,
        Err(error) => return report.bad(&chain(&error), "restore the authority in the credential file"),
    };
    let response = match web.get(url).await {
        Ok(response) => response,
        Err(error) => {
            return report
                .bad(&chain(&error), "if something inspects TLS on the way, exempt it; else look at the relay's log");
        }
    };
    report.good("the certificate is this installation's, and valid");
    clock(&response, report);
    let refusal = response.headers().get("postern-refusal").and_then(|it| it.to_str().ok());
    match (response.status().as_u16(), refusal) {
        (200..=399, _) | (401, _) => report.good(&format!("{url} answers {}", response.status())),
        (status, Some(code)) => report.bad(
            &format!("{url} is refused with {status} {code}"),
            "see the refusal codes in the relay's operator page",
        ),
        (status, None) => report.bad(&format!("{url} answers {status}"), "the application itself says so; look there"),
    }
}

/// What the installation renews by itself, and is late with; and what nobody renews.
fn endings(endings: &[v1::Ending], credential: &Credential, path: &Path, report: &mut Report) {
    let now_s = runtime::Clock::default().now_ms() / 1000;
    let (tokens, rest): (Vec<_>, Vec<_>) = endings.iter().partition(|it| it.what == JOIN_TOKEN);
    if let Some(last_ms) = tokens.iter().map(|it| it.ends_ms).max() {
        let (count, ends) = (tokens.len(), crate::output::time(last_ms));
        report.good(&format!("join tokens that nobody has used: {count}; the last one ends at {ends}"));
    }
    for it in rest {
        let days = (it.ends_ms / 1000 - now_s).div_euclid(DAY_S);
        let what = it.what.replace('_', " ");
        let late_s = now_s - it.renews_ms / 1000;
        match it.renews_ms {
            0 if days < AUTHORITY_WARNING_DAYS => report.bad(
                &format!("the {what} ends in {days} days, and nothing renews it"),
                "plan a new installation beside this one: connectors join it anew, and browsers trust it anew",
            ),
            0 => report.good(&format!("{what}: {days} days left")),
            _ if late_s > RENEWAL_LATE_S => report.bad(
                &format!("the {what} ends in {days} days, and should have been renewed {} days ago", late_s / DAY_S),
                "read the controller's log: it says why not",
            ),
            _ => report.good(&format!("{what}: {days} days left, renewed in {} days", (-late_s).max(0) / DAY_S)),
        }
    }
    // A sign-in renews itself; a file is renewed by the controller that wrote it.
    if let Some(ends_s) = credential.certificate_ends_s() {
        let days = (ends_s - now_s).div_euclid(DAY_S);
        match days < OWNER_WARNING_DAYS {
            true => report.bad(
                &format!("the certificate in {} ends in {days} days", path.display()),
                "a controller writes it anew in time where it lies; is this a copy? Copy it again",
            ),
            false => report.good(&format!("owner credential: {days} days left")),
        }
    }
}

/// Those somebody brought or ordered; the installation renews its own.
async fn certificates(admin: &Admin, report: &mut Report) -> anyhow::Result<()> {
    let now_s = runtime::Clock::default().now_ms() / 1000;
    for certificate in admin.read_all::<v1::Certificate>("certificate").await? {
        let days = (certificate.expires_ms / 1000 - now_s) / 86400;
        let hosts = certificate.hosts.join(", ");
        match certificate.source() {
            v1::CertificateSource::Uploaded if days < CERTIFICATE_WARNING_S / 86400 => report.bad(
                &format!("the certificate for {hosts} ends in {days} days"),
                "postern certificate install a new one",
            ),
            v1::CertificateSource::Acme if days < CERTIFICATE_WARNING_S / 86400 => report.bad(
                &format!("the certificate for {hosts} ends in {days} days and is not renewed"),
                "read the controller's log: it says what the ACME server answers",
            ),
            v1::CertificateSource::Uploaded | v1::CertificateSource::Acme => {
                report.good(&format!("certificate for {hosts}: {days} days left"));
            }
            v1::CertificateSource::Own | v1::CertificateSource::Challenge => {}
        }
    }
    Ok(())
}

fn clock(response: &http::Response<bytes::Bytes>, report: &mut Report) {
    let date = response.headers().get(http::header::DATE).and_then(|it| it.to_str().ok());
    let theirs = date.and_then(|it| jiff::fmt::rfc2822::parse(it).ok()).map(|it| it.timestamp().as_second());
    let ours = runtime::Clock::default().now_ms() / 1000;
    match theirs.map(|theirs| theirs - ours) {
        Some(skew) if skew.abs() > CLOCK_TOLERANCE_S => {
            report.bad(&format!("clocks differ by {skew} s"), "synchronise both machines (NTP); tokens depend on it")
        }
        Some(_) => report.good("clocks agree"),
        None => {}
    }
}
