//! Authorization codes: sealed, short-lived, and good for one use.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use runtime::secret::SharedSecret;
use serde::{Deserialize, Serialize};
use tokens::{
    TokenFault,
    random_text::{hash, random_token},
};

use crate::{current::Current, sessions::SsoSession, sign_in::flow::CodeRequest};

const CODE_LIFE_S: i64 = 60;
/// Codes remembered as used; they end after a minute.
const USED_CODES_MAX: usize = 100_000;

pub(crate) struct AuthorizationCodes {
    current: Current,
    seal: SharedSecret,
    used: Mutex<UsedCodes>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct AuthorizationCode {
    id: String,
    client: String,
    pub request: CodeRequest,
    pub session: SsoSession,
    exp: i64,
}

impl AuthorizationCodes {
    pub(crate) fn new(current: Current, seal: SharedSecret) -> Self {
        Self { current, seal, used: Mutex::default() }
    }

    pub(crate) fn issue(&self, client: &str, request: &CodeRequest, session: SsoSession) -> Option<String> {
        let code = AuthorizationCode {
            id: random_token(),
            client: client.to_owned(),
            request: request.clone(),
            session,
            exp: self.current.now().seconds() + CODE_LIFE_S,
        };
        self.seal.seal("code", &code)
    }

    /// What a code stands for, if it is this client's and fits. It is not used up by this.
    pub(crate) fn open(
        &self,
        code: &str,
        client: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<AuthorizationCode, TokenFault> {
        let code: AuthorizationCode = self.seal.open("code", code).ok_or(TokenFault::Malformed)?;
        let fault = match () {
            () if code.exp < self.current.now().seconds() => TokenFault::Expired,
            () if code.client != client => TokenFault::WrongAudience,
            () if code.request.redirect_uri != redirect_uri => TokenFault::WrongRedirect,
            () if code.request.challenge != hash(verifier) => TokenFault::WrongVerifier,
            () => return Ok(code),
        };
        Err(fault)
    }

    /// Uses a code up.
    pub(crate) fn use_up(&self, code: &AuthorizationCode) -> Result<(), TokenFault> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let first = used.is_first_use(&code.id, self.current.now().seconds());
        first.then_some(()).ok_or(TokenFault::UsedBefore)
    }
}

/// Codes work once.
#[derive(Default)]
struct UsedCodes {
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
