//! What a request costs through Postern, and through proxies people know.
//!
//! `tests/bench/run` prints it. Load and backend run on one core, the chain on
//! the other; CPU is what the chain's processes used per completed request.
//! Rounds are interleaved and medians quoted, so compare ratios, not machines.
//! Postern has everything on: session, 20 policies, identity header, signed
//! assertion, access events, metrics. The others only forward.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and stops when it cannot go on")]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use postern_tests::{
    cluster::Cluster,
    processes::{Folder, Running, free_port, tool},
    until,
    world::{PASSWORD, app},
};
use proto::v1;

const ROUNDS: usize = 3;
const LOAD_CORE: &str = "0";
const CHAIN_CORE: &str = "1";
/// The kernel counts CPU in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// A way from the load tool to the backend.
struct Chain {
    name: &'static str,
    host: &'static str,
    port: u16,
    cookie: String,
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
}

const LOADS: [(Load, &str, &str); 4] = [
    (Load::Http1, "GET 1 KiB, HTTP/1.1, 64 connections", "us/request"),
    (Load::Http2, "GET 1 KiB, HTTP/2, 32 x 8 streams", "us/request"),
    (Load::Alone, "GET 1 KiB, HTTP/1.1, one at a time", "us/request"),
    (Load::Download, "GET 10 MiB, 8 connections", "ms/GB"),
];

fn main() {
    // Cargo adds arguments of its own; ours is the number.
    let seconds = std::env::args().find_map(|it| it.parse().ok()).unwrap_or(4);
    runtime::install_crypto();
    pin(std::process::id(), LOAD_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(seconds));
}

async fn run(seconds: u32) {
    let folder = Folder::default();
    let backend_port = free_port();
    let _backend = backend(&folder, backend_port).await;
    let certified = rcgen::generate_simple_self_signed(["bench.test".to_owned()]).unwrap();
    let pem = format!("{}{}", certified.cert.pem(), certified.signing_key.serialize_pem());
    fs::write(folder.0.join("cert.pem"), &pem).unwrap();
    let nginx = nginx(&folder, backend_port).await;
    let haproxy = haproxy(&folder, backend_port).await;
    let envoy = envoy(&folder, backend_port).await;
    let postern = Postern::start(backend_port).await;
    let plain = |name, port: u16, running: &Running| Chain {
        name,
        host: "bench.test",
        port,
        cookie: String::new(),
        processes: vec![running.child.id()],
    };
    let chains = [
        plain("nginx, one hop", nginx.1, &nginx.0),
        plain("HAProxy, one hop", haproxy.1, &haproxy.0),
        plain("Envoy, one hop", envoy.1, &envoy.0),
        postern.chain(),
    ];
    for (load, title, unit) in LOADS {
        let mut figures: BTreeMap<usize, Vec<Figure>> = BTreeMap::new();
        for round in 0..ROUNDS {
            let order: Vec<usize> =
                if round % 2 == 0 { (0..chains.len()).collect() } else { (0..chains.len()).rev().collect() };
            for n in order {
                figures.entry(n).or_default().push(measure(&chains[n], load, seconds, &folder));
            }
        }
        println!("\n{title}\n{:<22}{unit:>12}{:>9}{:>10}{:>9}{:>9}", "", "x nginx", "rate", "p50 ms", "p99 ms");
        let yardstick = median(&figures[&0], |it| it.cpu);
        for (n, chain) in chains.iter().enumerate() {
            let of = |pick: fn(&Figure) -> f64| median(&figures[&n], pick);
            let (cpu, rate) = (of(|it| it.cpu), of(|it| it.rate));
            let (p50, p99) = (of(|it| it.p50_ms), of(|it| it.p99_ms));
            println!("{:<22}{cpu:>12.1}{:>9.2}{rate:>10.0}{p50:>9.2}{p99:>9.2}", chain.name, cpu / yardstick);
        }
    }
    let (relay, connector) = (&postern.cluster.relays[0], &postern.cluster.connectors[0]);
    println!("\nPostern resident: relay {} KiB, connector {} KiB", relay.rss_kib(), connector.rss_kib());
}

fn median(figures: &[Figure], pick: impl Fn(&Figure) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(pick).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(chain: &Chain, load: Load, seconds: u32, folder: &Folder) -> Figure {
    // h2load loses its log now and then.
    let mut attempts = (0..5).map(|_| attempt(chain, load, seconds, folder));
    attempts.find_map(|it| it).unwrap_or_else(|| panic!("{} completes no request", chain.name))
}

fn attempt(chain: &Chain, load: Load, seconds: u32, folder: &Folder) -> Option<Figure> {
    let before = cpu_seconds(&chain.processes);
    let mut figure = h2load(chain, load, seconds, folder)?;
    let used = cpu_seconds(&chain.processes) - before;
    let requests = figure.rate * f64::from(seconds);
    figure.cpu = match load {
        Load::Download => {
            let gigabytes = requests * 10.0 * 1024.0 * 1024.0 / 1e9;
            figure.rate *= 10.0;
            used * 1e3 / gigabytes
        }
        Load::Http1 | Load::Http2 | Load::Alone => used * 1e6 / requests,
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

/// h2load speaks both versions, and connects where it is told.
fn h2load(chain: &Chain, load: Load, seconds: u32, folder: &Folder) -> Option<Figure> {
    let log = folder.0.join("requests.log");
    let _absent = fs::remove_file(&log);
    let (shape, path): (&[&str], &str) = match load {
        Load::Http1 => (&["--h1", "-c64"], "/1k"),
        Load::Http2 => (&["-c32", "-m8"], "/1k"),
        Load::Alone => (&["--h1", "-c1"], "/1k"),
        Load::Download => (&["--h1", "-c8"], "/10m"),
    };
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "h2load", "-t1"]).args(shape);
    command.arg(format!("-D{seconds}")).arg(format!("--log-file={}", log.display()));
    command.arg(format!("--connect-to=127.0.0.1:{}", chain.port));
    if !chain.cookie.is_empty() {
        command.args(["-H", &format!("cookie: {}", chain.cookie)]);
    }
    let output = command.arg(format!("https://{}:{}{path}", chain.host, chain.port)).output().unwrap();
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
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] / 1e3;
    Some(Figure { cpu: 0.0, rate: times.len() as f64 / f64::from(seconds), p50_ms: at(0.5), p99_ms: at(0.99) })
}

