//! Connectors: the tokens that invite them, and the end of one.

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Command, JoinToken, JoinTokenId};
use proto::{
    enrolment::{JoinTokenText, endpoint_host},
    hex,
    v1::{self, connectors_server::Connectors},
};
use tonic::{Code, Request, Response, Status};

use super::Admin;
use crate::{
    errors::{field, invalid},
    resolve,
};

const TOKEN_LIFE_S: u32 = 900;
const TOKEN_LIFE_S_MAX: u32 = 7 * 24 * 3600;

#[tonic::async_trait]
impl Connectors for Admin {
    async fn issue_token(
        &self,
        request: Request<v1::IssueTokenRequest>,
    ) -> Result<Response<v1::IssueTokenResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let group = resolve::connector_group(&call.tenant, "group", &it.group).map_err(invalid)?;
        let life_s = if it.life_s == 0 { TOKEN_LIFE_S } else { it.life_s };
        if life_s > TOKEN_LIFE_S_MAX {
            return Err(field(Code::InvalidArgument, "life_s", "is 7 days (604,800) at most"));
        }
        let id = JoinTokenId(call.id_for("join-token"));
        let secret = self.token_secret(&call.change.request_id, id);
        // A repeated call finds the token it made and says the same again.
        let made = call.tenant.join_tokens.get(&id).map(|it| it.expires);
        let expires = made.unwrap_or_else(|| self.writer.now().plus_seconds(life_s.into()));
        let secret_hash = digest::digest(&digest::SHA256, &secret).as_ref().to_vec();
        let token = JoinToken { id, group, secret_hash, expires };
        let position = self.execute(&call, vec![Command::Put(token.into())]).await?;
        let text = JoinTokenText {
            relays: self.settings.relay_addresses.clone(),
            endpoint: endpoint_host(&call.tenant.domain),
            authority: hex::encode(&self.authority),
            tenant: call.caller.tenant.to_string(),
            id: id.to_string(),
            secret: URL_SAFE_NO_PAD.encode(secret),
        };
        Ok(Response::new(v1::IssueTokenResponse { token: text.encode(), expires_ms: expires.0, position }))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeConnectorRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let connector = resolve::connector(&call.tenant, "id", &it.id).map_err(invalid)?;
        self.change(&call, Command::RevokeConnector(connector)).await
    }
}

impl Admin {
    /// Random, unless the call may be repeated: then made from what nobody knows.
    fn token_secret(&self, request_id: &str, id: JoinTokenId) -> Vec<u8> {
        match request_id.is_empty() {
            true => runtime::clock::random_bytes::<32>().to_vec(),
            false => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.token_key);
                hmac::sign(&key, format!("{id}\n{request_id}").as_bytes()).as_ref().to_vec()
            }
        }
    }
}
