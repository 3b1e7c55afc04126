//! One sign-in: what is asked, what is proved, where the answer goes.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use model::{
    AppId, Decision, Facts, Requirement, SessionId, Tenant, Timestamp, UserId,
    activity::{ProofMethod, SignInOutcome},
    policy::{self, SignedIn},
    session::{CLOCK_LEEWAY_S, SESSION_LIFE_S, satisfied_by},
};
use proto::v1::SignInAttempt;
use runtime::clock::{fresh_id, random_bytes};
use serde::Deserialize;
use tokens::cookies::cookie;
use url::Url;

use crate::{
    Identity,
    clients::Client,
    credentials::{check_code, totp},
    flow::{Asked, BROWSER_COOKIE, FLOW_LIFE_S, Flow, SSO_COOKIE, SsoSession, hash, random_token, set_cookie},
    pages::{Answer, Page},
};

#[derive(Debug, Deserialize)]
pub(crate) struct AuthorizeRequest {
    #[serde(default)]
    response_type: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    nonce: String,
    #[serde(default)]
    code_challenge: String,
    #[serde(default)]
    code_challenge_method: String,
    #[serde(default)]
    acr_values: String,
    #[serde(default)]
    prompt: String,
}

/// Who asks, as far as relays told.
pub(crate) struct Visitor {
    pub headers: HeaderMap,
    pub address: String,
    pub user_agent: String,
    /// The port users reach us on.
    pub port: Option<u16>,
}

/// What may be wrong with a request before anybody may be sent anywhere.
const BAD_REQUEST: (&str, &str) =
    ("This sign-in cannot begin", "The link or program that sent you here asked for something that is not allowed.");

/// What a sign-in has shown so far.
struct Shown {
    user: UserId,
    satisfied: BTreeSet<Requirement>,
    at: Timestamp,
}

impl Shown {
    fn by(session: &SsoSession) -> Self {
        Self { user: session.user, satisfied: satisfied_by(&session.amr), at: Timestamp(session.started_ms) }
    }

    /// A right password, and no more.
    fn now(user: UserId, now: Timestamp) -> Self {
        Self { user, satisfied: BTreeSet::new(), at: now }
    }
}

/// Half of what a full queue of passwords takes (`WAITING_HASHES_MAX`).
const BUSY_WAIT_S: i64 = 2;

impl Identity {
    pub(crate) fn authorize(&self, visitor: &Visitor, request: AuthorizeRequest) -> Answer {
        let tenant = self.tenant();
        let Some(client) = Client::find(&tenant, &request.client_id) else {
            return Answer::error(BAD_REQUEST.0, BAD_REQUEST.1);
        };
        if client.may_return_to(&tenant, &request.redirect_uri, visitor.port).is_none() {
            return Answer::error(BAD_REQUEST.0, BAD_REQUEST.1);
        }
        // From here on the client learns what is wrong.
        if request.response_type != "code" {
            return self.back_with_error(&request, "unsupported_response_type");
        }
        if request.code_challenge_method != "S256" || request.code_challenge.len() != 43 || request.state.is_empty() {
            return self.back_with_error(&request, "invalid_request");
        }
        // Ignored, the user would be sent back without it, and here again.
        let Ok(requirements) = Requirement::parse_list(&request.acr_values) else {
            return self.back_with_error(&request, "unmet_authentication_requirements");
        };
        let asked = Asked {
            client: client.id(),
            redirect_uri: request.redirect_uri.clone(),
            state: request.state.clone(),
            nonce: request.nonce.clone(),
            challenge: request.code_challenge.clone(),
            requirements,
            device: None,
        };
        let silent = request.prompt == "none";
        let fresh = request.prompt == "login";
        match self.session(visitor, &tenant).filter(|_| !fresh) {
            Some(session) if self.is_enough(&tenant, visitor, &asked, &session) => self.finish(asked, session),
            Some(_) | None if silent => self.back_with_error(&request, "login_required"),
            session => {
                // A fresh sign-in is a whole one.
                let known = session.filter(|it| !self.asks_for_sign_in(&tenant, visitor, &asked, it));
                self.begin(visitor, asked, known)
            }
        }
    }

    fn asks_for_sign_in(&self, tenant: &Tenant, visitor: &Visitor, asked: &Asked, session: &SsoSession) -> bool {
        let (missing, _) = self.missing(tenant, visitor, asked, Shown::by(session));
        missing.iter().any(|it| matches!(it, Requirement::SignInWithin(_)))
    }

    /// The signed-in browser, if it is one.
    pub(crate) fn session(&self, visitor: &Visitor, tenant: &Tenant) -> Option<SsoSession> {
        let session: SsoSession = self.between.open("sso", cookie(&visitor.headers, SSO_COOKIE)?)?;
        self.holds(tenant, &session).then_some(session)
    }

