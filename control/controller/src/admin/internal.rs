//! Calls of identity, with its own key: what users change about themselves.

use model::{Command, Credential, Proof, risk::SessionRevocation};
use proto::v1::{self, internal_server::Internal};
use tonic::{Code, Request, Response, Status};

use super::{Admin, caller};
use crate::errors::field;

#[tonic::async_trait]
impl Internal for Admin {
    async fn set_totp(&self, request: Request<v1::SetTotpRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let caller = caller(&request)?;
        let it = request.into_inner();
        let call = self.call(caller, None);
        let user = it.user.parse().map_err(|_| field(Code::InvalidArgument, "user", "is the id of a user"))?;
        // Whoever has only the password must not be able to replace the second factor.
        if call.tenant.credential(user, Proof::Totp).is_some() {
            return Err(Status::failed_precondition("a second factor exists; an administrator resets it first"));
        }
        let credential = Credential { user, proof: Proof::Totp, sealed: it.sealed_secret };
        self.change(&call, Command::Put(credential.into())).await
    }

    async fn arrive(&self, request: Request<v1::ArriveRequest>) -> Result<Response<v1::ArriveResponse>, Status> {
        self.arrived(request).await
    }

    async fn end_session(
        &self,
        request: Request<v1::EndSessionRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let caller = caller(&request)?;
        let it = request.into_inner();
        let call = self.call(caller, None);
        let session = it.session.parse();
        let session = session.map_err(|_| field(Code::InvalidArgument, "session", "is the id of a session"))?;
        self.change(&call, Command::Put(SessionRevocation { session, at: self.writer.now() }.into())).await
    }
}
