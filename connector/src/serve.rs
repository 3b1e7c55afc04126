//! One request: from a tunnel stream to an origin and back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Either, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use proto::v1::{RequestHead, ResetCode, ResponseHead};
use runtime::telemetry::{TRACE, adopt, traceparent};
use strict::{
    canonical::{check_target, is_chunked},
    fields::{OF_CONNECTION, names},
};
use tokio::{sync::oneshot, time::timeout};
use tracing::{Instrument, Span, debug, debug_span, field};
use tunnel::{
    TunnelError,
    exchange::{self, Accepted, Download, IdleStream, Upload},
    fields,
    stream_halves::SMALL_BODY_BYTES,
    upgraded::{ByteCounts, both_ways},
};

use crate::{
    backend::{Body, Lent, OriginResponse, Owner},
    origin::{Busy, Origin, Pools},
    origins::Origins,
    statements::{Account, Statements},
};

/// What an origin did not read of a request it has answered.
const UNREAD_BYTES_MAX: usize = 256 * 1024;
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// A relay that knows of acknowledgements waits `HEARD_TIMEOUT` for a sign that
/// somebody has its request; most answers come before they would need one.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(200);

/// The way out of a Remote Desktop Gateway (MS-TSGU, section 2.2.3.1.1): a body
/// that lasts as long as the session and is silent when nothing moves.
const REMOTE_DESKTOP_OUT: &str = "RDG_OUT_DATA";

/// What every request of a worker needs.
#[derive(Clone)]
pub struct Worker {
    pub origins: Arc<Origins>,
    pub pools: Arc<Pools>,
    pub statements: Arc<Statements>,
}

impl Worker {
    /// Serves one exchange; gives the stream back when it may be used again. With
    /// `acknowledges` a relay hears soon that the request is here.
    pub async fn serve(&self, accepted: Accepted, acknowledges: bool) -> Option<IdleStream> {
        let (back, returned) = oneshot::channel();
        let (head, download, mut upload, home) = accepted.open(move |whole| {
            // The stream is dropped when nobody waits for it any more.
            let _gone = back.send(whole);
        });
        let span = debug_span!(
            target: TRACE,
            "origin",
            otel.kind = "client",
            http.request.method = head.method,
            http.response.status_code = field::Empty,
            postern.request_id = head.request_id,
            postern.app = head.app,
        );
        adopt(&span, &head.traceparent);
        self.answer(head, download, &mut upload, acknowledges).instrument(span).await;
        // An upload that is not home is cut here, which drops the stream.
        drop(upload);
        let _late = timeout(UNREAD_TIMEOUT, home.drain(UNREAD_BYTES_MAX)).await;
        drop(home);
        returned.await.ok()
    }

    async fn answer(&self, head: RequestHead, download: Download, upload: &mut Upload, acknowledges: bool) {
        if head.only_connect {
            return self.test(head, upload).await;
        }
        let channel = head.method == REMOTE_DESKTOP_OUT;
        let Some(answered) = answer_or_acknowledge(self.ask(head, download), upload, acknowledges).await else {
            return debug!("the user is gone, and so is the connection to the application");
        };
        match answered {
            Ok(Answer { response, origin, upgraded: Some(input), busy: _busy, .. }) => {
                debug!(app = %origin.app.id, "upgraded");
                upgraded(response, input, upload).await;
            }
            Ok(Answer { response, lent, origin, upgraded: None, busy: _busy }) => {
                let idle_timeout = match channel {
                    true => Duration::MAX,
                    false => Duration::from_millis(origin.app.idle_timeout_ms.into()),
                };
                respond(response, lent, idle_timeout, upload).await;
            }
            Err(code) => {
                debug!(?code, "refused");
                // The stream is gone when this fails, and so is the reader.
                let _gone = upload.reset(code);
            }
        }
    }

    /// Can the origin be reached? It is asked nothing.
    async fn test(&self, head: RequestHead, upload: &mut Upload) {
        let reached = async {
            let definition = self.origins.find(&head.app, head.app_version).await.ok_or(ResetCode::OriginRefused)?;
            let app = definition.app.as_ref().ok_or(ResetCode::OriginRefused)?;
            self.pools.origin(&definition, app, &head)?.reach().await
        };
        let status = StatusCode::NO_CONTENT.as_u16().into();
        // The stream is gone when these fail, and so is the reader.
        let _gone = match reached.await {
            Ok(()) => upload.respond(ResponseHead { status, ..Default::default() }, true),
            Err(code) => upload.reset(code),
        };
    }

