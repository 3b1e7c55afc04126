//! What a request costs through Postern, and through proxies people know.
//!
//! `tests/bench/run` prints it; `only=WebSocket` behind it measures what has
//! that in its title, `only=scale` what stays as it is when there is more,
//! `only=idle` what open connections hold. Load and backend run on one core, the
//! chain on the other; CPU is what the chain's processes used per completed request.
//! Rounds are interleaved and medians quoted, so compare ratios, not machines.
//! Postern has everything on: session, 20 policies, identity header, signed
//! assertion, access events, metrics. The others only forward, but for the pair
//! that checks a token.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures time, and stops when it cannot go on"
)]

mod scale;
mod yardsticks;

use std::{collections::BTreeMap, fs, path::Path, process::Command, sync::Arc, time::Instant};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{SinkExt, StreamExt};
use postern_tests::{
    cluster::Cluster,
    origin::Origin,
    processes::{Folder, Running, free_port},
    world::{PASSWORD, app},
};
use proto::v1;
use rcgen::PublicKeyData;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::yardsticks::{backend, envoy, envoy_pair, haproxy, nginx};

const ROUNDS: usize = 3;
const LOAD_CORE: &str = "0";
const CHAIN_CORE: &str = "1";
/// The kernel counts CPU in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// A way from the load tool to the backend.
#[derive(Clone)]
struct Chain {
    name: &'static str,
    host: &'static str,
    port: u16,
    /// A field that lets requests in: name and value.
    credential: Option<(&'static str, String)>,
    processes: Vec<u32>,
}

struct Figure {
    /// Microseconds per request, or milliseconds per gigabyte.
    cpu: f64,
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Clone, Copy)]
enum Load {
    /// GET 1 KiB, keep-alive, 64 connections.
    Http1,
    /// GET 1 KiB, 32 connections with 8 streams each.
    Http2,
    /// GET 1 KiB, one at a time.
    Alone,
    /// GET 10 MiB, 8 connections.
    Download,
    /// POST 10 MiB, 8 connections.
    Upload,
    /// A connection, one GET of 1 KiB, and its end.
    Connections,
    /// 128 bytes there and back, 64 sockets.
    WebSocket,
}

const LOADS: [(Load, &str, &str); 7] = [
    (Load::Http1, "GET 1 KiB, HTTP/1.1, 64 connections", "us/request"),
    (Load::Http2, "GET 1 KiB, HTTP/2, 32 x 8 streams", "us/request"),
    (Load::Alone, "GET 1 KiB, HTTP/1.1, one at a time", "us/request"),
    (Load::Download, "GET 10 MiB, 8 connections", "ms/GB"),
    (Load::Upload, "POST 10 MiB, 8 connections", "ms/GB"),
    (Load::Connections, "a new TLS connection and one GET", "us each"),
    (Load::WebSocket, "WebSocket echo, 128 bytes, 64 sockets", "us/message"),
];

fn main() {
    // Cargo adds arguments of its own; ours are a number, and parts of titles.
    let seconds = std::env::args().find_map(|it| it.parse().ok()).unwrap_or(4);
    let wanted: Vec<String> = std::env::args().filter_map(|it| it.strip_prefix("only=").map(str::to_owned)).collect();
    runtime::install_crypto();
    pin(std::process::id(), LOAD_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(seconds, &wanted));
}

