//! The token endpoint: what a client shows, and the tokens it gets for it.

use model::Tenant;
use serde::Deserialize;
use serde_json::Value;
use tokens::TokenKind;

use super::{
    Provider,
    clients::{Client, Return},
};

#[derive(Debug, Deserialize)]
pub(crate) struct TokenRequest {
    grant_type: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    client_secret: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    code_verifier: String,
    #[serde(default)]
    subject_token: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    device_code: String,
}

/// RFC 6749, section 5.2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenError(pub &'static str, pub &'static str);

pub(super) const INVALID_GRANT: TokenError =
    TokenError("invalid_grant", "the code, token or verifier does not hold; start over");
const INVALID_CLIENT: TokenError = TokenError("invalid_client", "the client is unknown or its secret is wrong");

impl Provider {
    pub(crate) async fn token(&self, request: TokenRequest) -> Result<Value, TokenError> {
        let tenant = self.current.tenant();
        let client = Client::find(&tenant, &request.client_id).ok_or(INVALID_CLIENT)?;
        match request.grant_type.as_str() {
            "authorization_code" => self.grant_code(&tenant, client, request).await,
            "urn:ietf:params:oauth:grant-type:token-exchange" => self.grant_exchange(&tenant, client, request).await,
            "refresh_token" => self.tokens.renew(&client, &request.refresh_token).await,
            "urn:ietf:params:oauth:grant-type:device_code" => {
                let session = self.devices.redeem(&client.id(), &request.device_code)?;
                self.tokens.grant(&client, &session, None).await
            }
            _ => Err(TokenError("unsupported_grant_type", "see /.well-known/openid-configuration")),
        }
    }

    async fn grant_code(&self, tenant: &Tenant, client: Client, request: TokenRequest) -> Result<Value, TokenError> {
        let code = self.codes.open(&request.code, &client.id(), &request.redirect_uri, &request.code_verifier);
        let code = self.tokens.faults.noted(TokenKind::Code, code).map_err(|_| INVALID_GRANT)?;
        let port = url::Url::parse(&request.redirect_uri).ok().and_then(|it| it.port_or_known_default());
        match client.may_return_to(tenant, &request.redirect_uri, port) {
            Some(Return::Relay) => self.check_secret(tenant, &client, &request.client_secret)?,
            Some(Return::Loopback) => {}
            None => return Err(INVALID_GRANT),
        }
        let first = self.codes.use_up(&code);
        self.tokens.faults.noted(TokenKind::Code, first).map_err(|_| INVALID_GRANT)?;
        self.tokens.grant(&client, &code.session, Some(code.request.nonce)).await
    }

    /// Relays renew a user's token with the one they have (RFC 8693).
    async fn grant_exchange(
        &self,
        tenant: &Tenant,
        client: Client,
        request: TokenRequest,
    ) -> Result<Value, TokenError> {
        self.check_secret(tenant, &client, &request.client_secret)?;
        let session = self.tokens.session_of(tenant, &client, &request.subject_token)?;
        self.tokens.grant(&client, &session, None).await
    }

    fn check_secret(&self, tenant: &Tenant, client: &Client, secret: &str) -> Result<(), TokenError> {
        self.tokens.check_secret(tenant, client, secret).map_err(|_| INVALID_CLIENT)
    }
}
