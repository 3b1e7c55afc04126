//! Pages, and answers around them. They work without scripts; the one script
//! there is keeps the fragment of the address.

use askama::Template;
use axum::{
    body::Body,
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header};
use qrcode::{QrCode, render::svg};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    flow: String,
    app: String,
    username: String,
    message: Option<String>,
}

#[derive(Template)]
#[template(path = "identify.html")]
struct Identify {
    flow: String,
    app: String,
    username: String,
    /// Ids and names of providers.
    providers: Vec<(String, String)>,
    message: Option<String>,
}

#[derive(Template)]
#[template(path = "code.html")]
struct Code {
    flow: String,
    app: String,
    message: Option<String>,
}

#[derive(Template)]
#[template(path = "enrol.html")]
struct Enrol {
    flow: String,
    app: String,
    qr: String,
    secret: String,
    message: Option<String>,
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message {
    title: String,
    text: String,
}

#[derive(Template)]
#[template(path = "sign_out.html")]
struct SignOut {
    username: String,
}

#[derive(Template)]
#[template(path = "device.html")]
struct Device {
    code: String,
    message: Option<String>,
}

pub(crate) struct Tile {
    pub name: String,
    pub url: String,
    pub initial: String,
}

#[derive(Template)]
#[template(path = "portal.html")]
struct Portal {
    name: String,
    tiles: Vec<Tile>,
    sign_out: String,
}

/// A page that is written out.
pub(crate) struct Page(String);

impl Page {
    fn of(template: impl Template) -> Self {
        // Templates are checked when they are compiled.
        Self(template.render().unwrap_or_default())
    }

    pub(crate) fn sign_in(flow: String, app: String, username: &str, message: Option<String>) -> Self {
        Self::of(SignIn { flow, app, username: username.chars().take(64).collect(), message })
    }

    pub(crate) fn identify(
        flow: String,
        app: String,
        username: &str,
        providers: Vec<(String, String)>,
        message: Option<String>,
    ) -> Self {
        Self::of(Identify { flow, app, username: username.chars().take(64).collect(), providers, message })
    }

    pub(crate) fn code(flow: String, app: String, message: Option<String>) -> Self {
        Self::of(Code { flow, app, message })
    }

    pub(crate) fn enrol(flow: String, app: String, url: &str, secret: &str, message: Option<String>) -> Self {
        let image = QrCode::new(url).map(|code| code.render::<svg::Color<'_>>().min_dimensions(200, 200).build());
        let qr = STANDARD.encode(image.unwrap_or_default());
        let spaced: Vec<&str> = secret.as_bytes().chunks(4).filter_map(|it| std::str::from_utf8(it).ok()).collect();
        Self::of(Enrol { flow, app, qr, secret: spaced.join(" "), message })
    }

    pub(crate) fn message(title: &str, text: &str) -> Self {
        Self::of(Message { title: title.to_owned(), text: text.to_owned() })
    }

    pub(crate) fn sign_out(username: String) -> Self {
        Self::of(SignOut { username })
    }

    pub(crate) fn device(code: String, message: Option<String>) -> Self {
        Self::of(Device { code, message })
    }

    pub(crate) fn portal(name: String, tiles: Vec<Tile>, sign_out: String) -> Self {
        Self::of(Portal { name, tiles, sign_out })
    }
}

/// An answer to a browser.
pub(crate) struct Answer(Box<Response>);

/// Nothing comes from elsewhere, and nobody frames a sign-in.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

impl Answer {
    pub(crate) fn page(page: Page) -> Self {
        let mut response = Html(page.0).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        Self(Box::new(response))
    }

    pub(crate) fn error(title: &str, text: &str) -> Self {
        Self::page(Page::message(title, text)).bad_request()
    }

    pub(crate) fn redirect(location: &str) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SEE_OTHER;
        match HeaderValue::from_str(location) {
            Ok(location) => {
                response.headers_mut().insert(header::LOCATION, location);
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Self(Box::new(response))
            }
            Err(_) => Self::error("This sign-in cannot begin", "Its address is not valid."),
        }
    }

    pub(crate) fn with_cookie(mut self, cookie: String) -> Self {
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            self.0.headers_mut().append(header::SET_COOKIE, cookie);
        }
        self
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    pub(crate) fn bad_request(self) -> Self {
        self.with_status(StatusCode::BAD_REQUEST)
    }

    pub(crate) fn unauthorized(self) -> Self {
        self.with_status(StatusCode::UNAUTHORIZED)
    }

    pub(crate) fn unavailable(self) -> Self {
        self.with_status(StatusCode::SERVICE_UNAVAILABLE)
    }

    pub(crate) fn too_many(self, wait_s: i64) -> Self {
        self.after(wait_s).with_status(StatusCode::TOO_MANY_REQUESTS)
    }

    pub(crate) fn busy(self, wait_s: i64) -> Self {
        self.after(wait_s).with_status(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn after(mut self, wait_s: i64) -> Self {
        self.0.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        *self.0
    }
}
