//! Admin commands: arguments become one call, the answer is printed.

mod apps;
mod people;
mod policies;
mod providers;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use admin_client::{Admin, Credential, sign_in};
use anyhow::Context as _;
use proto::v1;
use serde_json::{Map, Value};

pub use self::apps::address;
use crate::{
    certificate,
    cli::{AdminCommand, Global, HistoryArguments, KeyCommand, KeyName},
    files, objects,
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
    let it = it.repeatable();
    let outcome = match command {
        AdminCommand::Publish(wanted) => apps::publish(&it, wanted).await,
        AdminCommand::App(command) => apps::app(&it, command).await,
        AdminCommand::Group(command) => people::group(&it, command).await,
        AdminCommand::Connector(command) => apps::connector(&it, command).await,
        AdminCommand::User(command) => people::user(&it, command).await,
        AdminCommand::Provider(command) => providers::provider(&it, command).await,
        AdminCommand::Policy(command) => policies::policy(&it, command).await,
        AdminCommand::Session(command) => people::session(&it, command).await,
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
