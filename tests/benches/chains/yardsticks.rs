//! The proxies people know, configured to do as little as they can.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use postern_tests::{
    processes::{Folder, Running, free_port, tool},
    until,
};

use crate::{CHAIN_CORE, LOAD_CORE};

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
events {{ worker_connections 18000; }}
http {{ access_log off; client_body_temp_path {path}/{name}-body; proxy_temp_path {path}/{name}-proxy;
fastcgi_temp_path {path}/{name}-f; uwsgi_temp_path {path}/{name}-u; scgi_temp_path {path}/{name}-s;
keepalive_requests 10000000; {server} }}"
    );
    let file = folder.0.join(format!("{name}.conf"));
    fs::write(&file, config).unwrap();
    file.display().to_string()
}

/// Static files, and what an application of our own answers (`own`).
pub(crate) async fn backend(folder: &Folder, port: u16, own: u16) -> Running {
    fs::write(folder.0.join("1k"), [b'x'; 1024]).unwrap();
    fs::write(folder.0.join("10m"), vec![b'x'; 10 * 1024 * 1024]).unwrap();
    let root = folder.0.display();
    let server = format!(
        "sendfile on; server {{ listen 127.0.0.1:{port}; root {root}; location /ws {{ proxy_pass http://127.0.0.1:{own}; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} location /upload {{ proxy_pass http://127.0.0.1:{own}; proxy_http_version 1.1; proxy_request_buffering off; client_max_body_size 0; }} }}"
    );
    let config = nginx_config(folder, "backend", &server);
    start("backend", LOAD_CORE, Path::new("nginx"), &["-c", &config], port).await
}

pub(crate) async fn nginx(folder: &Folder, backend: u16) -> (Running, u16) {
    let (port, root) = (free_port(), folder.0.display());
    let server = format!(
        "upstream b {{ server 127.0.0.1:{backend}; keepalive 128; keepalive_requests 10000000; }}
server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/cert.pem;
ssl_protocols TLSv1.3; location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; proxy_request_buffering off; client_max_body_size 0; }} location /ws {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}"
    );
    let config = nginx_config(folder, "nginx", &server);
    (start("nginx", CHAIN_CORE, Path::new("nginx"), &["-c", &config], port).await, port)
}

