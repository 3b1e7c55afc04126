//! What hashing passwords keeps. A process of its own, because other tests hash too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::sync::Arc;

use runtime::{
    Clock,
    hashing::{HASHING_THREADS, Hashing},
};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rush_of_hashes_keeps_one_area_a_thread() {
    const HASHES: usize = 240;
    const AT_ONCE: usize = 48;
    const PASSWORD: &str = "correct horse battery";
    let hashing = Arc::new(Hashing::start().unwrap());
    let before = resident_kib();
    let hash = hashing.hash(PASSWORD.into()).await.unwrap();
    let started = Clock::default().instant();
    for _ in 0..HASHES / AT_ONCE {
        let mut rush = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (hashing, hash) = (hashing.clone(), hash.clone());
            rush.spawn(async move { hashing.verify(PASSWORD.into(), hash).await });
        }
        assert!(rush.join_all().await.into_iter().all(|it| it == Ok(true)));
    }
    let grown_mib = resident_kib().saturating_sub(before) / 1024;
    let rate = HASHES as f64 / started.elapsed().as_secs_f64();
    println!("{HASHES} passwords checked, {AT_ONCE} at once: {rate:.0} a second, {grown_mib} MiB more");
    assert!(grown_mib <= 19 * HASHING_THREADS as u64 + 10, "{grown_mib} MiB more");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
