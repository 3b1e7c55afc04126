//! A log on virtual time, as a simulation gives it to one of its processes: late,
//! and now and then without an answer.
//!
//! Events are written by a thread, which virtual time would not wait for. So
//! whoever waits for that thread keeps the runtime busy, and time stands still.

use std::{fmt, sync::Arc};

use model::Position;
use tokio::time::{Duration, sleep};

use crate::{AppendError, LogError};

/// When something may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Events leave for the log.
    Append,
    /// They are in it, and the answer is on its way.
    Answer,
    /// Others read of them.
    Follow,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Disturbance {
    pub delay: Duration,
    /// The answer never comes, though the events are there.
    pub lost: bool,
}

type Weather = dyn Fn(Moment) -> Disturbance + Send + Sync;

#[derive(Clone)]
pub(crate) struct Simulated(Arc<Weather>);

impl Simulated {
    pub(crate) fn new(weather: impl Fn(Moment) -> Disturbance + Send + Sync + 'static) -> Self {
        Self(Arc::new(weather))
    }

    pub(crate) async fn append(
        &self,
        appended: impl Future<Output = Result<Position, AppendError>>,
    ) -> Result<Position, AppendError> {
        sleep((self.0)(Moment::Append).delay).await;
        let position = standing_still(appended).await?;
        let Disturbance { delay, lost } = (self.0)(Moment::Answer);
        sleep(delay).await;
        match lost {
            true => Err(AppendError::Unknown(LogError::new("appending", "the answer is lost"))),
            false => Ok(position),
        }
    }

    /// For how long a reader does not see what is there.
    pub(crate) fn lag(&self) -> Duration {
        (self.0)(Moment::Follow).delay
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulated")
    }
}

/// Virtual time stands still while somebody has something to do.
async fn standing_still<T>(done: impl Future<Output = T>) -> T {
    let busy = async {
        loop {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = done => done,
        never = busy => never,
    }
}

#[cfg(test)]
mod tests {
    use model::event::Stream;
    use tokio::time::Instant;

    use super::*;
    use crate::{Append, EventLog};

    #[tokio::test(start_paused = true)]
    async fn readers_are_late_and_an_answer_that_is_lost_leaves_the_event() {
        let folder = std::env::temp_dir().join(format!("simulated-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&folder).unwrap();
        let log = EventLog::open(&folder.join("log.db")).unwrap();
        let lag = Duration::from_secs(5);
        let forgetful = log.simulated(move |moment| match moment {
            Moment::Append | Moment::Answer => Disturbance { lost: true, ..Default::default() },
            Moment::Follow => Disturbance { delay: lag, ..Default::default() },
        });
        let event = || Append { subject: "postern.config.default.app.1".into(), bytes: vec![1].into() };
        let answer = forgetful.append(Stream::Config, vec![event()], Some(0)).await;
        assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
        let begun = Instant::now();
        let entries = forgetful.follow(Stream::Config, 0).next().await.unwrap();
        assert_eq!((entries.len(), entries[0].position), (1, 1));
        assert!(begun.elapsed() >= lag);
        let again = forgetful.append(Stream::Config, vec![event()], Some(0)).await;
        assert!(matches!(again, Err(AppendError::Conflict { at: 1 })), "{again:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
