//! Settings of a relay, in TOML, environment (`POSTERN_RELAY_…`) or flags.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where users and connectors come in.
    pub listen: SocketAddr,
    /// Plain HTTP, which only redirects to HTTPS and proves hosts to ACME
    /// servers; none when unset.
    pub http_listen: Option<SocketAddr>,
    /// HTTP/3 on the UDP port with the number of `listen`'s, told to browsers.
    pub http3: bool,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
    /// `https://HOST:PORT` of controllers, for connectors that enrol.
    pub controllers: Vec<String>,
    /// How long open exchanges may go on after SIGTERM.
    pub drain_grace_s: u64,
    /// User connections at once; 0 means 80 % of the file descriptor limit.
    pub connections_max: usize,
    /// User connections at once from one address.
    pub connections_per_source_max: usize,
    /// Resident memory at whose 90 % no connection is accepted; 0 means the
    /// limit of the control group, if it has one.
    pub memory_max_mib: u64,
    /// A file for the signed events of the last snapshot, to start from when
    /// the log is away. Whoever makes the projection opens it.
    pub mirror: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            http_listen: None,
            http3: false,
            threads: 0,
            controllers: vec![],
            drain_grace_s: 30,
            connections_max: 0,
            connections_per_source_max: 256,
            memory_max_mib: 0,
            mirror: None,
        }
    }
}

impl Settings {
    pub fn memory_limit_kib(&self) -> Option<u64> {
        match self.memory_max_mib {
            0 => group_limit_kib(),
            mib => Some(mib * 1024),
        }
    }

    pub fn drain_grace(&self) -> Duration {
        Duration::from_secs(self.drain_grace_s)
    }
}

/// What the control group of this process allows; none when it allows all.
fn group_limit_kib() -> Option<u64> {
    let bytes: u64 = fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse().ok()?;
    Some(bytes / 1024)
}

/// TLS handshake, from the first byte to the last.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte of a request head, or HTTP/2 header block, to its end.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Between requests of an HTTP/1 connection.
pub const HTTP1_IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// From the handshake to the first byte of HTTP/2.
pub const HTTP2_PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// An HTTP/2 connection on which nothing is open.
pub const HTTP2_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
pub const HTTP2_IDLE_PING: Duration = Duration::from_secs(60);
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A user's body must make so much progress in this time. Not gRPC: its
/// streams are silent between messages.
pub const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(30);
pub const BODY_PROGRESS_BYTES: usize = 1024;
/// A user must take what is sent to them.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 100;
pub const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
pub const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Read ahead on an HTTP/1 connection; also bounds a request head.
pub const READ_BUFFER_BYTES: usize = strict::limits::LINE_BYTES_MAX;

pub const MEMORY_WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// How long a request waits for a stream to a connector.
pub const STREAM_WAIT: Duration = Duration::from_secs(2);
/// How long a relay waits for a sign that a connector has a request. The answer
/// itself may take as long as the application may.
pub const HEARD_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a request that may be repeated is sent again, after links that broke
/// or on which it was not heard of.
pub const ATTEMPTS_MAX: usize = 3;
/// Requests waiting for a stream. Past this the relay answers 503: a longer
/// queue would only turn overload into latency.
pub const WAITING_REQUESTS_MAX: usize = 1024;
/// Parked streams kept on one link after a rush.
pub const PARKED_MAX: usize = 256;
/// Access events waiting to be written.
pub const WAITING_ACCESSES_MAX: usize = 16 * 1024;
/// Verified tokens remembered.
pub const SESSION_CACHE_ENTRIES: usize = 8192;
/// A sign-in must be finished within this time.
pub const SIGN_IN_LIFE_S: i64 = 900;