async fn run(seconds: u32, wanted: &[String]) {
    let folder = Folder::default();
    let own = Origin::start().await;
    let backend_port = free_port();
    let _backend = backend(&folder, backend_port, own.port).await;
    let certified = rcgen::generate_simple_self_signed(["bench.test".to_owned()]).unwrap();
    let pem = format!("{}{}", certified.cert.pem(), certified.signing_key.serialize_pem());
    fs::write(folder.0.join("cert.pem"), &pem).unwrap();
    let nginx = nginx(&folder, backend_port).await;
    let haproxy = haproxy(&folder, backend_port).await;
    let envoy = envoy(&folder, backend_port).await;
    let (pair, pair_port) = envoy_pair(&folder, backend_port, None).await;
    let (token, jwks) = token();
    let (checked, checked_port) = envoy_pair(&folder, backend_port, Some(&jwks)).await;
    let mut postern = Postern::start(backend_port).await;
    let plain = |name, port: u16, running: &[Running]| Chain {
        name,
        host: "bench.test",
        port,
        credential: None,
        processes: running.iter().map(|it| it.child.id()).collect(),
    };
    let chains = [
        plain("nginx, one hop", nginx.1, std::slice::from_ref(&nginx.0)),
        plain("HAProxy, one hop", haproxy.1, std::slice::from_ref(&haproxy.0)),
        plain("Envoy, one hop", envoy.1, std::slice::from_ref(&envoy.0)),
        plain("Envoy, tunnel pair", pair_port, &pair),
        Chain {
            credential: Some(("authorization", format!("Bearer {token}"))),
            ..plain("Envoy, pair with JWT", checked_port, &checked)
        },
        postern.chain(),
    ];
    let is_wanted = |title: &str| wanted.is_empty() || wanted.iter().any(|it| title.contains(it));
    if is_wanted("idle") {
        idle(&chains[chains.len() - 1], &postern, &folder).await;
    }
    for (load, title, unit) in LOADS.into_iter().filter(|(_, title, _)| is_wanted(title)) {
        let mut figures: BTreeMap<usize, Vec<Figure>> = BTreeMap::new();
        for round in 0..ROUNDS {
            let order: Vec<usize> =
                if round % 2 == 0 { (0..chains.len()).collect() } else { (0..chains.len()).rev().collect() };
            for n in order {
                figures.entry(n).or_default().push(measure(&chains[n], load, seconds, &folder).await);
            }
        }
        println!(
            "\n{title}\n{:<22}{unit:>12}{:>9}{:>9}{:>9}{:>10}{:>9}{:>9}",
            "", "x nginx", "x pair", "x p+JWT", "rate", "p50 ms", "p99 ms"
        );
        let yardstick = |n: usize| median(&figures[&n], |it| it.cpu);
        let (of_nginx, of_pair, of_checked) = (yardstick(0), yardstick(3), yardstick(4));
        for (n, chain) in chains.iter().enumerate() {
            let of = |pick: fn(&Figure) -> f64| median(&figures[&n], pick);
            let (cpu, rate) = (of(|it| it.cpu), of(|it| it.rate));
            let (p50, p99) = (of(|it| it.p50_ms), of(|it| it.p99_ms));
            println!(
                "{:<22}{cpu:>12.1}{:>9.2}{:>9.2}{:>9.2}{rate:>10.0}{p50:>9.2}{p99:>9.2}",
                chain.name,
                cpu / of_nginx,
                cpu / of_pair,
                cpu / of_checked
            );
        }
    }
    scale::print(&mut postern, &chains[3], backend_port, seconds, &folder, &is_wanted).await;
    println!("\nRelay resident at the end: {} KiB", postern.cluster.relays[0].rss_kib());
}

fn median(figures: &[Figure], pick: impl Fn(&Figure) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(pick).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure(chain: &Chain, load: Load, seconds: u32, folder: &Folder) -> Figure {
    // h2load loses its log now and then.
    for _ in 0..5 {
        if let Some(figure) = attempt(chain, load, seconds, folder).await {
            return figure;
        }
    }
    panic!("{} completes no request", chain.name)
}

async fn attempt(chain: &Chain, load: Load, seconds: u32, folder: &Folder) -> Option<Figure> {
    let before = cpu_seconds(&chain.processes);
    let (mut figure, count) = match load {
        Load::WebSocket => web_sockets(chain, seconds).await,
        Load::Http1 | Load::Http2 | Load::Alone | Load::Download | Load::Upload | Load::Connections => {
            // The application of our own answers meanwhile.
            let (chain, folder) = (chain.clone(), folder.0.clone());
            tokio::task::spawn_blocking(move || h2load(&chain, load, seconds, &folder)).await.unwrap()?
        }
    };
    let used = cpu_seconds(&chain.processes) - before;
    figure.cpu = match load {
        Load::Download | Load::Upload => {
            figure.rate *= 10.0;
            used * 1e3 / (count * 10.0 * 1024.0 * 1024.0 / 1e9)
        }
        Load::Http1 | Load::Http2 | Load::Alone | Load::Connections | Load::WebSocket => used * 1e6 / count,
    };
    Some(figure)
}

/// User and system time of processes, their threads and what they reaped.
fn cpu_seconds(processes: &[u32]) -> f64 {
    let of = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    };
    processes.iter().map(of).sum()
}

