//! Connection to a controller's admin API, and the typed client of each service.

use std::{io, time::Duration};

use http::Uri;
use proto::{enrolment::CONTROLLER_NAME, v1};
use runtime::dial::{dial, dial_over};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::credential::{Credential, TlsError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As controllers take them.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("reading the certificates of the credential file")]
    Certificates(#[from] TlsError),
    #[error("reaching the controller at {controller}")]
    Unreachable { controller: String, source: tonic::transport::Error },
    #[error("reading the access token of the credential file")]
    Token(#[from] InvalidMetadataValue),
}

/// A connection to the admin API.
#[derive(Clone)]
pub struct Admin {
    channel: Channel,
    bearer: Bearer,
}

/// Adds the bearer token, if there is one.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Bearer>;

macro_rules! services {
    ($($name:ident => $module:ident :: $client:ident),* $(,)?) => {$(
        pub fn $name(&self) -> v1::$module::$client<Service> {
            v1::$module::$client::with_interceptor(self.channel.clone(), self.bearer.clone())
        }
    )*};
}

impl Admin {
    pub async fn connect(credential: &Credential) -> Result<Self, ConnectError> {
        let channel = dial(&credential.controller, CONTROLLER_NAME, credential.tls()?, CONNECT_TIMEOUT).await;
        Self::on(credential, channel)
    }

    /// Over connections that `open` opens, such as those of a simulation.
    pub async fn connect_over<I, F>(
        credential: &Credential,
        open: impl Fn(Uri) -> F + Clone + Send + 'static,
    ) -> Result<Self, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = io::Result<I>> + Send + 'static,
    {
        let (address, tls) = (&credential.controller, credential.tls()?);
        Self::on(credential, dial_over(address, CONTROLLER_NAME, tls, CONNECT_TIMEOUT, open).await)
    }

    fn on(credential: &Credential, channel: Result<Channel, tonic::transport::Error>) -> Result<Self, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { controller: credential.controller.clone(), source };
        let channel = channel.map_err(unreachable)?;
        let bearer = credential.token.as_ref().map(|it| format!("Bearer {}", it.access).parse()).transpose()?;
        Ok(Self { channel, bearer: Bearer(bearer) })
    }

    /// Objects of every kind. A file of 100,000 is one request.
    pub fn objects(&self) -> v1::objects_client::ObjectsClient<Service> {
        let client = v1::objects_client::ObjectsClient::with_interceptor(self.channel.clone(), self.bearer.clone());
        client.max_encoding_message_size(MESSAGE_BYTES_MAX).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    services! {
        applications => applications_client::ApplicationsClient,
        connectors => connectors_client::ConnectorsClient,
        users => users_client::UsersClient,
        providers => providers_client::ProvidersClient,
        policies => policies_client::PoliciesClient,
        sessions => sessions_client::SessionsClient,
        history => history_client::HistoryClient,
        keys => keys_client::KeysClient,
        certificates => certificates_client::CertificatesClient,
        tenants => tenants_client::TenantsClient,
    }
}
