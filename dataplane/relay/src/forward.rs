//! An authorised request on its way through the tunnel.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::{AppId, ConnectorGroupId, TenantId, activity::RefusalCode, policy::Authorized};
use proto::v1::{RequestHead, ResponseHead};
use runtime::telemetry::chain;
use tokio::time::timeout;
use tracing::debug;
use tunnel::{
    TunnelError,
    exchange::{self, Download, Exchange, FirstBody, Upload},
    raw::{Moved, both_ways},
};

use crate::{
    Relay,
    body::{Body, Forwarded, Pump, PumpError, Record, UserBody},
    canonical::names,
    connectors::{Link, NoStream, Parked},
    refusal::Refusal,
    renewal::Asking,
    request::{Routed, ids, response_head},
    settings::{ATTEMPTS_MAX, HEARD_TIMEOUT},
    streams::{Admission, Place},
};

/// The connector keeps the application's time-outs; this is for a connector
/// that does not.
pub(crate) const CONNECTOR_GRACE: Duration = Duration::from_secs(5);

/// All that is needed, and the proof that policy agreed.
pub(crate) struct Forward<'a> {
    pub routed: &'a Routed<'a>,
    pub authorized: Authorized,
    pub fields: Bytes,
    pub request_id: String,
    pub traceparent: String,
    pub affinity: u64,
    /// Whose request it is, for origins that authenticate connections.
    pub owner: u64,
}

/// A response whose head has arrived.
struct Answered {
    head: ResponseHead,
    download: Download,
    upload: Option<Pump>,
    /// For an upgrade: what the user sends goes here.
    raw: Option<Upload>,
}