    /// Is what was proved enough for what is asked, and for every policy?
    fn is_enough(&self, tenant: &Tenant, visitor: &Visitor, asked: &Asked, session: &SsoSession) -> bool {
        self.missing(tenant, visitor, asked, Shown::by(session)).0.is_empty()
    }

    /// What the client and every policy ask beyond what was shown, and the
    /// policies that applied.
    fn missing(
        &self,
        tenant: &Tenant,
        visitor: &Visitor,
        asked: &Asked,
        shown: Shown,
    ) -> (BTreeSet<Requirement>, Vec<String>) {
        // Clocks of relays may be ahead of this one: a sign-in is a little older there.
        let now = self.now().plus_seconds(CLOCK_LEEWAY_S);
        let app = match Client::find(tenant, &asked.client) {
            Some(Client::App(app)) => Some(app),
            Some(_) | None => None,
        };
        let groups = tenant.groups_of(shown.user);
        let who = SignedIn { user: shown.user, groups: &groups, satisfied: &shown.satisfied, at: Some(shown.at) };
        let address = visitor.address.parse();
        let anywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let facts = Facts::new(
            app.unwrap_or(AppId(Default::default())),
            *address.as_ref().unwrap_or(&anywhere),
            Some(who),
            now,
        );
        let mut missing: BTreeSet<_> = asked.requirements.iter().filter(|it| !it.is_met(&facts)).copied().collect();
        let Some(app) = app else { return (missing, vec![]) };
        if address.is_err() {
            missing.extend((!Requirement::Mfa.is_met(&facts)).then_some(Requirement::Mfa));
            return (missing, vec![]);
        }
        let verdict = policy::evaluate(tenant.by_app.for_app(app), &facts);
        if let Decision::Challenge(by_policies) = verdict.decision {
            missing.extend(by_policies);
        }
        (missing, verdict.involved.applied.iter().map(ToString::to_string).collect())
    }

    pub(crate) fn begin(&self, visitor: &Visitor, asked: Asked, session: Option<SsoSession>) -> Answer {
        let held = cookie(&visitor.headers, BROWSER_COOKIE).filter(|it| it.len() == 43).map(str::to_owned);
        let browser = held.unwrap_or_else(random_token);
        let user = session.as_ref().map(|it| it.user);
        let exp = self.now().seconds() + FLOW_LIFE_S;
        let flow = Flow { asked, browser: hash(&browser), exp, user, session, new_totp: None };
        let answer = match user {
            // Known already: only more proof is missing.
            Some(user) => self.ask_for_code(flow, user),
            None => self.page(&flow, |flow, app| Page::sign_in(flow, app, "", None)),
        };
        answer.with_cookie(set_cookie(BROWSER_COOKIE, &browser, Some(FLOW_LIFE_S)))
    }

    fn page(&self, flow: &Flow, page: impl FnOnce(String, String) -> Page) -> Answer {
        let tenant = self.tenant();
        let app =
            Client::find(&tenant, &flow.asked.client).and_then(|it| it.app(&tenant).map(|app| app.name.to_string()));
        match self.between.seal("flow", flow) {
            Some(sealed) => Answer::page(page(sealed, app.unwrap_or_default())),
            None => Answer::error("Sign-in is unavailable", "Try again in a minute."),
        }
    }

    /// The flow of a page, if it is this browser's and not too old.
    fn flow(&self, visitor: &Visitor, sealed: &str) -> Result<Flow, Answer> {
        let again = || Answer::error("This page is too old", "Go back to the application and open it again.");
        let flow: Flow = self.between.open("flow", sealed).ok_or_else(again)?;
        let browser = cookie(&visitor.headers, BROWSER_COOKIE).ok_or_else(again)?;
        match flow.browser == hash(browser) && self.now().seconds() <= flow.exp {
            true => Ok(flow),
            false => Err(again()),
        }
    }

