//! The admin listener: `/livez`, `/readyz` and `/metrics`, apart from traffic.
//!
//! It answers anybody who can reach it, so it listens on loopback by default.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// One part of the process and whether it can do its work.
#[derive(Clone, Debug)]
pub struct Readiness {
    pub part: &'static str,
    pub ready: bool,
    /// For the operator: why not, or how well.
    pub detail: String,
}

pub type Check = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// What the listener answers from.
#[derive(Clone, Default)]
pub struct Probes {
    pub checks: Vec<Check>,
    pub metrics: Metrics,
}

const CONNECTIONS_MAX: usize = 64;

impl Probes {
    pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            if connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            let probes = self.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let answer = probes.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let _closed = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into());
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => self.readiness(),
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.metrics.text());
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
                response
            }
            _ => text(StatusCode::NOT_FOUND, "/livez, /readyz or /metrics\n".into()),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let states: Vec<Readiness> = self.checks.iter().map(|check| check()).collect();
        let status = match states.iter().all(|it| it.ready) {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let line = |it: &Readiness| {
            let mark = if it.ready { "ready" } else { "not ready" };
            format!("{}: {mark}: {}\n", it.part, it.detail)
        };
        text(status, states.iter().map(line).collect())
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
