//! One sign-in: what is asked, what is proved, and what is recorded of it.
//!
//! `step` says what comes next, `flow` is what lies between two steps. Each form
//! comes in here: its proof is checked, the attempt recorded, and the next page
//! shown, until all is proved.
//!
//! Not here: who may ask for a sign-in, and what follows one (`provider`).

pub(crate) mod flow;
mod step;
mod visit;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use model::{
    AppId, Decision, Facts, Proof, Requirement, SessionId, Tenant, User, UserId, activity::SignInOutcome, policy,
    session::CLOCK_LEEWAY_S,
};
use proto::v1::SignInAttempt;
use runtime::{clock::fresh_id, secret::SharedSecret};
use tokens::{
    cookies::cookie,
    random_text::{hash, random_token},
};

use self::{
    flow::{Flow, SignInRequest},
    step::{Evidence, HomeProvider, Step},
};
use crate::{
    attempts::Attempts,
    controller::Controller,
    current::Current,
    pages::{Answer, Page},
    proofs::{
        ProofFault, ProofFaults,
        password::Passwords,
        registered,
        totp::{Codes, NewSecret},
    },
    sessions::{SsoSession, set_cookie},
    throttle::Throttle,
    upstream::{Asks, Upstream},
    visitor::Visitor,
};

const BROWSER_COOKIE: &str = "__Host-signin";
/// A page may lie open for this long.
const FLOW_LIFE_S: i64 = 900;
/// Half of what a full queue of passwords takes (`WAITING_HASHES_MAX`).
const BUSY_WAIT_S: i64 = 2;

/// Where a sign-in stands.
pub(crate) enum Progress {
    /// The user has to do something: the page that says what.
    Asks(Answer),
    Done(Box<SignedIn>),
}

/// Whom a sign-in made known, and what for.
pub(crate) struct SignedIn {
    pub asked: SignInRequest,
    pub session: SsoSession,
}

impl Progress {
    fn done(asked: SignInRequest, session: SsoSession) -> Self {
        Self::Done(Box::new(SignedIn { asked, session }))
    }
}

pub(crate) struct SignIn {
    pub current: Current,
    /// Seals flows.
    pub seal: SharedSecret,
    pub passwords: Passwords,
    pub codes: Codes,
    pub faults: ProofFaults,
    pub throttle: Arc<Throttle>,
    pub attempts: Attempts,
    pub controller: Arc<Controller>,
    pub upstream: Upstream,
}

/// Where a user goes who has said nothing yet: to the provider everybody comes by,
/// unless a page of ours is wished.
fn directed(tenant: &Tenant, step: Step, asked: &SignInRequest) -> Step {
    if step != Step::Identify || asked.choose {
        return step;
    }
    let direct = tenant.providers().into_iter().find(|it| it.direct);
    direct.map_or(step, |it| Step::Visit(it.id, Asks::default()))
}

/// A proof somebody tried.
struct TriedProof<'a> {
    proof: Proof,
    /// Whom it proves, once that is known.
    user: Option<UserId>,
    username: &'a str,
}

impl SignIn {
    /// A sign-in begins, perhaps by making stronger what a session has shown.
    pub(crate) async fn begin(&self, visitor: &Visitor, asked: SignInRequest, session: Option<SsoSession>) -> Progress {
        let held = cookie(&visitor.headers, BROWSER_COOKIE).filter(|it| it.len() == 43).map(str::to_owned);
        let browser = held.unwrap_or_else(random_token);
        let exp = self.current.now().seconds() + FLOW_LIFE_S;
        let evidence = Evidence::before(session.clone());
        let flow = Flow { asked, browser: hash(&browser), exp, evidence, new_totp: None, pending: None };
        let tenant = self.current.tenant();
        match (self.next(&tenant, visitor, &flow).0, session) {
            (Step::Done, Some(session)) => Progress::done(flow.asked, session),
            (step, _) => {
                let step = directed(&tenant, step, &flow.asked);
                let answer = self.ask(&tenant, flow, step, None).await;
                Progress::Asks(answer.with_cookie(set_cookie(BROWSER_COOKIE, &browser, FLOW_LIFE_S)))
            }
        }
    }

    pub(crate) async fn password_entered(
        &self,
        visitor: &Visitor,
        sealed: &str,
        username: &str,
        password: String,
    ) -> Progress {
        let mut flow = match self.flow(visitor, sealed) {
            Ok(flow) => flow,
            Err(answer) => return Progress::Asks(answer),
        };
        let tenant = self.current.tenant();
        let username = username.trim().to_lowercase();
        let tried = TriedProof { proof: Proof::Password, user: None, username: &username };
        if let Some(wait_s) = self.throttle.wait_s(&username, &visitor.address, self.current.now()) {
            return self.too_many(&tenant, visitor, flow, tried, wait_s).await;
        }
        let checked = self.passwords.check(&tenant, tenant.user_by_name(&username), password).await;
        match self.faults.noted(Proof::Password, checked) {
            Ok(user) => {
                flow.evidence = Evidence::by_password(user.id);
                self.go_on(&tenant, visitor, flow, user).await
            }
            Err(fault) => self.refuse(&tenant, visitor, flow, tried, fault).await,
        }
    }

