//! Connectors that run inside `postern`: they join as any other does.

use std::{net::SocketAddr, path::Path};

use admin_client::{Admin, Credential};
use anyhow::Context;
use connector::{Connector, Settings, dial::Dialer, enrol};
use proto::v1;

/// A connector of a group, joined before or now.
pub async fn ensure(
    credential: &Credential,
    group: &str,
    name: &str,
    state: &Path,
    relay: SocketAddr,
) -> anyhow::Result<Connector> {
    let settings = Settings { state: state.to_owned(), threads: 1, ..Default::default() };
    if let Ok(mut identity) = enrol::Identity::load(state) {
        // The relay may have moved since; the certificate may have ended.
        identity.move_to(vec![relay.to_string()])?;
        let now_s = runtime::Clock::default().now_ms() / 1000;
        if identity.renewal_s() <= now_s {
            identity.renew(&Dialer::default()).await.context("renewing the certificate of a connector")?;
        }
        return Ok(Connector::prepare(&settings)?);
    }
    let admin = Admin::connect(credential).await?;
    let request = v1::IssueTokenRequest { group: group.to_owned(), ..Default::default() };
    let answer = admin.connectors().issue_token(request).await.context("asking for a join token")?;
    let token = answer.into_inner().token;
    enrol::join(&token, name, state, &Dialer::default()).await.context("joining")?;
    Ok(Connector::prepare(&settings)?)
}
