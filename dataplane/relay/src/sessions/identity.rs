//! Identity as relays ask it: for tokens, through the tunnel, like any application.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use model::{AppId, ConnectorGroupId, TenantId};
use proto::v1::RequestHead;
use tokio::time::timeout;
use tunnel::exchange::FirstBody;

use crate::{current::Current, links::connectors::Connectors, refusal::Refusal};

/// An answer of identity is small.
const IDENTITY_ANSWER_BYTES_MAX: usize = 64 * 1024;
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(10);

/// For whom identity is asked: the application, and the user's address.
#[derive(Clone)]
pub(crate) struct IdentityRequest {
    pub tenant: TenantId,
    pub app: AppId,
    pub address: IpAddr,
    pub thread: usize,
}

/// The way to identity.
pub(crate) struct Identity {
    pub connectors: Arc<Connectors>,
    pub current: Arc<Current>,
}

impl Identity {
    /// Asks identity for a token, through the tunnel like any application.
    pub(crate) async fn ask(&self, asking: &IdentityRequest, path: &str, form: String) -> Result<String, Refusal> {
        let asked = timeout(IDENTITY_TIMEOUT, self.post(asking, path, form)).await;
        let (status, body) = asked.map_err(|_| Refusal::SignInUnavailable)??;
        match status {
            200 => {
                let answer: TokenAnswer =
                    serde_json::from_slice(&body).map_err(|_| Refusal::SignInFailed("an unreadable answer"))?;
                Ok(answer.id_token)
            }
            400..=499 => Err(Refusal::SignInFailed("identity refused")),
            _ => Err(Refusal::SignInUnavailable),
        }
    }

    async fn post(&self, asking: &IdentityRequest, path: &str, form: String) -> Result<(u32, Bytes), Refusal> {
        const AWAY: Refusal = Refusal::SignInUnavailable;
        let (app, version, group, host) = self.login_app(&asking.tenant).ok_or(AWAY)?;
        let picked = self.connectors.pick(&asking.tenant, group, asking.thread).await;
        let parked = picked.map_err(|_| AWAY)?;
        let mut fields = tunnel::fields::Builder::with_capacity(256);
        fields.push("host", host.as_bytes());
        fields.push("content-type", b"application/x-www-form-urlencoded");
        fields.push("content-length", form.len().to_string().as_bytes());
        fields.push("x-forwarded-for", asking.address.to_string().as_bytes());
        let head = RequestHead {
            app: app.to_string(),
            app_version: version,
            method: "POST".into(),
            target: path.to_owned(),
            fields: fields.finish(),
            ..Default::default()
        };
        let mut exchange = self.connectors.begin(parked, head, FirstBody::Whole(form.into())).map_err(|_| AWAY)?;
        let (head, _) = exchange.download.response().await.map_err(|_| AWAY)?;
        let mut body = Vec::new();
        while let Some(frame) = exchange.download.frame().await {
            if let Ok(data) = frame.map_err(|_| AWAY)?.into_data() {
                body.extend_from_slice(&data);
            }
            if body.len() > IDENTITY_ANSWER_BYTES_MAX {
                return Err(AWAY);
            }
        }
        Ok((head.status, body.into()))
    }

    /// Identity is published like an application, on the login host.
    fn login_app(&self, tenant: &TenantId) -> Option<(AppId, u64, ConnectorGroupId, String)> {
        let (view, keys) = (self.current.view(), self.current.keys());
        let host = keys.tenants.get(tenant)?.login_host.clone();
        let route = view.snapshot.routes.find(&host, "/").filter(|route| route.tenant == *tenant)?;
        let login = view.snapshot.tenant(tenant)?.apps.stored(&route.app)?;
        Some((login.object.id, login.version, login.object.group, host))
    }
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    id_token: String,
}
