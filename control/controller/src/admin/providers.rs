//! Identity providers: their secrets, and people who come from them.

use std::collections::BTreeSet;

use model::{
    Command, KindName, ObjectKey, ProviderId, UserId,
    arrival::{ProviderClaims, arrive},
    kinds::ProviderSecret,
};
use proto::v1::{self, providers_server::Providers};
use runtime::clock::fresh_id;
use tonic::{Code, Request, Response, Status};

use super::{Admin, caller};
use crate::{
    errors::{field, invalid},
    permits::Verb,
    resolve,
};

const SECRET_BYTES_MAX: usize = 4096;
/// What the secret is sealed for.
const PURPOSE: &str = "provider-secret";

#[tonic::async_trait]
impl Providers for Admin {
    async fn set_secret(
        &self,
        request: Request<v1::SetProviderSecretRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        self.permits.require(&call.caller, KindName::IdentityProvider, Verb::Put)?;
        let key = resolve::object(&call.tenant, KindName::IdentityProvider, &it.id).map_err(invalid)?;
        let ObjectKey::IdentityProvider(provider) = key else { return Err(Status::not_found("the provider is gone")) };
        if it.secret.len() > SECRET_BYTES_MAX {
            return Err(field(Code::InvalidArgument, "secret", "has at most 4096 bytes"));
        }
        let sealed = match it.secret.trim() {
            "" => vec![],
            secret => {
                let sealed = self.peers.seal_to_identity.seal(PURPOSE, secret.as_bytes());
                sealed.map_err(|_| Status::internal("sealing failed"))?
            }
        };
        self.change(&call, Command::Put(ProviderSecret { provider, sealed }.into())).await
    }
}

impl Admin {
    /// Somebody comes from a provider. Identity decided the same from what it knew;
    /// it is decided again from what is true here.
    pub(super) async fn arrived(
        &self,
        request: Request<v1::ArriveRequest>,
    ) -> Result<Response<v1::ArriveResponse>, Status> {
        let caller = caller(&request)?;
        let it = request.into_inner();
        let call = self.call(caller, None);
        let provider = it.provider.parse::<ProviderId>().ok().and_then(|id| call.tenant.provider(id));
        let provider = provider.ok_or_else(|| Status::not_found("the provider is gone"))?;
        let claims = ProviderClaims {
            subject: it.subject,
            username: it.username,
            name: it.name,
            email: it.email,
            email_verified: it.email_verified,
            groups: BTreeSet::from_iter(it.groups),
        };
        let arrived = arrive(&call.tenant, provider, &claims, UserId(fresh_id()));
        let (user, commands) = arrived.map_err(|fault| Status::failed_precondition(fault.to_string()))?;
        if !commands.is_empty() {
            self.execute(&call, commands).await?;
        }
        let position = self.writer.snapshot().directory;
        Ok(Response::new(v1::ArriveResponse { user: user.to_string(), position }))
    }
}
