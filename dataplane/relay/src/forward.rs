//! An authorised request on its way through the tunnel.

pub(crate) mod body;
pub mod headers;
pub(crate) mod routed;
pub(crate) mod user_body;

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::{activity::RefusalCode, policy::Authorized};
use proto::v1::{Access, RequestHead, ResponseHead};
use runtime::{Clock, telemetry::chain};
use strict::fields::names;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;
use translate::Translator;
use tunnel::{
    TunnelError,
    exchange::{self, Download, Exchange, FirstBody, Upload},
    upgraded::{ByteCounts, both_ways},
};

use crate::{
    forward::{
        body::{Body, Forwarded, Pump, PumpError},
        routed::Routed,
        user_body::UserBody,
    },
    links::connectors::{Connectors, Link, NoStream, Parked},
    open::{
        exchanges::{Admission, OpenGuard},
        rejudge::Rejudge,
        user_connection::ExchangeGuard,
    },
    record::access::Record,
    refusal::Refusal,
    settings::{ATTEMPTS_MAX, HEARD_TIMEOUT},
};

/// The connector keeps the application's time-outs; this is for a connector
/// that does not.
pub(crate) const CONNECTOR_GRACE: Duration = Duration::from_secs(5);

/// What every request that is forwarded needs.
pub(crate) struct Forwarder {
    pub connectors: Arc<Connectors>,
    pub open: Arc<Rejudge>,
    pub clock: Clock,
}

/// One request that is forwarded.
pub(crate) struct Forward<'a> {
    pub forwarder: &'a Forwarder,
    pub routed: &'a Routed<'a>,
    pub fields: Bytes,
    pub request_id: String,
    pub traceparent: String,
    pub affinity: u64,
    /// Whose request it is, for origins that authenticate connections.
    pub owner: u64,
    /// Who the user is, signed by identity for connectors.
    pub user_statement: Bytes,
}

/// A response whose head has arrived.
struct OriginResponse {
    head: ResponseHead,
    download: Download,
    upload: Option<Pump>,
    /// For an upgrade: what the user sends goes here.
    raw: Option<Upload>,
}

/// A response of an application on its way to the user: its head, and the rest.
pub(crate) struct Delivery {
    pub status: StatusCode,
    pub headers: HeaderMap,
    rest: Rest,
    open: OpenGuard,
}

enum Rest {
    Body { download: Download, upload: Option<Pump>, translator: Option<Box<Translator>> },
    Switched { download: Download, upload: Upload, upgrade: OnUpgrade },
}

