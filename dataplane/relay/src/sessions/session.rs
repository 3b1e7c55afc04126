//! The session of a request: its cookie or bearer token, verified.
//!
//! A token is a JWT identity signed for one application. Its signature is
//! checked once and remembered; whether it still holds is asked every time.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use eventlog::judgement::RecordedGroups;
use http::{HeaderMap, header};
use model::{AppId, GroupId, TenantId, Timestamp, policy::SignedIn, session::SessionClaims};
use quick_cache::{Equivalent, sync::Cache};
use tokens::{
    TokenFault, TokenFaults, TokenKind,
    cookies::cookie,
    session::{COOKIE_TOKEN_BYTES_MAX, Session as ExpectedSession, VerifiedSession, verify},
};

use crate::{keys::TenantKeys, settings::SESSION_CACHE_ENTRIES};

/// Every cookie of ours begins with this; none is forwarded, none is accepted
/// from an application. `__Host-` makes browsers refuse it from other hosts.
pub const COOKIE_PREFIX: &str = "__Host-postern";

/// A token with a good signature.
#[derive(Debug)]
pub struct Session {
    pub claims: SessionClaims,
    pub groups: BTreeSet<GroupId>,
    /// The same as each access records them: packed once, and shared.
    pub recorded_groups: RecordedGroups,
    pub token: String,
    /// Who the user is, signed by identity for connectors; empty if it signed none.
    pub statement: Bytes,
    /// The key that signed it.
    key: String,
    /// The assertion that was signed last for it.
    pub(crate) signed: Mutex<Option<SignedAssertion>>,
}

impl Session {
    /// The user, for a judgement.
    pub fn signed_in(&self) -> SignedIn<'_> {
        SignedIn {
            user: self.claims.sub,
            groups: &self.groups,
            satisfied: &self.claims.satisfied,
            at: Some(Timestamp(self.claims.started_ms)),
        }
    }
}

/// The assertion of a session, for one audience.
#[derive(Debug)]
pub(crate) struct SignedAssertion {
    pub text: Arc<str>,
    pub key: String,
    pub audience: String,
    pub iat: i64,
}

/// Somebody for tests.
#[cfg(test)]
pub(crate) fn alice() -> SessionClaims {
    SessionClaims {
        iss: "https://login.example.com".into(),
        aud: String::new(),
        sub: model::UserId(uuid::Uuid::from_u128(3)),
        sid: model::SessionId(uuid::Uuid::from_u128(4)),
        iat: 0,
        exp: 600,
        started_ms: 0,
        directory: 1,
        amr: vec![],
        satisfied: BTreeSet::new(),
        tenant: TenantId::default_tenant(),
        preferred_username: "alice".into(),
        name: String::new(),
        email: String::new(),
        groups: vec![],
        groups_left_out: false,
        group_names: vec![],
        nonce: None,
    }
}

#[cfg(test)]
impl Session {
    pub(crate) fn of(token: &str, claims: SessionClaims) -> Self {
        Self {
            claims,
            groups: BTreeSet::new(),
            recorded_groups: RecordedGroups::default(),
            token: token.into(),
            statement: Bytes::new(),
            key: String::new(),
            signed: Mutex::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    Nothing,
    Cookie(&'a str),
    Bearer(&'a str),
}

pub fn cookie_name(app: AppId) -> String {
    let id = app.0.simple().to_string();
    format!("{COOKIE_PREFIX}-{}", &id[id.len() - 12..])
}

/// The cookie counts before the header: an application may have tokens of its own.
pub fn presented(headers: &HeaderMap, app: AppId) -> Presented<'_> {
    if headers.contains_key(header::COOKIE)
        && let Some(token) = cookie(headers, &cookie_name(app))
    {
        return Presented::Cookie(token);
    }
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    match bearer {
        Some(token) if token.split('.').count() == 3 => Presented::Bearer(token),
        Some(_) | None => Presented::Nothing,
    }
}

/// Verified tokens. The key is the token and what it was verified for, whole.
pub struct Sessions {
    verified: Cache<SessionKey, Arc<Session>>,
    faults: TokenFaults,
}

/// What a session was verified from.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SessionKey {
    token: String,
    app: AppId,
}

/// To look one up without copying the token.
#[derive(Hash)]
struct SessionLookup<'a> {
    token: &'a str,
    app: AppId,
}

impl Equivalent<SessionKey> for SessionLookup<'_> {
    fn equivalent(&self, key: &SessionKey) -> bool {
        self.token == key.token && self.app == key.app
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::counting(TokenFaults::default())
    }
}

