//! Admin commands: arguments become one call, the answer is printed.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use admin_client::{Admin, Credential, lists, sign_in, web::Web};
use anyhow::{Context as _, bail};
use proto::{names, v1};
use serde_json::{Map, Value};

use crate::{
    apply, certificate,
    cli::{
        AdminCommand, AppCommand, ConnectorCommand, Global, GroupCommand, KeyCommand, KeyName, PolicyCommand, RoleName,
        SessionCommand, StateName, UserCommand,
    },
    output::{self, Format, say},
};

/// What a command needs.
pub struct Context {
    pub admin: Admin,
    pub authority: String,
    pub format: Format,
    credential: (PathBuf, Credential),
    global: Global,
    /// Was a change asked for, which may have happened when the answer is lost?
    asked: AtomicBool,
}

impl Context {
    pub async fn new(global: &Global) -> anyhow::Result<Self> {
        let (path, credential) = Credential::find(global.credential_file.as_deref())?;
        let credential = sign_in::refreshed(&path, credential).await?;
        let admin = Admin::connect(&credential).await;
        let admin = admin.with_context(|| format!("using the credential {}", path.display()))?;
        let authority = credential.authority.clone();
        let (credential, global) = ((path, credential), global.clone());
        Ok(Self { admin, authority, format: global.output, credential, global, asked: AtomicBool::new(false) })
    }

    /// Makes a request id unless one was given, so that a change whose answer is
    /// lost can be repeated. Not for files: there one id would be many objects'.
    fn repeatable(mut self) -> Self {
        if self.global.request_id.is_empty() {
            self.global.request_id = runtime::clock::fresh_id().to_string();
        }
        self
    }

    pub fn change(&self) -> Option<v1::Change> {
        self.asked.store(true, Ordering::Relaxed);
        Some(v1::Change {
            request_id: self.global.request_id.clone(),
            expected_position: self.global.expected_position,
            wait_applied: self.global.wait,
        })
    }

    /// What went wrong, and how to repeat what may have happened nevertheless.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let status = match error.downcast::<tonic::Status>() {
            Ok(status) => status,
            Err(other) => return other,
        };
        let (path, credential) = &self.credential;
        let error = anyhow::Error::new(credential.explain(path, &status));
        let lost = std::error::Error::source(&status).is_some() || status.code() == tonic::Code::Unavailable;
        if !lost || !self.asked.load(Ordering::Relaxed) {
            return error;
        }
        match self.global.request_id.as_str() {
            "" => error.context("the change may have happened; repeat the same command, which changes nothing twice"),
            id => error.context(format!("the change may have happened; repeat the command with --request-id {id}")),
        }
    }

    /// A change that has happened.
    pub fn done(&self, what: &str, position: u64) -> anyhow::Result<()> {
        match self.format {
            Format::Json => output::show(self.format, &serde_json::json!({ "done": what, "position": position })),
            Format::Table => {
                say(what);
                Ok(())
            }
        }
    }
}

pub async fn run(it: Context, command: AdminCommand) -> anyhow::Result<()> {
    let it = if matches!(command, AdminCommand::Apply { .. }) { it } else { it.repeatable() };
    let outcome = match command {
        AdminCommand::Publish {
            origin,
            name,
            url,
            group,
            passthrough,
            assign,
            headers,
            assertion,
            upgrades,
            passed_fields,
        } => {
            let app = v1::App {
                name,
                external_url: url,
                origin,
                connector_group: group,
                pre_authentication: i32::from(passthrough),
                identity_headers: headers.iter().map(|it| identity_header(it)).collect::<anyhow::Result<_>>()?,
                assertion,
                upgrades,
                passed_fields,
                ..Default::default()
            };
            publish(&it, app, assign).await
        }
        AdminCommand::App(command) => app(&it, command).await,
        AdminCommand::Group(command) => group(&it, command).await,
        AdminCommand::Connector(command) => connector(&it, command).await,
        AdminCommand::User(command) => user(&it, command).await,
        AdminCommand::Policy(command) => policy(&it, command).await,
        AdminCommand::Session(command) => session(&it, command).await,
        AdminCommand::Key(command) => key(&it, command).await,
        AdminCommand::Certificate(command) => certificate::run(&it, command).await,
        AdminCommand::History { stream, subject, size, before } => history(&it, stream, subject, size, before).await,
        AdminCommand::Domain { domain } => {
            let proofs = it.admin.tenants().check_domain(v1::CheckDomainRequest { domain }).await?.into_inner().proofs;
            output::list(it.format, &proofs, &["name", "value", "found"])
        }
        AdminCommand::Branding { name, accent, support_url } => branding(&it, name, accent, support_url).await,
        AdminCommand::Apply { file, dry_run } => apply::apply(&it, &file, dry_run).await,
        AdminCommand::Export => apply::export(&it).await,
    };
    outcome.map_err(|error| it.explain(error))
}

