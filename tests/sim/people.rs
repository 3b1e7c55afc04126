//! People with a browser: they sign in on the real pages, keep their cookies, and
//! begin again when a connection breaks.

use std::{collections::BTreeMap, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::{Duration, sleep, timeout};
use url::{Url, form_urlencoded};

use crate::{
    network::Chance,
    world::{Door, answer_to},
};

pub(crate) const PASSWORD: &str = "correct horse battery";
/// Nobody waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(300);
const REDIRECTS_MAX: usize = 10;

pub(crate) struct Browser {
    door: Door,
    address: IpAddr,
    chance: Chance,
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// An answer that came whole.
pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Page {
    /// Did the application say this, and nobody else?
    pub(crate) fn is_of_the_application(&self) -> bool {
        self.status == StatusCode::OK && self.body == answer_to(self.url.path(), b"")
    }

    fn location(&self) -> Option<Url> {
        let location = self.headers.get(header::LOCATION)?.to_str().ok()?;
        self.status.is_redirection().then(|| self.url.join(location).unwrap())
    }

    fn field(&self, name: &str) -> Option<String> {
        let text = std::str::from_utf8(&self.body).ok()?;
        let (_, rest) = text.split_once(&format!("name=\"{name}\" value=\""))?;
        rest.split('"').next().map(str::to_owned)
    }
}

impl Browser {
    pub(crate) fn new(door: Door, address: IpAddr, chance: Chance) -> Self {
        Self { door, address, chance, cookies: BTreeMap::new() }
    }

    /// One request, no redirects followed.
    pub(crate) async fn get(&mut self, url: &Url) -> Option<Page> {
        self.ask(Method::GET, url, Bytes::new()).await
    }

    /// The beginning of an answer, for those that have no end.
    pub(crate) async fn begin(&mut self, method: Method, url: &Url, body: Bytes) -> Option<http::Response<Incoming>> {
        let host = url.host_str().unwrap().to_owned();
        let here = self.door.knock(&mut self.chance, self.address, &host);
        let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(here)).await.ok()?;
        self.door.spawn(async move { _ = connection.await });
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = Request::builder().method(method).uri(target);
        request = request.header(header::HOST, &host).header(header::ACCEPT, "text/html");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if let Some(cookies) = self.cookies.get(&host) {
            let pairs: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(header::COOKIE, pairs.join("; "));
        }
        let response = requests.send_request(request.body(Full::new(body)).unwrap()).await.ok()?;
        self.keep_cookies(&host, response.headers());
        Some(response)
    }

    async fn ask(&mut self, method: Method, url: &Url, body: Bytes) -> Option<Page> {
        let asked = async {
            let (parts, body) = self.begin(method, url, body).await?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Page { url: url.clone(), status: parts.status, headers: parts.headers, body })
        };
        timeout(PATIENCE, asked).await.expect("an answer comes, or the connection ends")
    }

    fn keep_cookies(&mut self, host: &str, headers: &HeaderMap) {
        let jar = self.cookies.entry(host.to_owned()).or_default();
        for cookie in headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match cookie.contains("Max-Age=0") {
                true => jar.remove(name),
                false => jar.insert(name.to_owned(), value.to_owned()),
            };
        }
    }

    /// Follows redirects, as a navigation does.
    pub(crate) async fn open(&mut self, url: &Url) -> Option<Page> {
        let mut page = self.get(url).await?;
        for _ in 0..REDIRECTS_MAX {
            let Some(next) = page.location() else { return Some(page) };
            page = self.get(&next).await?;
        }
        panic!("redirects without end at {}", page.url)
    }

    /// Opens a page and signs in where that is asked for; the page, or nothing
    /// when a connection broke.
    pub(crate) async fn sign_in(&mut self, url: &Url, username: &str) -> Option<Page> {
        let page = self.open(url).await?;
        let Some(flow) = page.field("flow") else { return Some(page) };
        let fields = [("flow", flow.as_str()), ("username", username), ("password", PASSWORD)];
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let page = self.ask(Method::POST, &page.url.join("/signin").unwrap(), form.into()).await?;
        match page.location() {
            Some(next) => self.open(&next).await,
            None => Some(page),
        }
    }

    /// Until the application itself answers, or a page of ours that is no sign-in.
    pub(crate) async fn insist(&mut self, url: &Url, username: &str, attempts: usize) -> Option<Page> {
        for _ in 0..attempts {
            if let Some(page) = self.sign_in(url, username).await
                && (page.is_of_the_application() || page.status == StatusCode::FORBIDDEN)
            {
                return Some(page);
            }
            sleep(self.chance.up_to_ms(3000)).await;
        }
        None
    }
}
