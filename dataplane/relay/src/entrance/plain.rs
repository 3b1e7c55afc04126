//! Plain HTTP, for people who type no scheme and for ACME servers (RFC 8555,
//! section 8.3). Nothing is forwarded from here: a request is sent to HTTPS,
//! shown a proof, or refused, and its connection closed.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{app::is_host, branding::Branding, hosts::port_suffix};
use runtime::clock::fresh_id;
use strict::limits::HEADER_BYTES_MAX;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    current::Current,
    entrance::{Entrance, tls::host_asked_for},
    open::connection_permits::ConnectionPermit,
    refusal::{Reader, Refusal, Wants},
    refusal_texts::Language,
    settings::HEAD_TIMEOUT,
};

const CHALLENGE: &str = "/.well-known/acme-challenge/";

/// Accepts until the relay stops.
pub(crate) async fn accept(entrance: Arc<Entrance>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = entrance.life.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => match ConnectionPermit::take(&entrance.permits, peer.ip()) {
                Some(permit) => {
                    entrance.life.tasks.spawn(serve(entrance.current.clone(), stream, peer.ip(), permit));
                }
                None => {
                    entrance.metrics.connections_refused.inc();
                }
            },
            Err(error) => {
                warn!(%error, "a plain connection cannot be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(current: Arc<Current>, stream: TcpStream, peer: IpAddr, _permit: ConnectionPermit) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&current, &request);
        async move { Ok::<_, Infallible>(response.map(Full::new)) }
    });
    let mut http1 = hyper::server::conn::http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false).max_buf_size(HEADER_BYTES_MAX);
    let served = timeout(2 * HEAD_TIMEOUT, http1.serve_connection(TokioIo::new(stream), service)).await;
    debug!(%peer, ended = served.is_ok(), "a plain request");
}

fn answer(current: &Current, request: &Request<Incoming>) -> Response<Bytes> {
    let host = request.headers().get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let host = host_asked_for(host.split_once(':').map_or(host, |(host, _)| host));
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    if let Some(token) = path.strip_prefix(CHALLENGE)
        && let Some(proof) = current.keys().certificates.key_authorization(&host, token)
    {
        return Response::new(Bytes::copy_from_slice(proof.as_bytes()));
    }
    match secure(current, &host, path) {
        Some(location) => {
            let mut response = Response::new(Bytes::new());
            // 308: the method stays, and so does a body that has to come again.
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        None => {
            let reader = Reader {
                wants: Wants::of(request.method(), request.headers()),
                language: Language::of(request.headers()),
                branding: &Branding::default(),
                now: current.now(),
            };
            Refusal::UnknownHost.response(&reader, &fresh_id().simple().to_string())
        }
    }
}

/// Only to what is published: nobody is sent anywhere else in our name.
fn secure(current: &Current, host: &str, path: &str) -> Option<HeaderValue> {
    let view = current.view();
    let route = view.snapshot.routes.on_host(host).first().filter(|_| is_host(host) && path.starts_with('/'))?;
    let port = port_suffix(view.snapshot.tenant(&route.tenant)?.public_port);
    HeaderValue::from_str(&format!("https://{host}{port}{path}")).ok()
}
