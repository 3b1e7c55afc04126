//! Commands for objects of every kind: list, show, set, delete, watch.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use proto::{names, v1};
use serde_json::{Map, Value, json};

use crate::{
    commands::Context,
    output::{self, Format, say},
};

/// Columns of a list of any other kind: more would not fit.
const COLUMNS_MAX: usize = 6;
/// Columns of lists that people look at often.
const COLUMNS: [(&str, &[&str]); 7] = [
    ("app", &["name", "external_url", "origin", "connector_group"]),
    ("connector", &["name", "group", "state", "online_since", "version", "address", "load", "last_seen"]),
    ("connector-group", &["name", "labels"]),
    ("group", &["name", "labels"]),
    ("policy", &["name", "state", "block", "require", "include", "networks"]),
    ("identity-provider", &["name", "issuer", "client_id", "domains", "disabled"]),
    ("user", &["username", "display_name", "email", "disabled"]),
];

pub async fn list(it: &Context, kind: &str) -> anyhow::Result<()> {
    find(it, kind.to_owned(), &[], String::new()).await
}

/// Objects that have all labels and contain a text.
pub async fn find(it: &Context, kind: String, label: &[String], contains: String) -> anyhow::Result<()> {
    let known = COLUMNS.iter().find(|(of, _)| *of == kind).map(|(_, columns)| *columns);
    let wanted = v1::ListObjectsRequest { kind, labels: labels(label)?, contains, page: None };
    let found = it.admin.matching(wanted).await?;
    match known {
        Some(columns) => print(it.format, found.iter(), columns),
        None => print(it.format, found.iter(), &told_columns(&found)?),
    }
}

/// Fields in which some object says something that fits.
fn told_columns(found: &[v1::Object]) -> anyhow::Result<Vec<String>> {
    let rows: Vec<Value> = found.iter().map(named).collect::<anyhow::Result<_>>()?;
    let is_told = |value: &Value| match value {
        Value::String(text) => !text.is_empty() && text.len() < 64,
        Value::Array(items) => !items.is_empty(),
        Value::Bool(is) => *is,
        Value::Number(_) => true,
        Value::Null | Value::Object(_) => false,
    };
    let mut columns: Vec<String> = Vec::new();
    for (field, value) in rows.iter().filter_map(Value::as_object).flatten() {
        if columns.len() < COLUMNS_MAX && field != "id" && is_told(value) && !columns.contains(field) {
            columns.push(field.clone());
        }
    }
    // What people call it stands first.
    columns.sort_by_key(|it| !matches!(it.as_str(), "name" | "username"));
    Ok(columns)
}

pub fn print<'a>(
    format: Format,
    objects: impl Iterator<Item = &'a v1::Object>,
    columns: &[impl AsRef<str>],
) -> anyhow::Result<()> {
    let rows = objects.map(|object| row(format, object)).collect::<anyhow::Result<Vec<Value>>>()?;
    output::list(format, &rows, columns)
}

pub async fn show(it: &Context, kind: &str, name: &str) -> anyhow::Result<()> {
    let object = it.admin.object(kind, name).await?;
    output::show(it.format, &row(it.format, &object)?)
}

/// `NAME=VALUE` of one object; a new one is made.
pub async fn set(it: &Context, kind: &str, name: Option<String>, given: &[String]) -> anyhow::Result<()> {
    let mut fields = Map::new();
    if let Some(name) = name {
        fields.insert("id".into(), name.into());
    }
    for field in given {
        let (name, text) = field.split_once('=').with_context(|| format!("{field}: write NAME=VALUE"))?;
        fields.insert(name.to_owned(), serde_json::from_str(text).unwrap_or_else(|_| text.into()));
    }
    put(it, kind, Value::Object(fields), "changed").await
}

