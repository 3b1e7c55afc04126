//! Sessions: who is signed in, and ending it.

use std::collections::BTreeMap;

use eventlog::{Activity, EventLog};
use model::{Command, TenantId, risk::SessionRevocation, session::SESSION_LIFE_S};
use proto::v1::{self, sessions_server::Sessions};
use tonic::{Code, Request, Response, Status};

use super::{Admin, activity::recent_activity, caller};
use crate::{
    errors::{field, invalid},
    resolve,
};

#[tonic::async_trait]
impl Sessions for Admin {
    async fn revoke(&self, request: Request<v1::RevokeSessionRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let session = it.session.parse();
        let session =
            session.map_err(|_| field(Code::InvalidArgument, "session", "is the id of a session; list them"))?;
        self.change(&call, Command::RevokeSession(SessionRevocation { session, at: self.writer.now() })).await
    }

    async fn revoke_user(
        &self,
        request: Request<v1::RevokeUserSessionsRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let user = resolve::user(&call.tenant, "user", &it.user).map_err(invalid)?;
        self.change(&call, self.end_sessions(user)).await
    }

    async fn list(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = self.tenant(&caller);
        let of_user = match request.get_ref().user.as_str() {
            "" => None,
            name => Some(resolve::user(&tenant, "user", name).map_err(invalid)?.to_string()),
        };
        let now = self.writer.now();
        let found = sign_ins(self.writer.journal().log(), &caller.tenant).await?;
        let live = found.into_values().filter(|it| {
            it.started_ms > now.0 - SESSION_LIFE_S * 1000 && of_user.as_ref().is_none_or(|user| it.user == *user)
        });
        let sessions = live
            .map(|mut session| {
                let id = session.id.parse::<model::SessionId>();
                let user = session.user.parse::<model::UserId>().ok().and_then(|id| tenant.revoked_users.get(&id));
                session.revoked = session.started_ms < tenant.sessions_before.0
                    || id.is_ok_and(|id| tenant.revoked_sessions.contains_key(&id))
                    || user.is_some_and(|it| session.started_ms < it.sessions_before.0);
                session
            })
            .collect();
        Ok(Response::new(v1::ListSessionsResponse { sessions }))
    }
}

/// Successful sign-ins, by session; a later one (a step up) replaces the first.
async fn sign_ins(log: &EventLog, tenant: &TenantId) -> Result<BTreeMap<String, v1::Session>, Status> {
    let mut found = BTreeMap::new();
    recent_activity(log, tenant, |started_ms, activity| {
        if let Activity::SignIn(it) = activity
            && it.outcome == "success"
        {
            let session = v1::Session {
                id: it.session,
                user: it.user,
                username: it.username,
                started_ms,
                address: it.address,
                user_agent: it.user_agent,
                methods: it.methods,
                revoked: false,
            };
            found.insert(session.id.clone(), session);
        }
    })
    .await?;
    Ok(found)
}
