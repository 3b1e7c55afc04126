//! HTTPS client for an installation's own relays: signing in, renewing tokens,
//! looking whether an address answers.

use std::{error::Error, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{InvalidDnsNameError, ServerName, pem},
};
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use tokio_rustls::TlsConnector;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Error)]
pub enum WebError {
    #[error("reading the root certificate")]
    RootPem(#[from] pem::Error),
    #[error("trusting the root certificate")]
    Root(#[from] rustls::Error),
    #[error("reading the address {url}")]
    Address { url: String, source: url::ParseError },
    #[error("{url} has no host")]
    NoHost { url: Url },
    #[error("{host} is no name of a server")]
    ServerName { host: String, source: InvalidDnsNameError },
    #[error("waiting for {url}")]
    Late { url: Url, source: Elapsed },
    #[error("reaching {address}")]
    Unreachable { address: String, source: io::Error },
    #[error("speaking TLS with {host}")]
    Tls { host: String, source: io::Error },
    #[error("asking {url}")]
    Exchange { url: Url, source: Box<dyn Error + Send + Sync> },
    #[error("{host} closed the connection")]
    Closed { host: String },
    #[error("{url} answers {status}, and not as identity does")]
    NotIdentity { url: String, status: StatusCode, source: serde_json::Error },
}

pub struct Web {
    tls: Arc<ClientConfig>,
}

impl Web {
    /// Trusts the roots of a PEM text, and the system's: relays may show a
    /// certificate that somebody brought.
    pub fn trusting(pem: &str) -> Result<Self, WebError> {
        let ders = runtime::tls::pem_certificates(pem.as_bytes())?;
        let ours = runtime::tls::roots(ders.iter().map(|it| it.as_ref()))?;
        let mut roots = ours.as_ref().clone();
        // A machine without roots still reaches an installation with its own.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.time_provider = Arc::new(runtime::Clock::default());
        Ok(Self { tls: Arc::new(config) })
    }

    pub async fn get(&self, url: &str) -> Result<Response<Bytes>, WebError> {
        self.send(Method::GET, url, None, None).await
    }

    /// With a controller's permit.
    pub async fn get_permitted(&self, url: &str, permit: &str) -> Result<Response<Bytes>, WebError> {
        self.send(Method::GET, url, None, Some(&format!("Postern-Permit {permit}"))).await
    }

    /// A form; the answer's JSON and whether it is a success.
    pub async fn post(&self, url: &str, form: String) -> Result<(bool, serde_json::Value), WebError> {
        let response = self.send(Method::POST, url, Some(form), None).await?;
        let status = response.status();
        let json = serde_json::from_slice(response.body());
        let json = json.map_err(|source| WebError::NotIdentity { url: url.to_owned(), status, source })?;
        Ok((status.is_success(), json))
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        form: Option<String>,
        authorization: Option<&str>,
    ) -> Result<Response<Bytes>, WebError> {
        let url = Url::parse(url).map_err(|source| WebError::Address { url: url.to_owned(), source })?;
        let sent = timeout(TIMEOUT, self.send_soon(method, &url, form, authorization)).await;
        sent.map_err(|source| WebError::Late { url: url.clone(), source })?
    }

    async fn send_soon(
        &self,
        method: Method,
        url: &Url,
        form: Option<String>,
        authorization: Option<&str>,
    ) -> Result<Response<Bytes>, WebError> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(WebError::NoHost { url: url.clone() });
        };
        let dial = dialled(host);
        let unreachable = |source| WebError::Unreachable { address: format!("{dial}:{port}"), source };
        let tcp = TcpStream::connect((dial, port)).await.map_err(unreachable)?;
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|source| WebError::ServerName { host: host.to_owned(), source })?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await;
        let tls = tls.map_err(|source| WebError::Tls { host: host.to_owned(), source })?;
        let broke = |source| WebError::Exchange { url: url.clone(), source };
        let (mut requests, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|error| broke(error.into()))?;
        let request = request(method, url, form, authorization).map_err(|error| broke(error.into()))?;
        let exchange = async {
            let response = requests.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        tokio::select! {
            answered = exchange => answered.map_err(broke),
            ended = connection => {
                ended.map_err(|error| broke(error.into()))?;
                Err(WebError::Closed { host: host.to_owned() })
            }
        }
    }
}

fn request(
    method: Method,
    url: &Url,
    form: Option<String>,
    authorization: Option<&str>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::builder().method(method).uri(target).header(header::HOST, authority);
    if form.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request.body(Full::new(Bytes::from(form.unwrap_or_default())))
}

/// What to connect to for a host: names under `localhost` are this machine,
/// whatever the resolver says.
pub fn dialled(host: &str) -> &str {
    if host.ends_with(".localhost") { "127.0.0.1" } else { host }
}