/// By name or id, or by the fields of its key, `NAME=VALUE`.
pub async fn delete(it: &Context, kind: &str, given: &[String]) -> anyhow::Result<()> {
    let fields: Option<Map<String, Value>> =
        given.iter().map(|field| field.split_once('=').map(|(name, value)| (name.to_owned(), value.into()))).collect();
    let fields = match (fields, given) {
        (Some(fields), [_, ..]) => fields,
        (None, [name]) => Map::from_iter([("id".to_owned(), name.as_str().into())]),
        _ => bail!("name one object: its name or id, or NAME=VALUE for each field of its key"),
    };
    remove(it, kind, Value::Object(fields), "removed").await
}

pub async fn create(it: &Context, kind: &str, fields: Value) -> anyhow::Result<()> {
    let answer = it.admin.create(it.change(), kind, fields).await?;
    let made = answer.objects.first().context("the controller returned no object")?;
    output::show(it.format, &self::fields(made)?)
}

pub async fn put(it: &Context, kind: &str, fields: Value, done: &str) -> anyhow::Result<()> {
    let answer = it.admin.put(it.change(), kind, fields).await?;
    it.done(done, answer.position)
}

pub async fn change(it: &Context, kind: &str, fields: Value, done: &str) -> anyhow::Result<()> {
    let answer = it.admin.change(it.change(), kind, fields).await?;
    it.done(done, answer.position)
}

pub async fn rename(it: &Context, kind: &str, key: &str, name: &str) -> anyhow::Result<()> {
    change(it, kind, json!({ "id": key, "name": name }), "renamed").await
}

pub async fn remove(it: &Context, kind: &str, key: Value, done: &str) -> anyhow::Result<()> {
    let answer = it.admin.remove(it.change(), kind, key).await?;
    it.done(done, answer.position)
}

/// Prints what there is and then each change, until it is stopped.
pub async fn watch(it: &Context, kinds: Vec<String>) -> anyhow::Result<()> {
    let mut changes = it.admin.objects().watch(v1::WatchRequest { kinds }).await?.into_inner();
    while let Some(change) = changes.message().await? {
        let happened = names::happened::name(change.happened);
        match (it.format, &change.object) {
            (Format::Json, object) => {
                let object = object.as_ref().map(fields).transpose()?;
                let kind = change.object.as_ref().map(|it| it.kind.clone());
                let line = json!({ "happened": happened, "kind": kind, "object": object, "position": change.position });
                say(&line.to_string());
            }
            (Format::Table, Some(object)) => {
                let name = if object.name.is_empty() { &object.key } else { &object.name };
                say(&format!("{happened} {} {name}", object.kind));
            }
            (Format::Table, None) => say("-- from here on as it happens"),
        }
    }
    Ok(())
}

/// `NAME=VALUE` as labels are written.
pub fn labels(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let label = |it: &String| {
        let (name, value) = it.split_once('=').with_context(|| format!("the label {it}: write NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    given.iter().map(label).collect()
}

/// With names for people, with ids for machines.
fn row(format: Format, object: &v1::Object) -> anyhow::Result<Value> {
    match format {
        Format::Json => fields(object),
        Format::Table => named(object),
    }
}

fn fields(object: &v1::Object) -> anyhow::Result<Value> {
    with_status(&object.fields, object)
}

fn named(object: &v1::Object) -> anyhow::Result<Value> {
    with_status(&object.named, object)
}

/// Times also as people write them.
fn with_status(fields: &str, object: &v1::Object) -> anyhow::Result<Value> {
    let mut row: Value = serde_json::from_str(fields)?;
    let status: Value = match object.status.as_str() {
        "" => return Ok(row),
        status => serde_json::from_str(status)?,
    };
    for (field, value) in status.as_object().into_iter().flatten() {
        row[field] = value.clone();
        if let (Some(plain), Some(ms)) = (field.strip_suffix("_ms"), value.as_i64()) {
            row[plain] = output::time(ms).into();
        }
    }
    Ok(row)
}