/// Connections of one measurement; more would meet limits of the machine.
const NEW_CONNECTIONS: u32 = 1000;

/// h2load speaks both versions, and connects where it is told.
fn h2load(chain: &Chain, load: Load, seconds: u32, folder: &Path) -> Option<(Figure, f64)> {
    let log = folder.join("requests.log");
    let _absent = fs::remove_file(&log);
    let body = folder.join("10m").display().to_string();
    let (duration, many) = (format!("-D{seconds}"), NEW_CONNECTIONS.to_string());
    let (shape, path): (&[&str], &str) = match load {
        Load::Http1 => (&["--h1", "-c64", &duration], "/1k"),
        Load::Http2 => (&["-c32", "-m8", &duration], "/1k"),
        Load::Alone => (&["--h1", "-c1", &duration], "/1k"),
        Load::Download => (&["--h1", "-c8", &duration], "/10m"),
        Load::Upload => (&["--h1", "-c8", "-d", &body, &duration], "/upload"),
        Load::Connections | Load::WebSocket => (&["--h1", "-c", &many, "-n", &many], "/1k"),
    };
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "h2load", "-t1"]).args(shape);
    command.arg(format!("--log-file={}", log.display()));
    command.arg(format!("--connect-to=127.0.0.1:{}", chain.port));
    if let Some((name, value)) = &chain.credential {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    let started = Instant::now();
    let output = command.arg(format!("https://{}:{}{path}", chain.host, chain.port)).output().unwrap();
    let took = started.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(" 0 3xx, 0 4xx, 0 5xx"), "{}: {said}", chain.name);
    // Start, status, microseconds.
    let mut times: Vec<f64> = fs::read_to_string(&log)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse().ok())
        .collect();
    if times.is_empty() {
        return None;
    }
    times.sort_by(f64::total_cmp);
    let count = times.len() as f64;
    let window = if matches!(load, Load::Connections) { took } else { f64::from(seconds) };
    Some((figure(&times, count / window), count))
}

/// Of sorted microseconds.
fn figure(times: &[f64], rate: f64) -> Figure {
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] / 1e3;
    Figure { cpu: 0.0, rate, p50_ms: at(0.5), p99_ms: at(0.99) }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

fn get(chain: &Chain, path: &str) -> String {
    let field = chain.credential.as_ref().map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
    format!("GET {path} HTTP/1.1\r\nhost: {}:{}\r\n{field}\r\n", chain.host, chain.port)
}

async fn kept_alive(chain: &Chain) -> TlsStream<TcpStream> {
    let mut stream = tls(chain).await;
    stream.write_all(get(chain, "/1k").as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    stream.read_exact(&mut answer).await.unwrap();
    stream
}

async fn tls(chain: &Chain) -> TlsStream<TcpStream> {
    let config =
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    let tcp = TcpStream::connect(("127.0.0.1", chain.port)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from(chain.host).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

async fn web_socket(chain: &Chain) -> Socket {
    let stream = tls(chain).await;
    let mut request = http::Request::builder()
        .uri(format!("wss://{}:{}/ws", chain.host, chain.port))
        .header("host", format!("{}:{}", chain.host, chain.port))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    if let Some((name, value)) = &chain.credential {
        request = request.header(*name, value);
    }
    tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await.unwrap().0
}

async fn web_sockets(chain: &Chain, seconds: u32) -> (Figure, f64) {
    let mut sockets = JoinSet::new();
    let end = Instant::now() + std::time::Duration::from_secs(seconds.into());
    for _ in 0..64 {
        let mut socket = web_socket(chain).await;
        sockets.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let sent = Instant::now();
                socket.send(Message::binary(vec![7; 128])).await.unwrap();
                socket.next().await.unwrap().unwrap();
                times.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            times
        });
    }
    let mut times: Vec<f64> = sockets.join_all().await.into_iter().flatten().collect();
    times.sort_by(f64::total_cmp);
    let count = times.len() as f64;
    (figure(&times, count / f64::from(seconds)), count)
}

/// What connections cost that do nothing.
async fn idle(chain: &Chain, postern: &Postern, folder: &Folder) {
    const SOCKETS: usize = 6000;
    let (relay, connector) = (&postern.cluster.relays[0], &postern.cluster.connectors[0]);
    println!("Postern at rest: relay {} KiB, connector {} KiB", relay.rss_kib(), connector.rss_kib());
    // Whatever grows once has grown.
    let (warm, root) = (chain.clone(), folder.0.clone());
    tokio::task::spawn_blocking(move || h2load(&warm, Load::Http1, 2, &root)).await.unwrap();
    let before = relay.rss_kib() + connector.rss_kib();
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(web_socket(chain).await);
    }
    let each = (relay.rss_kib() + connector.rss_kib()).saturating_sub(before) as f64 / SOCKETS as f64;
    println!("{SOCKETS} idle WebSockets: {each:.1} KiB each in relay and connector together");
    let before = relay.rss_kib() + connector.rss_kib();
    let mut connections = Vec::new();
    for _ in 0..SOCKETS {
        connections.push(kept_alive(chain).await);
    }
    let each = (relay.rss_kib() + connector.rss_kib()).saturating_sub(before) as f64 / SOCKETS as f64;
    println!("{SOCKETS} idle connections after a GET: {each:.1} KiB each");
}

