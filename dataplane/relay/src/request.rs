//! The life of a request, on one page:
//!
//! canonical → route → fresh enough? → session → policy → stream → application.
//!
//! Nothing here waits for controller, identity, log or analytics while a
//! signed-in user waits. What refuses is a `Refusal`; what forwards takes an
//! `Authorized`, which only policy makes.

pub(crate) mod client_authorities;
pub(crate) mod http_rules;
pub(crate) mod quota;
mod reachability;

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr, sync::Arc};

use bytes::Bytes;
use eventlog::View;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use model::{
    App, Decision, Facts, Origin, Tenant, TenantId, Timestamp,
    app::{PreAuthentication, Spot},
    branding::Branding,
    edge::Translate,
    links::Links,
    policy::{self, Authorized, Denied},
    session::SessionFault,
    snapshot::Published,
};
use proto::v1::Access;
use runtime::clock::fresh_id;
use strict::{
    canonical::{self, Canonical},
    fields,
};
use tracing::{Instrument, Span, debug, warn};
use translate::Translator;

use crate::{
    Relay, assertion,
    body::{Body, Record, UserBody},
    edge,
    forward::Forward,
    headers, http3,
    keys::{Keys, TenantKeys},
    quota::Who,
    refusal::{Reader, Refusal, Wants},
    renewal::Asking,
    session::{Presented, Session, presented},
    signin,
    streams::Admission,
    trace,
    visitor::{Visit, Visitor},
    words::Language,
};

/// A request that belongs to a published application.
pub(crate) struct Routed<'a> {
    pub relay: &'a Arc<Relay>,
    pub visitor: &'a Visitor,
    pub parts: &'a Parts,
    pub canonical: &'a Canonical,
    pub view: &'a View,
    pub keys: &'a TenantKeys,
    pub tenant_id: &'a TenantId,
    pub tenant: &'a Arc<Tenant>,
    pub published: &'a Published,
    pub spot: Spot<'a>,
    /// What is behind the address that was asked for.
    pub origin: Cow<'a, Origin>,
    /// Protocols that are asked for and that the application may switch to.
    pub upgrade: Option<String>,
    pub now: Timestamp,
}

/// Who was let in, and what their answer must carry.
#[derive(Default)]
struct Entry {
    session: Option<Arc<Session>>,
    took_authorization: bool,
    /// A fresh token for the user's cookie.
    renewed: Option<Arc<Session>>,
}

