//! What lies between two steps of a sign-in, sealed into the page: nothing is
//! kept here, and nothing in it can be changed or used in another browser.

use std::collections::BTreeSet;

use model::{AppId, Requirement, Tenant};
use serde::{Deserialize, Serialize};

use super::step::Evidence;
use crate::{proofs::totp::NewSecret, upstream::Pending};

/// What was asked for, checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SignInRequest {
    /// Whom it is for, as the record names it.
    pub client: String,
    /// The application behind the client, whose policies apply.
    pub app: Option<AppId>,
    /// What the client wants shown, beside what policies ask.
    pub requirements: BTreeSet<Requirement>,
    /// A page of ours is wished, where the user would be sent on.
    pub choose: bool,
    /// The user has to sign in here and now, also at a provider.
    pub fresh: bool,
    pub then: Then,
}

/// What follows a sign-in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Then {
    Return(CodeRequest),
    /// A device waits under this user code.
    ApproveDevice(String),
}

/// Where an authorization code goes, and what has to fit when it comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CodeRequest {
    pub redirect_uri: String,
    pub state: String,
    pub nonce: String,
    /// PKCE, S256.
    pub challenge: String,
}

impl SignInRequest {
    /// The name of the application, for pages.
    pub(crate) fn app_name(&self, tenant: &Tenant) -> String {
        self.app.and_then(|id| tenant.app(id)).map_or(String::new(), |app| app.name.to_string())
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub asked: SignInRequest,
    /// SHA-256 of the browser's cookie.
    pub browser: String,
    pub exp: i64,
    pub evidence: Evidence,
    /// An authenticator that is being set up.
    pub new_totp: Option<NewSecret>,
    /// A provider the user was sent to.
    pub pending: Option<Pending>,
}
