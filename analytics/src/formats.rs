//! Formats: a record as text, one line each. Every format is made from the table
//! of fields in `record`; a value can never end its line or forge another field.

pub mod cef;
pub mod ocsf;

use serde::Deserialize;

use crate::record::Record;

/// How records are written for a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// OCSF 1.8, one JSON object.
    #[default]
    Ocsf,
    /// ArcSight Common Event Format, version 0.
    Cef,
}

impl Format {
    /// One line, without its end.
    pub fn line(self, record: &Record<'_>) -> String {
        match self {
            Self::Ocsf => ocsf::line(record),
            Self::Cef => cef::line(record),
        }
    }
}