/// Every request ends here, as a response.
pub(crate) async fn handle(relay: Arc<Relay>, visitor: Arc<Visitor>, mut request: Request<UserBody>) -> Response<Body> {
    let request_id = fresh_id().simple().to_string();
    let wants = Wants::of(request.method(), request.headers());
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    // Bytes behind a declined upgrade could be read in two ways.
    let mut closes = upgrade.is_some() || relay.slots.is_pressed();
    let (parts, body) = request.into_parts();
    let span = trace::span(&parts, &request_id);
    let mut record = relay.record(&visitor, &parts, &request_id, &span);
    let view = relay.view();
    let keys = relay.keys();
    let mut found = None;
    let answering = answer(&relay, &visitor, &parts, body, upgrade, &view, &keys, &mut record, &mut found);
    let answered = answering.instrument(span).await;
    let mut response = match answered {
        Ok(response) => response,
        Err(Ended::Refused(refusal)) => {
            debug!(code = refusal.code(), ?refusal, "refused");
            if let Some(record) = &mut record {
                record.access.status = refusal.status().as_u16().into();
                record.access.refusal = refusal.code().to_owned();
            }
            let nobody = Branding::default();
            let reader = Reader {
                wants,
                language: Language::of(&parts.headers),
                branding: found.map_or(&nobody, |it| &it.tenant.branding),
                now: Timestamp(relay.clock.now_ms()),
            };
            let mut response = refusal.response(&reader, &request_id).map(Body::whole);
            if refusal.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge(&refusal));
            }
            // What follows on this connection cannot be trusted either.
            closes |= matches!(refusal, Refusal::BadRequest(_));
            response
        }
        Err(Ended::Answered(response)) => {
            if let Some(record) = &mut record {
                record.access.status = response.status().as_u16().into();
            }
            response.map(Body::whole)
        }
    };
    if parts.method == Method::HEAD && matches!(response.body(), Body::Whole(_)) {
        // The library leaves this to us over HTTP/2 (RFC 9110, section 9.3.2).
        *response.body_mut() = Body::Whole(None);
    }
    if let Some(found) = found.filter(|_| response.status() != StatusCode::SWITCHING_PROTOCOLS) {
        edge::finish(response.headers_mut(), found.app, &parts);
        let over_quic_too = relay.settings.http3 && found.app.client_ca_pem.is_empty();
        if over_quic_too && parts.version < http::Version::HTTP_3 {
            http3::advertise(response.headers_mut(), found.tenant);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    if closes && response.status() != StatusCode::SWITCHING_PROTOCOLS && parts.version < http::Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A request that ends before an application sees it.
enum Ended {
    Refused(Refusal),
    /// Ours to answer: a redirect, a sign-in step.
    Answered(Box<Response<Bytes>>),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Response<Bytes>> for Ended {
    fn from(response: Response<Bytes>) -> Self {
        Self::Answered(Box::new(response))
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a request, borrowed apart")]
async fn answer<'a>(
    relay: &Arc<Relay>,
    visitor: &Visitor,
    parts: &Parts,
    body: UserBody,
    upgrade: Option<OnUpgrade>,
    view: &'a View,
    keys: &Keys,
    record: &mut Option<Record>,
    found: &mut Option<Found<'a>>,
) -> Result<Response<Body>, Ended> {
    let canonical = canonical::parse(parts, visitor.sni.as_deref()).map_err(Refusal::from)?;
    if let Some(record) = record {
        record.access.host = canonical.host.clone();
        record.access.path_class = path_class(canonical.path());
    }
    let routed = match route(relay, visitor, parts, &canonical, view, keys, found) {
        Ok(routed) => routed,
        Err(refusal) => {
            if let (Refusal::NotPublished, Some(record)) = (&refusal, record) {
                record.access.app = whose_page(view, &canonical, &parts.headers).unwrap_or_default();
            }
            return Err(refusal.into());
        }
    };
    if let Some(record) = record {
        record.tenant = routed.tenant_id.clone();
        record.access.app = routed.app().id.to_string();
        record.access.snapshot = view.snapshot.config;
    }
    if canonical.path().starts_with(signin::OUR_PATHS) {
        // Boxed, as is all that few requests need: the rest stays small.
        return Err(Box::pin(routed.our_own_path(record)).await);
    }
    if let Some(response) = edge::answer(routed.app(), parts, canonical.path()) {
        return Err(response.into());
    }
    if routed.app().edge.maintenance {
        return Err(Refusal::Maintenance.into());
    }
    let certificate = routed.client_certificate()?;
    let entry = routed.enter().await?;
    let authorized = routed.authorize(&entry, record)?;
    routed.meter(&entry)?;
    routed.forward(entry, authorized, certificate.as_deref(), body, upgrade, record).await
}

/// Whose answer it is, for what every answer carries.
#[derive(Clone, Copy)]
struct Found<'a> {
    tenant: &'a Tenant,
    app: &'a App,
}

/// The application on the same host whose page asks for what is published nowhere
/// (PUB-07). Whoever looks for holes has no such page.
fn whose_page(view: &View, canonical: &Canonical, headers: &HeaderMap) -> Option<String> {
    let page: http::Uri = headers.get(header::REFERER)?.to_str().ok()?.parse().ok()?;
    page.host().filter(|it| it.eq_ignore_ascii_case(&canonical.host))?;
    view.snapshot.routes.find(&canonical.host, page.path()).map(|it| it.app.to_string())
}

/// Which application, and may it be served from what is known?
fn route<'a, 'view: 'a>(
    relay: &'a Arc<Relay>,
    visitor: &'a Visitor,
    parts: &'a Parts,
    canonical: &'a Canonical,
    view: &'view View,
    keys: &'a Keys,
    found: &mut Option<Found<'view>>,
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
    let published = tenant.apps.get(&route.app).ok_or(Refusal::NotPublished)?;
    let app = &published.app;
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
    let (tenant_id, now) = (&route.tenant, Timestamp(relay.clock.now_ms()));
    let upgrade = canonical.upgrade.then(|| upgrade(app, &parts.headers)).flatten();
    *found = Some(Found { tenant, app });
    Ok(Routed {
        relay,
        visitor,
        parts,
        canonical,
        view,
        keys,
        tenant_id,
        tenant,
        published,
        spot,
        origin,
        upgrade,
        now,
    })
}

/// A server need not switch (RFC 9110, section 7.8): what the application may not
/// switch to is not asked of it, and the request is like any other.
fn upgrade(app: &App, headers: &HeaderMap) -> Option<String> {
    let allowed: Vec<&str> =
        fields::names(headers, &header::UPGRADE).filter(|it| app.edge.allows_upgrade(it)).collect();
    (!allowed.is_empty()).then(|| allowed.join(", "))
}

impl Routed<'_> {
    pub(crate) fn app(&self) -> &App {
        &self.published.app
    }

    fn links(&self) -> Links {
        Links::new(self.tenant.clone(), self.app().id, &self.canonical.authority)
    }

    /// For a response whose body is to be translated.
    pub(crate) fn translator(&self, status: StatusCode, headers: &mut HeaderMap) -> Option<Translator> {
        let depth = self.app().edge.translate;
        if depth == Translate::Headers || self.parts.method == Method::HEAD {
            return None;
        }
        let takes_gzip = headers::takes_gzip(&self.parts.headers);
        Translator::begin(status, headers, takes_gzip, depth, &self.links())
    }

    /// The address policy judges.
    pub(crate) fn address(&self) -> IpAddr {
        headers::client_address(&self.parts.headers, self.app(), self.visitor.peer)
    }

    /// The session, renewed if it must be; a redirect or challenge if there is none.
    async fn enter(&self) -> Result<Entry, Ended> {
        if self.app().pre_authentication == PreAuthentication::Passthrough {
            return Ok(Entry::default());
        }
        let (token, is_bearer) = match presented(&self.parts.headers, self.app().id) {
            Presented::Cookie(token) => (token, false),
            Presented::Bearer(token) => (token, true),
            Presented::Nothing => return Err(self.ask_to_sign_in(false)),
        };
        let verified = self.relay.sessions.verify(token, self.app().id, self.tenant_id, self.keys);
        let Ok(session) = verified else { return Err(self.ask_to_sign_in(false)) };
        match session.claims.check(self.tenant, self.now) {
            Ok(()) => {
                let renewed = match session.claims.wants_renewal(self.now) && !is_bearer {
                    true => self.relay.renew_soon(Asking::of(self), &session),
                    false => None,
                };
                Ok(Entry { session: Some(session), took_authorization: is_bearer, renewed })
            }
            Err(SessionFault::Renew) if !is_bearer => {
                match Box::pin(self.relay.renew_now(Asking::of(self), &session)).await {
                    Ok(fresh) => Ok(Entry { session: Some(fresh.clone()), renewed: Some(fresh), ..Entry::default() }),
                    Err(away @ (Refusal::SignInUnavailable | Refusal::NotReady)) => Err(away.into()),
                    Err(_) => Err(self.ask_to_sign_in(false)),
                }
            }
            Err(SessionFault::Renew | SessionFault::Over) => Err(self.ask_to_sign_in(false)),
        }
    }

    fn authorize(&self, entry: &Entry, record: &mut Option<Record>) -> Result<Authorized, Ended> {
        let (no_groups, no_proof) = (BTreeSet::new(), BTreeSet::new());
        let session = entry.session.as_deref();
        let facts = Facts {
            app: self.app().id,
            user: session.map(|it| it.claims.sub),
            groups: session.map_or(&no_groups, |it| &it.groups),
            address: self.address(),
            satisfied: session.map_or(&no_proof, |it| &it.satisfied),
        };
        if let (Some(record), Some(session)) = (record.as_mut(), session) {
            record.access.user = session.claims.sub.to_string();
            record.access.session = session.claims.sid.to_string();
        }
        let verdict = match policy::authorize(self.tenant, &facts) {
            Ok(authorized) => return Ok(authorized),
            Err(Denied::NotAssigned) => return Err(Refusal::NotAssigned.into()),
            Err(Denied::Policy(verdict)) => verdict,
        };
        if let Some(record) = record {
            record.access.policies = ids(&verdict.applied);
            record.access.report_only = ids(&verdict.would_refuse);
        }
        Err(match verdict.decision {
            Decision::Deny(policy) => Refusal::Blocked(policy).into(),
            Decision::Challenge(_) if session.is_some() => self.ask_to_sign_in(true),
            // Nobody is there who could prove anything.
            Decision::Challenge(_) | Decision::Grant => Refusal::MoreProofRequired.into(),
        })
    }

    /// The user's certificate, where the application asks for one.
    fn client_certificate(&self) -> Result<Option<String>, Refusal> {
        let app = self.app();
        if app.client_ca_pem.is_empty() {
            return Ok(None);
        }
        // Not asked for over QUIC: who is told so comes again over TCP (RFC 9114, section 3.3).
        if self.parts.version == http::Version::HTTP_3 {
            return Err(Refusal::Misdirected);
        }
        let shown = &self.visitor.shown;
        match self.relay.client_authorities.verifies(app, shown, self.now.seconds()) {
            true => Ok(shown.field()),
            false => Err(Refusal::ClientCertificate),
        }
    }

    /// Not more than the application may be asked.
    fn meter(&self, entry: &Entry) -> Result<(), Refusal> {
        let Some(per_minute) = self.app().edge.requests_per_minute else { return Ok(()) };
        let user = entry.session.as_ref().map(|it| Who::User(it.claims.sub));
        let who = user.unwrap_or_else(|| Who::Address(self.address()));
        self.relay.quotas.take(self.app().id, who, per_minute, self.now).map_err(Refusal::TooManyRequests)
    }

    /// People are sent to sign in; programs are told to.
    fn ask_to_sign_in(&self, stronger: bool) -> Ended {
        if self.canonical.full_name {
            // Cookies of the name without the dot are not sent here.
            return match signin::to_usual_name(self.canonical) {
                Ok(response) => response.into(),
                Err(refusal) => refusal.into(),
            };
        }
        match Wants::of(&self.parts.method, &self.parts.headers) {
            Wants::Page => {
                let headers = &self.parts.headers;
                match signin::begin(self.keys, self.app(), self.canonical, headers, self.now, stronger) {
                    Ok(response) => response.into(),
                    Err(refusal) => refusal.into(),
                }
            }
            Wants::Json if stronger => Refusal::MoreProofRequired.into(),
            Wants::Json => Refusal::SignInRequired.into(),
        }
    }

    async fn our_own_path(&self, record: &mut Option<Record>) -> Ended {
        match self.canonical.path() {
            signin::CALLBACK if self.parts.method == Method::GET => self.callback(record).await,
            signin::SIGN_OUT => match signin::sign_out(self.keys, self.app(), self.canonical) {
                Ok(response) => response.into(),
                Err(refusal) => refusal.into(),
            },
            signin::ASSERTION_KEYS => assertion::key_set(self.keys).into(),
            signin::TEST => match self.test().await {
                Ok(response) => response.into(),
                Err(refusal) => refusal.into(),
            },
            _ => Refusal::NotPublished.into(),
        }
    }

    async fn callback(&self, record: &mut Option<Record>) -> Ended {
        let callback = signin::callback(self.keys, self.canonical, &self.parts.headers, self.now);
        let (app, exchange) = match callback {
            Ok(callback) => callback,
            Err(refusal) => return refusal.into(),
        };
        // The state names the application; it must be one on this host.
        let on_host = self.view.snapshot.routes.on_host(&self.canonical.host);
        if !on_host.iter().any(|route| route.app == app && route.tenant == *self.tenant_id) {
            return Refusal::SignInFailed("another application began").into();
        }
        let token = match self.relay.ask_identity(&Asking::of(self), "/token", exchange.form).await {
            Ok(token) => token,
            Err(refusal) => return refusal.into(),
        };
        let Ok(session) = self.relay.sessions.verify(&token, app, self.tenant_id, self.keys) else {
            return Refusal::SignInFailed("a token that does not verify").into();
        };
        if session.claims.nonce.as_deref() != Some(exchange.nonce.as_str()) {
            return Refusal::SignInFailed("a token of another sign-in").into();
        }
        if let Some(record) = record {
            record.access.user = session.claims.sub.to_string();
            record.access.session = session.claims.sid.to_string();
        }
        // Identity made it a moment ago. Whoever went on with it would be sent to
        // sign in again, and again.
        if !session.claims.is_of_now(self.now) {
            let ahead_s = self.now.seconds() - session.claims.iat;
            warn!(ahead_s, "a token that was just made does not hold: this clock and identity's differ");
            return Refusal::ClockWrong.into();
        }
        let Some(app) = self.tenant.app(app) else { return Refusal::NotPublished.into() };
        match signin::finish(app, &session, &exchange.back, self.now) {
            Ok(response) => response.into(),
            Err(refusal) => refusal.into(),
        }
    }

    async fn forward(
        &self,
        entry: Entry,
        authorized: Authorized,
        client_cert: Option<&str>,
        body: UserBody,
        upgrade: Option<OnUpgrade>,
        record: &mut Option<Record>,
    ) -> Result<Response<Body>, Ended> {
        let request_id = record.as_ref().map_or(String::new(), |it| it.access.request_id.clone());
        let traceparent = trace::traceparent(&Span::current(), &self.parts.headers, &request_id);
        let claims = entry.session.as_ref().map(|it| &it.claims);
        let assertion = match (self.app().assertion, &entry.session) {
            (true, Some(session)) => {
                let audience = self.app().external.to_string();
                Some(assertion::sign(self.keys, session, &audience, self.now).ok_or(Refusal::NotReady)?)
            }
            (true, None) | (false, _) => None,
        };
        let added = headers::Added {
            origin: &self.origin,
            upgrade: self.upgrade.as_deref(),
            peer: self.visitor.peer,
            request_id: &request_id,
            traceparent: &traceparent,
            user: claims,
            assertion: assertion.as_deref(),
            client_cert,
            took_authorization: entry.took_authorization,
        };
        let fields = headers::forward(&self.parts.headers, self.app(), self.canonical, &added)?;
        let admission = Admission {
            tenant: self.tenant_id.clone(),
            app: self.app().id,
            session: std::sync::Mutex::new(entry.session.clone()),
            address: std::sync::Mutex::new(self.address()),
        };
        let session = entry.session.as_ref().map(|it| it.claims.sid.0.as_u64_pair().1);
        let affinity = session.filter(|_| self.app().sticky).unwrap_or(0);
        let owner = session.unwrap_or(self.visitor.id);
        let user_statement = entry.session.as_ref().map_or_else(Bytes::new, |it| it.statement.clone());
        let forward =
            Forward { routed: self, authorized, fields, request_id, traceparent, affinity, owner, user_statement };
        let has_body = !body.is_end_stream();
        let mut response = forward.send(body, has_body, upgrade, admission, record).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            headers::back(response.headers_mut(), &self.canonical.authority, || self.links());
        }
        if let Some(fresh) = entry.renewed
            && let Some(cookie) = signin::renewed_cookie(self.app(), &fresh, self.now)
        {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }
}

impl Relay {
    fn record(&self, visitor: &Arc<Visitor>, parts: &Parts, request_id: &str, span: &Span) -> Option<Record> {
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let access = Access {
            request_id: request_id.to_owned(),
            address: visitor.peer.to_canonical().to_string(),
            method: parts.method.as_str().to_owned(),
            user_agent: user_agent.chars().take(256).collect(),
            ..Default::default()
        };
        Some(Record {
            access,
            tenant: TenantId::default_tenant(),
            started: self.clock.instant(),
            clock: self.clock,
            log: self.activity.clone(),
            count: self.metrics.clone(),
            visit: Visit::begin(visitor.clone()),
            span: span.clone(),
        })
    }
}

/// What a program is told to bring (RFC 6750, section 3).
fn challenge(refusal: &Refusal) -> HeaderValue {
    HeaderValue::from_static(match *refusal == Refusal::MoreProofRequired {
        true => "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\"",
        false => "Bearer error=\"invalid_token\"",
    })
}

/// The first segment, for the log: enough to see what was used, nothing private.
fn path_class(path: &str) -> String {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
    format!("/{}", first.chars().take(64).collect::<String>())
}

pub(crate) fn ids(policies: &[model::PolicyId]) -> Vec<String> {
    policies.iter().map(ToString::to_string).collect()
}

/// Header fields of a response, for the one place that makes them.
pub(crate) fn response_head(status: u32, fields: &Bytes) -> Option<(StatusCode, HeaderMap)> {
    let status = StatusCode::from_u16(u16::try_from(status).ok()?).ok()?;
    Some((status, tunnel::fields::decode(fields).ok()?))
}