fn identity_header(text: &str) -> anyhow::Result<v1::IdentityHeader> {
    let (name, claim) = text.split_once('=').with_context(|| format!("--header {text}: write NAME=CLAIM"))?;
    let claim = names::claim::parse(claim)
        .with_context(|| format!("--header {text}: a claim is username, email, display_name, user_id or groups"))?;
    Ok(v1::IdentityHeader { name: name.to_owned(), claim })
}

async fn publish(it: &Context, app: v1::App, assign: Option<String>) -> anyhow::Result<()> {
    let request = v1::PublishAppRequest { change: it.change(), app: Some(app), assign_caller: assign.is_none() };
    let answer = it.admin.applications().publish(request).await?.into_inner();
    let app = answer.app.unwrap_or_default();
    if let Some(principal) = assign {
        let assignment = Some(v1::Assignment { app: app.id.clone(), principal });
        // The second half of one wish: nobody came in between, if that was asked.
        let expected_position = it.global.expected_position.map(|_| answer.position);
        let change = it.change().map(|change| v1::Change { expected_position, ..change });
        it.admin.assignments().assign(v1::AssignmentRequest { change, assignment }).await?;
    }
    match it.format {
        Format::Json => output::show(it.format, &app),
        Format::Table => {
            let port = it.admin.tenants().get(v1::GetTenantRequest {}).await?.into_inner().public_port;
            it.done(&address(&app.external_url, port), answer.position)
        }
    }
}

/// As users type it: with the port, where it is not the usual one.
pub fn address(external_url: &str, port: u32) -> String {
    let with_port = || {
        let mut url = url::Url::parse(external_url).ok()?;
        let port = u16::try_from(port).ok().filter(|it| *it != 0)?;
        url.set_port(Some(port)).ok()?;
        Some(url.to_string())
    };
    with_port().unwrap_or_else(|| external_url.to_owned())
}

async fn app(it: &Context, command: AppCommand) -> anyhow::Result<()> {
    match command {
        AppCommand::List => {
            output::list(it.format, &lists::all_apps(&it.admin).await?, &["name", "external_url", "origin", "id"])
        }
        AppCommand::Show { app } => {
            let app = it.admin.applications().get(v1::GetRequest { id: app }).await?.into_inner();
            output::show(it.format, &app)
        }
        AppCommand::Test { app } => {
            let (outcome, reached) = reach(&it.admin, &it.authority, &app).await?;
            match it.format {
                Format::Json => output::show(it.format, &outcome)?,
                Format::Table => say(&words(&outcome)),
            }
            if !reached {
                bail!("{app} cannot be reached");
            }
            Ok(())
        }
        AppCommand::Missing { app } => {
            let paths = it.admin.applications().list_missing(v1::GetRequest { id: app }).await?.into_inner().paths;
            match (it.format, paths.is_empty()) {
                (Format::Table, true) => say("nothing is missing"),
                (Format::Table | Format::Json, _) => output::list(it.format, &paths, &["url", "requests"])?,
            }
            Ok(())
        }
        AppCommand::Set { app, fields } => {
            let app = it.admin.applications().get(v1::GetRequest { id: app }).await?.into_inner();
            let app: v1::App = with_fields(&app, &fields)?;
            let answer =
                it.admin.applications().update(v1::UpdateAppRequest { change: it.change(), app: Some(app) }).await?;
            it.done("changed", answer.get_ref().position)
        }
        AppCommand::Retire { app } => {
            let answer = it.admin.applications().retire(v1::RetireAppRequest { change: it.change(), id: app }).await?;
            it.done("retired", answer.get_ref().position)
        }
        AppCommand::Assign { app, principal } => {
            let assignment = Some(v1::Assignment { app, principal });
            let answer =
                it.admin.assignments().assign(v1::AssignmentRequest { change: it.change(), assignment }).await?;
            it.done("assigned", answer.get_ref().position)
        }
        AppCommand::Unassign { app, principal } => {
            let assignment = Some(v1::Assignment { app, principal });
            let answer =
                it.admin.assignments().unassign(v1::AssignmentRequest { change: it.change(), assignment }).await?;
            it.done("unassigned", answer.get_ref().position)
        }
        AppCommand::Assignments { app } => {
            let answer = it.admin.assignments().list(v1::GetRequest { id: app }).await?.into_inner();
            output::list(it.format, &answer.assignments, &["principal", "app"])
        }
    }
}

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