impl Forward<'_> {
    pub(crate) async fn send(
        self,
        body: UserBody,
        has_body: bool,
        upgrade: Option<OnUpgrade>,
        admission: Admission,
        record: &mut Option<Record>,
    ) -> Result<Response<Body>, Refusal> {
        let routed = self.routed;
        // From here on it is open: a drain waits for it, a revocation cuts it.
        let place = routed.relay.open[routed.visitor.thread].enter(admission);
        routed.relay.judge_opened(routed.view, &place.open, routed.visitor.thread);
        let upgrades = routed.upgrade.is_some();
        let may_repeat = !has_body && !upgrades && exchange::may_repeat(routed.parts.method.as_str());
        let mut answered = self.attempt(has_body.then_some(body), record).await;
        for _ in 1..ATTEMPTS_MAX {
            if !may_repeat || !matches!(answered, Err(Refusal::LinkLost)) {
                break;
            }
            answered = self.attempt(None, record).await;
        }
        let answered = answered?;
        let (status, headers) =
            response_head(answered.head.status, &answered.head.fields).ok_or(Refusal::OriginBadResponse)?;
        let mut record = record.take().ok_or(Refusal::NotReady)?;
        record.access.status = status.as_u16().into();
        record.access.policies = ids(&self.authorized.applied);
        record.access.report_only = ids(&self.authorized.would_refuse);
        let mut response = Response::new(Body::Whole(None));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let agreed = routed.upgrade.as_deref().is_some_and(|asked| switches_to(response.headers(), asked));
        match (status, answered.raw, upgrade) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(upload), Some(upgrade)) if agreed => {
                let pipe = Pipe { upload, download: answered.download, place, record };
                routed.relay.tasks.spawn(pipe.run(upgrade));
            }
            (StatusCode::SWITCHING_PROTOCOLS, _, _) => return Err(Refusal::OriginBadResponse),
            (_, raw, _) => {
                // Not switched: nothing the user sends belongs to this exchange.
                if let Some(mut raw) = raw {
                    raw.finish().map_err(|_| Refusal::LinkLost)?;
                }
                let (download, upload) = (answered.download, answered.upload);
                let translator = routed.translator(status, response.headers_mut()).map(Box::new);
                let forwarded = Forwarded { download, upload, place, record, translator };
                *response.body_mut() = Body::Forwarded(Box::new(forwarded));
            }
        }
        Ok(response)
    }

    async fn attempt(&self, body: Option<UserBody>, record: &mut Option<Record>) -> Result<Answered, Refusal> {
        let routed = self.routed;
        let started = routed.relay.clock.instant();
        let parked = routed.stream_of(routed.app().group).await?;
        let waited = started.elapsed();
        let connector = parked.link.connector;
        let app = routed.app();
        let patience = app.connect_timeout + app.response_timeout + CONNECTOR_GRACE;
        let sent = routed.relay.clock.instant();
        let answered = timeout(patience, self.exchange(parked, body)).await;
        note(record, &connector.to_string(), waited, sent);
        answered.map_err(|_| Refusal::OriginTimeout)?
    }

    async fn exchange(&self, parked: Parked, body: Option<UserBody>) -> Result<Answered, Refusal> {
        let routed = self.routed;
        let upgrade = routed.upgrade.is_some();
        let head = RequestHead {
            app: routed.app().id.to_string(),
            app_version: routed.published.version,
            method: routed.parts.method.as_str().to_owned(),
            target: routed.canonical.target.clone(),
            fields: self.fields.clone(),
            upgrade,
            request_id: self.request_id.clone(),
            traceparent: self.traceparent.clone(),
            only_connect: false,
            segment: routed.spot.segment.into(),
            label: routed.spot.label.to_owned(),
            affinity: self.affinity,
            owner: self.owner,
        };
        let first = if body.is_some() || upgrade { FirstBody::Later } else { FirstBody::None };
        let link = parked.link.link();
        let exchange = routed.relay.begin(parked, head, first).map_err(|_| Refusal::LinkLost)?;
        let Exchange { upload, mut download, .. } = exchange;
        let (mut pump, raw) = match body {
            Some(body) => (Some(Pump::new(body, upload, may_pause(routed.parts))), None),
            None if upgrade => (None, Some(upload)),
            None => (None, None),
        };
        let head = {
            let mut response = std::pin::pin!(response(&mut download, &link));
            loop {
                tokio::select! {
                    biased;
                    head = &mut response => break head,
                    sent = poll_pump(&mut pump), if pump.is_some() => {
                        match sent {
                            Ok(()) => pump = None,
                            // The application may have answered without reading on.
                            Err(PumpError::Tunnel(error)) => {
                                debug!(error = %chain(&error), "the upload ends early");
                                pump = None;
                            }
                            Err(PumpError::Stalled) => return Err(Refusal::SlowBody),
                            Err(PumpError::User(_)) => return Err(Refusal::BadRequest("a body that broke off")),
                        }
                    }
                }
            }
        };
        match head {
            Ok((head, _)) => Ok(Answered { head, download, upload: pump, raw }),
            Err(TunnelError::Reset(code)) => {
                debug!(?code, app = %routed.app().id, "the connector could not reach the application");
                Err(Refusal::from_reset(code))
            }
            Err(error) => {
                debug!(error = %chain(&error), "the link broke under a request");
                Err(Refusal::LinkLost)
            }
        }
    }
}

/// Is the protocol of a 101 one of those that were asked for?
fn switches_to(headers: &HeaderMap, asked: &str) -> bool {
    let mut protocols = names(headers, &header::UPGRADE);
    let is_asked = |it: &str| asked.split(", ").any(|asked| asked.eq_ignore_ascii_case(it));
    protocols.next().is_some_and(is_asked) && protocols.all(is_asked)
}

/// The head of a response. A connector that says when it has a request is given
/// up when it does not say so.
async fn response(download: &mut Download, link: &Link) -> Result<(ResponseHead, bool), TunnelError> {
    if link.acknowledges.load(Ordering::Relaxed) {
        match timeout(HEARD_TIMEOUT, download.heard()).await {
            Ok(heard) => heard?,
            Err(_) => {
                link.unheard();
                return Err(TunnelError::Protocol("the connector does not say that it has the request"));
            }
        }
        link.heard();
    }
    download.response().await
}

