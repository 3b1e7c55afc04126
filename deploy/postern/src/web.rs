//! A small HTTPS client for our own relays, for `login` and `doctor`.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

pub struct Web {
    tls: Arc<ClientConfig>,
}

impl Web {
    /// Trusts the roots of a PEM text, and the system's: relays may show a
    /// certificate that somebody brought.
    pub fn trusting(pem: &str) -> anyhow::Result<Self> {
        let ders = runtime::tls::pem_certificates(pem.as_bytes()).context("reading the root certificate")?;
        let ours = runtime::tls::roots(ders.iter().map(|it| it.as_ref()))?;
        let mut roots = ours.as_ref().clone();
        // A machine without roots still reaches an installation with its own.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.time_provider = Arc::new(runtime::Clock::default());
        Ok(Self { tls: Arc::new(config) })
    }

    pub async fn get(&self, url: &str) -> anyhow::Result<Response<Bytes>> {
        self.send(Method::GET, url, None, None).await
    }

    /// With a controller's permit.
    pub async fn get_permitted(&self, url: &str, permit: &str) -> anyhow::Result<Response<Bytes>> {
        self.send(Method::GET, url, None, Some(&format!("Postern-Permit {permit}"))).await
    }

    /// A form; the answer's JSON and whether it is a success.
    pub async fn post(&self, url: &str, form: String) -> anyhow::Result<(bool, serde_json::Value)> {
        let response = self.send(Method::POST, url, Some(form), None).await?;
        let json = serde_json::from_slice(response.body());
        let json = json.with_context(|| format!("{url} answers {}, and not as identity does", response.status()))?;
        Ok((response.status().is_success(), json))
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        form: Option<String>,
        authorization: Option<&str>,
    ) -> anyhow::Result<Response<Bytes>> {
        let url = Url::parse(url).with_context(|| format!("reading the address {url}"))?;
        let sent = timeout(TIMEOUT, self.send_soon(method, &url, form, authorization)).await;
        sent.with_context(|| format!("waiting for {url}"))?
    }

    async fn send_soon(
        &self,
        method: Method,
        url: &Url,
        form: Option<String>,
        authorization: Option<&str>,
    ) -> anyhow::Result<Response<Bytes>> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            bail!("{url} has no host");
        };
        let dial = dialled(host);
        let tcp = TcpStream::connect((dial, port)).await.with_context(|| format!("reaching {dial}:{port}"))?;
        let name = ServerName::try_from(host.to_owned())?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await;
        let tls = tls.with_context(|| format!("speaking TLS with {host}"))?;
        let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let authority = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, authority);
        if form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::from(form.unwrap_or_default())))?;
        let exchange = async {
            let response = requests.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("reading an answer: {error}"))?.to_bytes();
            Ok::<_, anyhow::Error>(Response::from_parts(parts, body))
        };
        tokio::select! {
            answered = exchange => answered.with_context(|| format!("asking {url}")),
            ended = connection => {
                ended.with_context(|| format!("asking {url}"))?;
                bail!("{host} closed the connection")
            }
        }
    }
}

/// What to connect to for a host: names under `localhost` are this machine,
/// whatever the resolver says.
pub(crate) fn dialled(host: &str) -> &str {
    if host.ends_with(".localhost") { "127.0.0.1" } else { host }
}