    pub(crate) async fn code_entered(&self, visitor: &Visitor, sealed: &str, code: &str) -> Progress {
        let mut flow = match self.flow(visitor, sealed) {
            Ok(flow) => flow,
            Err(answer) => return Progress::Asks(answer),
        };
        let tenant = self.current.tenant();
        let Some(user) = flow.evidence.user.and_then(|id| tenant.active_user(id)) else { return not_possible() };
        let tried = TriedProof { proof: Proof::Totp, user: Some(user.id), username: user.username.as_str() };
        if let Some(wait_s) = self.throttle.wait_s(tried.username, &visitor.address, self.current.now()) {
            return self.too_many(&tenant, visitor, flow, tried, wait_s).await;
        }
        let checked = match &flow.new_totp {
            Some(new) => self.enrol(user.id, new, code).await,
            None => self.codes.check(&tenant, user.id, code, self.current.now()),
        };
        match self.faults.noted(Proof::Totp, checked) {
            Ok(()) => {
                flow.evidence.proofs.push(Proof::Totp);
                self.go_on(&tenant, visitor, flow, user).await
            }
            Err(fault) => self.refuse(&tenant, visitor, flow, tried, fault).await,
        }
    }

    /// A new authenticator counts once it is recorded.
    async fn enrol(&self, user: UserId, new: &NewSecret, code: &str) -> Result<(), ProofFault> {
        let sealed = self.codes.check_new(new, code, self.current.now())?;
        self.controller.set_totp(user, sealed).await.map_err(|status| {
            tracing::warn!(%status, "a second factor is not recorded");
            ProofFault::NotRecorded
        })
    }

    /// A proof was right: on to the next step, or to the end.
    async fn go_on(&self, tenant: &Tenant, visitor: &Visitor, flow: Flow, user: &User) -> Progress {
        let (step, policies) = self.next(tenant, visitor, &flow);
        if step != Step::Done {
            return Progress::Asks(self.ask(tenant, flow, step, None).await);
        }
        self.throttle.succeeded(user.username.as_str());
        let session = flow.evidence.clone().into_session(user.id, SessionId(fresh_id()), self.current.now());
        let attempt = SignInAttempt {
            session: session.session.to_string(),
            methods: session.amr.clone(),
            policies,
            ..attempt(visitor, &flow, Some(user.id), user.username.as_str(), SignInOutcome::Success)
        };
        self.attempts.record(attempt).await;
        Progress::done(flow.asked, session)
    }

    /// What comes next, and the policies that apply.
    fn next(&self, tenant: &Tenant, visitor: &Visitor, flow: &Flow) -> (Step, Vec<String>) {
        let Some(user) = flow.evidence.user else { return (Step::Identify, vec![]) };
        let (missing, policies) = self.missing(tenant, visitor, flow, user);
        let home = flow.evidence.provider().and_then(|id| tenant.provider(id));
        let home = home.map(|it| HomeProvider { provider: it.id, asks_mfa: !it.mfa_acr.is_empty() });
        (step::next(&flow.evidence, &registered(tenant, user), &missing, home), policies)
    }

