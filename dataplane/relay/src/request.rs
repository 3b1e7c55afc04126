//! The life of a request, on one page. In this order ([`RequestContext`]):
//!
//! 1. `read`: the request has one meaning ([`strict::canonical`]), or is refused.
//! 2. `route`: host and path name an application, whose configuration is fresh
//!    enough; from here on an answer is given in its name ([`Routed`]).
//! 3. Paths of ours (`/.postern/…`: callback, sign-out, keys, test) end here.
//! 4. [`http_rules`]: CORS preflights and `robots.txt` are answered here.
//! 5. Maintenance refuses.
//! 6. `client_certificate`: the user's, where the application asks for one.
//! 7. `enter`: the session, renewed if it must be; or the user is sent to sign in.
//! 8. `authorize`: policy judges, and alone makes the `Authorized` to go on with.
//! 9. `meter`: the application is not asked more often than it may be.
//! 10. `forward`: through a stream to a connector, which asks the application.
//! 11. `handle` makes the response of whatever came of it, with what every answer
//!     carries. The access is recorded when the last byte of it has left.
//!
//! Nothing here waits for controller, identity, log or analytics while a
//! signed-in user waits. What refuses is a `Refusal`.

pub(crate) mod client_authorities;
pub(crate) mod http_rules;
pub(crate) mod quota;
mod reachability;
mod route;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use eventlog::{
    View,
    judgement::{self, RecordedGroups, Sources},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use model::{
    Facts, Requirement,
    app::PreAuthentication,
    branding::Branding,
    policy::{Authorized, Denied},
    session::SessionFault,
};
use proto::signed::Verifier;
use runtime::clock::fresh_id;
use strict::canonical::{self, Canonical};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, debug, warn};

use crate::{
    current::Current,
    forward::{Delivery, Forward, Forwarder, body::Body, headers, routed::Routed, user_body::UserBody},
    keys::Keys,
    open::{
        connection_permits::ConnectionPermits,
        exchanges::Admission,
        user_connection::{ExchangeGuard, UserConnection},
    },
    record::{Recorder, access::Record, trace},
    refusal::{Reader, Refusal, Wants},
    refusal_texts::Language,
    request::{
        client_authorities::ClientAuthorities,
        quota::{Quotas, Who},
    },
    sessions::{
        UserSessions, assertion,
        session::{Presented, Session, presented},
        signin,
    },
};

/// What answering requests takes.
pub(crate) struct Requests {
    pub current: Arc<Current>,
    pub sessions: Arc<UserSessions>,
    pub forwarder: Forwarder,
    pub client_authorities: ClientAuthorities,
    pub quotas: Quotas,
    pub recorder: Arc<Recorder>,
    pub permits: Arc<ConnectionPermits>,
    pub tasks: TaskTracker,
    /// Whose permits are believed: the controllers'.
    pub trust: Verifier,
    /// HTTP/3 is spoken, and browsers are told so.
    pub http3: bool,
}

