//! What stays as it is when there is more of everything: requests beside large
//! and stalled transfers, more applications, more connectors, a long way.

use std::time::Duration;

use postern_tests::{cluster, world};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};

use super::*;

const STALLED: usize = 40;
const APPLICATIONS: [usize; 3] = [10, 1_000, 10_000];
const CONNECTORS: [usize; 3] = [1, 10, 100];
const GIGABIT: f64 = 1e9 / 8.0;
const ROUND_TRIP: Duration = Duration::from_millis(100);
const PACE: Duration = Duration::from_millis(5);

pub(crate) async fn print(
    postern: &mut Postern,
    pair: &Chain,
    backend: u16,
    seconds: u32,
    folder: &Folder,
    is_wanted: &dyn Fn(&str) -> bool,
) {
    if is_wanted("scale beside") {
        for chain in [pair, &postern.chain()] {
            beside(chain, seconds, folder).await;
        }
        let (relay, connector) = (&postern.cluster.relays[0], &postern.cluster.connectors[0]);
        println!("Relay then: {} KiB, connector {} KiB", relay.rss_kib(), connector.rss_kib());
    }
    if is_wanted("scale applications") {
        applications(postern, backend, seconds, folder).await;
    }
    if is_wanted("scale connectors") {
        connectors(postern, seconds, folder).await;
    }
    if is_wanted("scale far away") {
        far_away(postern, seconds, folder).await;
    }
}

