//! Requests that were not forwarded, and what their senders are told: a page or
//! JSON with a stable code, a request id and what to do next. Nothing internal.

use std::collections::BTreeSet;

use askama::Template;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use model::{PolicyId, Requirement, Timestamp, activity::RefusalCode, branding::Branding};
use proto::v1::ResetCode;
use serde::Serialize;
use strict::canonical::Fault;

use crate::refusal_texts::{Labels, Language, Message};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request can be read in two ways, or in none.
    BadRequest(&'static str),
    HeadTooLarge,
    UriTooLong,
    Method,
    /// The connection was opened for another host.
    Misdirected,
    UnknownHost,
    NotPublished,
    SignInRequired,
    /// The sign-in has not satisfied all of these.
    MoreProofRequired(BTreeSet<Requirement>),
    SignInFailed(&'static str),
    SignInUnavailable,
    /// A token that was made just now is over already, or not valid yet.
    ClockWrong,
    NotAssigned,
    /// The application asks for a certificate of an authority it trusts.
    ClientCertificate,
    Blocked(PolicyId),
    /// Asked too often; may ask again after so many seconds.
    TooManyRequests(u32),
    /// What is known is too old to decide on.
    Stale,
    NotReady,
    /// An administrator closed the application for a time.
    Maintenance,
    NoConnector,
    Busy,
    LinkLost,
    OriginDns,
    OriginConnect,
    OriginTls,
    OriginTimeout,
    OriginBadResponse,
    /// The connector would not go there.
    OriginRefused,
    SlowBody,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreadable(why) => Self::BadRequest(why),
            Fault::HeadTooLarge => Self::HeadTooLarge,
            Fault::UriTooLong => Self::UriTooLong,
            Fault::Method => Self::Method,
            Fault::Misdirected => Self::Misdirected,
        }
    }
}

