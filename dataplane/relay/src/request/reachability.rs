//! The test button of an administrator: is there a connector, and does it get
//! through to the application? Nothing is asked of the application itself.
//!
//! A permit from a controller opens this, for one application and a minute, so
//! no stranger learns from here what stands behind a host.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use model::AppId;
use proto::{
    Message,
    signed::Verifier,
    v1::{AppTestPermit, RequestHead, SignedEvent},
};
use serde_json::json;
use tokio::time::timeout;
use tunnel::{TunnelError, exchange::FirstBody};

use crate::{
    forward::{CONNECTOR_GRACE, Forwarder, routed::Routed},
    refusal::Refusal,
};

/// In `Authorization`.
const SCHEME: &str = "Postern-Permit ";

/// Whether a connector gets through to the application that a permit names.
pub(crate) async fn test(
    routed: &Routed<'_>,
    forwarder: &Forwarder,
    trust: &Verifier,
) -> Result<Response<Bytes>, Refusal> {
    let Forwarder { connectors, clock, .. } = forwarder;
    let id = permitted(&routed.parts.headers, trust, routed.now.0).ok_or(Refusal::NotPublished)?;
    let published = routed.tenant.apps.stored(&id).ok_or(Refusal::NotPublished)?;
    let app = &published.object;
    let mut addresses = app.addresses().zip(0u32..);
    let here = addresses.find_map(|((external, _), segment)| {
        external.label(&routed.canonical.host).map(|label| (segment, label.to_owned()))
    });
    let (segment, label) = here.ok_or(Refusal::NotPublished)?;
    let started = clock.instant();
    let parked = connectors.pick(routed.tenant_id, app.group, routed.connection.thread).await?;
    let connector = parked.link.connector;
    let head = RequestHead {
        app: id.to_string(),
        app_version: published.version,
        method: "GET".into(),
        target: "/".into(),
        only_connect: true,
        segment,
        label,
        ..Default::default()
    };
    let mut exchange = connectors.begin(parked, head, FirstBody::None).map_err(|_| Refusal::LinkLost)?;
    let answered = timeout(app.connect_timeout + CONNECTOR_GRACE, exchange.download.response()).await;
    match answered.map_err(|_| Refusal::OriginTimeout)? {
        Ok(_) => {}
        Err(TunnelError::Reset(code)) => return Err(Refusal::from_reset(code)),
        Err(_) => return Err(Refusal::LinkLost),
    }
    let ms = started.elapsed().as_millis() as u64;
    let body = json!({ "reached": true, "connector": connector.to_string(), "ms": ms });
    let mut response = Response::new(Bytes::from(body.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn permitted(headers: &HeaderMap, trust: &Verifier, now_ms: i64) -> Option<AppId> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix(SCHEME)?;
    let signed = SignedEvent::decode(URL_SAFE_NO_PAD.decode(token).ok()?.as_slice()).ok()?;
    let (body, _) = trust.clone().verify(&signed).ok()?;
    if body.kind != proto::APP_TEST_PERMIT {
        return None;
    }
    let permit = AppTestPermit::decode(body.payload).ok()?;
    (now_ms < permit.expires_ms).then(|| permit.app.parse().ok())?
}