/// Fields as JSON names them; a value is JSON or else text.
fn with_fields<T: serde::Serialize + serde::de::DeserializeOwned>(item: &T, fields: &[String]) -> anyhow::Result<T> {
    let mut value = serde_json::to_value(item)?;
    let map: &mut Map<String, Value> = value.as_object_mut().context("not a thing with fields")?;
    for field in fields {
        let (name, text) = field.split_once('=').with_context(|| format!("{field}: write NAME=VALUE"))?;
        let parsed = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        map.insert(name.to_owned(), parsed);
    }
    serde_json::from_value(value)
        .with_context(|| format!("{}: a field is unknown, or its value is of another kind", fields.join(" ")))
}

async fn group(it: &Context, command: GroupCommand) -> anyhow::Result<()> {
    let mut groups = it.admin.groups();
    let membership = |group, member| v1::MembershipRequest {
        change: it.change(),
        membership: Some(v1::Membership { group, member }),
    };
    match command {
        GroupCommand::List => output::list(it.format, &lists::all_groups(&it.admin).await?, &["name", "id"]),
        GroupCommand::Create { name } => {
            let group = Some(v1::Group { id: String::new(), name });
            let answer = groups.create(v1::PutGroupRequest { change: it.change(), group }).await?.into_inner();
            output::show(it.format, &answer.group.unwrap_or_default())
        }
        GroupCommand::Rename { group, name } => {
            let group = Some(v1::Group { id: group, name });
            let answer = groups.update(v1::PutGroupRequest { change: it.change(), group }).await?;
            it.done("renamed", answer.get_ref().position)
        }
        GroupCommand::Remove { group } => {
            let answer = groups.remove(v1::RemoveGroupRequest { change: it.change(), id: group }).await?;
            it.done("removed", answer.get_ref().position)
        }
        GroupCommand::Add { group, member } => {
            let answer = groups.add_member(membership(group, member)).await?;
            it.done("added", answer.get_ref().position)
        }
        GroupCommand::Drop { group, member } => {
            let answer = groups.remove_member(membership(group, member)).await?;
            it.done("removed", answer.get_ref().position)
        }
        GroupCommand::Members { group } => {
            let members = groups.list_members(v1::GetRequest { id: group }).await?.into_inner().members;
            let rows: Vec<Value> = members.into_iter().map(|it| serde_json::json!({ "member": it })).collect();
            output::list(it.format, &rows, &["member"])
        }
    }
}