pub(crate) async fn haproxy(folder: &Folder, backend: u16) -> (Running, u16) {
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

/// One Envoy in front of the backend.
pub(crate) async fn envoy(folder: &Folder, backend: u16) -> (Running, u16) {
    let port = free_port();
    let users = users(folder, port, "b", "");
    let config = format!("static_resources:\n  listeners:\n{users}\n  clusters:\n{}", at("b", backend, ""));
    (envoy_with(folder, "envoy", &config, port).await, port)
}

/// Two Envoys and a reverse tunnel between them, over TLS like ours; with
/// `jwks` the first checks a token of each request, and remembers it.
#[expect(clippy::too_many_lines, reason = "mostly two configuration files")]
pub(crate) async fn envoy_pair(folder: &Folder, backend: u16, jwks: Option<&str>) -> ([Running; 2], u16) {
    let (port, accept, root) = (free_port(), free_port(), folder.0.display());
    let name = if jwks.is_some() { "pair-jwt" } else { "pair" };
    let check = jwks.map_or(String::new(), |jwks| {
        format!(
            r#"
          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                p:
                  local_jwks: {{ inline_string: '{jwks}' }}
                  jwt_cache_config: {{ jwt_cache_size: 100 }}
              rules: [{{ match: {{ prefix: "/" }}, requires: {{ provider_name: p }} }}]"#
        )
    });
    let users = users(folder, port, "tunnel", &check);
    let outer = format!(
        r#"
bootstrap_extensions:
- name: envoy.bootstrap.reverse_tunnel.upstream_socket_interface
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.bootstrap.reverse_tunnel.upstream_socket_interface.v3.UpstreamReverseConnectionSocketInterface
    stat_prefix: outer
static_resources:
  listeners:
  - name: accept
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {accept} }} }}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
            tls_certificates: [{{ certificate_chain: {{ filename: "{root}/cert.pem" }}, private_key: {{ filename: "{root}/cert.pem" }} }}]
      filters:
      - name: envoy.filters.network.reverse_tunnel
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.reverse_tunnel.v3.ReverseTunnel
          ping_interval: 10s
{users}
  clusters:
  - name: tunnel
    connect_timeout: 5s
    lb_policy: CLUSTER_PROVIDED
    cluster_type:
      name: envoy.clusters.reverse_connection
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.reverse_connection.v3.ReverseConnectionClusterConfig
        cleanup_interval: 60s
        host_id_format: "node-1"
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
"#
    );
    let tls = r#"
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: { tls_params: { tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 } }"#;
    let inner = format!(
        r#"
node: {{ id: node-1, cluster: c-1 }}
bootstrap_extensions:
- name: envoy.bootstrap.reverse_tunnel.downstream_socket_interface
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.bootstrap.reverse_tunnel.downstream_socket_interface.v3.DownstreamReverseConnectionSocketInterface
    stat_prefix: inner
static_resources:
  listeners:
  - name: reverse
    listener_filters_timeout: 0s
    address:
      socket_address: {{ address: "rc://node-1:c-1:t-1@responder:1", port_value: 0, resolver_name: envoy.resolvers.reverse_connection }}
    filter_chains:
    - filters:
{}
  clusters:
{}
{}
"#,
        http("b", "HTTP2", ""),
        at("responder", accept, tls),
        at("b", backend, ""),
    );
    let outer = envoy_with(folder, &format!("{name}-outer"), &outer, port).await;
    let inner = envoy_without_port(folder, &format!("{name}-inner"), &inner);
    ([outer, inner], port)
}

fn users(folder: &Folder, port: u16, cluster: &str, filters: &str) -> String {
    let root = folder.0.display();
    format!(
        r#"  - name: users
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
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
{}"#,
        http(cluster, "AUTO", filters)
    )
}

fn http(cluster: &str, codec: &str, filters: &str) -> String {
    format!(
        r#"      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: f
          codec_type: {codec}
          upgrade_configs: [{{ upgrade_type: websocket }}]
          http2_protocol_options: {{ allow_connect: true }}
          route_config:
            virtual_hosts:
            - name: b
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: {cluster}, timeout: 0s }} }}]
          http_filters:{filters}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}"#
    )
}

fn at(name: &str, port: u16, tls: &str) -> String {
    format!(
        r#"  - name: {name}
    type: STATIC{tls}
    load_assignment:
      cluster_name: {name}
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]"#
    )
}

const ENVOY: [&str; 5] = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"];

async fn envoy_with(folder: &Folder, name: &str, config: &str, port: u16) -> Running {
    let file = folder.0.join(format!("{name}.yaml"));
    fs::write(&file, config).unwrap();
    let arguments = [&ENVOY[..], &["-c", file.to_str().unwrap()]].concat();
    start(name, CHAIN_CORE, &envoy_program(), &arguments, port).await
}

fn envoy_without_port(folder: &Folder, name: &str, config: &str) -> Running {
    let file = folder.0.join(format!("{name}.yaml"));
    fs::write(&file, config).unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", CHAIN_CORE]).arg(envoy_program()).args(ENVOY).arg("-c").arg(file);
    Running::start(name, &mut command)
}

/// The program itself: the package's wrapper is a process of its own.
fn envoy_program() -> PathBuf {
    let library = tool("py/lib");
    let versions = fs::read_dir(library).unwrap();
    let inside = |version: PathBuf| version.join("site-packages/envoy/_bin/envoy");
    versions.filter_map(|it| it.ok()).map(|it| inside(it.path())).find(|it| it.exists()).expect("envoy is installed")
}
