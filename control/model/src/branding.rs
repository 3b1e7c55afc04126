//! How pages for people who were refused look.

use crate::text::Broken;

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
    pub fn recorded(name: &str, accent: &str, support_url: &str) -> Self {
        Self { name: name.trim().into(), accent: accent.to_ascii_lowercase(), support_url: support_url.into() }
    }

    pub fn check(&self) -> Result<(), Broken> {
        if self.name.chars().count() > 64 || self.name.chars().any(char::is_control) {
            return Err(Broken::new("name", "has 64 characters at most, none of them a control character"));
        }
        let is_colour =
            self.accent.strip_prefix('#').is_some_and(|it| it.len() == 6 && it.bytes().all(|b| b.is_ascii_hexdigit()));
        if !self.accent.is_empty() && !is_colour {
            return Err(Broken::new("accent", "is a colour such as #2f5d50"));
        }
        let url = &self.support_url;
        let known = url.starts_with("https://") || url.starts_with("mailto:");
        let plain = url.len() <= 256 && url.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        if !(url.is_empty() || known && plain) {
            return Err(Broken::new("support_url", "begins with https:// or mailto: and has 256 characters at most"));
        }
        Ok(())
    }
}
