//! The world a story plays in: real processes, a browser of sorts, an
//! application to publish. Each story owns its world.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop")]

pub mod browser;
pub mod cluster;
pub mod collector;
pub mod http2;
pub mod http3;
pub mod names;
pub mod origin;
pub mod processes;
pub mod provider;
pub mod world;

use std::time::Duration;

/// Waits for a state, never for a duration.
pub async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    const PATIENCE: Duration = Duration::from_secs(30);
    let waited = async {
        loop {
            if let Some(value) = holds().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waited).await {
        Ok(value) => value,
        Err(_) => panic!("never came: {what}"),
    }
}
