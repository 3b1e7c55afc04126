//! Users: making one with a password, a new password, a second factor forgotten.

use eventlog::wire::Words;
use model::{
    Command, Credential, KindName, Object, Proof, User, UserId,
    kinds::{CredentialKey, UserRevocation},
};
use proto::v1::{self, users_server::Users};
use tonic::{Request, Response, Status};

use super::Admin;
use crate::{errors::invalid, permits::Verb, resolve};

#[tonic::async_trait]
impl Users for Admin {
    async fn create(&self, request: Request<v1::CreateUserRequest>) -> Result<Response<v1::UserResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        self.permits.require(&call.caller, KindName::User, Verb::Put)?;
        let mut wire = it.user.unwrap_or_default();
        wire.id = call.id_or_new(&wire.id, &format!("user {}", wire.username))?;
        let user = User::from_wire(wire).map_err(invalid)?;
        let answer = user.to_wire();
        let key = CredentialKey { user: user.id, proof: Proof::Password };
        let mut commands = vec![Command::Create(Object::from(user))];
        // A repeated call must not make a second hash of the same password.
        if !it.password.is_empty() && !call.tenant.credentials.contains_key(&key) {
            let sealed = self.seal_password(it.password).await?;
            commands.push(Command::Put(Credential { user: key.user, proof: key.proof, sealed }.into()));
        }
        let position = self.execute(&call, commands).await?;
        Ok(Response::new(v1::UserResponse { user: Some(answer), position }))
    }

    /// A new password ends all sessions: whoever knew the old one may be in one.
    async fn set_password(
        &self,
        request: Request<v1::SetPasswordRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let user = resolve::user(&call.tenant, "id", &it.id).map_err(invalid)?;
        let sealed = self.seal_password(it.password).await?;
        let credential = Command::Put(Credential { user, proof: Proof::Password, sealed }.into());
        let position = self.execute(&call, vec![credential, self.end_sessions(user)]).await?;
        Ok(Response::new(v1::ChangeResponse { position }))
    }

    async fn reset_mfa(&self, request: Request<v1::ResetMfaRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let user = resolve::user(&call.tenant, "id", &it.id).map_err(invalid)?;
        let credential = Command::Put(Credential { user, proof: Proof::Totp, sealed: vec![] }.into());
        let position = self.execute(&call, vec![credential, self.end_sessions(user)]).await?;
        Ok(Response::new(v1::ChangeResponse { position }))
    }
}

impl Admin {
    pub(super) fn end_sessions(&self, user: UserId) -> Command {
        Command::Put(UserRevocation { user, sessions_before: self.writer.now(), directory: 0 }.into())
    }
}