/// Bodies that are a channel: gRPC, and the way in of a Remote Desktop Gateway
/// (MS-TSGU, section 2.2.3.1.2). Their senders may have nothing to say.
fn may_pause(parts: &Parts) -> bool {
    let kind = parts.headers.get(header::CONTENT_TYPE);
    parts.method.as_str() == "RDG_IN_DATA" || kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

async fn poll_pump(pump: &mut Option<Pump>) -> Result<(), PumpError> {
    match pump {
        Some(pump) => Pin::new(pump).await,
        None => Ok(()),
    }
}

fn note(record: &mut Option<Record>, connector: &str, waited: Duration, sent: Instant) {
    if let Some(record) = record {
        record.access.connector = connector.to_owned();
        record.access.wait_us = waited.as_micros() as u32;
        record.access.origin_us = sent.elapsed().as_micros() as u32;
    }
}

impl Routed<'_> {
    pub(crate) async fn stream_of(&self, group: ConnectorGroupId) -> Result<Parked, Refusal> {
        let connectors = &self.relay.connectors;
        let picked = connectors.pick(self.tenant_id, group, self.visitor.thread).await;
        picked.map_err(|why| match why {
            NoStream::Offline => Refusal::NoConnector,
            NoStream::Busy => Refusal::Busy,
        })
    }
}

/// An answer of identity is small.
const IDENTITY_ANSWER_BYTES_MAX: usize = 64 * 1024;
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(10);

impl Relay {
    /// Begins an exchange; the stream comes back to its shelf by itself.
    pub(crate) fn begin(
        self: &Arc<Self>,
        parked: Parked,
        head: RequestHead,
        body: FirstBody,
    ) -> Result<Exchange, TunnelError> {
        let Parked { whole, link } = parked;
        let connectors = self.connectors.clone();
        Exchange::begin(whole, head, body, move |whole| connectors.park(Parked { whole, link }))
    }

    /// Asks identity for a token, through the tunnel like any application.
    pub(crate) async fn ask_identity(
        self: &Arc<Self>,
        asking: &Asking,
        path: &str,
        form: String,
    ) -> Result<String, Refusal> {
        let asked = timeout(IDENTITY_TIMEOUT, self.post_to_identity(asking, path, form)).await;
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

    async fn post_to_identity(
        self: &Arc<Self>,
        asking: &Asking,
        path: &str,
        form: String,
    ) -> Result<(u32, Bytes), Refusal> {
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
        let mut exchange = self.begin(parked, head, FirstBody::Whole(form.into())).map_err(|_| AWAY)?;
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
        let (view, keys) = (self.view(), self.keys());
        let host = keys.tenants.get(tenant)?.login_host.clone();
        let route = view.snapshot.routes.find(&host, "/").filter(|route| route.tenant == *tenant)?;
        let login = view.snapshot.tenant(tenant)?.apps.get(&route.app)?;
        Some((login.app.id, login.version, login.app.group, host))
    }
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    id_token: String,
}

/// After a 101: raw bytes both ways until one side ends or access does.
struct Pipe {
    upload: Upload,
    download: Download,
    place: Place,
    record: Record,
}

impl Pipe {
    async fn run(self, upgrade: OnUpgrade) {
        let Ok(user) = upgrade.await else { return };
        let Self { mut upload, download, place, mut record } = self;
        let cut = std::future::poll_fn(|context| match place.open.poll_cut(context) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        });
        let mut moved = Moved::default();
        let ended = tokio::select! {
            ended = both_ways(TokioIo::new(user), &mut upload, download, &mut moved) => ended,
            () = cut => {
                record.access.refusal = RefusalCode::Cut.into();
                Ok(())
            }
        };
        if let Err(error) = ended {
            debug!(%error, "an upgraded connection broke");
        }
        record.access.bytes_in = moved.into_tunnel;
        record.access.bytes_out = moved.out_of_tunnel;
    }
}
