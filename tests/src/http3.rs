//! HTTP/3 as programs speak it, and raw QUIC streams as attackers write them.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Request, StatusCode};
use quinn::{Endpoint, crypto::rustls::QuicClientConfig};
use tokio::task::JoinSet;
use url::Url;

use crate::browser::Browser;

/// One connection to a relay.
pub struct Http3 {
    endpoint: Endpoint,
    pub connection: quinn::Connection,
    requests: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    _driver: JoinSet<()>,
}

/// An answer whose body is still to be read.
pub type Stream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn refusal(&self) -> &str {
        self.headers.get("postern-refusal").map_or("", |it| it.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A QUIC connection to the relay behind `url`, for its host.
pub async fn quic(browser: &Browser, url: &Url) -> (Endpoint, quinn::Connection) {
    let mut tls = browser.tls();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    endpoint.set_default_client_config(config);
    let relay = SocketAddr::from(([127, 0, 0, 1], url.port_or_known_default().unwrap()));
    let connection = endpoint.connect(relay, url.host_str().unwrap()).unwrap().await.unwrap();
    (endpoint, connection)
}

impl Http3 {
    pub async fn connect(browser: &Browser, url: &str) -> Self {
        let (endpoint, connection) = quic(browser, &Url::parse(url).unwrap()).await;
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection.clone())).await.unwrap();
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            let _closed = std::future::poll_fn(|context| driver.poll_close(context)).await;
        });
        Self { endpoint, connection, requests, _driver: driving }
    }

    /// Goes on from another port, as behind a router that forgot.
    pub fn rebind(&self, address: &str) {
        self.endpoint.rebind(std::net::UdpSocket::bind(address).unwrap()).unwrap();
    }

    /// Sends a head.
    pub async fn begin(&mut self, method: Method, url: &str, headers: &[(&str, &str)]) -> Stream {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.requests.send_request(request.body(()).unwrap()).await.unwrap()
    }

    /// One request, read to its end; `None` when it broke off.
    pub async fn try_ask(
        &mut self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &'static [u8],
    ) -> Option<Answer> {
        let mut stream = self.begin(method, url, headers).await;
        if !body.is_empty() {
            // An answer may come before all of it is taken.
            let _taken = stream.send_data(Bytes::from_static(body)).await;
        }
        let _finished = stream.finish().await;
        let (parts, ()) = stream.recv_response().await.ok()?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = stream.recv_data().await.ok()? {
            body.extend_from_slice(data.chunk());
        }
        Some(Answer { status: parts.status, headers: parts.headers, body })
    }

    pub async fn ask(&mut self, method: Method, url: &str, headers: &[(&str, &str)], body: &'static [u8]) -> Answer {
        self.try_ask(method, url, headers, body).await.expect("an answer")
    }
}
