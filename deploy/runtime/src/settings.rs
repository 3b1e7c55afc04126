//! Settings of a process: a TOML file, then the environment, then flags.
//!
//! The environment names a setting as `PREFIX_SECTION__KEY`. Unknown keys are
//! refused wherever they come from: a misspelt limit would be no limit.

use std::{collections::BTreeMap, fs, path::Path};

use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("reading the settings file {path}")]
    File { path: String, source: std::io::Error },
    #[error("the settings file {path} is not TOML")]
    Syntax { path: String, source: Box<toml::de::Error> },
    #[error("{0} is both a value and a section")]
    Overlap(String),
    #[error("a setting is unknown, missing or of the wrong type")]
    Invalid(#[from] Box<toml::de::Error>),
}

/// Flags are dotted names, as in the file: `("listen", "127.0.0.1:8443")`.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    prefix: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: impl IntoIterator<Item = (String, String)>,
) -> Result<T, SettingsError> {
    let mut table = match file {
        Some(path) => parse(path)?,
        None => Table::new(),
    };
    let prefix = format!("{prefix}_");
    let from_environment: BTreeMap<String, String> = environment
        .into_iter()
        .filter_map(|(name, value)| {
            let key = name.strip_prefix(&prefix)?;
            Some((key.to_ascii_lowercase().replace("__", "."), value))
        })
        .collect();
    for (key, value) in from_environment.into_iter().chain(flags) {
        put(&mut table, &key, &value)?;
    }
    Ok(Value::Table(table).try_into().map_err(Box::new)?)
}

fn parse(path: &Path) -> Result<Table, SettingsError> {
    let name = || path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| SettingsError::File { path: name(), source })?;
    text.parse().map_err(|source| SettingsError::Syntax { path: name(), source: Box::new(source) })
}

fn put(table: &mut Table, key: &str, value: &str) -> Result<(), SettingsError> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), typed(value));
            Ok(())
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let inner = inner.as_table_mut().ok_or_else(|| SettingsError::Overlap(section.to_owned()))?;
            put(inner, rest, value)
        }
    }
}

/// A value outside TOML is what it looks like: a number, a switch, a list in
/// brackets, else text.
fn typed(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    match parsed {
        Some(value @ (Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Array(_))) => value,
        Some(Value::String(_) | Value::Datetime(_) | Value::Table(_)) | None => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Example {
        listen: String,
        #[serde(default)]
        limits: Limits,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Limits {
        connections: u32,
        hosts: Vec<String>,
    }

    fn text(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    #[test]
    fn flags_beat_environment_beats_file() {
        let file = std::env::temp_dir().join(format!("postern-settings-{}.toml", uuid::Uuid::now_v7()));
        fs::write(&file, "listen = 'a'\n[limits]\nconnections = 1").unwrap();
        let environment = text(&[("POSTERN_LISTEN", "b"), ("POSTERN_LIMITS__CONNECTIONS", "2"), ("OTHER_X", "3")]);
        let flags = text(&[("listen", "c"), ("limits.hosts", "['x', 'y']")]);
        let loaded: Example = load(Some(&file), "POSTERN", environment, flags).unwrap();
        let limits = Limits { connections: 2, hosts: vec!["x".into(), "y".into()] };
        assert_eq!(loaded, Example { listen: "c".into(), limits });
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_and_named() {
        let flags = text(&[("listen", "a"), ("limits.conections", "1")]);
        let error = load::<Example>(None, "POSTERN", [], flags).unwrap_err();
        assert!(format!("{:?}", error).contains("conections"));
        let environment = text(&[("POSTERN_LISTEN", "b"), ("POSTERN_LISTNE", "b")]);
        assert!(load::<Example>(None, "POSTERN", environment, []).is_err());
    }
}
