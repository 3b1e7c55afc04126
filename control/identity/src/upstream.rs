//! Signing in with somebody else's OpenID provider (OpenID Connect Core 1.0): the
//! user is sent there, and what the provider says of them is checked and fetched.
//!
//! Read: `discovery` (who the provider is), `id_token` (what is believed), `keys`,
//! `web` (how it is asked), `fault` (what can be wrong, and what to change).
//!
//! Not here: who that is at home (`model::arrival`), and what is asked next.

mod discovery;
pub(crate) mod fault;
mod id_token;
mod keys;
mod web;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{IdentityProvider, ProviderId, Timestamp, arrival::ProviderClaims, session::SESSION_LIFE_S};
use runtime::sealing::SealingKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokens::random_text::{hash, random_token};

use self::{
    discovery::Discovered,
    fault::{UpstreamFault, UpstreamFaults},
    id_token::{Expected, IdToken},
};
use crate::current::Current;

/// Groups of one person that are looked at.
const GROUPS_MAX: usize = 10_000;

pub(crate) struct Upstream {
    pub current: Current,
    pub sealing: Arc<SealingKey>,
    pub faults: UpstreamFaults,
    pub known: Mutex<HashMap<ProviderId, Arc<Discovered>>>,
}

/// What is asked of a provider beside who the user is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asks {
    /// A second factor.
    pub mfa: bool,
    /// That the user signs in there again.
    pub again: bool,
}

/// A user was sent to a provider, and what has to fit when they come back. Sealed
/// into `state`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub provider: ProviderId,
    pub asks: Asks,
    nonce: String,
    verifier: String,
    sent: Timestamp,
}

/// What came to the redirect URI.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Callback {
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    error: String,
    iss: Option<String>,
}

/// Who a provider says somebody is.
#[derive(Debug)]
pub(crate) struct Vouched {
    pub claims: ProviderClaims,
    pub mfa: bool,
    /// When they signed in there: `auth_time`, or now where the provider does not say.
    pub at: Timestamp,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
    #[serde(default)]
    access_token: String,
}

impl Upstream {
    pub(crate) fn pending(&self, provider: ProviderId, asks: Asks) -> Pending {
        let sent = self.current.now();
        Pending { provider, asks, nonce: random_token(), verifier: random_token(), sent }
    }

    /// Where to send the user; `hint` is a name they typed.
    pub(crate) async fn address(
        &self,
        provider: &IdentityProvider,
        pending: &Pending,
        state: &str,
        hint: &str,
    ) -> Result<String, UpstreamFault> {
        let discovered = self.discovered(provider).await?;
        let mut url = discovered.metadata.authorization_endpoint.clone();
        let scopes = std::iter::once("openid").chain(provider.scopes.iter().map(String::as_str));
        let scope = scopes.collect::<Vec<_>>().join(" ");
        {
            let mut query = url.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", &provider.client_id)
                .append_pair("redirect_uri", &self.redirect_uri())
                .append_pair("scope", &scope)
                .append_pair("state", state)
                .append_pair("nonce", &pending.nonce)
                .append_pair("code_challenge", &hash(&pending.verifier))
                .append_pair("code_challenge_method", "S256");
            if !hint.is_empty() {
                query.append_pair("login_hint", hint);
            }
            // With a greatest age the provider says when the user signed in.
            match pending.asks.again {
                true => query.append_pair("prompt", "login").append_pair("max_age", "0"),
                false => query.append_pair("max_age", &SESSION_LIFE_S.to_string()),
            };
            if pending.asks.mfa && !provider.mfa_acr.is_empty() {
                query.append_pair("acr_values", &provider.mfa_acr);
            }
        }
        Ok(url.into())
    }

    /// What the provider says of a user who came back.
    pub(crate) async fn vouched(
        &self,
        provider: &IdentityProvider,
        pending: &Pending,
        callback: &Callback,
    ) -> Result<Vouched, UpstreamFault> {
        let discovered = self.discovered(provider).await?;
        let names_issuer = discovered.metadata.names_issuer;
        match &callback.iss {
            Some(iss) if **iss != *provider.issuer => return Err(UpstreamFault::WrongIssuer),
            None if names_issuer => return Err(UpstreamFault::WrongIssuer),
            Some(_) | None => {}
        }
        if !callback.error.is_empty() {
            return Err(UpstreamFault::Denied);
        }
        if callback.code.is_empty() {
            return Err(UpstreamFault::Callback);
        }
        let answer = self.redeem(provider, &discovered, pending, &callback.code).await?;
        let token = self.verified(provider, &discovered, pending, &answer).await?;
        let mut claims = token.claims;
        if let Some(url) = &discovered.metadata.userinfo_endpoint
            && !answer.access_token.is_empty()
            && lacks(provider, &claims)
        {
            let body = web::get(&discovered.tls, url, Some(&answer.access_token)).await?.ok()?;
            let more: Map<String, Value> = serde_json::from_slice(&body).map_err(|_| UpstreamFault::NotJson)?;
            if more.get("sub").and_then(Value::as_str) != Some(&token.subject) {
                return Err(UpstreamFault::UserInfoSubject);
            }
            // What was signed counts before what was fetched.
            for (name, value) in more {
                claims.entry(name).or_insert(value);
            }
        }
        let at = token.signed_in.map_or(self.current.now(), |at| at.min(self.current.now()));
        Ok(Vouched { mfa: shows_mfa(provider, &claims), at, claims: read(provider, token.subject, &claims) })
    }

