//! ArcSight Common Event Format: `CEF:0|vendor|product|version|id|name|severity|key=value …`.
//!
//! Values are escaped as the format says (`\` and `|` in the header, `\` and `=`
//! in values, line ends as `\n` and `\r`). Other control characters would act in
//! a terminal or a viewer, so each is written as its code point: `\\u{1b}`.

use std::{borrow::Cow, fmt::Write, net::IpAddr};

use crate::record::{Record, Severity, Value, What};

/// How a field of the table is written. One that is not listed has a custom key:
/// `postern` and its name.
enum Key {
    Plain(&'static str),
    /// A custom string of CEF, and the label that says what it is.
    Labelled(&'static str, &'static str),
    /// `src`, or the custom address for IPv6.
    Address,
    /// In the header.
    Said,
}

const KEYS: &[(&str, Key)] = &[
    ("user_id", Key::Plain("suid")),
    ("user_name", Key::Plain("suser")),
    ("session_id", Key::Labelled("cs1", "session")),
    ("app_id", Key::Labelled("cs2", "application")),
    ("address", Key::Address),
    ("user_agent", Key::Plain("requestClientApplication")),
    ("outcome", Key::Plain("outcome")),
    ("methods", Key::Labelled("cs3", "methods")),
    ("policies", Key::Labelled("cs4", "policies")),
    ("report_only", Key::Labelled("cs5", "reportOnlyPolicies")),
    ("connector", Key::Labelled("cs6", "connector")),
    ("method", Key::Plain("requestMethod")),
    ("host", Key::Plain("dhost")),
    ("path", Key::Plain("request")),
    ("status", Key::Labelled("cn1", "status")),
    ("refusal", Key::Plain("reason")),
    ("bytes_in", Key::Plain("in")),
    ("bytes_out", Key::Plain("out")),
    ("snapshot", Key::Labelled("cn2", "snapshot")),
    ("event", Key::Said),
    ("detail", Key::Plain("msg")),
    ("dropped", Key::Plain("cnt")),
];

pub fn line(record: &Record<'_>) -> String {
    let (id, name) = event(record.what);
    let version = env!("CARGO_PKG_VERSION");
    let mut line = format!("CEF:0|Postern|Postern|{version}|{}|{}|", header(&id), header(&name));
    line.push_str(match record.what.severity() {
        Severity::Information => "1",
        Severity::Low => "3",
        Severity::Medium => "5",
    });
    line.push('|');
    let mut extension = Extension { line, first: true };
    extension.put("rt", &record.time_ms.to_string());
    extension.put("externalId", &record.id);
    extension.put("cat", record.what.kind());
    extension.put("posternTenant", record.tenant);
    for (field, value) in record.fields() {
        extension.field(field.name, value);
    }
    extension.line
}

/// The event class id, which rules of a SIEM match on, and its name.
fn event(what: What<'_>) -> (String, Cow<'static, str>) {
    match what {
        What::SignIn(it) => (format!("sign_in:{}", it.outcome), "Sign-in".into()),
        What::Access(it) if it.refusal.is_empty() => ("access:forwarded".into(), "Request forwarded".into()),
        What::Access(it) => (format!("access:{}", it.refusal), "Request refused".into()),
        What::Connector(it) => (format!("connector:{}", it.what), format!("Connector {}", it.what).into()),
        What::Gap(_) => ("gap".into(), "Activity dropped".into()),
    }
}

struct Extension {
    line: String,
    first: bool,
}

impl Extension {
    fn field(&mut self, name: &str, value: Value<'_>) {
        let text = match value {
            Value::Absent => return,
            Value::Text(it) => Cow::from(it),
            Value::Number(it) => it.to_string().into(),
            Value::Flag(it) => it.to_string().into(),
            Value::List(it) => it.join(",").into(),
        };
        if text.is_empty() {
            return;
        }
        match KEYS.iter().find(|(of, _)| *of == name).map(|(_, key)| key) {
            None => self.put(&custom(name), &text),
            Some(Key::Plain(key)) => self.put(key, &text),
            Some(Key::Labelled(key, label)) => {
                self.put(key, &text);
                self.put(&format!("{key}Label"), label);
            }
            // The format knows only IPv4 in `src`.
            Some(Key::Address) => match text.parse() {
                Ok(IpAddr::V4(_)) => self.put("src", &text),
                Ok(IpAddr::V6(_)) => {
                    self.put("c6a2", &text);
                    self.put("c6a2Label", "Source IPv6 Address");
                }
                Err(_) => self.put(&custom(name), &text),
            },
            Some(Key::Said) => {}
        }
    }

    fn put(&mut self, key: &str, value: &str) {
        if !std::mem::take(&mut self.first) {
            self.line.push(' ');
        }
        self.line.push_str(key);
        self.line.push('=');
        for letter in value.chars() {
            match letter {
                '\\' => self.line.push_str("\\\\"),
                '=' => self.line.push_str("\\="),
                '\n' => self.line.push_str("\\n"),
                '\r' => self.line.push_str("\\r"),
                it => plain(&mut self.line, it),
            }
        }
    }
}

/// Line ends mean nothing in a header and are not allowed there.
fn header(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => escaped.push_str("\\\\"),
            '|' => escaped.push_str("\\|"),
            it => plain(&mut escaped, it),
        }
    }
    escaped
}

/// A letter that shows as itself, or its code point.
fn plain(line: &mut String, letter: char) {
    // Two more that some readers take for the end of a line.
    if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') {
        // Writing into a String does not fail.
        let _written = write!(line, "\\\\u{{{:x}}}", u32::from(letter));
    } else {
        line.push(letter);
    }
}

/// `wait_us` is `posternWaitUs`: custom keys have letters and digits only.
fn custom(name: &str) -> String {
    let capitalised = name.split('_').map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
    capitalised.fold("postern".to_owned(), |key, word| key + &word)
}

#[cfg(test)]
pub(crate) fn fields_with_keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(field, _)| *field)
}
