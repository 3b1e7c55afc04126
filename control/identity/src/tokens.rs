//! Codes, tokens and renewal: the token endpoint.

use std::collections::HashMap;

use ::tokens::{TokenKind, clients::check_client_secret, session::COOKIE_TOKEN_BYTES_MAX};
use model::{
    GroupId, Position, Tenant, Timestamp, User, UserId,
    event::Stream,
    session::{SESSION_LIFE_S, SessionClaims, TOKEN_GROUPS_MAX},
};
use runtime::telemetry::chain;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};
use tracing::warn;

use crate::{
    Identity,
    clients::{Client, Return},
    flow::{SsoSession, hash},
    keys,
};

const CODE_LIFE_S: i64 = 60;
/// How long a token waits for the directory it must be made from.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// Codes remembered as used; they end after a minute.
const USED_CODES_MAX: usize = 100_000;

/// An authorization code, sealed.
#[derive(Serialize, Deserialize)]
struct Code {
    id: String,
    client: String,
    redirect_uri: String,
    challenge: String,
    nonce: String,
    session: SsoSession,
    exp: i64,
}

/// A refresh token, sealed.
#[derive(Serialize, Deserialize)]
struct Refresh {
    client: String,
    session: SsoSession,
}

/// Codes work once.
#[derive(Default)]
pub(crate) struct UsedCodes {
    until: HashMap<String, i64>,
    swept_s: i64,
}

