//! Calling a service of ours over gRPC: TLS with our own clock, a server that
//! proves its name whatever its address, and the next address when one is away.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Error};
use tower::Service;
use tracing::warn;

use crate::telemetry::chain;

/// A channel to `https://HOST:PORT`, whose server proves `name`.
pub async fn dial(
    address: &str,
    name: &'static str,
    tls: ClientConfig,
    connect_timeout: Duration,
) -> Result<Channel, Error> {
    dial_over(address, name, tls, connect_timeout, open_tcp).await
}

/// The same over connections that `open` opens, such as those of a simulation.
pub async fn dial_over<I, F>(
    address: &str,
    name: &'static str,
    tls: ClientConfig,
    connect_timeout: Duration,
    open: impl Fn(Uri) -> F + Clone + Send + 'static,
) -> Result<Channel, Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = io::Result<I>> + Send + 'static,
{
    let endpoint = Endpoint::from_shared(plain(address))?.connect_timeout(connect_timeout);
    endpoint.connect_with_connector(connector(name, tls, open)).await
}

/// A channel to the first of several equal servers that answers; a log line for
/// each that does not.
pub async fn dial_any(
    addresses: &[String],
    name: &'static str,
    tls: &ClientConfig,
    connect_timeout: Duration,
) -> Option<Channel> {
    for address in addresses {
        match dial(address, name, tls.clone(), connect_timeout).await {
            Ok(channel) => return Some(channel),
            Err(error) => warn!(%address, server = name, error = %chain(&error), "a server does not answer"),
        }
    }
    None
}

/// The client's own TLS knows no clock but the machine's. So its URI begins with
/// `http`, and the connection is secure when the client gets it.
fn plain(address: &str) -> String {
    address.strip_prefix("https://").map_or_else(|| address.to_owned(), |it| format!("http://{it}"))
}

fn connector<I, F>(
    name: &'static str,
    config: ClientConfig,
    open: impl Fn(Uri) -> F + Clone + Send,
) -> impl Service<Uri, Response = TokioIo<TlsStream<I>>, Error = io::Error, Future: Send> + Clone + Send
where
    I: AsyncRead + AsyncWrite + Send + Unpin,
    F: Future<Output = io::Result<I>> + Send,
{
    let connector = TlsConnector::from(Arc::new(config));
    tower::service_fn(move |uri: Uri| {
        let (connector, opened) = (connector.clone(), open(uri));
        async move {
            let name =
                ServerName::try_from(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            Ok(TokioIo::new(connector.connect(name, opened.await?).await?))
        }
    })
}

async fn open_tcp(uri: Uri) -> io::Result<TcpStream> {
    let no_host = || io::Error::new(io::ErrorKind::InvalidInput, "an address without a host");
    let host = uri.host().ok_or_else(no_host)?.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}
