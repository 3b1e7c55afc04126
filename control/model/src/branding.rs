//! How pages for people who were refused look.

use crate::app::Invalid;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branding {
    /// Of the organisation; empty shows none.
    pub name: String,
    /// `#rrggbb`; empty is our own.
    pub accent: String,
    /// Where people get help; empty shows none.
    pub support_url: String,
}

impl Branding {
    pub fn parse(name: &str, accent: &str, support_url: &str) -> Result<Self, Invalid> {
        let name = name.trim();
        if name.chars().count() > 64 || name.chars().any(char::is_control) {
            return Err(Invalid("name: has 64 characters at most, none of them a control character"));
        }
        let is_colour =
            accent.strip_prefix('#').is_some_and(|it| it.len() == 6 && it.bytes().all(|b| b.is_ascii_hexdigit()));
        if !accent.is_empty() && !is_colour {
            return Err(Invalid("accent: is a colour such as #2f5d50"));
        }
        let known = support_url.starts_with("https://") || support_url.starts_with("mailto:");
        let plain = support_url.len() <= 256 && support_url.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        if !(support_url.is_empty() || known && plain) {
            return Err(Invalid("support_url: begins with https:// or mailto: and has 256 characters at most"));
        }
        Ok(Self { name: name.into(), accent: accent.to_ascii_lowercase(), support_url: support_url.into() })
    }
}
