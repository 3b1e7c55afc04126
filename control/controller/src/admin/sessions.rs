//! Sessions: who is signed in, and ending it.

use model::{Command, risk::SessionRevocation};
use proto::v1::{self, sessions_server::Sessions};
use tonic::{Code, Request, Response, Status};

use super::{Admin, caller};
use crate::{
    errors::{field, invalid, unanswered},
    resolve,
};

#[tonic::async_trait]
impl Sessions for Admin {
    async fn revoke(&self, request: Request<v1::RevokeSessionRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let session = it.session.parse();
        let session =
            session.map_err(|_| field(Code::InvalidArgument, "session", "is the id of a session; list them"))?;
        self.change(&call, Command::Put(SessionRevocation { session, at: self.writer.now() }.into())).await
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
        let found = self.activity.sessions(&caller.tenant, self.writer.now()).await.map_err(unanswered)?;
        let live = found.into_iter().filter(|it| of_user.as_ref().is_none_or(|user| it.user == *user));
        let sessions = live
            .map(|mut session| {
                let id = session.id.parse::<model::SessionId>();
                let user = session.user.parse::<model::UserId>().ok().and_then(|id| tenant.user_revocations.get(&id));
                session.revoked = session.started_ms < tenant.sessions_before.0
                    || id.is_ok_and(|id| tenant.session_revocations.contains_key(&id))
                    || user.is_some_and(|it| session.started_ms < it.sessions_before.0);
                session
            })
            .collect();
        Ok(Response::new(v1::ListSessionsResponse { sessions }))
    }
}
