//! Connection to a controller's admin API, and the typed client of each service.

use std::time::Duration;

use proto::{enrolment::CONTROLLER_NAME, v1};
use runtime::dial::dial;
use thiserror::Error;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::credential::{Credential, TlsError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
        let controller = || credential.controller.clone();
        let channel = dial(&credential.controller, CONTROLLER_NAME, credential.tls()?, CONNECT_TIMEOUT).await;
        let channel = channel.map_err(|source| ConnectError::Unreachable { controller: controller(), source })?;
        let bearer = credential.token.as_ref().map(|it| format!("Bearer {}", it.access).parse()).transpose()?;
        Ok(Self { channel, bearer: Bearer(bearer) })
    }

    services! {
        applications => applications_client::ApplicationsClient,
        connector_groups => connector_groups_client::ConnectorGroupsClient,
        connectors => connectors_client::ConnectorsClient,
        users => users_client::UsersClient,
        groups => groups_client::GroupsClient,
        assignments => assignments_client::AssignmentsClient,
        policies => policies_client::PoliciesClient,
        batches => batches_client::BatchesClient,
        sessions => sessions_client::SessionsClient,
        history => history_client::HistoryClient,
        keys => keys_client::KeysClient,
        certificates => certificates_client::CertificatesClient,
        tenants => tenants_client::TenantsClient,
    }
}
