//! What a provider says of itself (OpenID Connect Discovery 1.0), and its keys.

use std::sync::Arc;

use model::{IdentityProvider, Timestamp};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::{fault::UpstreamFault, keys::ProviderKeys, web};

/// How long a document is taken as it is.
const FRESH_S: i64 = 3600;
/// How long it serves while no newer one can be had.
const USABLE_S: i64 = 24 * 3600;
/// Unknown keys are asked about this often at most.
const KEYS_AGAIN_S: i64 = 30;

/// A provider as it described itself.
pub(crate) struct Discovered {
    provider: IdentityProvider,
    pub metadata: Metadata,
    pub tls: Arc<ClientConfig>,
    keys: Mutex<Option<(Timestamp, Arc<ProviderKeys>)>>,
    fetched: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Metadata {
    pub authorization_endpoint: Url,
    pub token_endpoint: Url,
    jwks_uri: Url,
    pub userinfo_endpoint: Option<Url>,
    /// The secret goes into a header, as is the standard's default.
    pub takes_basic: bool,
    /// It says who it is with each answer (RFC 9207).
    pub names_issuer: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    #[serde(default)]
    authorization_endpoint: String,
    #[serde(default)]
    token_endpoint: String,
    #[serde(default)]
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Reads a discovery document; `issuer` is the one it has to be of.
    pub(crate) fn parse(json: &[u8], issuer: &str) -> Result<Self, UpstreamFault> {
        let document: Document = serde_json::from_slice(json).map_err(|_| UpstreamFault::NotJson)?;
        if document.issuer != issuer {
            return Err(UpstreamFault::Issuer);
        }
        let endpoint = |text: &str| web::address(text).ok_or(UpstreamFault::Endpoint);
        let methods = document.token_endpoint_auth_methods_supported;
        Ok(Self {
            authorization_endpoint: endpoint(&document.authorization_endpoint)?,
            token_endpoint: endpoint(&document.token_endpoint)?,
            jwks_uri: endpoint(&document.jwks_uri)?,
            userinfo_endpoint: document.userinfo_endpoint.as_deref().map(endpoint).transpose()?,
            takes_basic: methods.is_none_or(|it| it.iter().any(|method| method == "client_secret_basic")),
            names_issuer: document.authorization_response_iss_parameter_supported,
        })
    }
}

impl Discovered {
    pub(crate) async fn fetch(provider: &IdentityProvider, now: Timestamp) -> Result<Self, UpstreamFault> {
        let tls = web::client(&provider.ca_pem)?;
        let text = format!("{}/.well-known/openid-configuration", provider.issuer.trim_end_matches('/'));
        let url = web::address(&text).ok_or(UpstreamFault::Endpoint)?;
        let body = web::get(&tls, &url, None).await?.ok()?;
        let metadata = Metadata::parse(&body, &provider.issuer)?;
        Ok(Self { provider: provider.clone(), metadata, tls, keys: Mutex::default(), fetched: now })
    }

    /// Is it about this object, as it is now?
    pub(crate) fn is_of(&self, provider: &IdentityProvider) -> bool {
        self.provider.issuer == provider.issuer && self.provider.ca_pem == provider.ca_pem
    }

    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.fetched.plus_seconds(FRESH_S)
    }

    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        now < self.fetched.plus_seconds(USABLE_S)
    }

    pub(crate) async fn keys(&self, now: Timestamp) -> Result<Arc<ProviderKeys>, UpstreamFault> {
        self.keys_since(now, Timestamp(0)).await
    }

    /// As published lately: not asked for more than once in 30 s, so that tokens
    /// which name keys nobody has do not become requests.
    pub(crate) async fn fresh_keys(&self, now: Timestamp) -> Result<Arc<ProviderKeys>, UpstreamFault> {
        self.keys_since(now, now.plus_seconds(-KEYS_AGAIN_S)).await
    }

    async fn keys_since(&self, now: Timestamp, oldest: Timestamp) -> Result<Arc<ProviderKeys>, UpstreamFault> {
        // Held while they are fetched: many who wait for them fetch them once.
        let mut known = self.keys.lock().await;
        if let Some((_, keys)) = known.as_ref().filter(|(fetched, _)| *fetched > oldest) {
            return Ok(keys.clone());
        }
        let body = web::get(&self.tls, &self.metadata.jwks_uri, None).await?.ok()?;
        let keys = Arc::new(ProviderKeys::parse(&body)?);
        *known = Some((now, keys.clone()));
        Ok(keys)
    }
}
