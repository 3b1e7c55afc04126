//! The part of a sign-in that an identity provider does: the page on which one is
//! chosen, the way there, and what follows when the user comes back.

use model::{
    IdentityProvider, ProviderId, Tenant, UserId,
    activity::SignInOutcome,
    arrival::{ArrivalFault, arrive},
    session::SESSION_LIFE_S,
};
use runtime::clock::fresh_id;

use super::{
    Progress, SignIn, attempt,
    flow::Flow,
    step::{Evidence, VouchedBy},
};
use crate::{
    pages::{Answer, Page},
    upstream::{Asks, Callback, Vouched, fault::UpstreamFault},
    visitor::Visitor,
};

/// A session lasts at least this long: who signed in at a provider earlier signs
/// in there again.
const SESSION_LEFT_S: i64 = 3600;

impl SignIn {
    /// A name and a password where there is no provider; else a name, or a provider.
    pub(super) fn identify_page(
        &self,
        tenant: &Tenant,
        flow: &Flow,
        username: &str,
        message: Option<String>,
    ) -> Answer {
        let providers = tenant.providers();
        if providers.is_empty() {
            return self.page(tenant, flow, |flow, app| Page::sign_in(flow, app, username, message));
        }
        let buttons = providers.iter().map(|it| (it.id.to_string(), it.name.to_string())).collect();
        self.page(tenant, flow, |flow, app| Page::identify(flow, app, username, buttons, message))
    }

    /// Somebody typed a name, or chose a provider.
    pub(crate) async fn identified(&self, visitor: &Visitor, sealed: &str, username: &str, provider: &str) -> Progress {
        let flow = match self.flow(visitor, sealed) {
            Ok(flow) => flow,
            Err(answer) => return Progress::Asks(answer),
        };
        let tenant = self.current.tenant();
        let username = username.trim().to_lowercase();
        let chosen = provider.parse().ok().and_then(|id: ProviderId| tenant.provider(id));
        let answer = match chosen.or_else(|| tenant.provider_of(&username)) {
            Some(provider) => self.visit(&tenant, flow, provider.id, Asks::default(), &username).await,
            None if username.is_empty() => self.identify_page(&tenant, &flow, "", None),
            None => self.page(&tenant, &flow, |flow, app| Page::sign_in(flow, app, &username, None)),
        };
        Progress::Asks(answer)
    }

    /// Sends the user to a provider, or says that it is away.
    pub(super) async fn visit(
        &self,
        tenant: &Tenant,
        mut flow: Flow,
        provider: ProviderId,
        asks: Asks,
        hint: &str,
    ) -> Answer {
        let Some(provider) = tenant.provider(provider) else {
            return self.identify_page(tenant, &flow, "", None);
        };
        let asks = Asks { again: asks.again || flow.asked.fresh, ..asks };
        let pending = self.upstream.pending(provider.id, asks);
        flow.pending = Some(pending.clone());
        let address = match self.seal.seal("visit", &flow) {
            Some(state) => self.upstream.address(provider, &pending, &state, hint).await,
            None => Err(UpstreamFault::Unreachable),
        };
        match self.upstream.faults.noted(provider.name.as_str(), address) {
            Ok(address) => Answer::redirect(&address),
            Err(_) => {
                let message = format!("{} cannot be reached. Try again in a minute.", provider.name);
                self.identify_page(tenant, &flow, "", Some(message)).unavailable()
            }
        }
    }

    /// A user came back from a provider.
    pub(crate) async fn came_back(&self, visitor: &Visitor, callback: Callback) -> Progress {
        let (mut flow, pending) = match self.sealed_flow(visitor, "visit", &callback.state) {
            Ok(Flow { pending: Some(pending), asked, browser, exp, evidence, new_totp }) => {
                (Flow { asked, browser, exp, evidence, new_totp, pending: None }, pending)
            }
            Ok(_) => return Progress::Asks(super::unavailable()),
            Err(answer) => return Progress::Asks(answer),
        };
        let tenant = self.current.tenant();
        let Some(provider) = tenant.provider(pending.provider) else {
            return Progress::Asks(self.identify_page(&tenant, &flow, "", None));
        };
        let vouched = self.upstream.vouched(provider, &pending, &callback).await;
        if let Ok(vouched) = &vouched
            && !pending.asks.again
            && vouched.at.plus_seconds(SESSION_LIFE_S - SESSION_LEFT_S) < self.current.now()
        {
            let asks = Asks { again: true, ..pending.asks };
            return Progress::Asks(self.visit(&tenant, flow, pending.provider, asks, "").await);
        }
        let arrived = match vouched {
            Ok(vouched) => self.arrived(&tenant, provider, pending.asks, vouched).await,
            Err(fault) => Err((fault, String::new())),
        };
        let (fault, username) = match arrived {
            Ok((user, vouched)) => {
                let tenant = self.current.tenant();
                let Some(user) = tenant.active_user(user) else { return super::not_possible() };
                flow.evidence = Evidence::by_provider(user.id, vouched);
                return self.go_on(&tenant, visitor, flow, user).await;
            }
            Err(failed) => failed,
        };
        let _noted = self.upstream.faults.noted::<()>(provider.name.as_str(), Err(fault));
        self.attempts.record(attempt(visitor, &flow, None, &username, SignInOutcome::ProviderRefused)).await;
        let name = &provider.name;
        let no_account =
            matches!(fault, UpstreamFault::NotLinked | UpstreamFault::NoUsername | UpstreamFault::NameTaken);
        let message = match no_account {
            true => format!("{name} knows you, but you have no account here. Ask your administrator."),
            false if fault == UpstreamFault::Denied => format!("{name} did not sign you in."),
            false => format!("Signing in with {name} did not work. Try again, or ask your administrator."),
        };
        Progress::Asks(self.identify_page(&tenant, &flow, "", Some(message)).unauthorized())
    }

    /// Who it is here. What changes with them is recorded first.
    async fn arrived(
        &self,
        tenant: &Tenant,
        provider: &IdentityProvider,
        asks: Asks,
        Vouched { claims, mfa, at }: Vouched,
    ) -> Result<(UserId, VouchedBy), (UpstreamFault, String)> {
        let failed = |fault| (fault, claims.username.clone());
        let (user, changes) = arrive(tenant, provider, &claims, UserId(fresh_id())).map_err(|it| failed(it.into()))?;
        let vouched = VouchedBy { provider: provider.id, asks, mfa, at };
        if changes.is_empty() {
            return Ok((user, vouched));
        }
        let recorded = self.controller.arrive(provider.id, &claims).await;
        let (user, position) = recorded.map_err(|status| {
            tracing::warn!(%status, "a user of a provider is not recorded");
            failed(UpstreamFault::NotRecorded)
        })?;
        self.current.caught_up(position).await;
        Ok((user, vouched))
    }
}

impl From<ArrivalFault> for UpstreamFault {
    fn from(fault: ArrivalFault) -> Self {
        match fault {
            ArrivalFault::Unknown => Self::NotLinked,
            ArrivalFault::Disabled => Self::Disabled,
            ArrivalFault::NoUsername => Self::NoUsername,
            ArrivalFault::NameTaken => Self::NameTaken,
            ArrivalFault::Subject => Self::TokenSubject,
        }
    }
}
