//! Settings of analytics, and the sinks they ask for.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::formats::Format;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where OCSF lines are appended; empty for no such file. Rotate it by
    /// renaming; it is opened anew for each batch.
    pub file: PathBuf,
    /// Remembers what was written to `file`. Beside it each of `sinks` remembers
    /// what it delivered.
    pub cursor: PathBuf,
    /// More places to deliver to, each at its own pace.
    pub sinks: Vec<SinkSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { file: "./activity.ocsf.jsonl".into(), cursor: "./activity.cursor".into(), sinks: vec![] }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SinkSettings {
    /// Lower-case letters, digits and dashes: in logs, metrics and the cursor's name.
    pub name: String,
    /// A file of lines.
    pub file: Option<PathBuf>,
    /// `HOST:PORT` of a syslog receiver: RFC 5424 over TCP, octet counting.
    pub syslog: Option<String>,
    pub format: Format,
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("analytics.sinks {name:?}: {problem}")]
pub struct SettingsError {
    name: String,
    problem: &'static str,
}

/// One sink, as settings ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub name: String,
    pub target: Target,
    pub format: Format,
    pub cursor: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    File(PathBuf),
    Syslog(String),
}

/// The name of the sink that `analytics.file` makes.
const FILE: &str = "file";

impl Settings {
    pub(crate) fn destinations(&self) -> Result<Vec<Destination>, SettingsError> {
        let mut all = Vec::new();
        if !self.file.as_os_str().is_empty() {
            let (target, cursor) = (Target::File(self.file.clone()), self.cursor.clone());
            all.push(Destination { name: FILE.to_owned(), target, format: Format::Ocsf, cursor });
        }
        for sink in &self.sinks {
            let destination = sink.destination(&self.cursor)?;
            if destination.name == FILE || all.iter().any(|it| it.name == destination.name) {
                return Err(sink.wrong("another sink has this name"));
            }
            if all.iter().any(|it| it.target == destination.target) {
                return Err(sink.wrong("another sink has this target"));
            }
            all.push(destination);
        }
        Ok(all)
    }
}

impl SinkSettings {
    fn destination(&self, cursor: &Path) -> Result<Destination, SettingsError> {
        let is_name = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(is_name) {
            return Err(self.wrong("name is 1 to 32 lower-case letters, digits and dashes"));
        }
        let target = match (&self.file, &self.syslog) {
            (Some(path), None) => Target::File(path.clone()),
            (None, Some(address)) if is_address(address) => Target::Syslog(address.clone()),
            (None, Some(_)) => return Err(self.wrong("syslog is HOST:PORT")),
            (Some(_), Some(_)) | (None, None) => return Err(self.wrong("give either file or syslog")),
        };
        let mut own = cursor.as_os_str().to_owned();
        own.push(format!(".{}", self.name));
        Ok(Destination { name: self.name.clone(), target, format: self.format, cursor: own.into() })
    }

    fn wrong(&self, problem: &'static str) -> SettingsError {
        SettingsError { name: self.name.clone(), problem }
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|it| it > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(name: &str, file: Option<&str>, syslog: Option<&str>) -> SinkSettings {
        let (name, file, syslog) = (name.to_owned(), file.map(PathBuf::from), syslog.map(str::to_owned));
        SinkSettings { name, file, syslog, format: Format::Cef }
    }

    #[test]
    fn without_sinks_there_is_the_file_of_before() {
        let all = Settings::default().destinations().unwrap();
        let [it] = &all[..] else { panic!("{all:?}") };
        assert_eq!((&it.target, &it.format), (&Target::File("./activity.ocsf.jsonl".into()), &Format::Ocsf));
        assert_eq!(it.cursor, Path::new("./activity.cursor"));
    }

    #[test]
    fn each_sink_has_a_cursor_of_its_own() {
        let sinks = vec![sink("siem", None, Some("siem.example:601")), sink("cef", Some("/var/log/a.cef"), None)];
        let all = Settings { file: "".into(), cursor: "/s/cursor".into(), sinks }.destinations().unwrap();
        let cursors: Vec<_> = all.iter().map(|it| it.cursor.to_str().unwrap()).collect();
        assert_eq!(cursors, ["/s/cursor.siem", "/s/cursor.cef"]);
    }

    #[test]
    fn sinks_that_contradict_themselves_or_each_other_are_refused() {
        let good = || sink("siem", None, Some("siem.example:601"));
        for sinks in [
            vec![sink("", Some("a"), None)],
            vec![sink("../x", Some("a"), None)],
            vec![sink("file", Some("a"), None)],
            vec![sink("a", None, None)],
            vec![sink("a", Some("a"), Some("h:1"))],
            vec![sink("a", None, Some("h"))],
            vec![sink("a", None, Some("h:0"))],
            vec![good(), good()],
            vec![good(), SinkSettings { name: "other".into(), ..good() }],
        ] {
            let settings = Settings { sinks: sinks.clone(), ..Default::default() };
            assert!(settings.destinations().is_err(), "{sinks:?}");
        }
    }
}
