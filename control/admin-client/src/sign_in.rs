//! Tokens of an administrator's sign-in: read from identity's answers, and
//! renewed shortly before they end.

use std::path::{Path, PathBuf};

use runtime::Clock;
use serde_json::Value;
use thiserror::Error;
use url::form_urlencoded;

use crate::{
    Credential, Tokens,
    credential::CredentialError,
    web::{Web, WebError},
};

/// The command line, as identity knows it.
pub const CLIENT: &str = "postern-cli";
/// Tokens are renewed this long before they end.
const RENEW_BEFORE_S: i64 = 60;

/// Why identity gave no tokens.
#[derive(Debug, Error)]
pub enum GrantError {
    #[error("{0}")]
    Refused(String),
    #[error("{url} refused without a reason")]
    RefusedSilently { url: String },
    #[error("the answer has no {0}")]
    Incomplete(&'static str),
}

#[derive(Debug, Error)]
pub enum RenewalError {
    #[error("reading the authority of the sign-in")]
    Authority(#[source] WebError),
    #[error("renewing the sign-in that is kept in {}", path.display())]
    Call { path: PathBuf, source: WebError },
    #[error("the sign-in that is kept in {} has ended; run postern login again", path.display())]
    Ended { path: PathBuf, source: GrantError },
    #[error("reading the renewed sign-in")]
    Answer(#[source] GrantError),
    #[error(transparent)]
    Save(#[from] CredentialError),
}

/// An answer that is a success, or what identity says against it.
pub fn granted(url: &str, (success, answer): (bool, Value)) -> Result<Value, GrantError> {
    match (success, answer["error_description"].as_str()) {
        (true, _) => Ok(answer),
        (false, Some(why)) => Err(GrantError::Refused(why.to_owned())),
        (false, None) => Err(GrantError::RefusedSilently { url: url.to_owned() }),
    }
}

/// The tokens of an answer (RFC 6749, section 5.1).
pub fn tokens(answer: &Value, token_url: &str) -> Result<Tokens, GrantError> {
    let text = |name| answer[name].as_str().map(str::to_owned).ok_or(GrantError::Incomplete(name));
    let now_s = Clock::default().now_ms() / 1000;
    Ok(Tokens {
        access: text("access_token")?,
        refresh: text("refresh_token")?,
        expires_s: now_s + answer["expires_in"].as_i64().unwrap_or(0),
        token_url: token_url.to_owned(),
    })
}

/// A sign-in whose token is about to end gets a new one, kept in its file.
pub async fn refreshed(path: &Path, mut credential: Credential) -> Result<Credential, RenewalError> {
    let Some(token) = credential.token.clone() else { return Ok(credential) };
    let now_s = Clock::default().now_ms() / 1000;
    if token.expires_s > now_s + RENEW_BEFORE_S {
        return Ok(credential);
    }
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT)
        .append_pair("refresh_token", &token.refresh)
        .finish();
    let web = Web::trusting(&credential.authority).map_err(RenewalError::Authority)?;
    let answer = web.post(&token.token_url, form).await;
    let answer = answer.map_err(|source| RenewalError::Call { path: path.to_owned(), source })?;
    let answer = granted(&token.token_url, answer);
    let answer = answer.map_err(|source| RenewalError::Ended { path: path.to_owned(), source })?;
    credential.token = Some(tokens(&answer, &token.token_url).map_err(RenewalError::Answer)?);
    credential.save(path)?;
    Ok(credential)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_told_in_identitys_words() {
        let url = "https://login.example.com/token";
        let said = |answer| granted(url, (false, answer)).err().map(|it| it.to_string());
        assert_eq!(said(json!({ "error_description": "too late" })).as_deref(), Some("too late"));
        assert_eq!(said(json!({})).unwrap_or_default(), format!("{url} refused without a reason"));
    }

    #[test]
    fn an_answer_without_a_refresh_token_is_not_kept() {
        let missing = tokens(&json!({ "access_token": "a", "expires_in": 60 }), "https://login.example.com/token");
        assert_eq!(missing.err().map(|it| it.to_string()).as_deref(), Some("the answer has no refresh_token"));
    }
}
