//! Declarative files: the same objects as the API, by name. What a file does
//! not mention, objects or fields, stays as it is; nothing is removed.

use std::{collections::BTreeMap, path::Path};

use admin_client::{
    Admin,
    lists::{all_apps, all_connector_groups, all_groups, all_policies, all_users},
};
use anyhow::{Context as _, bail};
use proto::v1;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{commands::Context, output::say};

type Object = Map<String, Value>;

/// A file: lists by kind.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connector_groups: Vec<Object>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<Object>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Object>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memberships: Vec<v1::Membership>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    apps: Vec<Object>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    assignments: Vec<v1::Assignment>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<Object>,
}

pub async fn export(it: &Context) -> anyhow::Result<()> {
    let document = current(&it.admin).await?;
    say(&serde_norway::to_string(&document)?);
    Ok(())
}

/// Everything in one request: all of it happens, or nothing, and nothing opens
/// before what guards it is there.
pub async fn apply(it: &Context, path: &Path, dry_run: bool) -> anyhow::Result<()> {
    let wanted = read(path)?;
    let present = current(&it.admin).await?;
    let request = v1::ApplyRequest {
        change: it.change(),
        connector_groups: changed("connector_group", "name", &wanted.connector_groups, &present.connector_groups)?,
        users: changed("user", "username", &wanted.users, &present.users)?,
        groups: changed("group", "name", &wanted.groups, &present.groups)?,
        memberships: added(wanted.memberships, &present.memberships, |it| {
            format!("membership {} in {}", it.member, it.group)
        }),
        apps: changed("app", "name", &wanted.apps, &present.apps)?,
        policies: changed("policy", "name", &wanted.policies, &present.policies)?,
        assignments: added(wanted.assignments, &present.assignments, |it| {
            format!("assignment {} to {}", it.app, it.principal)
        }),
    };
    let differences = request.connector_groups.len()
        + request.users.len()
        + request.groups.len()
        + request.memberships.len()
        + request.apps.len()
        + request.policies.len()
        + request.assignments.len();
    if dry_run && differences > 0 {
        say(&format!("{differences} would change; nothing was changed"));
        return Ok(());
    }
    // Also when nothing differs: the expected position is looked at.
    let changed = if dry_run { 0 } else { it.admin.batches().apply(request).await?.into_inner().changed };
    match changed {
        0 => say("nothing to change"),
        count => say(&format!("{count} changed")),
    }
    Ok(())
}

/// Objects that are not there, or not so; says how they differ.
fn changed<T: DeserializeOwned>(
    kind: &str,
    key: &str,
    wanted: &[Object],
    present: &[Object],
) -> anyhow::Result<Vec<T>> {
    let differing = wanted.iter().filter_map(|object| differs(kind, key, object, present).transpose());
    differing.collect()
}

fn added<T: PartialEq>(wanted: Vec<T>, present: &[T], named: impl Fn(&T) -> String) -> Vec<T> {
    let added: Vec<T> = wanted.into_iter().filter(|it| !present.contains(it)).collect();
    added.iter().for_each(|it| say(&format!("+ {}", named(it))));
    added
}

/// Says how an object differs from what is there, and what it should become;
/// `None` when it does not differ.
fn differs<T: DeserializeOwned>(
    kind: &str,
    key: &str,
    wanted: &Object,
    present: &[Object],
) -> anyhow::Result<Option<T>> {
    let name = wanted.get(key).and_then(Value::as_str).with_context(|| format!("a {kind} has no {key}"))?;
    let known = present.iter().find(|it| it.get(key).and_then(Value::as_str) == Some(name));
    let mut merged = known.cloned().unwrap_or_default();
    let mut differences = Vec::new();
    for (field, value) in wanted {
        let before = merged.insert(field.clone(), value.clone());
        if known.is_some() && before.as_ref() != Some(value) {
            differences.push(format!("{field}: {} -> {value}", before.unwrap_or(Value::Null)));
        }
    }
    let item = serde_json::from_value(Value::Object(merged)).with_context(|| format!("{kind} {name}"))?;
    match known {
        Some(_) if differences.is_empty() => return Ok(None),
        Some(_) => say(&format!("~ {kind} {name}: {}", differences.join("; "))),
        None => say(&format!("+ {kind} {name}")),
    }
    Ok(Some(item))
}

/// One file, or every .yaml and .yml of a folder, in order of name.
fn read(path: &Path) -> anyhow::Result<Document> {
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
        paths = entries.filter_map(|entry| entry.ok().map(|it| it.path())).collect();
        paths.retain(|it| it.extension().is_some_and(|it| it == "yaml" || it == "yml"));
        paths.sort();
    }
    if paths.is_empty() {
        bail!("{} has no .yaml file", path.display());
    }
    let mut all = Document::default();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let one: Document = serde_norway::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        all.connector_groups.extend(one.connector_groups);
        all.users.extend(one.users);
        all.groups.extend(one.groups);
        all.memberships.extend(one.memberships);
        all.apps.extend(one.apps);
        all.assignments.extend(one.assignments);
        all.policies.extend(one.policies);
    }
    Ok(all)
}

/// Everything that is there, with names in place of ids.
async fn current(admin: &Admin) -> anyhow::Result<Document> {
    let (connector_groups, users) = (all_connector_groups(admin).await?, all_users(admin).await?);
    let (groups, apps, policies) = (all_groups(admin).await?, all_apps(admin).await?, all_policies(admin).await?);
    let mut names = BTreeMap::new();
    names.extend(connector_groups.iter().map(|it| (it.id.clone(), it.name.clone())));
    names.extend(users.iter().map(|it| (format!("user:{}", it.id), format!("user:{}", it.username))));
    names.extend(groups.iter().map(|it| (format!("group:{}", it.id), format!("group:{}", it.name))));
    names.extend(apps.iter().map(|it| (it.id.clone(), it.name.clone())));
    let named = |id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let mut document = Document::default();
    for group in &groups {
        let members = admin.groups().list_members(v1::GetRequest { id: group.id.clone() }).await?.into_inner().members;
        let membership = |member: &String| v1::Membership { group: group.name.clone(), member: named(member) };
        document.memberships.extend(members.iter().map(membership));
    }
    for app in &apps {
        let list = admin.assignments().list(v1::GetRequest { id: app.id.clone() }).await?.into_inner().assignments;
        let assignment =
            |it: &v1::Assignment| v1::Assignment { app: app.name.clone(), principal: named(&it.principal) };
        document.assignments.extend(list.iter().map(assignment));
    }
    document.connector_groups = objects(&connector_groups, &named)?;
    document.users = objects(&users, &named)?;
    document.groups = objects(&groups, &named)?;
    document.apps = objects(&apps, &named)?;
    document.policies = objects(&policies, &named)?;
    Ok(document)
}

/// As JSON objects without ids.
fn objects<T: Serialize>(items: &[T], named: &dyn Fn(&str) -> String) -> anyhow::Result<Vec<Object>> {
    let mut objects = Vec::new();
    for item in items {
        let Value::Object(mut object) = serde_json::to_value(item)? else { bail!("not an object") };
        object.remove("id");
        for (_, value) in object.iter_mut() {
            rename(value, named);
        }
        objects.push(object);
    }
    Ok(objects)
}

fn rename(value: &mut Value, named: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = named(text),
        Value::Array(items) => items.iter_mut().for_each(|it| rename(it, named)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
    }
}
