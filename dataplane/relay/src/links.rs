//! Links, the connections to connectors: the streams parked on them, and what
//! each is told.

pub mod audience;
pub(crate) mod connectors;
pub mod link;

use std::sync::Arc;

use tokio::time::{Instant, sleep};
use tunnel::link::STREAMLESS_LOOK;

use crate::{
    current::Current,
    life::Life,
    links::{audience::Audience, connectors::Connectors},
    record::Recorder,
};

pub(crate) struct Links {
    pub connectors: Arc<Connectors>,
    pub audience: Arc<Audience>,
    pub current: Arc<Current>,
    pub recorder: Arc<Recorder>,
    pub life: Life,
    /// `https://HOST:PORT` of controllers, for connectors that enrol.
    pub controllers: Vec<String>,
    /// Of this relay: a connector has a link to each.
    pub threads: u32,
}

impl Links {
    /// Keeps links able to take requests.
    pub(crate) async fn look_after(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = sleep(STREAMLESS_LOOK) => {}
                () = self.life.ended.cancelled() => return,
            }
            let supply = self.connectors.look_after(Instant::now());
            self.recorder.metrics.parked_streams.set(supply.parked as i64);
        }
    }
}
