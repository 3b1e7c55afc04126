//! Admin commands: arguments become one call, the answer is printed.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use admin_client::{
    Admin, Credential,
    lists::{by_name, wanted},
    sign_in,
};
use anyhow::{Context as _, bail};
use proto::{names, v1};
use serde_json::{Map, Value, json};

use crate::{
    certificate,
    cli::{
        AdminCommand, AppCommand, ConnectorCommand, Global, GroupCommand, HistoryArguments, KeyCommand, KeyName,
        PolicyCommand, RoleName, SessionCommand, StateName, UserCommand,
    },
    files, objects,
    output::{self, Format, say},
    reachability::{reach, words},
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
    let it = it.repeatable();
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
        AdminCommand::History(wanted) => history(&it, wanted).await,
        AdminCommand::Revert { stream, position, dry_run } => {
            let request = v1::RevertRequest { change: it.change(), stream, position, dry_run };
            let answer = it.admin.history().revert(request).await?.into_inner();
            files::say_differences(&it, &answer, dry_run)
        }
        AdminCommand::Kinds => {
            let kinds = it.admin.kinds().await?;
            output::list(it.format, &kinds, &["name", "read", "put", "remove"])
        }
        AdminCommand::List { kind, label, contains } => objects::find(&it, kind, &label, contains).await,
        AdminCommand::Show { kind, name } => objects::show(&it, &kind, &name).await,
        AdminCommand::Set { kind, name, fields } => objects::set(&it, &kind, name, &fields).await,
        AdminCommand::Delete { kind, name } => objects::delete(&it, &kind, &name).await,
        AdminCommand::Watch { kinds } => objects::watch(&it, kinds).await,
        AdminCommand::Domain { domain } => {
            let proofs = it.admin.tenants().check_domain(v1::CheckDomainRequest { domain }).await?.into_inner().proofs;
            output::list(it.format, &proofs, &["name", "value", "found"])
        }
        AdminCommand::Branding { name, accent, support_url } => branding(&it, name, accent, support_url).await,
        AdminCommand::Apply { file, dry_run, prune } => files::apply(&it, &file, dry_run, &prune).await,
        AdminCommand::Diff { file, prune } => files::apply(&it, &file, true, &prune).await,
        AdminCommand::Export { kinds, label } => files::export(&it, &kinds, &label).await,
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
    let (name, mut app) = (app.name.clone(), app);
    let (app, position) = match assign {
        None => {
            let request = v1::PublishAppRequest { change: it.change(), app: Some(app), assign_caller: true };
            let answer = it.admin.applications().publish(request).await?.into_inner();
            (answer.app.unwrap_or_default(), answer.position)
        }
        // One change: nobody comes in between.
        Some(principal) => {
            let assignment = v1::Assignment { app: name.clone(), principal };
            let objects = vec![
                wanted("app", serde_json::to_value(&app)?, v1::Wish::Create),
                wanted("assignment", serde_json::to_value(&assignment)?, v1::Wish::Put),
            ];
            let answer =
                it.admin.apply(v1::ApplyRequest { change: it.change(), objects, ..Default::default() }).await?;
            app = it.admin.read("app", &name).await?;
            (app, answer.position)
        }
    };
    match it.format {
        Format::Json => output::show(it.format, &app),
        Format::Table => {
            let port = it.admin.tenants().get(v1::GetTenantRequest {}).await?.into_inner().public_port;
            it.done(&address(&app.external_url, port), position)
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
        AppCommand::List => objects::list(it, "app", &["name", "external_url", "origin", "connector_group"]).await,
        AppCommand::Show { app } => objects::show(it, "app", &app).await,
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
        AppCommand::Set { app, fields } => objects::set(it, "app", Some(app), &fields).await,
        AppCommand::Retire { app } => objects::remove(it, "app", by_name(&app), "retired").await,
        AppCommand::Assign { app, principal } => {
            let assignment = json!({ "app": app, "principal": principal });
            objects::put(it, "assignment", assignment, "assigned").await
        }
        AppCommand::Unassign { app, principal } => {
            objects::remove(it, "assignment", json!({ "app": app, "principal": principal }), "unassigned").await
        }
        AppCommand::Assignments { app } => {
            let app = it.admin.object("app", &app).await?;
            let all = it.admin.all("assignment").await?;
            let of_app = all.iter().filter(|it| it.key.starts_with(&app.key));
            objects::print(it.format, of_app, &["principal", "app"])
        }
    }
}

async fn group(it: &Context, command: GroupCommand) -> anyhow::Result<()> {
    let membership = |group: String, member: String| json!({ "group": group, "member": member });
    match command {
        GroupCommand::List => objects::list(it, "group", &["name", "labels"]).await,
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

async fn connector(it: &Context, command: ConnectorCommand) -> anyhow::Result<()> {
    match command {
        ConnectorCommand::List => {
            let columns = ["name", "group", "online_since", "relays", "last_seen", "revoked"];
            objects::list(it, "connector", &columns).await
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
        ConnectorCommand::Groups => objects::list(it, "connector-group", &["name", "labels"]).await,
        ConnectorCommand::CreateGroup { name } => objects::create(it, "connector-group", json!({ "name": name })).await,
        ConnectorCommand::RetireGroup { group } => {
            objects::remove(it, "connector-group", by_name(&group), "retired").await
        }
    }
}

async fn user(it: &Context, command: UserCommand) -> anyhow::Result<()> {
    let mut users = it.admin.users();
    match command {
        UserCommand::List => objects::list(it, "user", &["username", "display_name", "email", "disabled"]).await,
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

async fn policy(it: &Context, command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::List => {
            let columns = ["name", "state", "block", "require", "include", "networks"];
            objects::list(it, "policy", &columns).await
        }
        PolicyCommand::Create { name, block, require, include, exclude, app, network, exclude_network, state } => {
            let asked = require
                .iter()
                .map(|text| text.parse::<model::Requirement>().map_err(|it| anyhow::anyhow!("--require {text}: {it}")));
            let asked = asked.collect::<anyhow::Result<Vec<_>>>()?;
            let (require, sign_in_within_minutes) = eventlog::wire::controls_to(&asked);
            let policy = v1::Policy {
                name,
                state: state_of(state).into(),
                include,
                exclude,
                apps: app,
                networks: network,
                exclude_networks: exclude_network,
                block,
                require,
                sign_in_within_minutes,
                ..Default::default()
            };
            objects::create(it, "policy", serde_json::to_value(&policy)?).await
        }
        PolicyCommand::State { policy, state } => {
            let state = names::policy_state::name(state_of(state).into());
            objects::change(it, "policy", json!({ "id": policy, "state": state }), "changed").await
        }
        PolicyCommand::Remove { policy } => objects::remove(it, "policy", by_name(&policy), "removed").await,
        PolicyCommand::WhatIf { user, app, address, satisfied, mfa } => {
            let control = |name: &String| {
                let known = names::control::parse(&name.replace('-', "_"));
                known.with_context(|| format!("--satisfied {name}: known are mfa and sign-in-within"))
            };
            let mut satisfied = satisfied.iter().map(control).collect::<anyhow::Result<Vec<_>>>()?;
            satisfied.extend(mfa.then_some(i32::from(v1::Control::Mfa)));
            let request = v1::WhatIfRequest { user, app, address, satisfied };
            let answer = it.admin.policies().what_if(request).await?.into_inner();
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
    let given = [("name", name), ("accent", accent), ("support_url", support_url)];
    let fields: Map<String, Value> =
        given.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?.into()))).collect();
    match fields.is_empty() {
        true => {
            let tenant = it.admin.tenants().get(v1::GetTenantRequest {}).await?.into_inner();
            output::show(it.format, &tenant.branding.unwrap_or_default())
        }
        false => objects::put(it, "branding", Value::Object(fields), "changed").await,
    }
}

async fn history(it: &Context, wanted: HistoryArguments) -> anyhow::Result<()> {
    let time = |text: Option<String>| text.map_or(Ok(0), |text| output::parse_time(&text));
    let request = v1::ListHistoryRequest {
        stream: wanted.stream,
        subject_contains: wanted.subject,
        before_position: wanted.before,
        size: wanted.size,
        kind: wanted.kind,
        object: wanted.object,
        actor: wanted.actor,
        since_ms: time(wanted.since)?,
        until_ms: time(wanted.until)?,
    };
    let entries = it.admin.history().list(request).await?.into_inner().entries;
    let rows: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let mut row = serde_json::to_value(entry).unwrap_or_default();
            row["time"] = output::time(entry.time_ms).into();
            if entry.sentence.is_empty() {
                row["sentence"] = format!("{} {}", entry.actor, entry.kind).into();
            }
            row
        })
        .collect();
    output::list(it.format, &rows, &["time", "stream", "position", "sentence"])
}