    pub(crate) async fn sign_in(&self, visitor: &Visitor, sealed: &str, username: &str, password: String) -> Answer {
        let mut flow = match self.flow(visitor, sealed) {
            Ok(flow) => flow,
            Err(answer) => return answer,
        };
        let typed = username.trim().to_lowercase();
        let wait = self.locked_throttle().wait_s(&typed, &visitor.address, self.now());
        if let Some(wait_s) = wait {
            self.tell(visitor, &flow, None, &typed, SignInOutcome::Throttled, vec![]).await;
            let message = format!("Too many attempts. Try again in {} seconds.", wait_s.max(1));
            return self.page(&flow, |flow, app| Page::sign_in(flow, app, username, Some(message))).too_many(wait_s);
        }
        let tenant = self.tenant();
        let user = tenant.user_by_name(&typed).cloned();
        let checked = self.credentials.password_is(&tenant, user.as_ref().map(|it| it.id), password).await;
        let Ok(right) = checked else {
            // Nothing was learnt about the password, so nothing counts against the user.
            self.tell(visitor, &flow, None, &typed, SignInOutcome::Busy, vec![]).await;
            let message = "Many people are signing in at this moment. Try again in a few seconds.".to_owned();
            return self.page(&flow, |flow, app| Page::sign_in(flow, app, username, Some(message))).busy(BUSY_WAIT_S);
        };
        let Some(user) = user.filter(|it| right && !it.disabled) else {
            self.locked_throttle().failed(&typed, &visitor.address, self.now());
            let outcome = if right { SignInOutcome::Disabled } else { SignInOutcome::WrongPassword };
            self.tell(visitor, &flow, None, &typed, outcome, vec![]).await;
            let message = Some("The username or password is not right.".to_owned());
            return self.page(&flow, |flow, app| Page::sign_in(flow, app, username, message)).unauthorized();
        };
        flow.user = Some(user.id);
        let (missing, policies) = self.missing(&tenant, visitor, &flow.asked, Shown::now(user.id, self.now()));
        if missing.contains(&Requirement::Mfa) || self.credentials.has_totp(&tenant, user.id) {
            return self.ask_for_code(flow, user.id);
        }
        self.complete(visitor, flow, user.id, vec![ProofMethod::Password.into()], policies).await
    }

    /// The code of an authenticator that is known, or a new one to set up.
    fn ask_for_code(&self, mut flow: Flow, user: UserId) -> Answer {
        let tenant = self.tenant();
        if self.credentials.has_totp(&tenant, user) {
            return self.page(&flow, |flow, app| Page::code(flow, app, None));
        }
        // Whoever may set up a second factor has just shown the first.
        if flow.session.take().is_some() {
            flow.user = None;
            let message = Some("Please confirm your password first.".to_owned());
            return self.page(&flow, |flow, app| Page::sign_in(flow, app, "", message));
        }
        let secret: [u8; 20] = random_bytes();
        flow.new_totp = Some(URL_SAFE_NO_PAD.encode(secret));
        self.enrol_page(&flow, &secret, None)
    }

    fn enrol_page(&self, flow: &Flow, secret: &[u8], message: Option<String>) -> Answer {
        let tenant = self.tenant();
        let account = flow.user.and_then(|id| tenant.users.get(&id)).map_or("user", |it| it.username.as_str());
        let Some(totp) = totp(secret, account) else {
            return Answer::error("Sign-in is unavailable", "Try again in a minute.");
        };
        let (url, text) = (totp.to_url().unwrap_or_default(), totp.secret().to_base32());
        self.page(flow, |flow, app| Page::enrol(flow, app, &url, &text, message))
    }

    pub(crate) async fn code_entered(&self, visitor: &Visitor, sealed: &str, code: &str) -> Answer {
        let flow = match self.flow(visitor, sealed) {
            Ok(flow) => flow,
            Err(answer) => return answer,
        };
        let Some(user) = flow.user else { return Answer::error(BAD_REQUEST.0, BAD_REQUEST.1) };
        let tenant = self.tenant();
        let name = tenant.users.get(&user).map_or(String::new(), |it| it.username.as_str().to_owned());
        let wait = self.locked_throttle().wait_s(&name, &visitor.address, self.now());
        if let Some(wait_s) = wait {
            self.tell(visitor, &flow, Some(user), &name, SignInOutcome::Throttled, vec![]).await;
            let message = Some(format!("Too many attempts. Try again in {} seconds.", wait_s.max(1)));
            return self.page(&flow, |flow, app| Page::code(flow, app, message)).too_many(wait_s);
        }
        if !self.proved(&tenant, &flow, user, code).await {
            self.locked_throttle().failed(&name, &visitor.address, self.now());
            self.tell(visitor, &flow, Some(user), &name, SignInOutcome::WrongCode, vec![]).await;
            let message = Some("That code is not right. Codes change every 30 seconds.".to_owned());
            let secret = flow.new_totp.as_ref().and_then(|it| URL_SAFE_NO_PAD.decode(it).ok());
            return match secret {
                Some(secret) => self.enrol_page(&flow, &secret, message),
                None => self.page(&flow, |flow, app| Page::code(flow, app, message)),
            }
            .unauthorized();
        }
        let (_, policies) = self.missing(&tenant, visitor, &flow.asked, Shown::now(user, self.now()));
        self.complete(
            visitor,
            flow,
            user,
            vec![ProofMethod::Password.into(), ProofMethod::OneTimeCode.into()],
            policies,
        )
        .await
    }

