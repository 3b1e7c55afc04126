//! A statement of who the user is, from identity to the connectors of one
//! application, which relays pass on and cannot invent.
//!
//! It is a JWT of its own, with an audience that opens nothing: neither relays
//! nor the admin API nor identity believe it, and whoever takes one from a
//! connector has no credential in hand.
//!
//! Choices. A session token carries only the statement's signature: header and
//! claims follow from the claims of the session, so a cookie grows by 136 bytes
//! and not by 800. Given up: relays and identity must agree on every byte, so
//! the text of [`UserStatement`] never changes; another form is another claim.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    PublicKeys, SigningFault, SigningKey, TokenFault,
    verify::{Expected, Time, verify},
};

/// Connectors, all of them: the application says which. A group in its place
/// would make statements useless when an application moves to another group.
const STATEMENT_AUDIENCE: &str = "postern-connector";
/// Clocks beside applications differ more than ours.
const CLOCK_LEEWAY_S: i64 = 300;

/// Who the user of a request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStatement {
    aud: String,
    pub tenant: String,
    /// The application's id.
    pub app: String,
    /// The user's id.
    pub sub: String,
    /// The session's id.
    pub sid: String,
    pub preferred_username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub email: String,
    nbf: i64,
    exp: i64,
}

/// What a statement is made of: claims of a session token for an application.
#[derive(Deserialize)]
pub(crate) struct SessionFacts {
    aud: String,
    tenant: String,
    sub: String,
    sid: String,
    preferred_username: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    email: String,
    iat: i64,
    exp: i64,
}

impl From<SessionFacts> for UserStatement {
    fn from(it: SessionFacts) -> Self {
        Self {
            aud: STATEMENT_AUDIENCE.to_owned(),
            tenant: it.tenant,
            app: it.aud,
            sub: it.sub,
            sid: it.sid,
            preferred_username: it.preferred_username,
            name: it.name,
            email: it.email,
            nbf: it.iat,
            exp: it.exp,
        }
    }
}

impl UserStatement {
    /// The part of the JWT that is signed. No library writes the header, since
    /// every release must write the same.
    fn signed_text(&self, key_id: &str) -> Result<String, SigningFault> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: &'a str,
            kid: &'a str,
        }
        let header = serde_json::to_vec(&Header { alg: "ES256", kid: key_id }).map_err(SigningFault::Claims)?;
        let claims = serde_json::to_vec(self).map_err(SigningFault::Claims)?;
        Ok(format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
    }

    /// The signature alone.
    pub(crate) fn sign(&self, key: &SigningKey) -> Result<String, SigningFault> {
        key.sign_text(&self.signed_text(key.id())?)
    }

    /// The whole statement, from a signature that a session token carries.
    pub(crate) fn with_signature(&self, key_id: &str, signature: &str) -> Result<String, SigningFault> {
        Ok(format!("{}.{signature}", self.signed_text(key_id)?))
    }

    /// Is it about this application, now? Asked again at each use.
    pub fn check(&self, app: &str, now_s: i64) -> Result<(), TokenFault> {
        if self.app != app {
            return Err(TokenFault::WrongApplication);
        }
        Time { now_s, leeway_s: CLOCK_LEEWAY_S }.check(Some(self.nbf), self.exp)
    }
}

/// A verified statement, and the id of the key that signed it.
pub type VerifiedStatement = crate::verify::Verified<UserStatement>;

/// The statement of a tenant's identity about the user of an application.
pub fn verify_statement(
    text: &str,
    keys: &PublicKeys,
    tenant: &str,
    app: &str,
    now_s: i64,
) -> Result<VerifiedStatement, TokenFault> {
    let expected = Expected { audience: STATEMENT_AUDIENCE, tenant: Some(tenant), is_issuer: None, time: None };
    let verified: VerifiedStatement = verify(text, keys, &expected)?;
    verified.claims.check(app, now_s)?;
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Identity signs this text and relays put it together again, in whatever releases they are.
    #[test]
    fn the_text_of_a_statement_never_changes() {
        let statement = UserStatement::from(SessionFacts {
            aud: "app".into(),
            tenant: "default".into(),
            sub: "user".into(),
            sid: "session".into(),
            preferred_username: "alice".into(),
            name: "Alice \"A\" Ä".into(),
            email: String::new(),
            iat: 1,
            exp: 2,
        });
        let text = statement.signed_text("key").unwrap();
        let parts: Vec<String> =
            text.split('.').map(|it| String::from_utf8(URL_SAFE_NO_PAD.decode(it).unwrap()).unwrap()).collect();
        assert_eq!(
            parts,
            [
                r#"{"alg":"ES256","kid":"key"}"#,
                r#"{"aud":"postern-connector","tenant":"default","app":"app","sub":"user","sid":"session","preferred_username":"alice","name":"Alice \"A\" Ä","nbf":1,"exp":2}"#,
            ]
        );
    }
}