/// Small requests, one at a time, while others take the same links.
async fn beside(chain: &Chain, seconds: u32, folder: &Folder) {
    println!("\nGET 1 KiB one at a time, {}, beside{:>18}{:>9}", chain.name, "p50 ms", "p99 ms");
    let row = |what: &str, figure: Option<Figure>| match figure {
        Some(figure) => println!("{what:<49}{:>10.2}{:>9.2}", figure.p50_ms, figure.p99_ms),
        None => println!("{what:<49}{:>19}", "none completes"),
    };
    row("nothing", attempt(chain, Load::Alone, seconds, folder).await);
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut stream = tls(chain).await;
        stream.write_all(get(chain, "/10m").as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    sleep(Duration::from_secs(1)).await;
    row(&format!("{STALLED} downloads nobody reads"), attempt(chain, Load::Alone, seconds, folder).await);
    drop(stalled);
    let (bulk, root) = (chain.clone(), Folder::default());
    fs::copy(folder.0.join("10m"), root.0.join("10m")).unwrap();
    let running = spawn_blocking(move || h2load(&bulk, Load::Download, seconds + 2, &root.0));
    sleep(Duration::from_millis(500)).await;
    row("8 downloads of 10 MiB, as fast as they go", attempt(chain, Load::Alone, seconds, folder).await);
    running.await.unwrap();
}

/// The same load over ever more connectors of one group.
async fn connectors(postern: &mut Postern, seconds: u32, folder: &Folder) {
    println!("\nGET 1 KiB, HTTP/1.1, 64 connections, by connectors{:>15}{:>9}", "us/request", "rate");
    let mut chain = postern.chain();
    for count in CONNECTORS {
        while postern.cluster.connectors.len() < count {
            let n = postern.cluster.connectors.len() + 1;
            let invitation = cluster::token(&postern.cluster.admin, "default").await;
            let connector = cluster::start_connector(&postern.cluster.folder, n, &invitation).await;
            pin(connector.child.id(), CHAIN_CORE);
            chain.processes.push(connector.child.id());
            postern.cluster.connectors.push(connector);
        }
        let figure = measure(&chain, Load::Http1, seconds, folder).await;
        println!("{count:<50}{:>15.1}{:>9.0}", figure.cpu, figure.rate);
    }
    postern.cluster.connectors.truncate(1);
}

/// The same load while ever more applications are published.
async fn applications(postern: &Postern, backend: u16, seconds: u32, folder: &Folder) {
    println!(
        "\nGET 1 KiB, HTTP/1.1, 64 connections, by applications{:>13}{:>9}{:>12}",
        "us/request", "rate", "relay KiB"
    );
    let origin = format!("http://127.0.0.1:{backend}");
    let (mut published, chain) = (1, postern.chain());
    for count in APPLICATIONS {
        let mut publishing = JoinSet::new();
        while published < count {
            let app = v1::App { ..world::app(&format!("more-{published}"), &origin) };
            let request = v1::PublishAppRequest { change: None, app: Some(app), assign_caller: false };
            let admin = postern.cluster.admin.applications();
            publishing.spawn(async move { admin.clone().publish(request).await.unwrap() });
            published += 1;
            if publishing.len() >= 32 {
                publishing.join_next().await;
            }
        }
        publishing.join_all().await;
        sleep(Duration::from_secs(2)).await;
        let figure = measure(&chain, Load::Http1, seconds, folder).await;
        let memory = postern.cluster.relays[0].rss_kib();
        println!("{count:<52}{:>13.1}{:>9.0}{memory:>12}", figure.cpu, figure.rate);
    }
}

/// One download over a link of 1 Gbit/s with a round trip of 100 ms.
async fn far_away(postern: &mut Postern, seconds: u32, folder: &Folder) {
    // Longer than anybody waits, and a hole on the disk.
    fs::File::create(folder.0.join("8g")).unwrap().set_len(8 << 30).unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let mut delaying = JoinSet::new();
    delaying.spawn(delay(proxy));
    let chain = postern.chain();
    postern.cluster.connectors.clear();
    let mut command = postern.cluster.folder.program("postern-connector");
    command
        .args(["run", "--state"])
        .arg(postern.cluster.folder.0.join("connector-0"))
        .env("POSTERN_CONNECTOR_PROXY", format!("http://{address}"));
    let mut far = Running::start("far-connector", &mut command);
    far.line(|line| line.contains("link up").then_some(())).await;
    // The window follows the round trip once that was measured.
    sleep(Duration::from_secs(12)).await;
    let mut stream = tls(&chain).await;
    let mut buffer = vec![0; 1024 * 1024];
    let (mut read, started) = (0, Instant::now());
    let mut counted_from = None;
    stream.write_all(get(&chain, "/8g").as_bytes()).await.unwrap();
    while started.elapsed() < Duration::from_secs(u64::from(seconds) + 3) {
        let count = stream.read(&mut buffer).await.unwrap();
        // Without the slow start of what is below.
        if started.elapsed() > Duration::from_secs(3) {
            counted_from.get_or_insert_with(Instant::now);
            read += count;
        }
    }
    let rate = read as f64 / counted_from.unwrap().elapsed().as_secs_f64();
    println!(
        "\nOne download over 1 Gbit/s with {} ms there and back: {:.0} MB/s, {:.0} % of the link",
        ROUND_TRIP.as_millis(),
        rate / 1e6,
        100.0 * rate / GIGABIT
    );
}

/// A proxy (HTTP CONNECT) behind which everything is far away.
async fn delay(proxy: TcpListener) {
    let mut ways = JoinSet::new();
    while let Ok((mut near, _)) = proxy.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(near.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        // Of the two relays only one runs.
        let Ok(far) = TcpStream::connect(head.split(' ').nth(1).unwrap()).await else { continue };
        near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        ways.spawn(way(near_read, far_write));
        ways.spawn(way(far_read, near_write));
    }
}

/// One direction: half a round trip behind, and no faster than the link.
async fn way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // Large enough for what is under way.
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let reading = async {
        let mut free = Instant::now();
        loop {
            let mut piece = vec![0; 64 * 1024];
            let Ok(count @ 1..) = from.read(&mut piece).await else { return };
            piece.truncate(count);
            // Who was held back for too long by our own timers may catch up.
            free = free.max(Instant::now() - PACE) + Duration::from_secs_f64(count as f64 / GIGABIT);
            if sender.send((free + ROUND_TRIP / 2, piece)).await.is_err() {
                return;
            }
            if free - Instant::now() > PACE {
                sleep_until(free).await;
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