/// Every request ends here, as a response.
pub(crate) async fn handle(
    requests: Arc<Requests>,
    connection: Arc<UserConnection>,
    mut request: Request<UserBody>,
) -> Response<Body> {
    let request_id = fresh_id().simple().to_string();
    let wants = Wants::of(request.method(), request.headers());
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    // Bytes behind a declined upgrade could be read in two ways.
    let mut closes = upgrade.is_some() || requests.permits.is_pressed();
    let (parts, body) = request.into_parts();
    let span = trace::span(&parts, &request_id);
    let busy = ExchangeGuard::begin(connection.clone());
    let record = requests.recorder.begin(connection.peer, &parts, &request_id, &span);
    let (view, keys) = (requests.current.view(), requests.current.keys());
    let mut context = RequestContext {
        requests: &requests,
        connection: &connection,
        parts: &parts,
        view: &view,
        keys: &keys,
        record,
    };
    let read = context.read();
    let routed = read.as_ref().map_err(Clone::clone).and_then(|canonical| context.route(canonical));
    let ended = match &routed {
        Ok(routed) => context.answer(routed, body, upgrade).instrument(span).await,
        Err(refusal) => Err(refusal.clone().into()),
    };
    let mut record = context.record;
    let mut response = match ended {
        Ok(delivery) => delivery.into_response(record, busy, &requests.tasks),
        Err(Ended::Answered(response)) => {
            record.access.status = response.status().as_u16().into();
            response.map(Body::whole)
        }
        Err(Ended::Refused(refusal)) => {
            debug!(code = refusal.code(), ?refusal, "refused");
            record.access.status = refusal.status().as_u16().into();
            record.access.refusal = refusal.code().to_owned();
            // What follows on this connection cannot be trusted either.
            closes |= matches!(refusal, Refusal::BadRequest(_));
            let nobody = Branding::default();
            let branding = routed.as_ref().map_or(&nobody, |it| &it.tenant.branding);
            let now = requests.current.now();
            refused(&refusal, &Reader { wants, language: Language::of(&parts.headers), branding, now }, &request_id)
        }
    };
    if parts.method == Method::HEAD && matches!(response.body(), Body::Whole(_)) {
        // The library leaves this to us over HTTP/2 (RFC 9110, section 9.3.2).
        *response.body_mut() = Body::Whole(None);
    }
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let Some(routed) = routed.as_ref().ok().filter(|_| !switches) {
        http_rules::finish(response.headers_mut(), routed.app(), &parts);
        let over_quic_too = requests.http3 && routed.app().client_ca_pem.is_empty();
        if over_quic_too && parts.version < http::Version::HTTP_3 {
            http_rules::advertise(response.headers_mut(), routed.tenant);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    if closes && !switches && parts.version < http::Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn refused(refusal: &Refusal, reader: &Reader<'_>, request_id: &str) -> Response<Body> {
    let mut response = refusal.response(reader, request_id).map(Body::whole);
    if refusal.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge(refusal));
    }
    response
}

/// What a program is told to bring (RFC 6750, section 3).
fn challenge(refusal: &Refusal) -> HeaderValue {
    let Refusal::MoreProofRequired(missing) = refusal else {
        return HeaderValue::from_static("Bearer error=\"invalid_token\"");
    };
    let words = Requirement::list(missing);
    let text = format!("Bearer error=\"insufficient_user_authentication\", acr_values=\"{words}\"");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Bearer"))
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

impl From<Result<Response<Bytes>, Refusal>> for Ended {
    fn from(answer: Result<Response<Bytes>, Refusal>) -> Self {
        answer.map_or_else(Self::Refused, Self::from)
    }
}

/// Who was let in, and what their answer must carry.
#[derive(Default)]
struct Entry {
    session: Option<Arc<Session>>,
    took_authorization: bool,
    /// A fresh token for the user's cookie.
    renewed: Option<Arc<Session>>,
}

/// One request: how it came, what it is judged by for its whole life, and the
/// record of its access, which it owns.
struct RequestContext<'a> {
    requests: &'a Requests,
    connection: &'a UserConnection,
    parts: &'a Parts,
    view: &'a View,
    keys: &'a Keys,
    record: Record,
}

impl<'a> RequestContext<'a> {
    fn read(&mut self) -> Result<Canonical, Refusal> {
        let canonical = canonical::parse(self.parts, self.connection.sni.as_deref())?;
        self.record.access.host = canonical.host.clone();
        self.record.access.path_class = route::path_class(canonical.path());
        Ok(canonical)
    }

    /// Which application, and may it be served from what is known?
    fn route<'c>(&mut self, canonical: &'c Canonical) -> Result<Routed<'c>, Refusal>
    where
        'a: 'c,
    {
        let routed =
            route::route(self.connection, self.parts, canonical, self.view, self.keys, self.requests.current.now());
        let access = &mut self.record.access;
        match &routed {
            Ok(routed) => {
                access.app = routed.app().id.to_string();
                access.snapshot = self.view.snapshot.config;
                self.record.tenant = routed.tenant_id.clone();
            }
            Err(Refusal::NotPublished) => {
                access.app = route::whose_page(self.view, canonical, &self.parts.headers).unwrap_or_default();
            }
            Err(_) => {}
        }
        routed
    }

    async fn answer(
        &mut self,
        routed: &Routed<'_>,
        body: UserBody,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Delivery, Ended> {
        let path = routed.canonical.path();
        if path.starts_with(signin::OUR_PATHS) {
            // Boxed, as is all that few requests need: the rest stays small.
            return Err(Box::pin(self.our_own_path(routed)).await);
        }
        if let Some(response) = http_rules::answer(routed.app(), routed.parts, path) {
            return Err(response.into());
        }
        if routed.app().http_rules.maintenance {
            return Err(Refusal::Maintenance.into());
        }
        let certificate = self.client_certificate(routed)?;
        let entry = self.enter(routed).await?;
        let authorized = self.authorize(routed, &entry)?;
        self.meter(routed, &entry)?;
        self.forward(routed, entry, authorized, certificate.as_deref(), body, upgrade).await
    }

    async fn our_own_path(&mut self, routed: &Routed<'_>) -> Ended {
        match routed.canonical.path() {
            signin::CALLBACK if routed.parts.method == Method::GET => self.callback(routed).await.into(),
            signin::SIGN_OUT => signin::sign_out(routed.keys, routed.app(), routed.canonical).into(),
            signin::ASSERTION_KEYS => assertion::key_set(routed.keys).into(),
            signin::TEST => reachability::test(routed, &self.requests.forwarder, &self.requests.trust).await.into(),
            _ => Refusal::NotPublished.into(),
        }
    }

    async fn callback(&mut self, routed: &Routed<'_>) -> Result<Response<Bytes>, Refusal> {
        const FAILED: fn(&'static str) -> Refusal = Refusal::SignInFailed;
        let Routed { keys, canonical, now, .. } = *routed;
        let (app, exchange) = signin::callback(keys, canonical, &routed.parts.headers, now)?;
        // The state names the application; it must be one on this host.
        let on_host = routed.view.snapshot.routes.on_host(&canonical.host);
        if !on_host.iter().any(|route| route.app == app && route.tenant == *routed.tenant_id) {
            return Err(FAILED("another application began"));
        }
        let sessions = &self.requests.sessions;
        let token = sessions.identity.ask(&routed.asking(), "/token", exchange.form).await?;
        let session = sessions.verified.verify(&token, app, routed.tenant_id, keys);
        let session = session.map_err(|_| FAILED("a token that does not verify"))?;
        if session.claims.nonce.as_deref() != Some(exchange.nonce.as_str()) {
            return Err(FAILED("a token of another sign-in"));
        }
        self.note_user(&session);
        // Identity made it a moment ago. Whoever went on with it would be sent to
        // sign in again, and again.
        if !session.claims.is_of_now(now) {
            let ahead_s = now.seconds() - session.claims.iat;
            warn!(ahead_s, "a token that was just made does not hold: this clock and identity's differ");
            return Err(Refusal::ClockWrong);
        }
        // Asked again, identity would answer the same, and so on for ever.
        let facts = Facts::new(app, routed.address(), Some(session.signed_in()), now);
        let unmet: BTreeSet<_> = exchange.asked.into_iter().filter(|it| !it.is_met(&facts)).collect();
        if !unmet.is_empty() {
            return Err(Refusal::MoreProofRequired(unmet));
        }
        let app = routed.tenant.app(app).ok_or(Refusal::NotPublished)?;
        signin::finish(app, &session, &exchange.back, now)
    }

    fn note_user(&mut self, session: &Session) {
        self.record.access.user = session.claims.sub.to_string();
        self.record.access.session = session.claims.sid.to_string();
    }

    /// The session, renewed if it must be; a redirect or challenge if there is none.
    async fn enter(&self, routed: &Routed<'_>) -> Result<Entry, Ended> {
        if routed.app().pre_authentication == PreAuthentication::Passthrough {
            return Ok(Entry::default());
        }
        let (token, is_bearer) = match presented(&routed.parts.headers, routed.app().id) {
            Presented::Cookie(token) => (token, false),
            Presented::Bearer(token) => (token, true),
            Presented::Nothing => return Err(ask_to_sign_in(routed, BTreeSet::new())),
        };
        let verified = self.requests.sessions.verified.verify(token, routed.app().id, routed.tenant_id, routed.keys);
        let Ok(session) = verified else { return Err(ask_to_sign_in(routed, BTreeSet::new())) };
        match session.claims.check(routed.tenant, routed.now) {
            Ok(()) => {
                let renewed = match session.claims.wants_renewal(routed.now) && !is_bearer {
                    true => self.requests.sessions.renew_soon(routed.asking(), &session),
                    false => None,
                };
                Ok(Entry { session: Some(session), took_authorization: is_bearer, renewed })
            }
            Err(SessionFault::Renew) if !is_bearer => {
                match Box::pin(self.requests.sessions.renew_now(routed.asking(), &session)).await {
                    Ok(fresh) => Ok(Entry { session: Some(fresh.clone()), renewed: Some(fresh), ..Entry::default() }),
                    Err(away @ (Refusal::SignInUnavailable | Refusal::NotReady)) => Err(away.into()),
                    Err(_) => Err(ask_to_sign_in(routed, BTreeSet::new())),
                }
            }
            Err(SessionFault::Renew | SessionFault::Over) => Err(ask_to_sign_in(routed, BTreeSet::new())),
        }
    }

    fn authorize(&mut self, routed: &Routed<'_>, entry: &Entry) -> Result<Authorized, Ended> {
        let session = entry.session.as_deref();
        let who = session.map(Session::signed_in);
        let facts = Facts::new(routed.app().id, routed.address(), who, routed.now);
        if let Some(session) = session {
            self.note_user(session);
        }
        let decided = routed.tenant.authorize(&facts);
        let sources = Sources {
            groups: session.map_or_else(RecordedGroups::default, |it| it.recorded_groups.clone()),
            directory: session.map_or(0, |it| it.claims.directory),
            risk: self.view.snapshot.risk,
        };
        judgement::write(&mut self.record.access, &facts, sources, &decided);
        decided.map_err(|denied| match denied {
            Denied::NotAssigned => Refusal::NotAssigned.into(),
            Denied::Blocked { by, .. } => Refusal::Blocked(by).into(),
            Denied::Challenged { missing, .. } => match session {
                Some(_) => ask_to_sign_in(routed, missing),
                // Nobody is there who could prove anything.
                None => Refusal::MoreProofRequired(missing).into(),
            },
        })
    }

    /// The user's certificate, where the application asks for one.
    fn client_certificate(&self, routed: &Routed<'_>) -> Result<Option<String>, Refusal> {
        let app = routed.app();
        if app.client_ca_pem.is_empty() {
            return Ok(None);
        }
        // Not asked for over QUIC: who is told so comes again over TCP (RFC 9114, section 3.3).
        if routed.parts.version == http::Version::HTTP_3 {
            return Err(Refusal::Misdirected);
        }
        let certificate = &routed.connection.certificate;
        match self.requests.client_authorities.verifies(app, certificate, routed.now.seconds()) {
            true => Ok(certificate.field()),
            false => Err(Refusal::ClientCertificate),
        }
    }

    /// Not more than the application may be asked.
    fn meter(&self, routed: &Routed<'_>, entry: &Entry) -> Result<(), Refusal> {
        let Some(per_minute) = routed.app().http_rules.requests_per_minute else { return Ok(()) };
        let user = entry.session.as_ref().map(|it| Who::User(it.claims.sub));
        let who = user.unwrap_or_else(|| Who::Address(routed.address()));
        self.requests.quotas.take(routed.app().id, who, per_minute, routed.now).map_err(Refusal::TooManyRequests)
    }

    async fn forward(
        &mut self,
        routed: &Routed<'_>,
        entry: Entry,
        authorized: Authorized,
        client_cert: Option<&str>,
        body: UserBody,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Delivery, Ended> {
        let request_id = self.record.access.request_id.clone();
        let traceparent = trace::traceparent(&Span::current(), &routed.parts.headers, &request_id);
        let claims = entry.session.as_ref().map(|it| &it.claims);
        let assertion = match (routed.app().assertion, &entry.session) {
            (true, Some(session)) => {
                let audience = routed.app().external.to_string();
                Some(assertion::sign(routed.keys, session, &audience, routed.now).ok_or(Refusal::NotReady)?)
            }
            (true, None) | (false, _) => None,
        };
        let added = headers::Added {
            origin: &routed.origin,
            upgrade: routed.upgrade.as_deref(),
            peer: routed.connection.peer,
            request_id: &request_id,
            traceparent: &traceparent,
            user: claims,
            assertion: assertion.as_deref(),
            client_cert,
            took_authorization: entry.took_authorization,
        };
        let fields = headers::forward(&routed.parts.headers, routed.app(), routed.canonical, &added)?;
        let admission = Admission {
            tenant: routed.tenant_id.clone(),
            app: routed.app().id,
            session: std::sync::Mutex::new(entry.session.clone()),
            address: std::sync::Mutex::new(routed.address()),
        };
        let session = entry.session.as_ref().map(|it| it.claims.sid.0.as_u64_pair().1);
        let affinity = session.filter(|_| routed.app().sticky).unwrap_or(0);
        let owner = session.unwrap_or(routed.connection.id);
        let user_statement = entry.session.as_ref().map_or_else(Bytes::new, |it| it.statement.clone());
        let forward = Forward {
            forwarder: &self.requests.forwarder,
            routed,
            fields,
            request_id,
            traceparent,
            affinity,
            owner,
            user_statement,
        };
        let mut delivery = forward.send(authorized, body, upgrade, admission, &mut self.record.access).await?;
        if delivery.status != StatusCode::SWITCHING_PROTOCOLS {
            headers::back(&mut delivery.headers, &routed.canonical.authority, || routed.links());
        }
        if let Some(fresh) = entry.renewed
            && let Some(cookie) = signin::renewed_cookie(routed.app(), &fresh, routed.now)
        {
            delivery.headers.append(header::SET_COOKIE, cookie);
        }
        Ok(delivery)
    }
}

/// People are sent to sign in; programs are told to.
/// `missing` is what the session there is has not shown.
fn ask_to_sign_in(routed: &Routed<'_>, missing: BTreeSet<Requirement>) -> Ended {
    if routed.canonical.full_name {
        // Cookies of the name without the dot are not sent here.
        return signin::to_usual_name(routed.canonical).into();
    }
    match Wants::of(&routed.parts.method, &routed.parts.headers) {
        Wants::Page => {
            let headers = &routed.parts.headers;
            signin::begin(routed.keys, routed.app(), routed.canonical, headers, routed.now, missing).into()
        }
        Wants::Json if !missing.is_empty() => Refusal::MoreProofRequired(missing).into(),
        Wants::Json => Refusal::SignInRequired.into(),
    }
}
