//! Declarative files: the same objects as the API, by name. What a file does
//! not mention, objects or fields, stays as it is; nothing is removed.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use proto::v1;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{client::Admin, commands::Context, output::say};

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

pub async fn apply(it: &Context, path: &Path, dry_run: bool) -> anyhow::Result<()> {
    let wanted = read(path)?;
    let present = current(&it.admin).await?;
    let mut changes = 0;
    for object in &wanted.connector_groups {
        if let Some((_, group)) =
            differs::<v1::ConnectorGroup>("connector_group", "name", object, &present.connector_groups, &mut changes)?
            && !dry_run
        {
            let change = it.change();
            it.admin.connector_groups().create(v1::PutConnectorGroupRequest { change, group: Some(group) }).await?;
        }
    }
    for object in &wanted.users {
        if let Some((known, mut user)) = differs::<v1::User>("user", "username", object, &present.users, &mut changes)?
        {
            let change = it.change();
            match known {
                _ if dry_run => {}
                true => {
                    user.id = user.username.clone();
                    it.admin.users().update(v1::UpdateUserRequest { change, user: Some(user) }).await?;
                }
                false => {
                    it.admin
                        .users()
                        .create(v1::CreateUserRequest { change, user: Some(user), password: String::new() })
                        .await?;
                }
            }
        }
    }
    for object in &wanted.groups {
        if let Some((_, group)) = differs::<v1::Group>("group", "name", object, &present.groups, &mut changes)?
            && !dry_run
        {
            it.admin.groups().create(v1::PutGroupRequest { change: it.change(), group: Some(group) }).await?;
        }
    }
    for membership in wanted.memberships.iter().filter(|it| !present.memberships.contains(it)) {
        changes += 1;
        say(&format!("+ membership {} in {}", membership.member, membership.group));
        if !dry_run {
            let membership = Some(membership.clone());
            it.admin.groups().add_member(v1::MembershipRequest { change: it.change(), membership }).await?;
        }
    }
    for object in &wanted.apps {
        if let Some((known, mut app)) = differs::<v1::App>("app", "name", object, &present.apps, &mut changes)? {
            let change = it.change();
            match known {
                _ if dry_run => {}
                true => {
                    app.id = app.name.clone();
                    it.admin.applications().update(v1::UpdateAppRequest { change, app: Some(app) }).await?;
                }
                false => {
                    let request = v1::PublishAppRequest { change, app: Some(app), assign_caller: false };
                    it.admin.applications().publish(request).await?;
                }
            }
        }
    }
    for assignment in wanted.assignments.iter().filter(|it| !present.assignments.contains(it)) {
        changes += 1;
        say(&format!("+ assignment {} to {}", assignment.app, assignment.principal));
        if !dry_run {
            let assignment = Some(assignment.clone());
            it.admin.assignments().assign(v1::AssignmentRequest { change: it.change(), assignment }).await?;
        }
    }
    for object in &wanted.policies {
        if let Some((known, mut policy)) =
            differs::<v1::Policy>("policy", "name", object, &present.policies, &mut changes)?
        {
            let change = it.change();
            match known {
                _ if dry_run => {}
                true => {
                    policy.id = policy.name.clone();
                    it.admin.policies().update(v1::PutPolicyRequest { change, policy: Some(policy) }).await?;
                }
                false => {
                    it.admin.policies().create(v1::PutPolicyRequest { change, policy: Some(policy) }).await?;
                }
            }
        }
    }
    match (changes, dry_run) {
        (0, _) => say("nothing to change"),
        (count, true) => say(&format!("{count} would change; nothing was changed")),
        (count, false) => say(&format!("{count} changed")),
    }
    Ok(())
}

/// Says how an object differs from what is there: `None` when it does not, else
/// whether it is known, and what it should become.
fn differs<T: DeserializeOwned>(
    kind: &str,
    key: &str,
    wanted: &Object,
    present: &[Object],
    changes: &mut usize,
) -> anyhow::Result<Option<(bool, T)>> {
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
    *changes += 1;
    Ok(Some((known.is_some(), item)))
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

macro_rules! all {
    ($($name:ident => $service:ident, $field:ident, $item:ty);* $(;)?) => {$(
        /// Every page of the list.
        pub async fn $name(admin: &Admin) -> anyhow::Result<Vec<$item>> {
            let mut all = Vec::new();
            let mut token = String::new();
            loop {
                let page = Some(v1::Page { size: 1000, token });
                let answer = admin.$service().list(v1::ListRequest { page }).await?.into_inner();
                all.extend(answer.$field);
                if answer.next_page_token.is_empty() {
                    return Ok(all);
                }
                token = answer.next_page_token;
            }
        }
    )*};
}

all! {
    all_apps => applications, apps, v1::App;
    all_connector_groups => connector_groups, groups, v1::ConnectorGroup;
    all_users => users, users, v1::User;
    all_groups => groups, groups, v1::Group;
    all_policies => policies, policies, v1::Policy;
    all_certificates => certificates, certificates, v1::Certificate;
}