async fn connector(it: &Context, command: ConnectorCommand) -> anyhow::Result<()> {
    match command {
        ConnectorCommand::List => {
            let answer = it.admin.connectors().list(v1::ListRequest::default()).await?.into_inner();
            output::list(it.format, &answer.connectors, &["name", "group", "revoked", "id"])
        }
        ConnectorCommand::Revoke { connector } => {
            let request = v1::RevokeConnectorRequest { change: it.change(), id: connector };
            let answer = it.admin.connectors().revoke(request).await?;
            it.done("revoked", answer.get_ref().position)
        }
        ConnectorCommand::Token { group, life } => {
            let request = v1::IssueTokenRequest { change: it.change(), group, life_s: life };
            let answer = it.admin.connectors().issue_token(request).await?.into_inner();
            match it.format {
                Format::Json => output::show(it.format, &answer),
                Format::Table => {
                    say(&answer.token);
                    Ok(())
                }
            }
        }
        ConnectorCommand::Groups => {
            output::list(it.format, &lists::all_connector_groups(&it.admin).await?, &["name", "id"])
        }
        ConnectorCommand::CreateGroup { name } => {
            let group = Some(v1::ConnectorGroup { id: String::new(), name });
            let request = v1::PutConnectorGroupRequest { change: it.change(), group };
            let answer = it.admin.connector_groups().create(request).await?.into_inner();
            output::show(it.format, &answer.group.unwrap_or_default())
        }
        ConnectorCommand::RetireGroup { group } => {
            let request = v1::RetireConnectorGroupRequest { change: it.change(), id: group };
            let answer = it.admin.connector_groups().retire(request).await?;
            it.done("retired", answer.get_ref().position)
        }
    }
}

async fn user(it: &Context, command: UserCommand) -> anyhow::Result<()> {
    let mut users = it.admin.users();
    match command {
        UserCommand::List => {
            let columns = ["username", "display_name", "email", "disabled", "id"];
            output::list(it.format, &lists::all_users(&it.admin).await?, &columns)
        }
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
        UserCommand::Disable { user } => set_disabled(it, user, true).await,
        UserCommand::Enable { user } => set_disabled(it, user, false).await,
        UserCommand::Remove { user } => {
            let answer = users.remove(v1::RemoveUserRequest { change: it.change(), id: user }).await?;
            it.done("removed", answer.get_ref().position)
        }
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
                RoleName::None => v1::Role::Unspecified,
                RoleName::Auditor => v1::Role::Auditor,
                RoleName::Admin => v1::Role::Admin,
                RoleName::Owner => v1::Role::Owner,
            };
            let request = v1::SetRoleRequest { change: it.change(), id: user, role: role.into() };
            let answer = users.set_role(request).await?;
            it.done("set", answer.get_ref().position)
        }
    }
}