impl Delivery {
    /// The response for the user. The access is recorded when all of it is over.
    pub(crate) fn into_response(self, record: Record, busy: ExchangeGuard, tasks: &TaskTracker) -> Response<Body> {
        let Self { status, headers, rest, open: place } = self;
        let body = match rest {
            Rest::Body { download, upload, translator } => {
                Body::Forwarded(Box::new(Forwarded { download, upload, place, record, busy, translator }))
            }
            Rest::Switched { download, upload, upgrade } => {
                tasks.spawn(Pipe { upload, download, place, record, busy }.run(upgrade));
                Body::Whole(None)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl Forward<'_> {
    /// Takes the proof that policy agreed.
    pub(crate) async fn send(
        self,
        _: Authorized,
        body: UserBody,
        upgrade: Option<OnUpgrade>,
        admission: Admission,
        access: &mut Access,
    ) -> Result<Delivery, Refusal> {
        let routed = self.routed;
        // From here on it is open: a drain waits for it, a revocation cuts it.
        let open = self.forwarder.open.enter(admission, routed.view, routed.connection.thread);
        let has_body = !body.is_end_stream();
        let upgrades = routed.upgrade.is_some();
        let may_repeat = !has_body && !upgrades && exchange::may_repeat(routed.parts.method.as_str());
        let mut answered = self.attempt(has_body.then_some(body), access).await;
        for _ in 1..ATTEMPTS_MAX {
            if !may_repeat || !matches!(answered, Err(Refusal::LinkLost)) {
                break;
            }
            answered = self.attempt(None, access).await;
        }
        let OriginResponse { head, download, upload, raw } = answered?;
        let (status, mut headers) = response_head(head.status, &head.fields).ok_or(Refusal::OriginBadResponse)?;
        access.status = status.as_u16().into();
        let agreed = routed.upgrade.as_deref().is_some_and(|asked| switches_to(&headers, asked));
        let rest = match (status, raw, upgrade) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(upload), Some(upgrade)) if agreed => {
                Rest::Switched { download, upload, upgrade }
            }
            (StatusCode::SWITCHING_PROTOCOLS, _, _) => return Err(Refusal::OriginBadResponse),
            (_, raw, _) => {
                // Not switched: nothing the user sends belongs to this exchange.
                if let Some(mut raw) = raw {
                    raw.finish().map_err(|_| Refusal::LinkLost)?;
                }
                let translator = routed.translator(status, &mut headers).map(Box::new);
                Rest::Body { download, upload, translator }
            }
        };
        Ok(Delivery { status, headers, rest, open })
    }

    async fn attempt(&self, body: Option<UserBody>, access: &mut Access) -> Result<OriginResponse, Refusal> {
        let Forwarder { connectors, clock, .. } = self.forwarder;
        let (routed, app) = (self.routed, self.routed.app());
        let started = clock.instant();
        let parked = connectors.pick(routed.tenant_id, app.group, routed.connection.thread).await?;
        let waited = started.elapsed();
        let connector = parked.link.connector;
        let patience = app.connect_timeout + app.response_timeout + CONNECTOR_GRACE;
        let sent = clock.instant();
        let answered = timeout(patience, self.exchange(parked, body)).await;
        access.connector = connector.to_string();
        access.wait_us = waited.as_micros() as u32;
        access.origin_us = sent.elapsed().as_micros() as u32;
        answered.map_err(|_| Refusal::OriginTimeout)?
    }

    async fn exchange(&self, parked: Parked, body: Option<UserBody>) -> Result<OriginResponse, Refusal> {
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
            user_statement: self.user_statement.clone(),
        };
        let first = if body.is_some() || upgrade { FirstBody::Later } else { FirstBody::None };
        let link = parked.link.link();
        let exchange = self.forwarder.connectors.begin(parked, head, first).map_err(|_| Refusal::LinkLost)?;
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
                            Err(PumpError::User(_)) => return Err(Refusal::BadRequest("the request body broke off before its end")),
                        }
                    }
                }
            }
        };
        match head {
            Ok((head, _)) => Ok(OriginResponse { head, download, upload: pump, raw }),
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
                return Err(TunnelError::Protocol("the connector did not acknowledge the request (timeout)"));
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

/// Status and header fields of a response, unless they are none.
fn response_head(status: u32, fields: &Bytes) -> Option<(StatusCode, HeaderMap)> {
    let status = StatusCode::from_u16(u16::try_from(status).ok()?).ok()?;
    Some((status, tunnel::fields::decode(fields).ok()?))
}

impl From<NoStream> for Refusal {
    fn from(why: NoStream) -> Self {
        match why {
            NoStream::Offline => Self::NoConnector,
            NoStream::Busy => Self::Busy,
        }
    }
}

/// After a 101: raw bytes both ways until one side ends or access does.
struct Pipe {
    upload: Upload,
    download: Download,
    place: OpenGuard,
    record: Record,
    busy: ExchangeGuard,
}

impl Pipe {
    async fn run(self, upgrade: OnUpgrade) {
        let Ok(user) = upgrade.await else { return };
        let Self { mut upload, download, place, mut record, busy: _busy } = self;
        let cut = std::future::poll_fn(|context| match place.open.poll_cut(context) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        });
        let mut moved = ByteCounts::default();
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