    /// What the client and every policy ask beyond what was shown, and the
    /// policies that applied.
    fn missing(
        &self,
        tenant: &Tenant,
        visitor: &Visitor,
        Flow { asked, evidence, .. }: &Flow,
        user: UserId,
    ) -> (BTreeSet<Requirement>, Vec<String>) {
        let (groups, satisfied, now) = (tenant.groups_of(user), evidence.satisfied(), self.current.now());
        let who = policy::SignedIn { user, groups: &groups, satisfied: &satisfied, at: Some(evidence.at(now)) };
        let app = asked.app.filter(|app| tenant.apps.contains_key(app));
        let address = visitor.address.parse();
        let anywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let facts = Facts::new(
            app.unwrap_or(AppId(Default::default())),
            *address.as_ref().unwrap_or(&anywhere),
            Some(who),
            // Clocks of relays may be ahead of this one: a sign-in is a little older there.
            now.plus_seconds(CLOCK_LEEWAY_S),
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

    /// The page of a step.
    async fn ask(&self, tenant: &Tenant, mut flow: Flow, step: Step, message: Option<String>) -> Answer {
        let username = flow.evidence.user.and_then(|id| tenant.users.get(&id)).map_or("", |it| it.username.as_str());
        match step {
            Step::Identify => self.identify_page(tenant, &flow, "", message),
            Step::Visit(provider, asks) => {
                let hint = username.to_owned();
                self.visit(tenant, flow, provider, asks, &hint).await
            }
            Step::Prove(Proof::Password) => {
                let message = message.unwrap_or_else(|| "Please confirm your password first.".to_owned());
                self.page(tenant, &flow, |flow, app| Page::sign_in(flow, app, username, Some(message)))
            }
            Step::Prove(Proof::Totp) => self.page(tenant, &flow, |flow, app| Page::code(flow, app, message)),
            Step::Enrol(Proof::Totp) => {
                let secret = flow.new_totp.get_or_insert_with(NewSecret::generate).clone();
                let Some((url, text)) = secret.to_show(username) else { return unavailable() };
                self.page(tenant, &flow, |flow, app| Page::enrol(flow, app, &url, &text, message))
            }
            // Passwords are set by administrators, and nothing is asked of who is done.
            Step::Enrol(Proof::Password) | Step::Done => unavailable(),
        }
    }

    fn page(&self, tenant: &Tenant, flow: &Flow, page: impl FnOnce(String, String) -> Page) -> Answer {
        match self.seal.seal("flow", flow) {
            Some(sealed) => Answer::page(page(sealed, flow.asked.app_name(tenant))),
            None => unavailable(),
        }
    }

    /// The flow of a page, if it is this browser's and not too old.
    fn flow(&self, visitor: &Visitor, sealed: &str) -> Result<Flow, Answer> {
        self.sealed_flow(visitor, "flow", sealed)
    }

    fn sealed_flow(&self, visitor: &Visitor, purpose: &str, sealed: &str) -> Result<Flow, Answer> {
        let again = || Answer::error("This page is too old", "Go back to the application and open it again.");
        let flow: Flow = self.seal.open(purpose, sealed).ok_or_else(again)?;
        let browser = cookie(&visitor.headers, BROWSER_COOKIE).ok_or_else(again)?;
        match flow.browser == hash(browser) && self.current.now().seconds() <= flow.exp {
            true => Ok(flow),
            false => Err(again()),
        }
    }

    /// The same page once more, for who has tried too often.
    async fn too_many(
        &self,
        tenant: &Tenant,
        visitor: &Visitor,
        flow: Flow,
        tried: TriedProof<'_>,
        wait_s: i64,
    ) -> Progress {
        self.attempts.record(attempt(visitor, &flow, tried.user, tried.username, SignInOutcome::Throttled)).await;
        let message = format!("Too many attempts. Try again in {} seconds.", wait_s.max(1));
        Progress::Asks(self.once_more(tenant, flow, &tried, message).await.too_many(wait_s))
    }

    /// The same page once more, after a proof that is not accepted.
    async fn refuse(
        &self,
        tenant: &Tenant,
        visitor: &Visitor,
        flow: Flow,
        tried: TriedProof<'_>,
        fault: ProofFault,
    ) -> Progress {
        if !fault.is_ours() {
            self.throttle.failed(tried.username, &visitor.address, self.current.now());
        }
        let outcome = fault.outcome(tried.proof);
        self.attempts.record(attempt(visitor, &flow, tried.user, tried.username, outcome)).await;
        let message = match (fault, tried.proof) {
            (ProofFault::Busy, _) => "Many people are signing in at this moment. Try again in a few seconds.",
            (ProofFault::NotRecorded, _) => "That could not be saved. Try again in a minute.",
            (_, Proof::Password) => "The username or password is not right.",
            (_, Proof::Totp) => "That code is not right. Codes change every 30 seconds.",
        };
        let answer = self.once_more(tenant, flow, &tried, message.to_owned()).await;
        Progress::Asks(if fault.is_ours() { answer.busy(BUSY_WAIT_S) } else { answer.unauthorized() })
    }

    async fn once_more(&self, tenant: &Tenant, flow: Flow, tried: &TriedProof<'_>, message: String) -> Answer {
        match (tried.proof, &flow.new_totp) {
            (Proof::Password, _) => {
                self.page(tenant, &flow, |flow, app| Page::sign_in(flow, app, tried.username, Some(message)))
            }
            (Proof::Totp, None) => self.ask(tenant, flow, Step::Prove(Proof::Totp), Some(message)).await,
            (Proof::Totp, Some(_)) => self.ask(tenant, flow, Step::Enrol(Proof::Totp), Some(message)).await,
        }
    }
}

fn attempt(
    visitor: &Visitor,
    flow: &Flow,
    user: Option<UserId>,
    username: &str,
    outcome: SignInOutcome,
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
        policies: vec![],
    }
}

fn unavailable() -> Answer {
    Answer::error("Sign-in is unavailable", "Try again in a minute.")
}

fn not_possible() -> Progress {
    Progress::Asks(Answer::error("Sign-in is not possible", "Ask your administrator."))
}
