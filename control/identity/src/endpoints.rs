//! HTTP routes of identity: which path calls what. Two hosts come in: `login.` and
//! `apps.`.

use std::sync::Arc;

use axum::{
    Form, Json, Router,
    extract::{DefaultBodyLimit, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use model::hosts::{port_suffix, split_authority};
use serde::Deserialize;
use serde_json::json;

use crate::{
    current::Current,
    keys,
    pages::{Answer, Page},
    portal::Portal,
    provider::{
        Provider,
        authorize::AuthorizeRequest,
        grants::{TokenError, TokenRequest},
    },
    upstream::Callback,
    visitor::Visitor,
};

/// A form of ours: a sealed flow and a few fields.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// What answers.
pub(crate) struct Identity {
    pub current: Current,
    pub provider: Provider,
    pub portal: Portal,
}

pub(crate) fn routes(identity: Arc<Identity>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/.well-known/openid-configuration", get(configuration))
        .route("/jwks", get(key_set))
        .route("/authorize", get(authorize))
        .route("/signin", post(sign_in))
        .route("/code", post(code))
        .route("/identify", post(identify))
        .route("/upstream/callback", get(upstream_callback))
        .route("/token", post(token))
        .route("/device_authorization", post(device_authorization))
        .route("/device", get(device).post(device_entered))
        .route("/signout", get(sign_out).post(signed_out))
        .route("/assets/style.css", get(style))
        .route("/assets/fragment.js", get(script))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .with_state(identity)
}

async fn home(State(identity): State<Arc<Identity>>, headers: HeaderMap) -> Answer {
    let visitor = Visitor::of(headers);
    let host = visitor.headers.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let tenant = identity.current.tenant();
    let portal = tenant.hosts().portal();
    match split_authority(host).is_some_and(|(host, _)| host == portal) {
        true => identity.portal.page(&visitor.headers, visitor.port),
        false => {
            let port = visitor.port.map_or(String::new(), port_suffix);
            Answer::redirect(&format!("https://{portal}{port}/"))
        }
    }
}

/// OpenID Connect Discovery 1.0.
async fn configuration(State(identity): State<Arc<Identity>>) -> Json<serde_json::Value> {
    let issuer = identity.current.tenant().issuer();
    let at = |path: &str| format!("{issuer}{path}");
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/jwks"),
        "device_authorization_endpoint": at("/device_authorization"),
        "end_session_endpoint": at("/signout"),
        "response_types_supported": ["code"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        "scopes_supported": ["openid"],
        "acr_values_supported": ["mfa", "sign-in-within:1h"],
        "prompt_values_supported": ["none", "login", "select_account"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn key_set(State(identity): State<Arc<Identity>>) -> Json<serde_json::Value> {
    Json(keys::key_set(&identity.current.tenant()))
}

async fn authorize(
    State(identity): State<Arc<Identity>>,
    headers: HeaderMap,
    Query(request): Query<AuthorizeRequest>,
) -> Answer {
    identity.provider.authorize(&Visitor::of(headers), request).await
}

#[derive(Deserialize)]
struct SignInForm {
    flow: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

async fn sign_in(State(identity): State<Arc<Identity>>, headers: HeaderMap, Form(form): Form<SignInForm>) -> Answer {
    let provider = &identity.provider;
    let visitor = Visitor::of(headers);
    provider.after(provider.sign_in.password_entered(&visitor, &form.flow, &form.username, form.password).await)
}

#[derive(Deserialize)]
struct IdentifyForm {
    flow: String,
    #[serde(default)]
    username: String,
    /// The button of a provider.
    #[serde(default)]
    provider: String,
}

async fn identify(State(identity): State<Arc<Identity>>, headers: HeaderMap, Form(form): Form<IdentifyForm>) -> Answer {
    let provider = &identity.provider;
    let visitor = Visitor::of(headers);
    provider.after(provider.sign_in.identified(&visitor, &form.flow, &form.username, &form.provider).await)
}

/// Users come back here from identity providers.
async fn upstream_callback(
    State(identity): State<Arc<Identity>>,
    headers: HeaderMap,
    Query(callback): Query<Callback>,
) -> Answer {
    let provider = &identity.provider;
    provider.after(provider.sign_in.came_back(&Visitor::of(headers), callback).await)
}

#[derive(Deserialize)]
struct CodeForm {
    flow: String,
    #[serde(default)]
    code: String,
}

async fn code(State(identity): State<Arc<Identity>>, headers: HeaderMap, Form(form): Form<CodeForm>) -> Answer {
    let provider = &identity.provider;
    provider.after(provider.sign_in.code_entered(&Visitor::of(headers), &form.flow, &form.code).await)
}

async fn token(State(identity): State<Arc<Identity>>, Form(request): Form<TokenRequest>) -> Response {
    uncached(identity.provider.token(request).await)
}

#[derive(Deserialize)]
struct DeviceForm {
    client_id: String,
}

async fn device_authorization(State(identity): State<Arc<Identity>>, Form(form): Form<DeviceForm>) -> Response {
    uncached(identity.provider.begin_device(&form.client_id))
}

fn uncached(answer: Result<serde_json::Value, TokenError>) -> Response {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(TokenError(error, description)) => {
            let status = match error {
                "server_error" | "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
                "invalid_client" => StatusCode::UNAUTHORIZED,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, json!({ "error": error, "error_description": description }))
        }
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[derive(Deserialize)]
struct UserCode {
    #[serde(default)]
    user_code: String,
}

async fn device(Query(code): Query<UserCode>) -> Answer {
    Answer::page(Page::device(code.user_code.chars().take(16).collect(), None))
}

async fn device_entered(
    State(identity): State<Arc<Identity>>,
    headers: HeaderMap,
    Form(form): Form<UserCode>,
) -> Answer {
    identity.provider.device_entered(&Visitor::of(headers), form.user_code).await
}

async fn sign_out(State(identity): State<Arc<Identity>>, headers: HeaderMap) -> Answer {
    identity.provider.sign_out(&Visitor::of(headers))
}

async fn signed_out(State(identity): State<Arc<Identity>>, headers: HeaderMap) -> Answer {
    identity.provider.signed_out(&Visitor::of(headers)).await
}

async fn style() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/css"), (header::CACHE_CONTROL, "max-age=3600")];
    (kind, include_str!("../assets/style.css"))
}

async fn script() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/javascript"), (header::CACHE_CONTROL, "max-age=3600")];
    (kind, include_str!("../assets/fragment.js"))
}

async fn not_found() -> Answer {
    Answer::error("There is nothing here", "Check the address.").with_status(StatusCode::NOT_FOUND)
}
