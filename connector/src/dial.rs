//! Reaching a relay: directly or through an HTTP proxy, always TLS 1.3.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tunnel::io::Wide;
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The head of a proxy's answer.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

#[derive(Debug, Error)]
pub enum DialError {
    #[error("{0:?} is not HOST:PORT")]
    Address(String),
    #[error("the name does not resolve")]
    Dns(#[source] io::Error),
    #[error("no answer in time")]
    Late,
    #[error("the connection fails")]
    Tcp(#[source] io::Error),
    #[error("TLS fails; if something inspects TLS on the way, exempt this connection")]
    Tls(#[source] io::Error),
    #[error("the proxy setting is not http://HOST:PORT")]
    ProxySetting,
    #[error("the proxy refused: {0}")]
    Proxy(String),
}

/// Dials out, directly or through an HTTP proxy.
#[derive(Clone, Default)]
pub struct Dialer {
    proxy: Option<Proxy>,
}

#[derive(Clone)]
struct Proxy {
    address: String,
    authorization: Option<String>,
}

impl Dialer {
    pub fn new(proxy: Option<&str>, credentials: Option<&Path>) -> Result<Self, DialError> {
        let Some(proxy) = proxy else { return Ok(Self::default()) };
        let url = Url::parse(proxy).map_err(|_| DialError::ProxySetting)?;
        let host = url.host_str().filter(|_| url.scheme() == "http").ok_or(DialError::ProxySetting)?;
        let address = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
        let from_file = match credentials {
            Some(path) => Some(runtime::files::read_private(path).map_err(DialError::Tcp)?),
            None => None,
        };
        let from_url = url.password().map(|password| format!("{}:{password}", url.username()).into_bytes());
        let authorization = from_file.or(from_url).map(|it| format!("Basic {}", STANDARD.encode(it.trim_ascii())));
        Ok(Self { proxy: Some(Proxy { address, authorization }) })
    }

    pub async fn dial(
        &self,
        address: &str,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<Wide<TcpStream>>, DialError> {
        let tcp = match &self.proxy {
            Some(proxy) => within(proxy.connect(address)).await?,
            None => within(connect(address)).await?,
        };
        tcp.set_nodelay(true).map_err(DialError::Tcp)?;
        let name = ServerName::try_from(name.to_owned()).map_err(|_| DialError::Address(name.to_owned()))?;
        within(async { TlsConnector::from(config).connect(name, Wide::new(tcp)).await.map_err(DialError::Tls) }).await
    }
}

async fn within<T>(work: impl Future<Output = Result<T, DialError>>) -> Result<T, DialError> {
    timeout(CONNECT_TIMEOUT, work).await.map_err(|_| DialError::Late)?
}

async fn connect(address: &str) -> Result<TcpStream, DialError> {
    let mut failure = DialError::Address(address.to_owned());
    for address in resolve(address).await? {
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(source) => failure = DialError::Tcp(source),
        }
    }
    Err(failure)
}

/// Names under `localhost` are this machine (RFC 6761, section 6.3), whatever
/// the resolver thinks of them.
async fn resolve(address: &str) -> Result<Vec<SocketAddr>, DialError> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| DialError::Address(address.to_owned()))?;
    let host = if host == "localhost" || host.ends_with(".localhost") { "127.0.0.1" } else { host };
    Ok(lookup_host(format!("{host}:{port}")).await.map_err(DialError::Dns)?.collect())
}

impl Proxy {
    /// HTTP CONNECT (RFC 9110, section 9.3.6).
    async fn connect(&self, address: &str) -> Result<TcpStream, DialError> {
        let mut tcp = connect(&self.address).await?;
        let authorization =
            self.authorization.as_ref().map_or(String::new(), |it| format!("Proxy-Authorization: {it}\r\n"));
        let request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{authorization}\r\n");
        tcp.write_all(request.as_bytes()).await.map_err(DialError::Tcp)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= PROXY_HEAD_BYTES_MAX {
                return Err(DialError::Proxy("its answer has no end".into()));
            }
            // Byte by byte: what follows the head belongs to the tunnel.
            head.push(tcp.read_u8().await.map_err(DialError::Tcp)?);
        }
        let head = String::from_utf8_lossy(&head);
        let status = head.lines().next().unwrap_or_default();
        match status.split(' ').nth(1) {
            Some("200") => Ok(tcp),
            Some(_) | None => Err(DialError::Proxy(status.to_owned())),
        }
    }
}