    /// The code is right; a new authenticator is recorded first.
    async fn proved(&self, tenant: &Tenant, flow: &Flow, user: UserId, code: &str) -> bool {
        let Some(new) = &flow.new_totp else { return self.credentials.code_is(tenant, user, code, self.now()) };
        let Some(secret) = URL_SAFE_NO_PAD.decode(new).ok() else { return false };
        if check_code(&secret, code, self.now()).is_none() {
            return false;
        }
        let Ok(sealed) = self.sealing.public().seal("totp", &secret) else { return false };
        match self.set_totp(user, sealed).await {
            Ok(()) => true,
            Err(status) => {
                tracing::warn!(%status, "a second factor is not recorded");
                false
            }
        }
    }

    async fn complete(
        &self,
        visitor: &Visitor,
        flow: Flow,
        user: UserId,
        amr: Vec<String>,
        policies: Vec<String>,
    ) -> Answer {
        let tenant = self.tenant();
        if tenant.active_user(user).is_none() {
            return Answer::error("Sign-in is not possible", "Ask your administrator.");
        }
        let session = match &flow.session {
            Some(session) => SsoSession { amr: amr.clone(), ..session.clone() },
            None => SsoSession { user, session: SessionId(fresh_id()), started_ms: self.now().0, amr: amr.clone() },
        };
        let name = tenant.users.get(&user).map_or(String::new(), |it| it.username.as_str().to_owned());
        self.locked_throttle().succeeded(&name);
        let attempt = self.attempt_of(visitor, &flow, Some(user), &name, SignInOutcome::Success, policies);
        self.attempt(SignInAttempt { session: session.session.to_string(), methods: amr, ..attempt }).await;
        self.finish(flow.asked, session)
    }

    /// Sends the user back with a code, signed in at this browser from now on.
    fn finish(&self, asked: Asked, session: SsoSession) -> Answer {
        let Some(sso) = self.between.seal("sso", &session) else {
            return Answer::error("Sign-in is unavailable", "Try again in a minute.");
        };
        let cookie = set_cookie(SSO_COOKIE, &sso, Some(SESSION_LIFE_S));
        let answer = match &asked.device {
            Some(code) => match self.approve_device(code, session) {
                true => Answer::page(Page::message("Device signed in", "You can close this page and go back to it.")),
                false => Answer::error("That code has ended", "Start again on the device."),
            },
            None => {
                let Some(code) = self.code(&asked, session) else {
                    return Answer::error("Sign-in is unavailable", "Try again in a minute.");
                };
                self.back(&asked.redirect_uri, &[("code", &code), ("state", &asked.state)])
            }
        };
        answer.with_cookie(cookie)
    }

    fn back_with_error(&self, request: &AuthorizeRequest, error: &str) -> Answer {
        self.back(&request.redirect_uri, &[("error", error), ("state", &request.state)])
    }

    /// With the issuer, so that answers of two providers cannot be mixed up (RFC 9207).
    fn back(&self, redirect_uri: &str, values: &[(&str, &str)]) -> Answer {
        let Ok(mut url) = Url::parse(redirect_uri) else { return Answer::error(BAD_REQUEST.0, BAD_REQUEST.1) };
        let issuer = self.tenant().issuer();
        url.query_pairs_mut().extend_pairs(values).append_pair("iss", &issuer);
        Answer::redirect(url.as_str())
    }

    pub(crate) fn locked_throttle(&self) -> std::sync::MutexGuard<'_, crate::throttle::Throttle> {
        self.throttle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn attempt_of(
        &self,
        visitor: &Visitor,
        flow: &Flow,
        user: Option<UserId>,
        username: &str,
        outcome: SignInOutcome,
        policies: Vec<String>,
    ) -> SignInAttempt {
        SignInAttempt {
            user: user.map_or(String::new(), |it| it.to_string()),
            username: username.chars().take(64).collect(),
            session: String::new(),
            app: flow.asked.client.clone(),
            address: visitor.address.clone(),
            user_agent: visitor.user_agent.clone(),
            outcome: outcome.into(),
            methods: vec![],
            policies,
        }
    }

    async fn tell(
        &self,
        visitor: &Visitor,
        flow: &Flow,
        user: Option<UserId>,
        username: &str,
        outcome: SignInOutcome,
        policies: Vec<String>,
    ) {
        self.attempt(self.attempt_of(visitor, flow, user, username, outcome, policies)).await;
    }
}