    async fn redeem(
        &self,
        provider: &IdentityProvider,
        discovered: &Discovered,
        pending: &Pending,
        code: &str,
    ) -> Result<TokenAnswer, UpstreamFault> {
        let secret = self.secret(provider.id);
        let redirect_uri = self.redirect_uri();
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", &pending.verifier),
            ("client_id", &provider.client_id),
        ];
        // RFC 6749, section 2.3.1: each half as a form writes it.
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let basic = secret.as_deref().filter(|_| discovered.metadata.takes_basic);
        let basic = basic.map(|it| STANDARD.encode(format!("{}:{}", encoded(&provider.client_id), encoded(it))));
        if let (Some(secret), None) = (&secret, &basic) {
            fields.push(("client_secret", secret));
        }
        let url = &discovered.metadata.token_endpoint;
        let answer = web::post_form(&discovered.tls, url, basic.as_deref(), &fields).await?;
        if answer.status.is_client_error() {
            return Err(UpstreamFault::Code);
        }
        serde_json::from_slice(&answer.ok()?).map_err(|_| UpstreamFault::NotJson)
    }

    async fn verified(
        &self,
        provider: &IdentityProvider,
        discovered: &Discovered,
        pending: &Pending,
        answer: &TokenAnswer,
    ) -> Result<IdToken, UpstreamFault> {
        let expected = Expected {
            issuer: &provider.issuer,
            client_id: &provider.client_id,
            nonce: &pending.nonce,
            access_token: Some(answer.access_token.as_str()).filter(|it| !it.is_empty()),
            signed_in_after: pending.asks.again.then_some(pending.sent),
            now: self.current.now(),
        };
        let keys = discovered.keys(expected.now).await?;
        match id_token::verify(&answer.id_token, &keys, &expected) {
            // A key that came since: asked for once in a while, whatever comes.
            Err(UpstreamFault::TokenKey) => {
                let keys = discovered.fresh_keys(expected.now).await?;
                id_token::verify(&answer.id_token, &keys, &expected)
            }
            verified => verified,
        }
    }

    async fn discovered(&self, provider: &IdentityProvider) -> Result<Arc<Discovered>, UpstreamFault> {
        let now = self.current.now();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&provider.id).cloned();
        let known = known.filter(|it| it.is_of(provider));
        if let Some(known) = known.as_ref().filter(|it| it.is_fresh(now)) {
            return Ok(known.clone());
        }
        match Discovered::fetch(provider, now).await {
            Ok(discovered) => {
                let discovered = Arc::new(discovered);
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(provider.id, discovered.clone());
                Ok(discovered)
            }
            // Its discovery document is away; the provider may be there.
            Err(fault) => known.filter(|it| it.is_usable(now)).ok_or(fault),
        }
    }

    fn redirect_uri(&self) -> String {
        format!("{}/upstream/callback", self.current.tenant().issuer())
    }

    fn secret(&self, provider: ProviderId) -> Option<String> {
        let tenant = self.current.tenant();
        let sealed = &tenant.provider_secrets.get(&provider)?.sealed;
        let opened = self.sealing.open("provider-secret", sealed).ok().filter(|_| !sealed.is_empty())?;
        String::from_utf8(opened).ok()
    }
}

fn named<'a>(claim: &'a str, default: &'a str) -> &'a str {
    if claim.is_empty() { default } else { claim }
}

fn username_claim(provider: &IdentityProvider) -> &str {
    named(&provider.username_claim, "preferred_username")
}

fn groups_claim(provider: &IdentityProvider) -> &str {
    named(&provider.groups_claim, "groups")
}

/// Does the token leave out what is looked at here?
fn lacks(provider: &IdentityProvider, claims: &Map<String, Value>) -> bool {
    let groups = (!provider.groups.is_empty()).then(|| groups_claim(provider));
    ["email", "name", username_claim(provider)].into_iter().chain(groups).any(|it| !claims.contains_key(it))
}

fn shows_mfa(provider: &IdentityProvider, claims: &Map<String, Value>) -> bool {
    let shows = |value: &Value| value.as_str().is_some_and(|it| provider.mfa_values.iter().any(|mine| mine == it));
    let amr = claims.get("amr").and_then(Value::as_array).is_some_and(|it| it.iter().any(shows));
    amr || claims.get("acr").is_some_and(shows)
}

fn read(provider: &IdentityProvider, subject: String, claims: &Map<String, Value>) -> ProviderClaims {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let groups = match claims.get(groups_claim(provider)) {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(all)) => all.iter().take(GROUPS_MAX).filter_map(Value::as_str).collect(),
        Some(_) | None => vec![],
    };
    // Only what the provider's object maps is ever asked about.
    let groups: BTreeSet<String> =
        groups.into_iter().filter(|it| provider.groups.contains_key(*it)).map(str::to_owned).collect();
    ProviderClaims {
        subject,
        username: text(username_claim(provider)),
        name: text("name"),
        email: text("email"),
        // Some write it as text, and a text is not the word of the standard.
        email_verified: claims.get("email_verified") == Some(&Value::Bool(true)),
        groups,
    }
}
