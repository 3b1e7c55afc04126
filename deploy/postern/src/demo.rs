//! The application that is there from the first start, so that there is
//! something to see: who the relay says you are, and what arrived.

use std::path::Path;

use anyhow::Context;
use axum::{Router, extract::Request, response::Html, routing::any};
use controller::{
    bootstrap::DEFAULT_GROUP,
    writer::{ChangeContext, Writer},
};
use http::HeaderMap;
use model::{
    App, AppId, Assignment, Command, ExternalUrl, Origin, Principal, TenantId,
    app::{Claim, HeaderName, IdentityHeader, Name},
};
use runtime::clock::fresh_id;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// Listens on a socket that only its owner can reach.
pub fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))
}

pub async fn serve(listener: UnixListener, stop: CancellationToken) {
    let routes = Router::new().fallback(any(page));
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::warn!(%error, "the demo application ended");
    }
}

/// Publishes it, or moves it to where its socket is now.
pub async fn publish(writer: &Writer, tenant_id: &TenantId, socket: &Path) -> anyhow::Result<()> {
    let snapshot = writer.snapshot();
    let tenant = snapshot.tenant(tenant_id).context("the tenant is missing")?;
    let url = ExternalUrl::parse(&format!("https://demo.{}/", tenant.domain))?;
    let origin = Origin::parse(&format!("unix:{}", socket.display()))?;
    let known = tenant.apps.values().find(|it| it.external == url);
    let group = tenant.connector_groups.named(DEFAULT_GROUP).context("no connector group")?;
    let header = IdentityHeader { name: HeaderName::parse("X-Remote-User")?, claim: Claim::Username };
    let id = known.map_or_else(|| AppId(fresh_id()), |it| it.id);
    let plain = App::new(id, Name::parse("Demo")?, url, origin.clone(), group);
    let app = App { identity_headers: vec![header], assertion: true, ..plain };
    let context = ChangeContext::of_system(tenant_id, "demo");
    match known {
        None => {
            let assign = Command::Put(Assignment { app: app.id, principal: Principal::Everyone }.into());
            writer.execute(&context, vec![Command::Create(app.into()), assign]).await?;
        }
        Some(before) if before.origin != origin => {
            let moved = App { origin, ..before.clone() };
            writer.execute(&context, vec![Command::Change(moved.into())]).await?;
        }
        Some(_) => {}
    }
    Ok(())
}

async fn page(request: Request) -> Html<String> {
    let (parts, _) = request.into_parts();
    let user = text(&parts.headers, "x-remote-user");
    let rows: String = parts
        .headers
        .iter()
        .filter(|(name, _)| *name != "cookie" && *name != "postern-assertion")
        .map(|(name, value)| {
            let value = escape(&String::from_utf8_lossy(value.as_bytes()));
            format!("<tr><th>{name}</th><td>{value}</td></tr>\n")
        })
        .collect();
    let (method, path) = (&parts.method, escape(&parts.uri.to_string()));
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>It works</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:3rem auto;padding:0 1rem}}\
         table{{border-collapse:collapse;width:100%}}th,td{{text-align:left;padding:.3rem .6rem .3rem 0;vertical-align:top;border-bottom:1px solid #8884;overflow-wrap:anywhere}}\
         th{{font-weight:500;white-space:nowrap}}</style>\
         <h1>Hello, {}</h1><p>This application listens on a socket only its connector can reach. \
         You came through a relay, which signed you in and asked policy, and through the connector's own connection.</p>\
         <h2>{method} {path}</h2><table>{rows}</table></html>",
        escape(&user)
    ))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or(String::new(), |it| String::from_utf8_lossy(it.as_bytes()).into_owned())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