impl UsedCodes {
    fn is_first_use(&mut self, id: &str, now_s: i64) -> bool {
        if self.until.len() >= USED_CODES_MAX && now_s != self.swept_s {
            self.swept_s = now_s;
            self.until.retain(|_, until| *until > now_s);
        }
        // Too many codes at once: better none than one twice.
        self.until.len() < USED_CODES_MAX && self.until.insert(id.to_owned(), now_s + CODE_LIFE_S).is_none()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct TokenRequest {
    grant_type: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    client_secret: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    code_verifier: String,
    #[serde(default)]
    subject_token: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    device_code: String,
}

/// RFC 6749, section 5.2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenError(pub &'static str, pub &'static str);

const INVALID_GRANT: TokenError = TokenError("invalid_grant", "the code, token or verifier does not hold; start over");
const INVALID_CLIENT: TokenError = TokenError("invalid_client", "the client is unknown or its secret is wrong");

impl Identity {
    pub(crate) fn code(&self, asked: &crate::flow::Asked, session: SsoSession) -> Option<String> {
        self.between.seal(
            "code",
            &Code {
                id: crate::flow::random_token(),
                client: asked.client.clone(),
                redirect_uri: asked.redirect_uri.clone(),
                challenge: asked.challenge.clone(),
                nonce: asked.nonce.clone(),
                session,
                exp: self.now().seconds() + CODE_LIFE_S,
            },
        )
    }

    pub(crate) async fn token(&self, request: TokenRequest) -> Result<Value, TokenError> {
        let tenant = self.tenant();
        let client = Client::find(&tenant, &request.client_id).ok_or(INVALID_CLIENT)?;
        match request.grant_type.as_str() {
            "authorization_code" => self.grant_code(&tenant, client, request).await,
            "urn:ietf:params:oauth:grant-type:token-exchange" => self.grant_exchange(&tenant, client, request).await,
            "refresh_token" => self.grant_refresh(client, request).await,
            "urn:ietf:params:oauth:grant-type:device_code" => self.grant_device(client, &request.device_code).await,
            _ => Err(TokenError("unsupported_grant_type", "see /.well-known/openid-configuration")),
        }
    }

    async fn grant_code(&self, tenant: &Tenant, client: Client, request: TokenRequest) -> Result<Value, TokenError> {
        let now_s = self.now().seconds();
        let code: Code = self.between.open("code", &request.code).ok_or(INVALID_GRANT)?;
        let holds = code.exp >= now_s
            && code.client == client.id()
            && code.redirect_uri == request.redirect_uri
            && code.challenge == hash(&request.code_verifier);
        if !holds {
            return Err(INVALID_GRANT);
        }
        let port = url::Url::parse(&request.redirect_uri).ok().and_then(|it| it.port_or_known_default());
        match client.may_return_to(tenant, &request.redirect_uri, port) {
            Some(Return::Relay) => self.check_secret(tenant, &client, &request.client_secret)?,
            Some(Return::Loopback) => {}
            None => return Err(INVALID_GRANT),
        }
        if !self.used_codes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_first_use(&code.id, now_s) {
            return Err(INVALID_GRANT);
        }
        self.grant(&client, &code.session, Some(code.nonce)).await
    }

    /// Relays renew a user's token with the one they have (RFC 8693).
    async fn grant_exchange(
        &self,
        tenant: &Tenant,
        client: Client,
        request: TokenRequest,
    ) -> Result<Value, TokenError> {
        self.check_secret(tenant, &client, &request.client_secret)?;
        let claims = keys::verify((&self.tenant_id, tenant), &client.audience(), &request.subject_token);
        let claims = self.token_faults.noted(TokenKind::Session, claims).map_err(|_| INVALID_GRANT)?;
        let session =
            SsoSession { user: claims.sub, session: claims.sid, started_ms: claims.started_ms, amr: claims.amr };
        self.grant(&client, &session, None).await
    }

    async fn grant_refresh(&self, client: Client, request: TokenRequest) -> Result<Value, TokenError> {
        let refresh: Refresh = self.between.open("refresh", &request.refresh_token).ok_or(INVALID_GRANT)?;
        match refresh.client == client.id() {
            true => self.grant(&client, &refresh.session, None).await,
            false => Err(INVALID_GRANT),
        }
    }

    fn check_secret(&self, tenant: &Tenant, client: &Client, secret: &str) -> Result<(), TokenError> {
        let checked = check_client_secret(&keys::relay_secrets(tenant, &self.sealing), &client.id(), secret);
        self.token_faults.noted(TokenKind::ClientSecret, checked).map_err(|_| INVALID_CLIENT)
    }

    /// A token for a session that still holds, made from what is true now.
    pub(crate) async fn grant(
        &self,
        client: &Client,
        session: &SsoSession,
        nonce: Option<String>,
    ) -> Result<Value, TokenError> {
        let tenant = self.caught_up(session.user).await;
        if !self.holds(&tenant, session) {
            return Err(TokenError("invalid_grant", "the session is over; sign in again"));
        }
        let directory = self.projection.snapshot().directory;
        let token = self.session_token(&tenant, client, session, nonce, directory)?;
        let refresh = self.between.seal("refresh", &Refresh { client: client.id(), session: session.clone() });
        Ok(json!({
            "access_token": token,
            "id_token": token,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": self.settings.token_life_s,
            "scope": "openid",
        }))
    }

    /// A revocation names the directory that tokens must be made from.
    async fn caught_up(&self, user: UserId) -> std::sync::Arc<Tenant> {
        let needed: Position = self.tenant().directory_for(user);
        // Late: the token says from which directory it is, so relays notice.
        let _late = timeout(CATCH_UP_TIMEOUT, self.projection.reach(Stream::Directory, needed)).await;
        self.tenant()
    }

    /// Is this session still one?
    pub(crate) fn holds(&self, tenant: &Tenant, session: &SsoSession) -> bool {
        let started = Timestamp(session.started_ms);
        let revoked = tenant.user_revocations.get(&session.user).is_some_and(|it| started < it.sessions_before);
        tenant.active_user(session.user).is_some()
            && !revoked
            && started >= tenant.sessions_before
            && !tenant.session_revocations.contains_key(&session.session)
            && self.now() < started.plus_seconds(SESSION_LIFE_S)
    }

    /// A token that a cookie holds, with all groups of the user or with those that
    /// decide about the application.
    fn session_token(
        &self,
        tenant: &Tenant,
        client: &Client,
        session: &SsoSession,
        nonce: Option<String>,
        directory: Position,
    ) -> Result<String, TokenError> {
        let user = tenant.active_user(session.user).ok_or(INVALID_GRANT)?;
        let all: Vec<GroupId> = tenant.groups_of(user.id).into_iter().collect();
        let named = groups_that_matter(tenant, client.app(tenant));
        let deciding: Vec<GroupId> = all.iter().copied().filter(|it| named.contains(it)).collect();
        let count = all.len();
        let bytes_max = if client.app(tenant).is_some() { COOKIE_TOKEN_BYTES_MAX } else { usize::MAX };
        for groups in [all, deciding] {
            if groups.len() > TOKEN_GROUPS_MAX {
                continue;
            }
            let groups_left_out = groups.len() < count;
            let claims = self.claims(tenant, client, session, nonce.clone(), directory, (user, groups));
            let claims = SessionClaims { groups_left_out, ..claims };
            let token = keys::sign(tenant, &self.sealing, &claims).map_err(|fault| {
                warn!(fault = %chain(&fault), "no token is signed");
                TokenError("server_error", "no signing key; try again in a minute")
            })?;
            if token.len() <= bytes_max {
                return Ok(token);
            }
        }
        // Leaving one out could leave out the one that a policy blocks.
        warn!(user = %user.id, groups = count, "no token: too many groups decide about one application");
        Err(INVALID_GRANT)
    }

    fn claims(
        &self,
        tenant: &Tenant,
        client: &Client,
        session: &SsoSession,
        nonce: Option<String>,
        directory: Position,
        (user, groups): (&User, Vec<GroupId>),
    ) -> SessionClaims {
        let name_of = |id: &GroupId| tenant.groups.get(id).map(|it| it.name.to_string());
        let wants_names = client.app(tenant).is_some_and(|app| {
            app.assertion || app.identity_headers.iter().any(|it| it.claim == model::app::Claim::Groups)
        });
        let now = self.now().seconds();
        SessionClaims {
            iss: tenant.issuer(),
            aud: client.audience(),
            sub: user.id,
            sid: session.session,
            iat: now,
            exp: now + i64::from(self.settings.token_life_s),
            started_ms: session.started_ms,
            directory,
            amr: session.amr.clone(),
            satisfied: model::session::satisfied_by(&session.amr),
            tenant: self.tenant_id.clone(),
            preferred_username: user.username.as_str().to_owned(),
            name: user.display_name.to_string(),
            email: user.email.to_string(),
            group_names: if wants_names { groups.iter().filter_map(name_of).collect() } else { vec![] },
            groups,
            groups_left_out: false,
            nonce: nonce.filter(|it| !it.is_empty()),
        }
    }
}

/// Groups that an assignment of this application or a policy names.
fn groups_that_matter(tenant: &Tenant, app: Option<&model::App>) -> std::collections::BTreeSet<model::GroupId> {
    let assignments = app.and_then(|app| tenant.assigned(app.id));
    let assigned = assignments.into_iter().flat_map(|it| it.iter()).filter_map(|principal| match principal {
        model::Principal::Group(group) => Some(*group),
        model::Principal::User(_) | model::Principal::Everyone => None,
    });
    let policies = tenant.policies.values().flat_map(|policy| policy.named_groups());
    assigned.chain(policies).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_works_once() {
        let mut used = UsedCodes::default();
        assert!(used.is_first_use("a", 0));
        assert!(!used.is_first_use("a", 1));
        for n in 0..USED_CODES_MAX {
            used.is_first_use(&n.to_string(), 0);
        }
        assert!(!used.is_first_use("b", 1), "none rather than one twice");
        assert!(used.is_first_use("b", CODE_LIFE_S), "ended codes make room");
    }
}
