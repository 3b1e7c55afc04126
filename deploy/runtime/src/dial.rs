//! Calling a service of ours over gRPC: TLS with our own clock, a server that
//! proves its name whatever its address, and the next address when one is away.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
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
    let endpoint = Endpoint::from_shared(plain(address))?.connect_timeout(connect_timeout);
    endpoint.connect_with_connector(connector(name, tls)).await
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

fn connector(
    name: &'static str,
    config: ClientConfig,
) -> impl Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = io::Error, Future: Send> + Clone + Send {
    let connector = TlsConnector::from(Arc::new(config));
    tower::service_fn(move |uri: Uri| {
        let connector = connector.clone();
        async move {
            let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "an address without a host");
            let host = uri.host().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']');
            let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(name).map_err(|_| wrong())?;
            Ok(TokioIo::new(connector.connect(name, tcp).await?))
        }
    })
}
