//! Applications: publishing one, and trying whether it can be reached.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{App, KindName, Principal, Tenant};
use proto::{
    Message,
    v1::{self, applications_server::Applications},
};
use serde_json::{Map, Value, json};
use tonic::{Request, Response, Status};

use super::{Admin, caller};
use crate::{
    errors::{invalid, unanswered},
    resolve,
};

const PERMIT_LIFE_S: i64 = 60;

/// By id or name.
fn published<'a>(tenant: &'a Tenant, app: &str) -> Result<&'a App, Status> {
    let id = resolve::app(tenant, "id", app).map_err(invalid)?;
    tenant.app(id).ok_or_else(|| Status::not_found("the application is gone"))
}

#[tonic::async_trait]
impl Applications for Admin {
    async fn publish(&self, request: Request<v1::PublishAppRequest>) -> Result<Response<v1::AppResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let app = it.app.unwrap_or_default();
        let name = app.name.clone();
        let user = call.caller.user().filter(|_| it.assign_caller);
        let mut objects = vec![v1::ObjectFields {
            kind: KindName::App.as_str().to_owned(),
            fields: json!(app).to_string(),
            wish: v1::Wish::Create.into(),
        }];
        objects.extend(user.map(|user| v1::ObjectFields {
            kind: KindName::Assignment.as_str().to_owned(),
            fields: json!({ "app": name, "principal": Principal::User(user).to_string() }).to_string(),
            wish: v1::Wish::Put.into(),
        }));
        let tenant_id = call.caller.tenant.clone();
        let applied = self.apply_objects(call, v1::ApplyRequest { objects, ..Default::default() }).await?;
        let snapshot = self.writer.snapshot();
        let tenant = snapshot.tenant(&tenant_id).cloned().unwrap_or_default();
        let app = eventlog::wire::Words::to_wire(published(&tenant, &name)?);
        Ok(Response::new(v1::AppResponse { app: Some(app), position: applied.position }))
    }

    async fn test(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::TestAppResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = self.tenant(&caller);
        let app = published(&tenant, &request.get_ref().id)?;
        // Any name below a wildcard will do.
        let host = app.external.host.replacen('*', "postern-test", 1);
        let expires_ms = self.writer.now().plus_seconds(PERMIT_LIFE_S).0;
        let permit = v1::AppTestPermit { app: app.id.to_string(), expires_ms };
        let signed = self.writer.journal().permit(proto::APP_TEST_PERMIT, &caller.tenant, permit.encode_to_vec());
        Ok(Response::new(v1::TestAppResponse {
            url: format!("https://{}:{}/.postern/test", host, self.settings.public_port),
            permit: URL_SAFE_NO_PAD.encode(signed.encode_to_vec()),
            expires_ms,
        }))
    }

    async fn list_missing(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::ListMissingResponse>, Status> {
        let caller = caller(&request)?;
        let app = published(&self.tenant(&caller), &request.get_ref().id)?.id;
        let paths = self.activity.missing_paths(&caller.tenant, app, self.writer.now()).await.map_err(unanswered)?;
        Ok(Response::new(v1::ListMissingResponse { paths }))
    }
}

/// A new application without an address is published under its name.
pub(super) fn with_defaults(fields: &mut Map<String, Value>, tenant: &Tenant) {
    let is_missing = |field: &str| fields.get(field).and_then(Value::as_str).is_none_or(str::is_empty);
    if is_missing("external_url") {
        let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        let label: String = name.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect();
        let url = format!("https://{}.{}/", label.trim_matches('-'), tenant.domain);
        fields.insert("external_url".into(), url.into());
    }
}
