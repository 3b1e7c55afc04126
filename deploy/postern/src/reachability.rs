//! Whether a relay gets through a connector to an application, in words.

use admin_client::{Admin, web::Web};
use anyhow::Context as _;
use proto::v1;
use serde_json::Value;

/// Asks a relay whether a connector gets through to an application: what it
/// says, and whether it does.
pub async fn reach(admin: &Admin, authority: &str, app: &str) -> anyhow::Result<(Value, bool)> {
    let permit = admin.applications().test(v1::GetRequest { id: app.to_owned() }).await?.into_inner();
    let response = Web::trusting(authority)?.get_permitted(&permit.url, &permit.permit).await?;
    let said = serde_json::from_slice(response.body());
    let said =
        said.with_context(|| format!("{} answers {}, and not as a relay does", permit.url, response.status()))?;
    Ok((said, response.status().is_success()))
}

/// One line for people.
pub fn words(outcome: &Value) -> String {
    match outcome["code"].as_str() {
        None => format!(
            "reached through connector {} in {} ms",
            outcome["connector"].as_str().unwrap_or("?"),
            outcome["ms"]
        ),
        Some(code) => {
            format!("{code}: {} {}", outcome["message"].as_str().unwrap_or(""), remedy(code))
        }
    }
}

fn remedy(code: &str) -> &'static str {
    match code {
        "no_connector" => "(is postern-connector of its group running?)",
        "origin_dns" => "(the connector's machine cannot resolve the origin's name)",
        "origin_connect" => "(nothing listens there, or a firewall between connector and application says no)",
        "origin_tls" => "(set origin_ca_pem or origin_server_name of the application)",
        "origin_refused" => {
            "(the origin is a link-local or metadata address, or the connector has not heard of it yet)"
        }
        "origin_timeout" => "(the connector waited for its connect_timeout_ms)",
        _ => "(see docs/refusals.md)",
    }
}
