//! Keys of the installation: what there is, a new one, an old one's end.

use eventlog::wire::Words;
use model::{Command, keys::KeyPurpose};
use proto::v1::{self, keys_server::Keys};
use tonic::{Code, Request, Response, Status};

use super::{Admin, caller};
use crate::{errors::field, signing_keys};

/// Everybody has heard of a key before it is used.
const ACTIVE_IN_S: u32 = 60;
const ACTIVE_IN_S_MAX: u32 = 7 * 24 * 3600;

/// What everybody may know of a key.
fn public(key: &model::keys::Key) -> v1::Key {
    v1::Key { sealed: vec![], ..key.to_wire() }
}

#[tonic::async_trait]
impl Keys for Admin {
    async fn list(&self, request: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let mut keys = Vec::new();
        for purpose in KeyPurpose::ALL {
            let in_use = tenant.key_in_use(purpose, self.writer.now()).map(|key| key.id.clone());
            keys.extend(
                tenant
                    .keys_for(purpose)
                    .into_iter()
                    .map(|(_, key)| v1::ListedKey { in_use: in_use.as_ref() == Some(&key.id), key: Some(public(key)) }),
            );
        }
        Ok(Response::new(v1::ListKeysResponse { keys }))
    }

    async fn rotate(&self, request: Request<v1::RotateKeyRequest>) -> Result<Response<v1::RotateKeyResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let purpose = match it.purpose() {
            v1::KeyPurpose::Session => KeyPurpose::Session,
            v1::KeyPurpose::Assertion => KeyPurpose::Assertion,
            v1::KeyPurpose::RelaySecret => KeyPurpose::RelaySecret,
            v1::KeyPurpose::Authority | v1::KeyPurpose::AcmeAccount | v1::KeyPurpose::Unspecified => {
                return Err(field(Code::InvalidArgument, "purpose", "is session, assertion or relay_secret"));
            }
        };
        let active_in_s = it.active_in_s.unwrap_or(ACTIVE_IN_S);
        if active_in_s > ACTIVE_IN_S_MAX {
            return Err(field(Code::InvalidArgument, "active_in_s", "is 7 days (604,800) at most"));
        }
        let id = call.id_for("key").simple().to_string();
        // A repeated call finds the key it made.
        let key = match call.tenant.keys.get(&id) {
            Some(made) => made.clone(),
            None => {
                let now = self.writer.now();
                let (seal_to_self, domain) = (self.sealing.public(), &call.tenant.domain);
                let active_from = now.plus_seconds(active_in_s.into());
                let made = signing_keys::make(purpose, &self.peers, &seal_to_self, domain, now, active_from);
                model::keys::Key { id, ..made.map_err(|_| Status::internal("the key cannot be made"))? }
            }
        };
        let shown = public(&key);
        let position = self.execute(&call, vec![Command::Put(key.into())]).await?;
        Ok(Response::new(v1::RotateKeyResponse { key: Some(shown), position }))
    }

    async fn retire(&self, request: Request<v1::RetireKeyRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        match call.tenant.keys.get(&it.id) {
            Some(key) if key.purpose == KeyPurpose::Authority => {
                Err(field(Code::InvalidArgument, "id", "is an authority, whose certificates are still out there"))
            }
            Some(_) => self.change(&call, Command::RetireKey { id: it.id, now: self.writer.now() }).await,
            None => Err(field(Code::NotFound, "id", "is the id of a key; see postern key list")),
        }
    }
}