async fn start(name: &str, core: &str, program: &Path, arguments: &[&str], port: u16) -> Running {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).args(arguments);
    let running = Running::start(name, &mut command);
    until(name, async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
    running
}

fn nginx_config(folder: &Folder, name: &str, server: &str) -> String {
    let path = folder.0.display();
    let config = format!(
        "daemon off; master_process off; pid {path}/{name}.pid; error_log {path}/{name}.log;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {path}/{name}-body; proxy_temp_path {path}/{name}-proxy;
fastcgi_temp_path {path}/{name}-f; uwsgi_temp_path {path}/{name}-u; scgi_temp_path {path}/{name}-s;
keepalive_requests 10000000; {server} }}"
    );
    let file = folder.0.join(format!("{name}.conf"));
    fs::write(&file, config).unwrap();
    file.display().to_string()
}

async fn backend(folder: &Folder, port: u16) -> Running {
    fs::write(folder.0.join("1k"), [b'x'; 1024]).unwrap();
    fs::write(folder.0.join("10m"), vec![b'x'; 10 * 1024 * 1024]).unwrap();
    let root = folder.0.display();
    let server = format!("sendfile on; server {{ listen 127.0.0.1:{port}; root {root}; }}");
    let config = nginx_config(folder, "backend", &server);
    start("backend", LOAD_CORE, Path::new("nginx"), &["-c", &config], port).await
}

async fn nginx(folder: &Folder, backend: u16) -> (Running, u16) {
    let (port, root) = (free_port(), folder.0.display());
    let server = format!(
        "upstream b {{ server 127.0.0.1:{backend}; keepalive 128; keepalive_requests 10000000; }}
server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/cert.pem;
ssl_protocols TLSv1.3; location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; }} }}"
    );
    let config = nginx_config(folder, "nginx", &server);
    (start("nginx", CHAIN_CORE, Path::new("nginx"), &["-c", &config], port).await, port)
}

async fn haproxy(folder: &Folder, backend: u16) -> (Running, u16) {
    let (port, root) = (free_port(), folder.0.display());
    let config = format!(
        "global\n  nbthread 1\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n
defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n
frontend f\n  bind 127.0.0.1:{port} ssl crt {root}/cert.pem alpn h2,http/1.1\n  default_backend b\n
backend b\n  http-reuse always\n  server s 127.0.0.1:{backend}\n"
    );
    let file = folder.0.join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    (start("haproxy", CHAIN_CORE, Path::new("haproxy"), &["-db", "-f", file.to_str().unwrap()], port).await, port)
}

async fn envoy(folder: &Folder, backend: u16) -> (Running, u16) {
    let (port, root) = (free_port(), folder.0.display());
    let config = format!(
        r#"
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - certificate_chain: {{ filename: "{root}/cert.pem" }}
              private_key: {{ filename: "{root}/cert.pem" }}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: f
          route_config:
            virtual_hosts:
            - name: b
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: b }} }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: b
    type: STATIC
    load_assignment:
      cluster_name: b
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {backend} }} }} }}
"#
    );
    let file = folder.0.join("envoy.yaml");
    fs::write(&file, config).unwrap();
    let arguments = ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", file.to_str().unwrap()];
    (start("envoy", CHAIN_CORE, &tool("py/bin/envoy"), &arguments, port).await, port)
}

/// Every role a process of its own; the relay and one connector on the chain's
/// core, broker, controllers, identity and analytics beside the load.
struct Postern {
    cluster: Cluster,
    cookie: String,
}

impl Postern {
    async fn start(backend: u16) -> Self {
        let mut cluster = Cluster::start().await;
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
            let request = v1::PutPolicyRequest { change: None, policy: Some(policy) };
            cluster.admin.policies().create(request).await.unwrap();
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
            cookie: self.cookie.clone(),
            processes: vec![self.cluster.relays[0].child.id(), self.cluster.connectors[0].child.id()],
        }
    }
}

/// All threads of a process, and what it starts from now on.
fn pin(process: u32, core: &str) {
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", core, &process.to_string()]).output().unwrap();
    assert!(pinned.status.success(), "taskset: {}", String::from_utf8_lossy(&pinned.stderr));
}
