//! Follows a stream as it grows, and checks now and then that nothing was missed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::{Position, event::Stream};
use tokio::sync::watch;
use tracing::{error, warn};

use super::{
    View, chain_of,
    fold::{Fold, in_a_row},
};
use crate::{Entry, EventLog, past::Past};

/// How often a reader makes sure that it has seen the end of the log.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct Follower {
    pub(super) log: EventLog,
    pub(super) stream: Stream,
    pub(super) fold: Arc<Mutex<Fold>>,
    pub(super) views: watch::Sender<View>,
    pub(super) past: Past,
}

impl Follower {
    pub(super) async fn run(self) {
        let start = self.position();
        let mut follow = self.log.follow(self.stream, start);
        let mut confirm = tokio::time::interval(CONFIRM_INTERVAL);
        let mut tell_once = true;
        loop {
            let entries = tokio::select! {
                next = follow.next() => next,
                _ = confirm.tick() => {
                    self.confirm().await;
                    continue;
                }
            };
            match entries {
                Ok(entries) => {
                    tell_once = true;
                    if let Err(quarantined) = self.apply(&entries) {
                        self.quarantine(&quarantined);
                        return;
                    }
                    self.keep(&entries).await;
                }
                Err(error) => {
                    if std::mem::take(&mut tell_once) {
                        warn!(stream = self.stream.name(), error = %chain_of(&error), "lost the log; serving what is known");
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    follow = self.log.follow(self.stream, self.position());
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fold> {
        self.fold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self) -> Position {
        self.lock().snapshot.position(self.stream)
    }

    fn apply(&self, entries: &[Entry]) -> Result<(), String> {
        let mut fold = self.lock();
        let mut outcome = Ok(());
        for entry in entries {
            if fold.quarantine.is_some() {
                break;
            }
            let after = fold.snapshot.position(self.stream);
            if let Err(moved) = in_a_row(self.stream, after, std::slice::from_ref(entry)) {
                outcome = Err(moved.to_string());
                break;
            }
            if let Err(refused) = fold.fold(self.stream, entry) {
                outcome = Err(format!("event {} of {}: {refused}", entry.position, self.stream.name()));
                break;
            }
            fold.snapshot.advance(self.stream, entry.position);
        }
        self.views.send_replace(fold.view());
        outcome
    }

    fn quarantine(&self, why: &str) {
        error!(%why, "an event cannot be believed; no further event is applied");
        let mut fold = self.lock();
        fold.quarantine = Some(why.into());
        self.views.send_replace(fold.view());
    }

    /// Only a reader that has everything may say that it is up to date.
    async fn confirm(&self) {
        let Ok(head) = self.log.head(self.stream).await else { return };
        let mut fold = self.lock();
        let position = fold.snapshot.position(self.stream);
        if head < position {
            let why = format!("{} ends at {head}, before {position} where it was seen", self.stream.name());
            drop(fold);
            self.quarantine(&why);
            return;
        }
        if head == position && fold.quarantine.is_none() {
            fold.confirm(self.stream);
            let confirmed = fold.confirmed;
            // Nobody needs to wake up for this.
            self.views.send_if_modified(|view| {
                view.confirmed = confirmed;
                false
            });
        }
    }

    async fn keep(&self, entries: &[Entry]) {
        self.past.mirror(self.stream, entries).await;
        let it = self.lock().last(self.stream);
        self.past.keep(self.stream, it).await;
    }
}
