//! Tasks of a relay, and the two moments in which it ends: `stop` begins the
//! drain, `ended` is the end of the grace period.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[derive(Clone)]
pub(crate) struct Life {
    pub tasks: TaskTracker,
    /// Begins the drain.
    pub stop: CancellationToken,
    /// The grace period is over.
    pub ended: CancellationToken,
}

impl Life {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { tasks: TaskTracker::new(), stop, ended: CancellationToken::new() }
    }
}
