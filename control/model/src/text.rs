//! Texts with a grammar: names, header names, hosts, paths, pins.
//!
//! Each has two readers. `recorded` takes whatever a log may hold and fails only
//! on grammar that never changes. `parse` also holds today's rules; they are for
//! what is written now, and a rule that is tightened never stops a reader.

use std::{fmt, sync::Arc};

use thiserror::Error;

use crate::ids::is_label;

/// Why a text is not what it should be: the field's rule, in one sentence.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// A display name: 1 to 64 characters, none of them a control character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let name = Self::recorded(text);
        let valid = (1..=64).contains(&name.0.chars().count()) && !name.0.chars().any(char::is_control);
        valid.then_some(name).ok_or(Invalid("a name has 1 to 64 characters and no control characters"))
    }

    pub fn recorded(text: &str) -> Self {
        Self(text.trim().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

const TAKEN: Invalid = Invalid("this header belongs to HTTP or to Postern; choose another name, such as X-Remote-User");

const GRAMMAR: Invalid = Invalid("a header name has 1 to 64 letters, digits and hyphens");

/// A header the administrator chose for a fact about the user, or for a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderName(Arc<str>);

impl HeaderName {
    /// Letters, digits and hyphens, and nothing that HTTP or Postern itself uses.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const ALSO_HTTP: [&str; 2] = ["authorization", "content-type"];
        match ALSO_HTTP.iter().any(|it| text.eq_ignore_ascii_case(it)) {
            true => Err(TAKEN),
            false => Self::parse_rule(text),
        }
    }

    /// Rules may also touch fields with a meaning of their own, such as
    /// Content-Type.
    pub fn parse_rule(text: &str) -> Result<Self, Invalid> {
        const OURS: [&str; 15] = [
            "host",
            "connection",
            "content-length",
            "transfer-encoding",
            "upgrade",
            "te",
            "trailer",
            "keep-alive",
            "expect",
            "cookie",
            "set-cookie",
            "forwarded",
            "proxy-authorization",
            "proxy-connection",
            "x-request-id",
        ];
        let lower = text.to_ascii_lowercase();
        let grammar = (1..=64).contains(&text.len())
            && lower.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !grammar {
            return Err(GRAMMAR);
        }
        let prefixed = lower.starts_with("x-forwarded-") || lower.starts_with("postern-");
        match OURS.contains(&lower.as_str()) || prefixed {
            true => Err(TAKEN),
            false => Ok(Self(text.into())),
        }
    }

    /// A field name as HTTP knows it (RFC 9110, section 5.1).
    pub fn recorded(text: &str) -> Result<Self, Invalid> {
        is_token(text).then(|| Self(text.into())).ok_or(GRAMMAR)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 9110, section 5.6.2.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A SHA-256, written in base64 (as RFC 7469 writes pins).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

/// Is a path under a prefix of whole segments? `/wiki` and `/wiki/x` are under
/// `/wiki/`, and under `/wiki`.
pub fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

/// At least one label, at most 253 bytes, all labels valid. `strict::canonical`
/// has a twin, as it may know nothing of the model; a test holds them alike.
pub fn is_host(host: &str) -> bool {
    host.len() <= 253 && host.split('.').all(is_label)
}

/// Words that administrators file objects under: `team=web`.
pub type Labels = std::collections::BTreeMap<String, String>;

const LABELS_MAX: usize = 16;

/// Labels are few and short: they are compared, never searched as text.
pub fn check_labels(labels: &Labels) -> Result<(), Invalid> {
    let short = |it: &str| it.len() <= 63 && it.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    let valid = |(name, value): (&String, &String)| !name.is_empty() && short(name) && short(value);
    (labels.len() <= LABELS_MAX && labels.iter().all(valid))
        .then_some(())
        .ok_or(Invalid("16 labels at most, of at most 63 letters, digits, '-', '_', '.' and '/' each"))
}

/// A field that breaks a rule of today.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct Broken {
    pub field: &'static str,
    pub problem: &'static str,
}

impl Broken {
    pub fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }
}

/// Names the field in a rule about its value.
pub trait InField<T> {
    fn in_field(self, field: &'static str) -> Result<T, Broken>;
}

impl<T> InField<T> for Result<T, Invalid> {
    fn in_field(self, field: &'static str) -> Result<T, Broken> {
        self.map_err(|Invalid(problem)| Broken { field, problem })
    }
}
