//! The sharing of one renewal, on paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::sessions::session::alice;

/// One token's renewal, and how often identity was asked.
#[derive(Default)]
struct World {
    renewal: Arc<Renewal>,
    asked: Arc<AtomicUsize>,
    tasks: TaskTracker,
}

impl World {
    /// Somebody needs the session; identity would answer after `takes`.
    fn join(&self, takes: Duration, answer: Result<Arc<Session>, Refusal>) -> Joined {
        let asked = self.asked.clone();
        self.renewal.clone().join(&self.tasks, move || {
            asked.fetch_add(1, Ordering::SeqCst);
            async move {
                sleep(takes).await;
                answer
            }
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

const HANGS: Duration = Duration::from_secs(3600);
const AWAY: Result<Arc<Session>, Refusal> = Err(Refusal::SignInUnavailable);

fn fresh() -> Result<Arc<Session>, Refusal> {
    Ok(Arc::new(Session::of("fresh", alice())))
}

fn is_fresh(outcome: &Result<Arc<Session>, Refusal>) -> bool {
    outcome.as_ref().is_ok_and(|it| it.token == "fresh")
}

#[tokio::test(start_paused = true)]
async fn a_hundred_exchanges_ask_once_and_all_are_told() {
    let world = World::default();
    let all = (0..100).map(|_| world.join(Duration::from_millis(30), fresh()).outcome());
    let outcomes = futures_util::future::join_all(all).await;
    assert!(outcomes.iter().all(is_fresh));
    assert_eq!(world.asked(), 1);
    assert!(is_fresh(&world.join(HANGS, AWAY).outcome().await), "and it stays known");
}

#[tokio::test(start_paused = true)]
async fn with_identity_silent_a_hundred_exchanges_know_within_a_second() {
    let world = World::default();
    let began = Instant::now();
    let all = (0..100).map(|_| world.join(HANGS, AWAY).outcome());
    let outcomes = futures_util::future::join_all(all).await;
    assert!(outcomes.iter().all(|it| *it.as_ref().unwrap_err() == Refusal::SignInUnavailable));
    assert_eq!((began.elapsed(), world.asked()), (RENEWAL_WAIT, 1));
    // Who comes now does not queue behind it.
    let began = Instant::now();
    assert!(world.join(HANGS, AWAY).outcome().await.is_err());
    assert_eq!((began.elapsed(), world.asked()), (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_and_forgotten() {
    let world = World::default();
    assert!(world.join(Duration::ZERO, AWAY).outcome().await.is_err());
    let began = Instant::now();
    for _ in 0..100 {
        assert!(world.join(Duration::ZERO, fresh()).outcome().await.is_err());
    }
    assert_eq!((began.elapsed(), world.asked()), (Duration::ZERO, 1), "answered at once, and identity is left alone");
    sleep(FAILURE_LIFE).await;
    assert!(is_fresh(&world.join(Duration::ZERO, fresh()).outcome().await), "identity is back");
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_serves_the_next_request() {
    let world = World::default();
    assert!(world.join(RENEWAL_WAIT + Duration::from_millis(300), fresh()).outcome().await.is_err());
    sleep(Duration::from_millis(500)).await;
    assert!(is_fresh(&world.join(HANGS, AWAY).outcome().await));
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn identity_is_asked_again_after_it_said_nothing() {
    let world = World::default();
    assert!(world.join(HANGS, AWAY).outcome().await.is_err());
    sleep(RENEWAL_TIMEOUT).await;
    assert!(is_fresh(&world.join(Duration::from_millis(5), fresh()).outcome().await));
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_the_renewal_from_nobody() {
    let world = World::default();
    let first = world.join(Duration::from_millis(30), fresh());
    let second = world.join(HANGS, AWAY);
    // A request that began it and was given up.
    drop(first);
    assert!(is_fresh(&second.outcome().await));
    assert_eq!(world.asked(), 1);
}
