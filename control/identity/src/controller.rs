//! Calls to a controller, signed with identity's own key.

use std::time::Duration;

use model::{Position, ProviderId, SessionId, UserId, arrival::ProviderClaims, keys::KeyPurpose};
use proto::{
    enrolment::CONTROLLER_NAME,
    v1::{ArriveRequest, EndSessionRequest, SetTotpRequest, internal_client::InternalClient},
};
use runtime::{
    dial::dial_any,
    telemetry::chain,
    tls::{link_client, roots},
};
use tokens::{SigningKey, internal};
use tonic::{Request, Status, metadata::MetadataValue, transport::Channel};
use tracing::warn;

use crate::current::Current;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Controller {
    pub current: Current,
    /// `https://HOST:PORT`, any of which will do.
    pub addresses: Vec<String>,
    pub signing: SigningKey,
}

impl Controller {
    pub(crate) async fn set_totp(&self, user: UserId, sealed_secret: Vec<u8>) -> Result<(), Status> {
        let request = self.signed(SetTotpRequest { user: user.to_string(), sealed_secret })?;
        self.dial().await?.set_totp(request).await.map(|_| ())
    }

    /// Records what changes with somebody who comes from a provider. Returns who
    /// they are, and the position of DIRECTORY that knows it.
    pub(crate) async fn arrive(
        &self,
        provider: ProviderId,
        claims: &ProviderClaims,
    ) -> Result<(UserId, Position), Status> {
        let it = claims.clone();
        let request = self.signed(ArriveRequest {
            provider: provider.to_string(),
            subject: it.subject,
            username: it.username,
            name: it.name,
            email: it.email,
            email_verified: it.email_verified,
            groups: it.groups.into_iter().collect(),
        })?;
        let answer = self.dial().await?.arrive(request).await?.into_inner();
        let user = answer.user.parse().map_err(|_| Status::internal("the controller named no user"))?;
        Ok((user, answer.position))
    }

    pub(crate) async fn end_session(&self, session: SessionId, user: UserId) -> Result<(), Status> {
        let request = self.signed(EndSessionRequest { session: session.to_string(), user: user.to_string() })?;
        self.dial().await?.end_session(request).await.map(|_| ())
    }

    fn signed<T>(&self, message: T) -> Result<Request<T>, Status> {
        let unsigned = || Status::internal("the call cannot be signed");
        let token = internal::sign(&self.signing, &self.current.tenant_id.to_string(), self.current.now().seconds());
        let token = token.map_err(|fault| {
            warn!(fault = %chain(&fault), "a call to a controller is not signed");
            unsigned()
        })?;
        let value = MetadataValue::try_from(format!("Bearer {token}"));
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIMEOUT);
        request.metadata_mut().insert("authorization", value.map_err(|_| unsigned())?);
        Ok(request)
    }

    async fn dial(&self) -> Result<InternalClient<Channel>, Status> {
        let tenant = self.current.tenant();
        let authorities = tenant.keys_for(KeyPurpose::Authority);
        let tls =
            roots(authorities.iter().map(|(_, key)| key.public_key.as_slice())).and_then(|it| link_client(it, None));
        let tls = tls.map_err(|_| Status::internal("the installation's authority cannot be read"))?;
        let channel = dial_any(&self.addresses, CONTROLLER_NAME, &tls, CALL_TIMEOUT).await;
        channel.map(InternalClient::new).ok_or_else(|| Status::unavailable("no controller can be reached"))
    }
}
