//! Commands for users, the groups they are in, and the sessions they have.

use std::path::PathBuf;

use admin_client::lists::by_name;
use anyhow::Context as _;
use proto::v1;
use serde_json::{Value, json};

use super::Context;
use crate::{
    cli::{GroupCommand, RoleName, SessionCommand, UserCommand},
    objects, output,
};

pub(super) async fn user(it: &Context, command: UserCommand) -> anyhow::Result<()> {
    let mut users = it.admin.users();
    match command {
        UserCommand::List => objects::list(it, "user").await,
        UserCommand::Create { username, display_name, email, password_file } => {
            let (password, made) = password(password_file)?;
            let user = Some(v1::User { username, display_name, email, ..Default::default() });
            let request = v1::CreateUserRequest { change: it.change(), user, password: password.clone() };
            let user = users.create(request).await?.into_inner().user.unwrap_or_default();
            let shown = made.then_some(password);
            let mut answer = serde_json::to_value(&user)?;
            if let (Some(password), Some(map)) = (shown, answer.as_object_mut()) {
                map.insert("password".into(), password.into());
            }
            output::show(it.format, &answer)
        }
        UserCommand::Disable { user } => {
            let fields = json!({ "id": user, "disabled": true });
            objects::change(it, "user", fields, "disabled").await
        }
        UserCommand::Enable { user } => {
            objects::change(it, "user", json!({ "id": user, "disabled": false }), "enabled").await
        }
        UserCommand::Remove { user } => objects::remove(it, "user", by_name(&user), "removed").await,
        UserCommand::Password { user, password_file } => {
            let (password, made) = password(password_file)?;
            let request = v1::SetPasswordRequest { change: it.change(), id: user, password: password.clone() };
            let answer = users.set_password(request).await?;
            match made {
                true => output::show(it.format, &serde_json::json!({ "password": password })),
                false => it.done("changed", answer.get_ref().position),
            }
        }
        UserCommand::ResetMfa { user } => {
            let answer = users.reset_mfa(v1::ResetMfaRequest { change: it.change(), id: user }).await?;
            it.done("reset", answer.get_ref().position)
        }
        UserCommand::Role { user, role } => {
            let role = match role {
                RoleName::None => return objects::remove(it, "role", json!({ "user": user }), "set").await,
                RoleName::Auditor => "auditor",
                RoleName::Admin => "admin",
                RoleName::Owner => "owner",
            };
            objects::put(it, "role", json!({ "user": user, "role": role }), "set").await
        }
    }
}

/// From a file, or a new one; whether it must be shown.
fn password(file: Option<PathBuf>) -> anyhow::Result<(String, bool)> {
    match file {
        Some(path) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            Ok((text.trim_end_matches(['\r', '\n']).to_owned(), false))
        }
        None => Ok((controller::passwords::generate(), true)),
    }
}

pub(super) async fn group(it: &Context, command: GroupCommand) -> anyhow::Result<()> {
    let membership = |group: String, member: String| json!({ "group": group, "member": member });
    match command {
        GroupCommand::List => objects::list(it, "group").await,
        GroupCommand::Create { name } => objects::create(it, "group", json!({ "name": name })).await,
        GroupCommand::Rename { group, name } => objects::rename(it, "group", &group, &name).await,
        GroupCommand::Remove { group } => objects::remove(it, "group", by_name(&group), "removed").await,
        GroupCommand::Add { group, member } => objects::put(it, "membership", membership(group, member), "added").await,
        GroupCommand::Drop { group, member } => {
            objects::remove(it, "membership", membership(group, member), "removed").await
        }
        GroupCommand::Members { group } => {
            let group = it.admin.object("group", &group).await?;
            let all = it.admin.all("membership").await?;
            objects::print(it.format, all.iter().filter(|it| it.key.starts_with(&group.key)), &["member"])
        }
    }
}

pub(super) async fn session(it: &Context, command: SessionCommand) -> anyhow::Result<()> {
    match command {
        SessionCommand::List { user } => {
            let answer = it.admin.sessions().list(v1::ListSessionsRequest { user }).await?.into_inner();
            let columns = ["username", "started", "address", "methods", "revoked", "id"];
            let rows: Vec<Value> = answer
                .sessions
                .iter()
                .map(|session| {
                    let mut row = serde_json::to_value(session).unwrap_or_default();
                    row["started"] = output::time(session.started_ms).into();
                    row
                })
                .collect();
            output::list(it.format, &rows, &columns)
        }
        SessionCommand::Revoke { session } => {
            let request = v1::RevokeSessionRequest { change: it.change(), session };
            let answer = it.admin.sessions().revoke(request).await?;
            it.done("revoked", answer.get_ref().position)
        }
        SessionCommand::RevokeUser { user } => {
            let request = v1::RevokeUserSessionsRequest { change: it.change(), user };
            let answer = it.admin.sessions().revoke_user(request).await?;
            it.done("revoked", answer.get_ref().position)
        }
    }
}
