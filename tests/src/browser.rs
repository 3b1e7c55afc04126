//! A browser of sorts: cookies by host, redirects, forms. HTTP/1.1 over TLS,
//! trusting the installation's root.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::{Url, form_urlencoded};

#[derive(Clone)]
pub struct Browser {
    tls: Arc<ClientConfig>,
    /// Host to cookies.
    pub cookies: BTreeMap<String, BTreeMap<String, String>>,
    /// Sent with every request.
    pub headers: HeaderMap,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    pub fn refusal(&self) -> &str {
        self.headers.get("postern-refusal").map_or("", |it| it.to_str().unwrap())
    }

    pub fn location(&self) -> Option<Url> {
        let location = self.headers.get(header::LOCATION)?.to_str().unwrap();
        Some(self.url.join(location).unwrap())
    }

    /// The value of a hidden field.
    pub fn field(&self, name: &str) -> String {
        let text = self.text();
        let start = format!("name=\"{name}\" value=\"");
        let at = text.find(&start).unwrap_or_else(|| panic!("no field {name} at {}:\n{text}", self.url)) + start.len();
        text[at..].split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    pub fn new(authority_pem: &str) -> Self {
        let ders = runtime::tls::pem_certificates(authority_pem.as_bytes()).unwrap();
        let roots = runtime::tls::roots(ders.iter().map(|it| it.as_ref())).unwrap();
        let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("tests"));
        Self { tls: Arc::new(tls), cookies: BTreeMap::new(), headers }
    }

    /// On a machine whose clock is wrong.
    pub fn with_clock(&self, clock: Arc<dyn rustls::time_provider::TimeProvider>) -> Self {
        let mut tls = self.tls();
        tls.time_provider = clock;
        // A session that is resumed shows no certificate.
        tls.resumption = rustls::client::Resumption::disabled();
        Self { tls: Arc::new(tls), ..self.clone() }
    }

    /// Shows a certificate to who asks for one.
    pub fn showing(&self, certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = rustls::crypto::CryptoProvider::get_default().unwrap();
        let certified = CertifiedKey::from_der(vec![certificate.der().clone()], key, provider).unwrap();
        let mut tls = self.tls();
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Self { tls: Arc::new(tls), ..self.clone() }
    }

    /// A program: wants JSON, follows nothing.
    pub fn as_script(&self) -> Self {
        let mut script = self.clone();
        script.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        script
    }

    pub async fn connect(&self, url: &Url) -> TlsStream<TcpStream> {
        self.connect_for(url, b"http/1.1").await
    }

    /// With another protocol than this browser speaks.
    pub async fn connect_for(&self, url: &Url, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![protocol.to_vec()];
        let host = url.host_str().unwrap().to_owned();
        let tcp = TcpStream::connect(("127.0.0.1", url.port_or_known_default().unwrap())).await.unwrap();
        TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from(host).unwrap(), tcp).await.unwrap()
    }

    /// What it trusts, for other ways to connect.
    pub fn tls(&self) -> ClientConfig {
        (*self.tls).clone()
    }

    /// The certificate that is shown for a URL, DER.
    pub async fn certificate(&self, url: &str) -> Vec<u8> {
        let stream = self.connect(&Url::parse(url).unwrap()).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    /// Cookies for a host, as a browser would send them.
    pub fn cookie_header(&self, url: &Url) -> Option<String> {
        let cookies = self.cookies.get(url.host_str()?)?;
        let pairs: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    pub async fn send(
        &mut self,
        method: Method,
        url: &Url,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Response<Incoming> {
        self.try_send(method, url, headers, body).await.expect("an answer")
    }

    /// `None` when the connection ends without an answer.
    pub async fn try_send(
        &mut self,
        method: Method,
        url: &Url,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Option<Response<Incoming>> {
        let io = TokioIo::new(self.connect(url).await);
        let (mut requests, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "the connection ends with the test's runtime")]
        tokio::task::spawn(connection.with_upgrades());
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::HOST, authority.parse().unwrap());
        if let Some(cookies) = self.cookie_header(url) {
            request.headers_mut().insert(header::COOKIE, cookies.parse().unwrap());
        }
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let response = requests.send_request(request).await.ok()?;
        self.keep_cookies(url, response.headers());
        Some(response)
    }

    fn keep_cookies(&mut self, url: &Url, headers: &HeaderMap) {
        let jar = self.cookies.entry(url.host_str().unwrap().to_owned()).or_default();
        for cookie in headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match cookie.contains("Max-Age=0") {
                true => jar.remove(name),
                false => jar.insert(name.to_owned(), value.to_owned()),
            };
        }
    }

    async fn read(&mut self, method: Method, url: &Url, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let response = self.send(method, url, headers, body).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
        Answer { url: url.clone(), status: parts.status, headers: parts.headers, body }
    }

    /// One request, no redirects followed.
    pub async fn get(&mut self, url: &str) -> Answer {
        self.read(Method::GET, &Url::parse(url).unwrap(), &[], Bytes::new()).await
    }

    pub async fn get_with(&mut self, url: &str, headers: &[(&str, &str)]) -> Answer {
        self.read(Method::GET, &Url::parse(url).unwrap(), headers, Bytes::new()).await
    }

    pub async fn post(&mut self, url: &str, body: Bytes) -> Answer {
        self.read(Method::POST, &Url::parse(url).unwrap(), &[], body).await
    }

    /// What a script sends.
    pub async fn ask(&mut self, method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        self.read(method, &Url::parse(url).unwrap(), headers, body).await
    }

    pub async fn form(&mut self, url: &Url, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let answer = self.read(Method::POST, url, &kind, body.into()).await;
        self.follow(answer).await
    }

    /// Follows redirects, as a navigation does.
    pub async fn open(&mut self, url: &str) -> Answer {
        let answer = self.get(url).await;
        self.follow(answer).await
    }

    async fn follow(&mut self, mut answer: Answer) -> Answer {
        for _ in 0..10 {
            let Some(next) = answer.location().filter(|_| answer.status.is_redirection()) else { return answer };
            if next.scheme() != "https" {
                return answer;
            }
            answer = self.read(Method::GET, &next, &[], Bytes::new()).await;
        }
        panic!("redirects without end at {}", answer.url)
    }

    /// Opens an address and signs in on the page that comes.
    pub async fn sign_in(&mut self, url: &str, username: &str, password: &str) -> Answer {
        let page = self.open(url).await;
        let flow = page.field("flow");
        let action = page.url.join("/signin").unwrap();
        self.form(&action, &[("flow", &flow), ("username", username), ("password", password)]).await
    }
}