    async fn ask(&self, head: RequestHead, download: Download) -> Result<Answer, ResetCode> {
        let definition = self.origins.find(&head.app, head.app_version).await.ok_or(ResetCode::OriginRefused)?;
        let app = definition.app.as_ref().ok_or(ResetCode::OriginRefused)?;
        // The log line and the metric name the fault.
        let user = self.statements.user(&head.user_statement, &app.id).await;
        let user = user.map_err(|_| ResetCode::OriginRefused)?;
        let owner = Owner { session: head.owner, account: user.map(|it| Account::of(&it.claims)) };
        let origin = self.pools.origin(&definition, app, &head)?;
        let (body, upgraded) = match head.upgrade {
            true => (Either::Right(Empty::new()), Some(download)),
            false if download.is_done() => (Either::Right(Empty::new()), None),
            false => (Either::Left(download), None),
        };
        let has_no_body = matches!(body, Either::Right(_));
        let may_repeat = has_no_body && !head.upgrade && exchange::may_repeat(&head.method);
        let asked = origin.send(request(&head, body)?, head.affinity, &owner).await;
        let answered = match asked {
            Err(failed) if failed.kept && may_repeat => {
                debug!("a kept connection ended under a request, which is sent again");
                let again = request(&head, Either::Right(Empty::new()))?;
                origin.send(again, head.affinity, &owner).await
            }
            asked => asked,
        };
        let (OriginResponse { response, lent }, busy) = answered.map_err(|it| it.code)?;
        Span::current().record("http.response.status_code", i64::from(response.status().as_u16()));
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        // Switching without being asked is no answer to a request, and what can
        // end in two places is none either.
        if switched && upgraded.is_none() || is_chunked(response.headers()).is_err() {
            return Err(ResetCode::BadResponse);
        }
        Ok(Answer { response, lent, origin, upgraded: upgraded.filter(|_| switched), busy })
    }
}

/// Waits for an answer while somebody wants it: `None` when the user has left.
/// A fast answer needs no acknowledgement.
async fn answer_or_acknowledge<T>(
    asking: impl Future<Output = T>,
    upload: &mut Upload,
    acknowledges: bool,
) -> Option<T> {
    let mut asking = std::pin::pin!(asking);
    if acknowledges {
        match upload.while_wanted(timeout(ACKNOWLEDGE_AFTER, &mut asking)).await? {
            Ok(answered) => return Some(answered),
            Err(_) => upload.acknowledge().ok()?,
        }
    }
    upload.while_wanted(asking).await
}

struct Answer {
    response: Response<Incoming>,
    lent: Option<Lent>,
    origin: Arc<Origin>,
    /// What the user sends after the switch.
    upgraded: Option<Download>,
    busy: Busy,
}

/// Only paths that have one reading, and no tunnels: a relay that was taken over
/// must not make a proxy of an origin.
fn request(head: &RequestHead, body: Body) -> Result<Request<Body>, ResetCode> {
    let bad = |_| ResetCode::BadResponse;
    let mut request = Request::new(body);
    let method = Method::from_bytes(head.method.as_bytes()).map_err(|_| ResetCode::BadResponse)?;
    if method == Method::CONNECT || check_target(&head.target).is_err() {
        return Err(ResetCode::OriginRefused);
    }
    *request.method_mut() = method;
    *request.uri_mut() = head.target.parse::<Uri>().map_err(|_| ResetCode::BadResponse)?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = fields::decode(&head.fields).map_err(bad)?;
    if let Some(traceparent) = traceparent(&Span::current()).and_then(|it| it.parse().ok()) {
        request.headers_mut().insert("traceparent", traceparent);
    }
    Ok(request)
}

