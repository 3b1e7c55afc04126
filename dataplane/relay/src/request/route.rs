//! Which application a request is for, and whether it may be served from what is
//! known. Paths are judged as they are written, and refused where other servers
//! might read them as another application's.

use eventlog::View;
use http::{HeaderMap, header, request::Parts};
use model::{App, Timestamp, app::Spot};
use strict::{canonical::Canonical, fields};

use crate::{
    forward::routed::Routed, keys::Keys, open::user_connection::UserConnection, refusal::Refusal, sessions::signin,
};

/// Which application, and may it be served from what is known?
pub(super) fn route<'a>(
    connection: &'a UserConnection,
    parts: &'a Parts,
    canonical: &'a Canonical,
    view: &'a View,
    keys: &'a Keys,
    now: Timestamp,
) -> Result<Routed<'a>, Refusal> {
    let snapshot = &view.snapshot;
    if snapshot.config == 0 {
        return Err(Refusal::NotReady);
    }
    let routes = snapshot.routes.on_host(&canonical.host);
    if routes.is_empty() {
        return Err(Refusal::UnknownHost);
    }
    if canonical.double_slash && routes.len() > 1 {
        return Err(Refusal::BadRequest("// in the path, on a host where paths tell applications apart"));
    }
    let route = snapshot.routes.find(&canonical.host, canonical.path());
    if snapshot.routes.reads_otherwise(&canonical.host, canonical.path()) {
        return Err(Refusal::BadRequest("the path is another application's for servers that read it leniently"));
    }
    // Paths of ours work on the whole host, whatever is published below it.
    let ours = routes.last().filter(|_| canonical.path().starts_with(signin::OUR_PATHS));
    let route = route.or(ours).ok_or(Refusal::NotPublished)?;
    let tenant = snapshot.tenant(&route.tenant).ok_or(Refusal::NotPublished)?;
    let published = tenant.apps.stored(&route.app).ok_or(Refusal::NotPublished)?;
    let app = &published.object;
    if view.age() > app.staleness_max && !app.serve_when_stale {
        return Err(Refusal::Stale);
    }
    if canonical.encoded_slash && !app.encoded_slashes {
        return Err(Refusal::BadRequest(
            "%2F or %5C in the path, which this application does not take (encoded_slashes)",
        ));
    }
    let keys = keys.tenants.get(&route.tenant).ok_or(Refusal::NotReady)?;
    let external = app.addresses().nth(route.segment.into()).map(|(external, _)| external);
    let label = external.and_then(|it| it.label(&canonical.host)).ok_or(Refusal::NotPublished)?;
    let spot = Spot { segment: route.segment, label };
    let origin = app.origin_at(spot).ok_or(Refusal::NotPublished)?;
    let tenant_id = &route.tenant;
    let upgrade = canonical.upgrade.then(|| upgrade(app, &parts.headers)).flatten();
    Ok(Routed { connection, parts, canonical, view, keys, tenant_id, tenant, published, spot, origin, upgrade, now })
}

/// The application on the same host whose page asks for what is published nowhere
/// (PUB-07). Whoever looks for holes has no such page.
pub(super) fn whose_page(view: &View, canonical: &Canonical, headers: &HeaderMap) -> Option<String> {
    let page: http::Uri = headers.get(header::REFERER)?.to_str().ok()?.parse().ok()?;
    page.host().filter(|it| it.eq_ignore_ascii_case(&canonical.host))?;
    view.snapshot.routes.find(&canonical.host, page.path()).map(|it| it.app.to_string())
}

/// A server need not switch (RFC 9110, section 7.8): what the application may not
/// switch to is not asked of it, and the request is like any other.
fn upgrade(app: &App, headers: &HeaderMap) -> Option<String> {
    let allowed: Vec<&str> =
        fields::names(headers, &header::UPGRADE).filter(|it| app.http_rules.allows_upgrade(it)).collect();
    (!allowed.is_empty()).then(|| allowed.join(", "))
}

/// The first segment, for the log: enough to see what was used, nothing private.
pub(super) fn path_class(path: &str) -> String {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
    format!("/{}", first.chars().take(64).collect::<String>())
}
