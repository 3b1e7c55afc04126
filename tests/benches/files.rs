//! How long a file of applications takes, from the command to the last event.
//!
//! `cargo bench -p postern-tests --bench files` applies files of 10,000 and then
//! of 100,000 applications, each with an assignment, on the embedded log and over
//! a broker that syncs every write; then the same file again, and one with a
//! single difference. The time for each application beside the smaller file's
//! says whether a large installation costs more for each than a small one. A
//! number behind it is the applications of the larger file.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures time, and stops when it cannot go on"
)]

use std::{fmt::Write, path::Path, process::Command, time::Instant};

use postern_tests::{cluster::Cluster, processes::binary, world::World};

const APPLICATIONS: usize = 100_000;

#[tokio::main]
async fn main() {
    let applications = std::env::args().skip(1).find_map(|it| it.parse().ok()).unwrap_or(APPLICATIONS);
    println!("{:10} {:>8} {:>12} {:>10} {:>10} {:>10}", "log", "apps", "first, s", "us an app", "again, s", "one, s");
    {
        let world = World::start().await;
        measure("embedded", &world.folder.0, &world.folder.0.join("data/owner.json"), applications);
    }
    // The clusters of stories have small streams.
    let roomy = ("POSTERN_LOG__STATE_MIB_MAX", "1024".to_owned());
    let cluster = Cluster::start_with(vec![roomy]).await;
    measure("JetStream", &cluster.folder.0, &cluster.folder.0.join("keys-controller-0/owner.json"), applications);
}

fn measure(log: &str, folder: &Path, credential: &Path, applications: usize) {
    for (part, count) in [(0, applications / 10), (1, applications)] {
        let file = folder.join("apps.yaml");
        std::fs::write(&file, apps(part, count, "http://10.0.0.1:8080")).unwrap();
        let first = apply(&file, credential, &format!("{} changed", 2 * count));
        let again = apply(&file, credential, "nothing to change");
        let text = apps(part, count, "http://10.0.0.1:8080");
        std::fs::write(&file, text.replacen("10.0.0.1", "10.0.0.2", 1)).unwrap();
        let one = apply(&file, credential, "1 changed");
        let each = first * 1e6 / count as f64;
        println!("{log:10} {count:8} {first:12.1} {each:10.0} {again:10.1} {one:10.1}");
    }
}

fn apps(part: usize, count: usize, origin: &str) -> String {
    let mut text = "apps:\n".to_owned();
    for n in 0..count {
        let _written = writeln!(text, "- name: app-{part}-{n}\n  origin: {origin}");
    }
    text.push_str("assignments:\n");
    for n in 0..count {
        let _written = writeln!(text, "- app: app-{part}-{n}\n  principal: everyone");
    }
    text
}

/// Seconds.
fn apply(file: &Path, credential: &Path, said: &str) -> f64 {
    let begun = Instant::now();
    let mut command = Command::new(binary("postern"));
    let output = command.arg("--credential").arg(credential).args(["apply", "-f"]).arg(file).output().unwrap();
    let took = begun.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().last(), Some(said));
    took
}