async fn set_disabled(it: &Context, user: String, disabled: bool) -> anyhow::Result<()> {
    let user = it.admin.users().get(v1::GetRequest { id: user }).await?.into_inner();
    let user = Some(v1::User { disabled, ..user });
    let answer = it.admin.users().update(v1::UpdateUserRequest { change: it.change(), user }).await?;
    it.done(if disabled { "disabled" } else { "enabled" }, answer.get_ref().position)
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

async fn policy(it: &Context, command: PolicyCommand) -> anyhow::Result<()> {
    let mut policies = it.admin.policies();
    match command {
        PolicyCommand::List => {
            let columns = ["name", "state", "block", "require", "include", "networks", "id"];
            output::list(it.format, &lists::all_policies(&it.admin).await?, &columns)
        }
        PolicyCommand::Create { name, block, require, include, exclude, app, network, exclude_network, state } => {
            let control =
                |name: &String| names::control::parse(name).with_context(|| format!("--require {name}: known is mfa"));
            let policy = v1::Policy {
                name,
                state: state_of(state).into(),
                include,
                exclude,
                apps: app,
                networks: network,
                exclude_networks: exclude_network,
                block,
                require: require.iter().map(control).collect::<anyhow::Result<_>>()?,
                ..Default::default()
            };
            let request = v1::PutPolicyRequest { change: it.change(), policy: Some(policy) };
            let answer = policies.create(request).await?.into_inner();
            output::show(it.format, &answer.policy.unwrap_or_default())
        }
        PolicyCommand::State { policy, state } => {
            let all = lists::all_policies(&it.admin).await?;
            let found = all.into_iter().find(|it| it.id == policy || it.name == policy);
            let Some(found) = found else { bail!("there is no policy {policy:?}") };
            let policy = Some(v1::Policy { state: state_of(state).into(), ..found });
            let answer = policies.update(v1::PutPolicyRequest { change: it.change(), policy }).await?;
            it.done("changed", answer.get_ref().position)
        }
        PolicyCommand::Remove { policy } => {
            let answer = policies.remove(v1::RemovePolicyRequest { change: it.change(), id: policy }).await?;
            it.done("removed", answer.get_ref().position)
        }
        PolicyCommand::WhatIf { user, app, address, mfa } => {
            let answer = policies.what_if(v1::WhatIfRequest { user, app, address, mfa }).await?.into_inner();
            if it.format == Format::Json {
                return output::show(it.format, &answer);
            }
            say(&format!("{}: {}", answer.decision, answer.reason));
            output::list(it.format, &answer.policies, &["name", "state", "applies", "why"])
        }
    }
}

fn state_of(state: StateName) -> v1::PolicyState {
    match state {
        StateName::On => v1::PolicyState::On,
        StateName::Off => v1::PolicyState::Off,
        StateName::ReportOnly => v1::PolicyState::ReportOnly,
    }
}

async fn session(it: &Context, command: SessionCommand) -> anyhow::Result<()> {
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

async fn key(it: &Context, command: KeyCommand) -> anyhow::Result<()> {
    let mut keys = it.admin.keys();
    match command {
        KeyCommand::List => {
            let listed = keys.list(v1::ListKeysRequest {}).await?.into_inner().keys;
            let rows = listed.into_iter().map(|listed| {
                let mut row = serde_json::to_value(listed.key.unwrap_or_default())?;
                if let Some(row) = row.as_object_mut() {
                    row.insert("in_use".into(), listed.in_use.into());
                }
                Ok(row)
            });
            let rows = rows.collect::<anyhow::Result<Vec<Value>>>()?;
            output::list(it.format, &rows, &["purpose", "in_use", "active_from_ms", "id"])
        }
        KeyCommand::Rotate { purpose, active_in } => {
            let purpose = match purpose {
                KeyName::Session => v1::KeyPurpose::Session,
                KeyName::Assertion => v1::KeyPurpose::Assertion,
                KeyName::RelaySecret => v1::KeyPurpose::RelaySecret,
            };
            let request = v1::RotateKeyRequest { change: it.change(), purpose: purpose.into(), active_in_s: active_in };
            let answer = keys.rotate(request).await?.into_inner();
            output::show(it.format, &answer.key.unwrap_or_default())
        }
        KeyCommand::Retire { key } => {
            let answer = keys.retire(v1::RetireKeyRequest { change: it.change(), id: key }).await?;
            it.done("retired", answer.get_ref().position)
        }
    }
}

async fn branding(
    it: &Context,
    name: Option<String>,
    accent: Option<String>,
    support_url: Option<String>,
) -> anyhow::Result<()> {
    let tenant = it.admin.tenants().get(v1::GetTenantRequest {}).await?.into_inner();
    let before = tenant.branding.unwrap_or_default();
    if name.is_none() && accent.is_none() && support_url.is_none() {
        return output::show(it.format, &before);
    }
    let branding = v1::Branding {
        name: name.unwrap_or(before.name),
        accent: accent.unwrap_or(before.accent),
        support_url: support_url.unwrap_or(before.support_url),
    };
    let request = v1::SetBrandingRequest { change: it.change(), branding: Some(branding) };
    let answer = it.admin.tenants().set_branding(request).await?;
    it.done("changed", answer.get_ref().position)
}

async fn history(it: &Context, stream: String, subject: String, size: u32, before: u64) -> anyhow::Result<()> {
    let request = v1::ListHistoryRequest { stream, subject_contains: subject, before_position: before, size };
    let entries = it.admin.history().list(request).await?.into_inner().entries;
    let rows: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let mut row = serde_json::to_value(entry).unwrap_or_default();
            row["time"] = output::time(entry.time_ms).into();
            row
        })
        .collect();
    output::list(it.format, &rows, &["position", "time", "kind", "actor", "subject"])
}
