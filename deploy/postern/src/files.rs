//! Files: the same objects as the API, by name. What a file does not mention,
//! objects or fields, stays as it is, unless it is pruned by label.
//!
//! The controller says what differs, and carries out all of it or nothing.

use std::{collections::BTreeMap, path::Path};

use admin_client::lists::wanted;
use anyhow::{Context as _, bail};
use proto::v1;
use serde_json::{Map, Value};

use crate::{
    commands::Context,
    objects::labels,
    output::{self, Format, say},
};

/// A file: lists by kind.
type Document = BTreeMap<String, Vec<Map<String, Value>>>;

pub async fn export(it: &Context, only: &[String], label: &[String]) -> anyhow::Result<()> {
    let mut document = Vec::new();
    let labels = labels(label)?;
    for kind in it.admin.kinds().await? {
        let wished = only.is_empty() || only.contains(&kind.name);
        // What only other commands make is in no file.
        if kind.put == "-" || !wished {
            continue;
        }
        let request = v1::ListObjectsRequest { kind: kind.name, labels: labels.clone(), ..Default::default() };
        let objects = it.admin.matching(request).await?;
        let object = |object: &v1::Object| {
            let mut fields: Map<String, Value> = serde_json::from_str(&object.named)?;
            fields.remove("id");
            anyhow::Ok(Value::Object(fields))
        };
        let objects = objects.iter().map(object).collect::<anyhow::Result<Vec<_>>>()?;
        if !objects.is_empty() {
            document.push((kind.plural, Value::Array(objects)));
        }
    }
    say(&serde_norway::to_string(&Map::from_iter(document))?);
    Ok(())
}

/// Everything in one request: all of it happens, or nothing, and nothing opens
/// before what guards it is there.
pub async fn apply(it: &Context, path: &Path, dry_run: bool, prune: &[String]) -> anyhow::Result<()> {
    let mut document = read(path)?;
    let kinds = it.admin.kinds().await?;
    let mut objects = Vec::new();
    let mut prune_kinds = Vec::new();
    for kind in &kinds {
        let Some(list) = document.remove(&kind.plural) else { continue };
        prune_kinds.push(kind.name.clone());
        objects.extend(list.into_iter().map(|fields| wanted(&kind.name, Value::Object(fields), v1::Wish::Put)));
    }
    if let Some(list) = document.keys().next() {
        let known: Vec<_> = kinds.iter().filter(|it| it.put != "-").map(|it| it.plural.as_str()).collect();
        bail!("{list}: is no list of objects; known: {}", known.join(", "));
    }
    let prune = labels(prune)?;
    let request = v1::ApplyRequest { change: it.change(), objects, prune, prune_kinds, dry_run, ..Default::default() };
    let answer = it.admin.apply(request).await?;
    say_differences(it, &answer, dry_run)
}

/// `+` made, `~` changed, `-` removed.
pub fn say_differences(it: &Context, answer: &v1::ApplyResponse, dry_run: bool) -> anyhow::Result<()> {
    if it.format == Format::Json {
        return output::show(it.format, answer);
    }
    for difference in &answer.differences {
        let (sign, fields) = match difference.happened() {
            v1::Happened::Created => ("+", String::new()),
            v1::Happened::Removed => ("-", String::new()),
            v1::Happened::Changed => {
                let change = |it: &v1::FieldChange| format!("{}: {} -> {}", it.field, it.before, it.after);
                ("~", format!(": {}", difference.fields.iter().map(change).collect::<Vec<_>>().join("; ")))
            }
        };
        say(&format!("{sign} {} {}{fields}", difference.kind, difference.name));
    }
    match (answer.differences.len(), dry_run) {
        (0, _) => say("nothing to change"),
        (count, true) => say(&format!("{count} would change; nothing was changed")),
        (count, false) => say(&format!("{count} changed")),
    }
    Ok(())
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
    let mut all = Document::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let one: Document = serde_norway::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        for (list, objects) in one {
            all.entry(list).or_default().extend(objects);
        }
    }
    Ok(all)
}
