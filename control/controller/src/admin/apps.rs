//! Applications.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use eventlog::wire;
use model::{App, Command, Principal, Tenant};
use proto::{
    Message,
    v1::{self, applications_server::Applications},
};
use tonic::{Request, Response, Status};

use super::{Admin, Call, caller, page};
use crate::{
    bootstrap::DEFAULT_GROUP,
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
        let caller = caller(&request)?;
        let it = request.into_inner();
        let user = caller.user();
        let call = self.call(caller, it.change);
        let mut wire = it.app.unwrap_or_default();
        wire.id = call.id_or_new(&wire.id, "app")?;
        let app = self.app(&call, wire).await?;
        let (id, answer) = (app.id, wire::app_to(&app));
        let mut commands = vec![Command::PublishApp(Box::new(app))];
        if let Some(user) = user.filter(|_| it.assign_caller) {
            commands.push(Command::Assign { app: id, principal: Principal::User(user) });
        }
        let position = self.execute(&call, commands).await?;
        Ok(Response::new(v1::AppResponse { app: Some(answer), position }))
    }

    async fn update(&self, request: Request<v1::UpdateAppRequest>) -> Result<Response<v1::AppResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let mut wire = it.app.unwrap_or_default();
        wire.id = resolve::app(&call.tenant, "id", &wire.id).map_err(invalid)?.to_string();
        let app = self.app(&call, wire).await?;
        let answer = wire::app_to(&app);
        let position = self.execute(&call, vec![Command::ChangeApp(Box::new(app))]).await?;
        Ok(Response::new(v1::AppResponse { app: Some(answer), position }))
    }

    async fn retire(&self, request: Request<v1::RetireAppRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let app = resolve::app(&call.tenant, "id", &it.id).map_err(invalid)?;
        self.change(&call, Command::RetireApp(app)).await
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

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::App>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        Ok(Response::new(wire::app_to(published(&tenant, &request.get_ref().id)?)))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListAppsResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let all = tenant.apps.values().map(|it| wire::app_to(&it.app));
        let (apps, next_page_token) = page(request.into_inner().page, all, |it| it.id.clone())?;
        Ok(Response::new(v1::ListAppsResponse { apps, next_page_token }))
    }
}

impl Admin {
    /// Names become ids, and an application without a group gets the default.
    pub(super) async fn app(&self, call: &Call, mut wire: v1::App) -> Result<model::App, Status> {
        let group = if wire.connector_group.is_empty() { DEFAULT_GROUP } else { &wire.connector_group };
        let group = resolve::connector_group(&call.tenant, "connector_group", group).map_err(invalid)?;
        wire.connector_group = group.to_string();
        if wire.external_url.is_empty() {
            let label: String =
                wire.name.to_lowercase().chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect();
            wire.external_url = format!("https://{}.{}/", label.trim_matches('-'), call.tenant.domain);
        }
        let app = wire::app_from(wire).map_err(invalid)?;
        for (external, _) in app.addresses() {
            self.domains(&call.caller).check(&call.tenant, &external.host).await?;
        }
        Ok(app)
    }
}
