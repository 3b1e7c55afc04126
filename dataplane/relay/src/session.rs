//! Who is asking: the session cookie or bearer token of a request.
//!
//! A token is a JWT identity signed for one application. Its signature is
//! checked once and remembered; whether it still holds is asked every time.

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, Validation};
use model::{
    AppId, GroupId, TenantId,
    policy::Control,
    session::{SESSION_LIFE_S, SessionClaims},
};
use quick_cache::sync::Cache;
use runtime::cookies::cookie;

use crate::{keys::TenantKeys, settings::SESSION_CACHE_ENTRIES};

/// Every cookie of ours begins with this; none is forwarded, none is accepted
/// from an application. `__Host-` makes browsers refuse it from other hosts.
pub const COOKIE_PREFIX: &str = "__Host-postern";
/// A cookie of 4 KiB holds it.
const TOKEN_BYTES_MAX: usize = 3900;

/// A token with a good signature.
#[derive(Debug)]
pub struct Session {
    pub claims: SessionClaims,
    pub groups: BTreeSet<GroupId>,
    pub satisfied: BTreeSet<Control>,
    pub token: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    Nothing,
    Cookie(String),
    Bearer(String),
}

pub fn cookie_name(app: AppId) -> String {
    let id = app.0.simple().to_string();
    format!("{COOKIE_PREFIX}-{}", &id[id.len() - 12..])
}

/// The cookie counts before the header: an application may have tokens of its own.
pub fn presented(headers: &HeaderMap, app: AppId) -> Presented {
    let name = cookie_name(app);
    if let Some(token) = cookie(headers, &name) {
        return Presented::Cookie(token.to_owned());
    }
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    match bearer {
        Some(token) if token.split('.').count() == 3 => Presented::Bearer(token.to_owned()),
        Some(_) | None => Presented::Nothing,
    }
}

/// Verified tokens. The key is the token and what it was verified for, whole.
pub struct Sessions {
    verified: Cache<(String, AppId), Arc<Session>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { verified: Cache::new(SESSION_CACHE_ENTRIES) }
    }
}

impl Sessions {
    /// The session of a token, if identity of this tenant signed it for this
    /// application. Says nothing about revocation or expiry.
    pub fn verify(&self, token: &str, app: AppId, tenant: &TenantId, keys: &TenantKeys) -> Option<Arc<Session>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let cache_key = (token.to_owned(), app);
        if let Some(session) = self.verified.get(&cache_key) {
            // A key that was withdrawn takes its sessions along.
            let trusted = kid(token).is_some_and(|kid| keys.session_key(&kid).is_some());
            return (trusted && session.claims.tenant == *tenant).then_some(session);
        }
        let session = Arc::new(check_signature(token, app, tenant, keys)?);
        self.verified.insert(cache_key, session.clone());
        Some(session)
    }
}

fn kid(token: &str) -> Option<String> {
    jsonwebtoken::decode_header(token).ok()?.kid
}

fn check_signature(token: &str, app: AppId, tenant: &TenantId, keys: &TenantKeys) -> Option<Session> {
    let key = keys.session_key(&kid(token)?)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[app.to_string()]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // The model judges time, with the clock of the request; here a token may be
    // as old as a session can be.
    validation.leeway = SESSION_LIFE_S as u64;
    let claims = jsonwebtoken::decode::<SessionClaims>(token, key, &validation).ok()?.claims;
    (claims.tenant == *tenant && keys.is_issuer(&claims.iss)).then(|| Session {
        groups: claims.groups.iter().copied().collect(),
        satisfied: claims.satisfied(),
        token: token.to_owned(),
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
        assert_eq!(presented(&ours, app), Presented::Cookie("token".into()));
        assert_eq!(presented(&ours, other), Presented::Nothing, "a cookie is for one application");
        let tossed = headers(&[(header::COOKIE, &format!("{name}=mine; {name}=tossed"))]);
        assert_eq!(presented(&tossed, app), Presented::Nothing);

        let bearer = |value: &str| presented(&headers(&[(header::AUTHORIZATION, value)]), app);
        assert_eq!(bearer("Bearer a.b.c"), Presented::Bearer("a.b.c".into()));
        assert_eq!(bearer("bearer  a.b.c "), Presented::Bearer("a.b.c".into()));
        for not_ours in ["Basic YTpi", "Bearer opaque-token-of-the-application", "Bearer", "Negotiate a.b.c"] {
            assert_eq!(bearer(not_ours), Presented::Nothing, "{not_ours}");
        }
        let both = headers(&[(header::COOKIE, &format!("{name}=token")), (header::AUTHORIZATION, "Bearer a.b.c")]);
        assert_eq!(presented(&both, app), Presented::Cookie("token".into()), "the header is the application's then");
    }
}
