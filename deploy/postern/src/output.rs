//! What the command line prints: tables for people, JSON for machines.

use std::io::Write;

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use serde_json::Value;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

/// One line to standard output. A reader that is gone is not an error.
pub fn say(line: &str) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}

/// A list with chosen columns; JSON has everything.
pub fn list<T: Serialize>(format: Format, items: &[T], columns: &[impl AsRef<str>]) -> anyhow::Result<()> {
    if format == Format::Json {
        say(&serde_json::to_string_pretty(items)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(columns.iter().map(|it| it.as_ref().replace('_', " ").to_uppercase()));
    for item in items {
        let value = serde_json::to_value(item)?;
        table.add_row(columns.iter().map(|column| cell(value.get(column.as_ref()))));
    }
    say(&table.trim_fmt());
    Ok(())
}

/// One thing, a field a line.
pub fn show<T: Serialize>(format: Format, item: &T) -> anyhow::Result<()> {
    let value = serde_json::to_value(item)?;
    if format == Format::Json {
        say(&serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    let fields = value.as_object().context("not a thing with fields")?;
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in fields {
        let text = cell(Some(value));
        if !text.is_empty() {
            say(&format!("{name:width$}  {text}"));
        }
    }
    Ok(())
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|it| cell(Some(it))).collect::<Vec<_>>().join(", "),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_))) => other.to_string(),
    }
}

/// Milliseconds since 1970 as people read them.
pub fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or(String::new(), |it| it.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A day or a time as people write them, in UTC unless they say otherwise.
pub fn parse_time(text: &str) -> anyhow::Result<i64> {
    let day =
        || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|it| it.timestamp());
    let time = text.parse::<jiff::Timestamp>().ok().or_else(day);
    Ok(time.with_context(|| format!("{text} is no time such as 2026-05-01 or 2026-05-01T12:00:00Z"))?.as_millisecond())
}
