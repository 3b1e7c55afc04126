//! Where events are filed: in which stream, on which subject.

use crate::ids::TenantId;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Config,
    Directory,
    Risk,
    Activity,
}

impl Stream {
    pub const ALL: [Self; 4] = [Self::Config, Self::Directory, Self::Risk, Self::Activity];

    /// Streams whose fold is the snapshot; each subject of theirs is a hash chain.
    pub const STATE: [Self; 3] = [Self::Config, Self::Directory, Self::Risk];

    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Directory => "directory",
            Self::Risk => "risk",
            Self::Activity => "activity",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }

    pub fn is_state(self) -> bool {
        self != Self::Activity
    }
}

/// Where an event is filed: `postern.<stream>.<tenant>.<kind>.<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub stream: Stream,
    pub kind: &'static str,
    pub id: String,
}

impl Subject {
    pub fn path(&self, tenant: &TenantId) -> String {
        format!("postern.{}.{tenant}.{}.{}", self.stream.name(), self.kind, self.id)
    }
}
