//! Requests to a provider: over TLS, never redirected, small and soon.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use runtime::{Clock, tls::pem_certificates};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tracing::debug;
use url::Url;

use super::fault::UpstreamFault;

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// An answer that came whole.
pub(crate) struct WebAnswer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl WebAnswer {
    pub(crate) fn ok(self) -> Result<Bytes, UpstreamFault> {
        match self.status.is_success() {
            true => Ok(self.body),
            false => Err(UpstreamFault::Status),
        }
    }
}

/// An address of a provider: https, or plain HTTP within this machine.
pub(crate) fn address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let local = url.scheme() == "http" && url.host_str() == Some("127.0.0.1");
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    ((url.scheme() == "https" || local) && plain && url.has_host()).then_some(url)
}

/// TLS to a provider: its own authority, or the system's.
pub(crate) fn client(ca_pem: &str) -> Result<Arc<ClientConfig>, UpstreamFault> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        "" => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        pem => {
            let certificates = pem_certificates(pem.as_bytes()).map_err(|_| UpstreamFault::Unreachable)?;
            roots.add_parsable_certificates(certificates);
        }
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.time_provider = Arc::new(Clock::default());
    Ok(Arc::new(config))
}

pub(crate) async fn get(tls: &Arc<ClientConfig>, url: &Url, bearer: Option<&str>) -> Result<WebAnswer, UpstreamFault> {
    let mut request = Request::builder().method(Method::GET);
    if let Some(token) = bearer {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    send(tls, url, request, Bytes::new()).await
}

pub(crate) async fn post_form(
    tls: &Arc<ClientConfig>,
    url: &Url,
    basic: Option<&str>,
    fields: &[(&str, &str)],
) -> Result<WebAnswer, UpstreamFault> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let mut request =
        Request::builder().method(Method::POST).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(basic) = basic {
        request = request.header(header::AUTHORIZATION, format!("Basic {basic}"));
    }
    send(tls, url, request, body.into()).await
}

async fn send(
    tls: &Arc<ClientConfig>,
    url: &Url,
    request: http::request::Builder,
    body: Bytes,
) -> Result<WebAnswer, UpstreamFault> {
    let exchange = async {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let request = request
            .uri(target)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .body(Full::new(body))
            .map_err(|_| UpstreamFault::Endpoint)?;
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(unreachable)?;
        if url.scheme() == "http" {
            return exchange(tcp, request).await;
        }
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(unreachable)?;
        exchange(TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(unreachable)?, request).await
    };
    timeout(TIMEOUT, exchange).await.unwrap_or(Err(UpstreamFault::Slow))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<WebAnswer, UpstreamFault>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(unreachable)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => UpstreamFault::TooLarge,
            false => UpstreamFault::Unreachable,
        })?;
        Ok(WebAnswer { status, body: body.to_bytes() })
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ended = connection => answer.await,
    }
}

fn unreachable(error: impl std::fmt::Display) -> UpstreamFault {
    debug!(%error, "a provider cannot be reached");
    UpstreamFault::Unreachable
}
