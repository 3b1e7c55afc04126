//! The OpenID provider: who may ask for a sign-in, and the codes and tokens that
//! follow one.
//!
//! Read: `clients` (who may ask), `authorize` (a browser is sent here, and back),
//! `grants` (the token endpoint), `codes` and `tokens` (what is handed out),
//! `device` (a sign-in for a device without a browser), `log_out`.

pub(crate) mod authorize;
mod clients;
mod codes;
mod device;
pub(crate) mod grants;
mod log_out;
mod tokens;

use std::sync::Arc;

pub(crate) use self::{codes::AuthorizationCodes, device::Devices, tokens::Tokens};
use crate::{controller::Controller, current::Current, sessions::Sessions, sign_in::SignIn, throttle::Throttle};

pub(crate) struct Provider {
    pub current: Current,
    pub sessions: Arc<Sessions>,
    pub sign_in: SignIn,
    pub codes: AuthorizationCodes,
    pub devices: Devices,
    pub tokens: Tokens,
    pub throttle: Arc<Throttle>,
    pub controller: Arc<Controller>,
}