/// The yardsticks' certificate is nobody's.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// An ES256 token and the key set that verifies it.
fn token() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let point = URL_SAFE_NO_PAD;
    // An uncompressed point is at the end of its SubjectPublicKeyInfo.
    let spki = key.subject_public_key_info();
    let (x, y) = spki[spki.len() - 64..].split_at(32);
    let jwks = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","alg":"ES256","kid":"k","x":"{}","y":"{}"}}]}}"#,
        point.encode(x),
        point.encode(y)
    );
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some("k".into());
    let claims = serde_json::json!({ "sub": "alice", "exp": 4_102_444_800_i64 });
    let signer = jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der());
    (jsonwebtoken::encode(&header, &claims, &signer).unwrap(), jwks)
}

/// Every role a process of its own; the relay and one connector on the chain's
/// core, broker, controllers, identity and analytics beside the load.
struct Postern {
    cluster: Cluster,
    cookie: String,
}

impl Postern {
    async fn start(backend: u16) -> Self {
        let limit = ("POSTERN_RELAY__CONNECTIONS_PER_SOURCE_MAX", "100000".to_owned());
        let mut cluster = Cluster::start_with(vec![limit]).await;
        cluster.connectors.truncate(1);
        cluster.relays[1].kill();
        for running in [&cluster.relays[0], &cluster.connectors[0]] {
            pin(running.child.id(), CHAIN_CORE);
        }
        let user = v1::User { username: "alice".into(), ..Default::default() };
        let request = v1::CreateUserRequest { change: None, user: Some(user), password: PASSWORD.into() };
        cluster.admin.users().create(request).await.unwrap();
        let header = v1::IdentityHeader { name: "X-Remote-User".into(), claim: v1::Claim::Username.into() };
        let origin = format!("http://127.0.0.1:{backend}");
        cluster.publish(v1::App { identity_headers: vec![header], assertion: true, ..app("bench", &origin) }).await;
        for n in 0..20 {
            let networks = vec![format!("10.{n}.0.0/16")];
            let policy = v1::Policy { name: format!("policy-{n}"), networks, block: true, ..Default::default() };
            cluster.admin.create(None, "policy", json!(policy)).await.unwrap();
        }
        let mut alice = cluster.browser();
        let url = cluster.url(0, "bench", "/1k");
        let answer = alice.sign_in(&url, "alice", PASSWORD).await;
        assert_eq!(answer.body.len(), 1024, "{}", answer.text());
        let cookie = alice.cookie_header(&url::Url::parse(&url).unwrap()).unwrap();
        Self { cluster, cookie }
    }

    fn chain(&self) -> Chain {
        Chain {
            name: "Postern, both ends",
            host: "bench.postern.localhost",
            port: self.cluster.relay_ports[0],
            credential: Some(("cookie", self.cookie.clone())),
            processes: vec![self.cluster.relays[0].child.id(), self.cluster.connectors[0].child.id()],
        }
    }
}

/// All threads of a process, and what it starts from now on.
fn pin(process: u32, core: &str) {
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", core, &process.to_string()]).output().unwrap();
    assert!(pinned.status.success(), "taskset: {}", String::from_utf8_lossy(&pinned.stderr));
}
