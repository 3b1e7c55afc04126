//! Commands for applications, and for the connectors that reach them.

use admin_client::lists::{by_name, wanted};
use anyhow::{Context as _, bail};
use proto::{names, v1};
use serde_json::json;

use super::Context;
use crate::{
    cli::{AppCommand, ConnectorCommand, PublishArguments},
    objects,
    output::{self, Format, say},
    reachability::{reach, words},
};

pub(super) async fn publish(it: &Context, given: PublishArguments) -> anyhow::Result<()> {
    let name = given.name.clone();
    let mut app = v1::App {
        name: given.name,
        external_url: given.url,
        origin: given.origin,
        connector_group: given.group,
        pre_authentication: i32::from(given.passthrough),
        identity_headers: given.headers.iter().map(|it| identity_header(it)).collect::<anyhow::Result<_>>()?,
        assertion: given.assertion,
        upgrades: given.upgrades,
        passed_fields: given.passed_fields,
        ..Default::default()
    };
    let (app, position) = match given.assign {
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

fn identity_header(text: &str) -> anyhow::Result<v1::IdentityHeader> {
    let (name, claim) = text.split_once('=').with_context(|| format!("--header {text}: write NAME=CLAIM"))?;
    let claim = names::claim::parse(claim)
        .with_context(|| format!("--header {text}: a claim is username, email, display_name, user_id or groups"))?;
    Ok(v1::IdentityHeader { name: name.to_owned(), claim })
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

pub(super) async fn app(it: &Context, command: AppCommand) -> anyhow::Result<()> {
    match command {
        AppCommand::List => objects::list(it, "app").await,
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

pub(super) async fn connector(it: &Context, command: ConnectorCommand) -> anyhow::Result<()> {
    match command {
        ConnectorCommand::List => objects::list(it, "connector").await,
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
        ConnectorCommand::Groups => objects::list(it, "connector-group").await,
        ConnectorCommand::CreateGroup { name } => objects::create(it, "connector-group", json!({ "name": name })).await,
        ConnectorCommand::RetireGroup { group } => {
            objects::remove(it, "connector-group", by_name(&group), "retired").await
        }
    }
}
