//! Signing in a device without a browser (RFC 8628): it shows a code, the user
//! types it elsewhere.

use std::{collections::HashMap, sync::PoisonError};

use serde_json::{Value, json};

use crate::{
    Identity,
    clients::Client,
    flow::{SsoSession, random_token},
    tokens::TokenError,
};

const DEVICE_LIFE_S: i64 = 600;
const POLL_INTERVAL_S: i64 = 2;
const WAITING_MAX: usize = 1000;

/// Devices that wait for a user. Bounded and in memory: with several instances
/// of identity, both steps must meet the same one.
#[derive(Default)]
pub(crate) struct Devices {
    by_device: HashMap<String, Waiting>,
}

struct Waiting {
    user_code: String,
    client: String,
    exp: i64,
    session: Option<SsoSession>,
}

impl Identity {
    /// The answer to a device: what to show and what to ask with.
    pub(crate) fn begin_device(&self, client_id: &str) -> Result<Value, TokenError> {
        let tenant = self.tenant();
        let client = Client::find(&tenant, client_id).ok_or(TokenError("invalid_client", "the client is unknown"))?;
        let now = self.now().seconds();
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.by_device.retain(|_, it| it.exp > now);
        if devices.by_device.len() >= WAITING_MAX {
            return Err(TokenError("temporarily_unavailable", "too many devices are waiting; try again in a minute"));
        }
        let (device_code, user_code) = (random_token(), user_code());
        devices.by_device.insert(
            device_code.clone(),
            Waiting { user_code: user_code.clone(), client: client.id(), exp: now + DEVICE_LIFE_S, session: None },
        );
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

    /// The client that waits under a code a user typed.
    pub(crate) fn device_client(&self, user_code: &str) -> Option<String> {
        let now = self.now().seconds();
        let wanted = normal(user_code);
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::iter_over_hash_type, reason = "at most one device has a code")]
        for waiting in devices.by_device.values() {
            if waiting.user_code == wanted && waiting.exp > now && waiting.session.is_none() {
                return Some(waiting.client.clone());
            }
        }
        None
    }

    pub(crate) fn approve_device(&self, user_code: &str, session: SsoSession) -> bool {
        let wanted = normal(user_code);
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::iter_over_hash_type, reason = "at most one device has a code")]
        for waiting in devices.by_device.values_mut() {
            if waiting.user_code == wanted && waiting.session.is_none() {
                waiting.session = Some(session);
                return true;
            }
        }
        false
    }

    pub(crate) async fn grant_device(&self, client: Client, device_code: &str) -> Result<Value, TokenError> {
        let session = {
            let now = self.now().seconds();
            let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = devices.by_device.get(device_code).filter(|it| it.client == client.id() && it.exp > now);
            let waiting = waiting.ok_or(TokenError("expired_token", "the code has ended; start over"))?;
            match &waiting.session {
                None => return Err(TokenError("authorization_pending", "the user has not answered yet")),
                Some(session) => {
                    let session = session.clone();
                    devices.by_device.remove(device_code);
                    session
                }
            }
        };
        self.grant(&client, &session, None).await
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