impl Sessions {
    /// With the tokens that are refused counted for somebody.
    pub fn counting(faults: TokenFaults) -> Self {
        Self { verified: Cache::new(SESSION_CACHE_ENTRIES), faults }
    }

    /// The session of a token, if identity of this tenant signed it for this
    /// application. Says nothing about revocation or expiry.
    pub fn verify(
        &self,
        token: &str,
        app: AppId,
        tenant: &TenantId,
        keys: &TenantKeys,
    ) -> Result<Arc<Session>, TokenFault> {
        self.faults.noted(TokenKind::Session, self.find(token, app, tenant, keys))
    }

    fn find(&self, token: &str, app: AppId, tenant: &TenantId, keys: &TenantKeys) -> Result<Arc<Session>, TokenFault> {
        if token.len() > COOKIE_TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong);
        }
        if let Some(session) = self.verified.get(&SessionLookup { token, app }) {
            // A key that was withdrawn takes its sessions along.
            keys.sessions.check(&session.key)?;
            return if session.claims.tenant == *tenant { Ok(session) } else { Err(TokenFault::WrongTenant) };
        }
        let session = Arc::new(check_signature(token, app, tenant, keys)?);
        self.verified.insert(SessionKey { token: token.to_owned(), app }, session.clone());
        Ok(session)
    }
}

fn check_signature(token: &str, app: AppId, tenant: &TenantId, keys: &TenantKeys) -> Result<Session, TokenFault> {
    let is_issuer = |iss: &str| keys.is_issuer(iss);
    let expected = ExpectedSession { audience: &app.to_string(), tenant: &tenant.to_string(), is_issuer: &is_issuer };
    let VerifiedSession::<SessionClaims> { claims, key, statement } = verify(token, &keys.sessions, &expected)?;
    let groups = claims.groups.iter().copied().collect();
    Ok(Session {
        recorded_groups: RecordedGroups::pack(&groups, claims.groups_left_out),
        groups,
        token: token.to_owned(),
        key,
        statement: statement.map_or_else(Bytes::new, Bytes::from),
        signed: Mutex::default(),
        claims,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use uuid::Uuid;

    use super::*;

    fn headers(fields: &[(header::HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_token_comes_in_the_cookie_of_its_application_or_as_bearer() {
        let (app, other) = (AppId(Uuid::from_u128(1)), AppId(Uuid::from_u128(2)));
        let name = cookie_name(app);
        let ours = headers(&[(header::COOKIE, &format!("x=1; {name}=token"))]);
        assert_eq!(presented(&ours, app), Presented::Cookie("token"));
        assert_eq!(presented(&ours, other), Presented::Nothing, "a cookie is for one application");
        let tossed = headers(&[(header::COOKIE, &format!("{name}=mine; {name}=tossed"))]);
        assert_eq!(presented(&tossed, app), Presented::Nothing);

        let bearer = |value: &str| match presented(&headers(&[(header::AUTHORIZATION, value)]), app) {
            Presented::Bearer(token) => token.to_owned(),
            Presented::Nothing | Presented::Cookie(_) => "none".to_owned(),
        };
        assert_eq!(bearer("Bearer a.b.c"), "a.b.c");
        assert_eq!(bearer("bearer  a.b.c "), "a.b.c");
        for not_ours in ["Basic YTpi", "Bearer opaque-token-of-the-application", "Bearer", "Negotiate a.b.c"] {
            assert_eq!(bearer(not_ours), "none", "{not_ours}");
        }
        let both = headers(&[(header::COOKIE, &format!("{name}=token")), (header::AUTHORIZATION, "Bearer a.b.c")]);
        assert_eq!(presented(&both, app), Presented::Cookie("token"), "the header is the application's then");
    }
}