async fn respond(response: Response<Incoming>, lent: Option<Lent>, idle_timeout: Duration, upload: &mut Upload) {
    let (mut parts, mut body) = response.into_parts();
    let head = response_head(parts.status, &mut parts.headers);
    match pass_on(head, &mut body, idle_timeout, upload).await {
        Ok(()) => {
            if let Some(lent) = lent {
                lent.give_back();
            }
        }
        // The user must see a cut and never a short success.
        Err(error) => {
            debug!(%error, "the response is cut");
            let code = match error {
                Cut::Origin(_) => ResetCode::BadResponse,
                Cut::Idle => ResetCode::Timeout,
                Cut::Tunnel(_) => return,
            };
            // The stream is gone when this fails, and so is the reader.
            let _gone = upload.reset(code);
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the origin broke off")]
    Origin(#[from] hyper::Error),
    #[error("the origin was silent for too long")]
    Idle,
    #[error("the tunnel ended")]
    Tunnel(#[from] TunnelError),
}

async fn pass_on(
    head: ResponseHead,
    body: &mut Incoming,
    idle_timeout: Duration,
    upload: &mut Upload,
) -> Result<(), Cut> {
    if body.is_end_stream() {
        return Ok(upload.respond(head, true)?);
    }
    // A small body that is there already leaves with its head.
    let first = body.frame().now_or_never();
    if let Some(Some(Ok(frame))) = first {
        match frame.into_data() {
            Ok(data) if body.is_end_stream() && data.len() <= SMALL_BODY_BYTES => {
                return Ok(upload.respond_with(head, data)?);
            }
            Ok(data) => {
                upload.respond(head, false)?;
                if body.is_end_stream() {
                    return Ok(upload.send_last(data).await?);
                }
                upload.send(data).await?;
            }
            Err(frame) => {
                upload.respond(head, false)?;
                return trailers(frame, upload);
            }
        }
    } else {
        match first {
            Some(None) => return Ok(upload.respond(head, true)?),
            Some(Some(Err(error))) => return Err(error.into()),
            Some(Some(Ok(_))) | None => upload.respond(head, false)?,
        }
    }
    loop {
        let next = upload.while_wanted(timeout(idle_timeout, body.frame())).await.ok_or(TunnelError::Ended)?;
        match next.map_err(|_| Cut::Idle)? {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if body.is_end_stream() => return Ok(upload.send_last(data).await?),
                Ok(data) => upload.send(data).await?,
                Err(frame) => return trailers(frame, upload),
            },
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(upload.finish()?),
        }
    }
}

fn trailers(frame: Frame<Bytes>, upload: &mut Upload) -> Result<(), Cut> {
    match frame.into_trailers() {
        Ok(trailers) => Ok(upload.trailers(&trailers)?),
        Err(_) => Ok(upload.finish()?),
    }
}

/// Fields about this connection end here (RFC 9110, section 7.6.1).
fn response_head(status: StatusCode, headers: &mut HeaderMap) -> ResponseHead {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let named: Vec<HeaderName> = names(headers, &header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
        for name in named {
            headers.remove(name);
        }
        for name in OF_CONNECTION.into_iter().chain([header::TE, header::PROXY_AUTHENTICATE]) {
            headers.remove(name);
        }
    }
    ResponseHead { status: status.as_u16().into(), fields: fields::encode(headers) }
}

/// After a 101: raw bytes both ways until either side ends.
async fn upgraded(mut response: Response<Incoming>, input: Download, upload: &mut Upload) {
    let switching = hyper::upgrade::on(&mut response);
    let head = response_head(response.status(), response.headers_mut());
    if upload.respond(head, false).is_err() {
        return;
    }
    let Ok(origin) = switching.await else { return };
    if let Err(error) = both_ways(TokioIo::new(origin), upload, input, &mut ByteCounts::default()).await {
        debug!(%error, "an upgraded connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_cannot_ask_an_origin_for_what_has_two_readings() {
        let asked = |method: &str, target: &str| {
            let head = RequestHead { method: method.into(), target: target.into(), ..Default::default() };
            request(&head, Either::Right(Empty::new())).map(|it| it.uri().to_string())
        };
        assert_eq!(asked("GET", "/wiki/a%20b?q=1"), Ok("/wiki/a%20b?q=1".to_owned()));
        assert_eq!(asked("CONNECT", "/"), Err(ResetCode::OriginRefused));
        for target in ["", "http://other/", "*", "/a/../b", "/a/%2e%2E/b", "/a b", "/a\\b", "/%00", "/a?b#c"] {
            assert_eq!(asked("GET", target), Err(ResetCode::OriginRefused), "{target:?}");
        }
    }
}
