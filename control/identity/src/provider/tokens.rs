//! Session tokens: what a client is given for a session that holds, made from
//! what is true at that moment.

use std::{collections::BTreeSet, sync::Arc};

use model::{
    App, GroupId, Position, Principal, Tenant, User,
    app::Claim,
    session::{SessionClaims, TOKEN_GROUPS_MAX, satisfied_by},
};
use runtime::{sealing::SealingKey, secret::SharedSecret, telemetry::chain};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokens::{TokenFault, TokenFaults, TokenKind, clients::check_client_secret, session::COOKIE_TOKEN_BYTES_MAX};
use tracing::warn;

use super::{
    clients::Client,
    grants::{INVALID_GRANT, TokenError},
};
use crate::{
    current::Current,
    keys,
    sessions::{Sessions, SsoSession},
};

/// A refresh token, sealed.
#[derive(Serialize, Deserialize)]
struct Refresh {
    client: String,
    session: SsoSession,
}

pub(crate) struct Tokens {
    pub current: Current,
    pub sessions: Arc<Sessions>,
    /// Opens signing keys.
    pub sealing: Arc<SealingKey>,
    /// Seals refresh tokens.
    pub seal: SharedSecret,
    /// Counts tokens that are refused.
    pub faults: TokenFaults,
    pub life_s: u32,
}

impl Tokens {
    /// A token for a session that still holds, made from what is true now.
    pub(crate) async fn grant(
        &self,
        client: &Client,
        session: &SsoSession,
        nonce: Option<String>,
    ) -> Result<Value, TokenError> {
        // A revocation names the position that tokens must be made from.
        let needed = self.current.tenant().directory_for(session.user);
        let (tenant, directory) = self.current.caught_up(needed).await;
        let holds = self.sessions.check(&tenant, session);
        let over = |_| TokenError("invalid_grant", "the session is over; sign in again");
        self.faults.noted(TokenKind::Session, holds).map_err(over)?;
        let token = self.session_token(&tenant, client, session, nonce, directory)?;
        let refresh = self.seal.seal("refresh", &Refresh { client: client.id(), session: session.clone() });
        Ok(json!({
            "access_token": token,
            "id_token": token,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": self.life_s,
            "scope": "openid",
        }))
    }

    /// The same for a refresh token.
    pub(crate) async fn renew(&self, client: &Client, refresh_token: &str) -> Result<Value, TokenError> {
        let opened = self.seal.open::<Refresh>("refresh", refresh_token).ok_or(TokenFault::Malformed);
        let ours = opened.and_then(|it| if it.client == client.id() { Ok(it) } else { Err(TokenFault::WrongAudience) });
        let refresh = self.faults.noted(TokenKind::Refresh, ours).map_err(|_| INVALID_GRANT)?;
        self.grant(client, &refresh.session, None).await
    }

    /// The session that one of our tokens for a client speaks of.
    pub(crate) fn session_of(&self, tenant: &Tenant, client: &Client, token: &str) -> Result<SsoSession, TokenError> {
        let claims = keys::verify((&self.current.tenant_id, tenant), &client.audience(), token);
        let claims = self.faults.noted(TokenKind::Session, claims).map_err(|_| INVALID_GRANT)?;
        let (user, session, started_ms) = (claims.sub, claims.sid, claims.started_ms);
        Ok(SsoSession { user, session, started_ms, amr: claims.amr, provider: None })
    }

    /// Is it a relay, acting for this client?
    pub(crate) fn check_secret(&self, tenant: &Tenant, client: &Client, secret: &str) -> Result<(), TokenFault> {
        let checked = check_client_secret(&keys::relay_secrets(tenant, &self.sealing), &client.id(), secret);
        self.faults.noted(TokenKind::ClientSecret, checked)
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
        let wants_names = client
            .app(tenant)
            .is_some_and(|app| app.assertion || app.identity_headers.iter().any(|it| it.claim == Claim::Groups));
        let now = self.current.now().seconds();
        SessionClaims {
            iss: tenant.issuer(),
            aud: client.audience(),
            sub: user.id,
            sid: session.session,
            iat: now,
            exp: now + i64::from(self.life_s),
            started_ms: session.started_ms,
            directory,
            amr: session.amr.clone(),
            satisfied: satisfied_by(&session.amr),
            tenant: self.current.tenant_id.clone(),
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
fn groups_that_matter(tenant: &Tenant, app: Option<&App>) -> BTreeSet<GroupId> {
    let assignments = app.and_then(|app| tenant.assigned(app.id));
    let assigned = assignments.into_iter().flat_map(|it| it.iter()).filter_map(|principal| match principal {
        Principal::Group(group) => Some(*group),
        Principal::User(_) | Principal::Everyone => None,
    });
    let policies = tenant.policies.values().flat_map(|policy| policy.named_groups());
    assigned.chain(policies).collect()
}
