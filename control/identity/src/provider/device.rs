//! Signing in a device without a browser (RFC 8628): it shows a code, the user
//! types it elsewhere.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokens::random_text::random_token;

use super::{Provider, clients::Client, grants::TokenError};
use crate::{
    current::Current,
    pages::{Answer, Page},
    sessions::SsoSession,
    sign_in::flow::Then,
    visitor::Visitor,
};

const DEVICE_LIFE_S: i64 = 600;
const POLL_INTERVAL_S: i64 = 2;
const WAITING_MAX: usize = 1000;

/// Devices that wait for a user. Bounded and in memory: with several instances
/// of identity, both steps must meet the same one.
pub(crate) struct Devices {
    current: Current,
    /// By device code.
    waiting: Mutex<HashMap<String, Waiting>>,
}

struct Waiting {
    user_code: String,
    client: Client,
    exp: i64,
    session: Option<SsoSession>,
}

impl Provider {
    /// The answer to a device: what to show and what to ask with.
    pub(crate) fn begin_device(&self, client_id: &str) -> Result<Value, TokenError> {
        let tenant = self.current.tenant();
        let client = Client::find(&tenant, client_id).ok_or(TokenError("invalid_client", "the client is unknown"))?;
        let (device_code, user_code) = self.devices.begin(client)?;
        let uri = format!("{}/device", tenant.issuer());
        Ok(json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": uri,
            "verification_uri_complete": format!("{uri}?user_code={user_code}"),
            "expires_in": DEVICE_LIFE_S,
            "interval": POLL_INTERVAL_S,
        }))
    }

    /// A user typed the code of a device.
    pub(crate) async fn device_entered(&self, visitor: &Visitor, user_code: String) -> Answer {
        // Guessing codes costs like guessing passwords.
        let (guesser, now) = (format!("device {}", visitor.address), self.current.now());
        if let Some(wait_s) = self.throttle.wait_s(&guesser, &visitor.address, now) {
            return Answer::page(Page::device(String::new(), Some("Too many attempts.".into()))).too_many(wait_s);
        }
        let Some(client) = self.devices.client_of(&user_code) else {
            self.throttle.failed(&guesser, &visitor.address, now);
            let message = Some("There is no such code, or it has ended.".to_owned());
            return Answer::page(Page::device(String::new(), message)).bad_request();
        };
        let asked = client.asks_for(Default::default(), Then::ApproveDevice(user_code));
        self.after(self.sign_in.begin(visitor, asked, None).await)
    }
}

impl Devices {
    pub(crate) fn new(current: Current) -> Self {
        Self { current, waiting: Mutex::default() }
    }

    /// A device code and its user code.
    fn begin(&self, client: Client) -> Result<(String, String), TokenError> {
        let now = self.current.now().seconds();
        let mut waiting = self.waiting();
        waiting.retain(|_, it| it.exp > now);
        if waiting.len() >= WAITING_MAX {
            return Err(TokenError("temporarily_unavailable", "too many devices are waiting; try again in a minute"));
        }
        let (device_code, user_code) = (random_token(), user_code());
        let it = Waiting { user_code: user_code.clone(), client, exp: now + DEVICE_LIFE_S, session: None };
        waiting.insert(device_code.clone(), it);
        Ok((device_code, user_code))
    }

    /// The client that waits under a code a user typed.
    fn client_of(&self, user_code: &str) -> Option<Client> {
        let now = self.current.now().seconds();
        let (wanted, waiting) = (normal(user_code), self.waiting());
        let mut of_code = waiting.values().filter(|it| it.user_code == wanted);
        of_code.find(|it| it.exp > now && it.session.is_none()).map(|it| it.client.clone())
    }

    /// Hands a session to the device that waits under a user code; `false` when none does.
    pub(super) fn approve(&self, user_code: &str, session: SsoSession) -> bool {
        let (wanted, mut waiting) = (normal(user_code), self.waiting());
        match waiting.values_mut().find(|it| it.user_code == wanted && it.session.is_none()) {
            Some(it) => it.session = Some(session),
            None => return false,
        }
        true
    }

    /// The session of a device, once, when its user has signed in.
    pub(super) fn redeem(&self, client: &str, device_code: &str) -> Result<SsoSession, TokenError> {
        let now = self.current.now().seconds();
        let mut waiting = self.waiting();
        let it = waiting.get(device_code).filter(|it| it.client.id() == client && it.exp > now);
        let it = it.ok_or(TokenError("expired_token", "the code has ended; start over"))?;
        let session = it.session.clone();
        let session = session.ok_or(TokenError("authorization_pending", "the user has not answered yet"))?;
        waiting.remove(device_code);
        Ok(session)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Eight consonants: no words, nothing that looks like something else.
fn user_code() -> String {
    const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
    let random: [u8; 8] = runtime::clock::random_bytes();
    let code: String = random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect();
    format!("{}-{}", &code[..4], &code[4..])
}

fn normal(typed: &str) -> String {
    let letters: String = typed.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
    match letters.len() {
        8 => format!("{}-{}", &letters[..4], &letters[4..]),
        _ => letters,
    }
}