impl Refusal {
    pub fn from_reset(code: ResetCode) -> Self {
        match code {
            ResetCode::Dns => Self::OriginDns,
            ResetCode::Connect => Self::OriginConnect,
            ResetCode::Tls => Self::OriginTls,
            ResetCode::Timeout => Self::OriginTimeout,
            ResetCode::BadResponse => Self::OriginBadResponse,
            ResetCode::OriginRefused => Self::OriginRefused,
            ResetCode::Cancelled | ResetCode::Draining | ResetCode::Unspecified => Self::LinkLost,
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::SignInFailed(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::UnknownHost | Self::NotPublished => StatusCode::NOT_FOUND,
            Self::SignInRequired | Self::MoreProofRequired(_) => StatusCode::UNAUTHORIZED,
            Self::NotAssigned | Self::ClientCertificate | Self::Blocked(_) => StatusCode::FORBIDDEN,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Stale
            | Self::NotReady
            | Self::Maintenance
            | Self::NoConnector
            | Self::Busy
            | Self::SignInUnavailable
            | Self::ClockWrong => StatusCode::SERVICE_UNAVAILABLE,
            Self::OriginTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::LinkLost
            | Self::OriginDns
            | Self::OriginConnect
            | Self::OriginTls
            | Self::OriginBadResponse
            | Self::OriginRefused => StatusCode::BAD_GATEWAY,
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        if let Self::TooManyRequests(seconds) = self {
            return Some(*seconds);
        }
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(5)
    }

    /// Stable: documented, searched for, alerted on.
    pub fn code(&self) -> &'static str {
        let code = match self {
            Self::BadRequest(_) => RefusalCode::BadRequest,
            Self::HeadTooLarge => RefusalCode::HeadTooLarge,
            Self::UriTooLong => RefusalCode::UriTooLong,
            Self::Method => RefusalCode::MethodNotAllowed,
            Self::Misdirected => RefusalCode::Misdirected,
            Self::UnknownHost => RefusalCode::UnknownHost,
            Self::NotPublished => RefusalCode::NotPublished,
            Self::SignInRequired => RefusalCode::SignInRequired,
            Self::MoreProofRequired(_) => RefusalCode::MoreProofRequired,
            Self::SignInFailed(_) => RefusalCode::SignInFailed,
            Self::SignInUnavailable => RefusalCode::SignInUnavailable,
            Self::ClockWrong => RefusalCode::ClockWrong,
            Self::NotAssigned => RefusalCode::NotAssigned,
            Self::ClientCertificate => RefusalCode::ClientCertificateRequired,
            Self::Blocked(_) => RefusalCode::BlockedByPolicy,
            Self::TooManyRequests(_) => RefusalCode::TooManyRequests,
            Self::Stale => RefusalCode::ConfigurationStale,
            Self::NotReady => RefusalCode::NotReady,
            Self::Maintenance => RefusalCode::Maintenance,
            Self::NoConnector => RefusalCode::NoConnector,
            Self::Busy => RefusalCode::Busy,
            Self::LinkLost => RefusalCode::LinkLost,
            Self::OriginDns => RefusalCode::OriginDns,
            Self::OriginConnect => RefusalCode::OriginConnect,
            Self::OriginTls => RefusalCode::OriginTls,
            Self::OriginTimeout => RefusalCode::OriginTimeout,
            Self::OriginBadResponse => RefusalCode::OriginBadResponse,
            Self::OriginRefused => RefusalCode::OriginRefused,
            Self::SlowBody => RefusalCode::SlowBody,
        };
        code.as_str()
    }

    /// What people are told, who cannot see behind the door.
    fn message(&self) -> Message {
        match self {
            Self::BadRequest(_) | Self::Method => Message::Unreadable,
            Self::HeadTooLarge => Message::HeadTooLarge,
            Self::UriTooLong => Message::AddressTooLong,
            Self::Misdirected => Message::Misdirected,
            Self::UnknownHost | Self::NotPublished => Message::NothingHere,
            Self::SignInRequired => Message::SignIn,
            Self::MoreProofRequired(_) => Message::OneMoreStep,
            Self::SignInFailed(_) => Message::SignInFailed,
            Self::SignInUnavailable => Message::SignInUnavailable,
            Self::ClockWrong => Message::ClockWrong,
            Self::NotAssigned => Message::NotAssigned,
            Self::ClientCertificate => Message::ClientCertificate,
            Self::Blocked(_) => Message::Blocked,
            Self::TooManyRequests(_) => Message::TooOften,
            Self::Stale | Self::NotReady | Self::Busy => Message::Unavailable,
            Self::Maintenance => Message::Maintenance,
            Self::NoConnector => Message::NoConnector,
            Self::LinkLost => Message::Interrupted,
            Self::OriginDns | Self::OriginConnect | Self::OriginTls | Self::OriginBadResponse | Self::OriginRefused => {
                Message::NoAnswer
            }
            Self::OriginTimeout => Message::TooSlow,
            Self::SlowBody => Message::UploadStopped,
        }
    }

    /// What the sign-in has not shown; nothing where another thing is wrong.
    fn missing(&self) -> Option<&BTreeSet<Requirement>> {
        let Self::MoreProofRequired(missing) = self else { return None };
        Some(missing)
    }

    /// The same refusal as a page for people and as JSON for programs.
    pub fn response(&self, reader: &Reader<'_>, request_id: &str) -> Response<Bytes> {
        let Reader { wants, language, branding, now } = *reader;
        let words = self.message().words(language);
        let status = self.status();
        let missing = |language: Language| self.missing().into_iter().flatten().map(move |it| language.asks(*it));
        let (kind, body) = match wants {
            Wants::Page => {
                let page = Page {
                    language: language.tag(),
                    labels: language.labels(),
                    status: status.as_u16(),
                    code: self.code(),
                    title: words.title,
                    missing: missing(language).collect(),
                    advice: words.advice,
                    request_id,
                    time: &utc(now),
                    branding,
                };
                // The template is checked when it is compiled.
                ("text/html; charset=utf-8", page.render().unwrap_or_default())
            }
            Wants::Json => {
                let words = self.message().words(Language::English);
                let json = Json {
                    code: self.code(),
                    message: words.title,
                    missing: missing(Language::English).collect(),
                    acr_values: self.missing().map(Requirement::list),
                    advice: words.advice,
                    request_id,
                };
                ("application/json", serde_json::to_string(&json).unwrap_or_default())
            }
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("content-security-policy", HeaderValue::from_static(PAGE_POLICY));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("postern-refusal", HeaderValue::from_static(self.code()));
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Nothing but the page itself and its own style.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// For whom a refusal is rendered: page or JSON, language, branding.
pub struct Reader<'a> {
    pub wants: Wants,
    pub language: Language,
    pub branding: &'a Branding,
    pub now: Timestamp,
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct Page<'a> {
    language: &'a str,
    labels: Labels,
    status: u16,
    code: &'a str,
    title: &'a str,
    missing: Vec<String>,
    advice: &'a str,
    request_id: &'a str,
    time: &'a str,
    branding: &'a Branding,
}

/// Seconds are enough to find a line in a log.
fn utc(now: Timestamp) -> String {
    let time = jiff::Timestamp::from_second(now.seconds()).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[derive(Serialize)]
struct Json<'a> {
    code: &'a str,
    message: &'a str,
    /// In plain words, and as a sign-in is asked for it (OpenID Connect Core, section 3.1.2.1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr_values: Option<String>,
    advice: &'a str,
    request_id: &'a str,
}

/// The kind of client: a person in front of a browser, or a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    Page,
    Json,
}

impl Wants {
    /// Browsers say what they want (Fetch Metadata); older ones ask for HTML.
    /// A script inside a page is a program: it cannot follow a sign-in.
    pub fn of(method: &http::Method, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let navigates = match text("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            None => {
                text("accept").is_some_and(|accept| accept.contains("text/html"))
                    && text("x-requested-with").is_none_or(|by| !by.eq_ignore_ascii_case("xmlhttprequest"))
            }
        };
        match navigates
            && (*method == http::Method::GET || *method == http::Method::HEAD || *method == http::Method::POST)
        {
            true => Self::Page,
            false => Self::Json,
        }
    }
}

#[cfg(test)]
mod tests;
