//! WebSockets, as others test them.

use std::{collections::BTreeMap, process::Command};

use postern_tests::{
    processes::{Folder, Running, free_port, tool},
    until,
    world::{PASSWORD, World, app},
};
use proto::v1;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use url::{Position, Url};

/// What the suite says of each case: of the messages, and of the end.
type Verdicts = BTreeMap<String, (String, String)>;

#[tokio::test]
#[ignore = "needs Python 2.7: tests/autobahn/run"]
async fn autobahn_says_the_same_through_postern_as_straight_to_the_server() {
    let world = World::start().await;
    let folder = Folder::default();
    let port = free_port();
    let straight = format!("ws://127.0.0.1:{port}");
    let _server = Running::start("server", wstest(&folder).args(["-m", "testeeserver", "-w", &straight]));
    until("the server", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
    world.user("alice").await;
    // The server insists on its own port.
    let host_header = v1::HostHeader::Origin.into();
    let echo = v1::App { host_header, ..app("echo", &format!("http://127.0.0.1:{port}")) };
    world.publish(echo, &["everyone"]).await;
    let (way_in, _ways) = way_in(&world).await;
    let through = format!("ws://127.0.0.1:{way_in}");
    let servers = json!([{ "agent": "straight", "url": straight }, { "agent": "through", "url": through }]);
    // Neither how fast the server is, nor how it compresses: long, and of no relay.
    let options = json!({
        "outdir": folder.0, "servers": servers, "cases": ["*"], "exclude-cases": ["9.*", "12.*", "13.*"],
    });
    let file = folder.0.join("suite.json");
    std::fs::write(&file, options.to_string()).unwrap();
    let mut suite = wstest(&folder);
    suite.args(["-m", "fuzzingclient", "-s"]).arg(file);
    let said = tokio::task::spawn_blocking(move || suite.output().unwrap()).await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));

    let report: Value = serde_json::from_slice(&std::fs::read(folder.0.join("index.json")).unwrap()).unwrap();
    let (straight, through) = (verdicts(&report["straight"]), verdicts(&report["through"]));
    assert!(straight.len() > 240, "{} cases", straight.len());
    let both = straight.iter().map(|(case, verdict)| (case, verdict, through.get(case)));
    let other: Vec<_> = both.filter(|(_, straight, through)| Some(*straight) != *through).collect();
    assert!(other.is_empty(), "straight, and through Postern: {other:?}");
    let mut counts = BTreeMap::<_, usize>::new();
    for verdict in through.values() {
        *counts.entry(verdict).or_default() += 1;
    }
    println!("{} cases, the same verdicts: {counts:?}", straight.len());
}

/// A port that leads to the application as alice: the suite knows neither cookies
/// nor the names of hosts in TLS.
async fn way_in(world: &World) -> (u16, JoinSet<()>) {
    let url = Url::parse(&world.url("echo", "/")).unwrap();
    let mut alice = world.browser();
    alice.sign_in(url.as_str(), "alice", PASSWORD).await;
    let cookies = alice.cookie_header(&url).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (from, to) = (format!("127.0.0.1:{port}"), &url[Position::BeforeHost..Position::AfterPort]);
    let to = format!("{to}\r\nCookie: {cookies}");
    let mut ways = JoinSet::new();
    ways.spawn(async move {
        let mut each = JoinSet::new();
        while let Ok((mut plain, _)) = listener.accept().await {
            let mut tls = alice.connect(&url).await;
            let (from, to) = (from.clone(), to.clone());
            each.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(plain.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).replacen(&from, &to, 1);
                tls.write_all(head.as_bytes()).await?;
                copy_bidirectional(&mut plain, &mut tls).await
            });
        }
    });
    (port, ways)
}

fn wstest(folder: &Folder) -> Command {
    let mut command = Command::new(tool("autobahn/bin/wstest"));
    command.current_dir(&folder.0);
    command
}

fn verdicts(cases: &Value) -> Verdicts {
    let word = |case: &Value, name: &str| case[name].as_str().unwrap().to_owned();
    let cases = cases.as_object().unwrap().iter();
    cases.map(|(name, case)| (name.clone(), (word(case, "behavior"), word(case, "behaviorClose")))).collect()
}
