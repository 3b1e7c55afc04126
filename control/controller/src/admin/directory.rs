//! Users, groups and memberships.

use eventlog::wire;
use model::{Command, Credentials, Principal, risk::UserRevocation};
use proto::v1::{self, groups_server::Groups, users_server::Users};
use tonic::{Code, Request, Response, Status};

use super::{Admin, Call, caller, page};
use crate::{
    errors::{field, invalid},
    resolve,
};

#[tonic::async_trait]
impl Users for Admin {
    async fn create(&self, request: Request<v1::CreateUserRequest>) -> Result<Response<v1::UserResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let mut wire = it.user.unwrap_or_default();
        wire.id = call.id_or_new(&wire.id, "user")?;
        let user = wire::user_from(wire).map_err(invalid)?;
        let answer = wire::user_to(&user);
        let mut commands = vec![Command::CreateUser(user.clone())];
        // A repeated call must not make a second hash of the same password.
        if !it.password.is_empty() && !call.tenant.credentials.contains_key(&user.id) {
            let password = self.seal_password(it.password).await?;
            commands.push(Command::SetCredentials(Credentials { user: user.id, password, totp: vec![] }));
        }
        let position = self.execute(&call, commands).await?;
        Ok(Response::new(v1::UserResponse { user: Some(answer), position }))
    }

    async fn update(&self, request: Request<v1::UpdateUserRequest>) -> Result<Response<v1::UserResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let mut wire = it.user.unwrap_or_default();
        wire.id = resolve::user(&call.tenant, "id", &wire.id).map_err(invalid)?.to_string();
        let user = wire::user_from(wire).map_err(invalid)?;
        let answer = wire::user_to(&user);
        let position = self.execute(&call, vec![Command::ChangeUser(user)]).await?;
        Ok(Response::new(v1::UserResponse { user: Some(answer), position }))
    }

    async fn remove(&self, request: Request<v1::RemoveUserRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let user = resolve::user(&call.tenant, "id", &it.id).map_err(invalid)?;
        self.change(&call, Command::RemoveUser(user)).await
    }

    /// A new password ends all sessions: whoever knew the old one may be in one.
    async fn set_password(
        &self,
        request: Request<v1::SetPasswordRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let user = resolve::user(&call.tenant, "id", &it.id).map_err(invalid)?;
        let password = self.seal_password(it.password).await?;
        let totp = call.tenant.credentials.get(&user).map_or(vec![], |it| it.totp.clone());
        let credentials = Command::SetCredentials(Credentials { user, password, totp });
        let position = self.execute(&call, vec![credentials, self.end_sessions(user)]).await?;
        Ok(Response::new(v1::ChangeResponse { position }))
    }

    async fn reset_mfa(&self, request: Request<v1::ResetMfaRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let user = resolve::user(&call.tenant, "id", &it.id).map_err(invalid)?;
        let password = call.tenant.credentials.get(&user).map_or(vec![], |it| it.password.clone());
        let credentials = Command::SetCredentials(Credentials { user, password, totp: vec![] });
        let position = self.execute(&call, vec![credentials, self.end_sessions(user)]).await?;
        Ok(Response::new(v1::ChangeResponse { position }))
    }

    async fn set_role(&self, request: Request<v1::SetRoleRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let caller = caller(&request)?;
        let it = request.into_inner();
        let role = wire::role_from(it.role());
        let call = self.call(caller, it.change);
        let user = resolve::user(&call.tenant, "id", &it.id).map_err(invalid)?;
        self.change(&call, Command::SetRole { user, role }).await
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::User>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let id = resolve::user(&tenant, "id", &request.get_ref().id).map_err(invalid)?;
        let user = tenant.users.get(&id).ok_or_else(|| Status::not_found("the user is gone"))?;
        Ok(Response::new(wire::user_to(user)))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListUsersResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let all = tenant.users.values().map(|it| wire::user_to(it));
        let (users, next_page_token) = page(request.into_inner().page, all, |it| it.id.clone())?;
        Ok(Response::new(v1::ListUsersResponse { users, next_page_token }))
    }
}

impl Admin {
    pub(super) fn end_sessions(&self, user: model::UserId) -> Command {
        Command::RevokeUser(UserRevocation { user, sessions_before: self.writer.now(), directory: 0 })
    }

    pub(super) fn membership(
        &self,
        call: &Call,
        wire: Option<v1::Membership>,
    ) -> Result<(model::GroupId, Principal), Status> {
        let wire = wire.unwrap_or_default();
        let group = resolve::group(&call.tenant, "membership.group", &wire.group).map_err(invalid)?;
        let member = resolve::principal(&call.tenant, "membership.member", &wire.member).map_err(invalid)?;
        match member {
            Principal::Everyone => Err(field(
                Code::InvalidArgument,
                "membership.member",
                "is user:NAME or group:NAME; assign to everyone instead",
            )),
            Principal::User(_) | Principal::Group(_) => Ok((group, member)),
        }
    }
}

#[tonic::async_trait]
impl Groups for Admin {
    async fn create(&self, request: Request<v1::PutGroupRequest>) -> Result<Response<v1::GroupResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let mut wire = it.group.unwrap_or_default();
        wire.id = call.id_or_new(&wire.id, "group")?;
        let group = wire::group_from(wire.clone()).map_err(invalid)?;
        let position = self.execute(&call, vec![Command::CreateGroup(group)]).await?;
        Ok(Response::new(v1::GroupResponse { group: Some(wire), position }))
    }

    async fn update(&self, request: Request<v1::PutGroupRequest>) -> Result<Response<v1::GroupResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let mut wire = it.group.unwrap_or_default();
        wire.id = resolve::group(&call.tenant, "id", &wire.id).map_err(invalid)?.to_string();
        let group = wire::group_from(wire.clone()).map_err(invalid)?;
        let position = self.execute(&call, vec![Command::ChangeGroup(group)]).await?;
        Ok(Response::new(v1::GroupResponse { group: Some(wire), position }))
    }

    async fn remove(&self, request: Request<v1::RemoveGroupRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let group = resolve::group(&call.tenant, "id", &it.id).map_err(invalid)?;
        self.change(&call, Command::RemoveGroup(group)).await
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let all = tenant.user_groups.values().map(|it| wire::group_to(it));
        let (groups, next_page_token) = page(request.into_inner().page, all, |it| it.id.clone())?;
        Ok(Response::new(v1::ListGroupsResponse { groups, next_page_token }))
    }

    async fn add_member(
        &self,
        request: Request<v1::MembershipRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let (group, member) = self.membership(&call, it.membership)?;
        self.change(&call, Command::AddMember { group, member }).await
    }

    async fn remove_member(
        &self,
        request: Request<v1::MembershipRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let (group, member) = self.membership(&call, it.membership)?;
        self.change(&call, Command::RemoveMember { group, member }).await
    }

    async fn list_members(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let tenant = self.tenant(&caller(&request)?);
        let group = resolve::group(&tenant, "id", &request.get_ref().id).map_err(invalid)?;
        let members = tenant.members.get(&group).into_iter().flat_map(|it| it.iter()).map(ToString::to_string);
        Ok(Response::new(v1::ListMembersResponse { members: members.collect() }))
    }
}
