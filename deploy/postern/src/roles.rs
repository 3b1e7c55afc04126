//! Each role as a process of its own, over NATS (or one file, for a test).
//! Settings come from a file, then the environment, then flags; secrets from files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use controller::first_owner;
use eventlog::{EventLog, Files, Projection, jetstream};
use model::event::Stream;
use runtime::{
    Clock,
    endings::What,
    probes::{Probes, Readiness},
    telemetry::{self, Telemetry},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    assembly::{self, Base, Vitals},
    keys::RoleKeys,
    skew::{self, Skew},
};

/// How soon a role that is there before the log looks for it again.
const STREAM_LOOK_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, clap::Args)]
pub struct RoleArguments {
    /// Settings file (TOML).
    #[arg(long)]
    pub settings: PathBuf,
    /// One setting, as in the file: --set relay.listen=0.0.0.0:443
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Only say whether the settings can be read.
    #[arg(long)]
    pub check: bool,
}

/// What every role has, and its own part under its name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    log: LogSettings,
    /// Folder of this role's keys, from `postern keys`.
    keys: PathBuf,
    /// Where the controller leaves the owner's credential; the keys folder
    /// unless given.
    state: Option<PathBuf>,
    /// `/livez`, `/readyz`, `/metrics`.
    admin_listen: Option<SocketAddr>,
    #[serde(default)]
    telemetry: telemetry::Settings,
    controller: Option<controller::Settings>,
    relay: Option<relay::Settings>,
    identity: Option<IdentitySettings>,
    analytics: Option<analytics::Settings>,
}

impl Settings {
    fn state(&self) -> &std::path::Path {
        self.state.as_deref().unwrap_or(&self.keys)
    }
}

/// Where events are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogSettings {
    /// `nats://` or `tls://HOST:PORT`, several separated by commas.
    url: String,
    /// PEM of the roots that the broker's certificate chains to.
    ca: Option<PathBuf>,
    /// This role's client certificate, PEM.
    certificate: Option<PathBuf>,
    /// Its private key, PEM.
    certificate_key: Option<PathBuf>,
    /// A file with one nkey seed; by default `nats.nk` of the keys folder if it is there.
    nkey: Option<PathBuf>,
    /// Copies of each stream in a NATS cluster; 0 means 1.
    replicas: usize,
    /// MiB of disk that ACTIVITY may take before its oldest events go; 0 means
    /// 8192. Counts when a controller makes the stream.
    activity_mib_max: u64,
    /// MiB of disk that CONFIG and DIRECTORY may take, each; 0 means 1024. Counts
    /// when a controller makes the streams.
    state_mib_max: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IdentitySettings {
    socket: PathBuf,
    controllers: Vec<String>,
    token_life_s: u32,
    /// Where the connector beside it keeps its certificate.
    connector_state: PathBuf,
    /// A token for the group `Postern`, for the first start.
    join_token_file: Option<PathBuf>,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        let identity::Settings { socket, controllers, token_life_s } = identity::Settings::default();
        Self { socket, controllers, token_life_s, connector_state: "./identity-state".into(), join_token_file: None }
    }
}

/// What a role remembers of the log, in the folder it may write to. Roles of one
/// machine may share that folder.
fn log_memory(folder: &Path, role: &str) -> PathBuf {
    folder.join(format!("log-memory-{role}.db"))
}

/// A process that has begun.
struct Process {
    settings: Settings,
    keys: RoleKeys,
    log: EventLog,
    clock: Clock,
    vitals: Vitals,
    skew: Skew,
    /// One that this role may read, to ask the broker for the time with.
    stream: Stream,
    stop: CancellationToken,
    tasks: TaskTracker,
    _telemetry: Telemetry,
}

impl Process {
    async fn begin(role: &'static str, arguments: &RoleArguments) -> anyhow::Result<Self> {
        let settings: Settings = load(arguments)?;
        let telemetry = telemetry::start(role, &settings.telemetry)?;
        let keys = RoleKeys::load(&settings.keys)?;
        let log = connect(&settings, role).await?;
        let mut vitals = Vitals::default();
        if let Some(path) = settings.log.certificate.clone() {
            vitals.endings.tell_file(What::BrokerCertificate, path);
        }
        if let Some(path) = settings.log.ca.clone() {
            vitals.endings.tell_file(What::BrokerAuthority, path);
        }
        let skew = Skew::register(&vitals.metrics);
        let shown = skew.clone();
        vitals.checks.push(Arc::new(move || shown.readiness()));
        Ok(Self {
            settings,
            keys,
            log,
            clock: Clock::default(),
            vitals,
            skew,
            stream: if role == "analytics" { Stream::Activity } else { Stream::Config },
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            _telemetry: telemetry,
        })
    }

    async fn projection(&mut self, streams: &[Stream], files: Files<'_>) -> anyhow::Result<Projection> {
        let projection = self.start_reading(streams, files).await?;
        let watched = projection.clone();
        self.vitals.checks.push(Arc::new(move || snapshot_readiness(&watched)));
        self.vitals.of_snapshot(&projection);
        Ok(projection)
    }

    /// A role that starts before there is a log waits for the controller that
    /// makes it, unless a mirror says what was in it.
    async fn start_reading(&self, streams: &[Stream], files: Files<'_>) -> anyhow::Result<Projection> {
        let mut said = false;
        loop {
            let missing = self.missing(streams).await;
            let trust = self.keys.trust.of_state()?;
            match (Projection::start_with(self.log.clone(), streams, trust, files).await, missing) {
                (Ok(projection), _) => return Ok(projection),
                (Err(error), None) => return Err(error).context("reading the event log"),
                (Err(_), Some(stream)) => {
                    if !said {
                        warn!(
                            stream = stream.name(),
                            "there is no such stream yet; waiting for a controller to make it"
                        );
                        said = true;
                    }
                    tokio::time::sleep(STREAM_LOOK_INTERVAL).await;
                }
            }
        }
    }

    async fn missing(&self, streams: &[Stream]) -> Option<Stream> {
        for stream in streams {
            if let Ok(false) = self.log.has(*stream).await {
                return Some(*stream);
            }
        }
        None
    }

    fn base<'a>(&'a self, projection: &'a Projection) -> Base<'a> {
        let (token_faults, metrics) = (self.vitals.token_faults.clone(), self.vitals.metrics.clone());
        Base { keys: &self.keys, log: &self.log, projection, clock: self.clock, token_faults, metrics }
    }

    /// Opens the admin listener and waits for signals.
    async fn attend(&self) -> anyhow::Result<()> {
        if let Some(address) = self.settings.admin_listen {
            let listener = Probes::bind(address).await.with_context(|| format!("listening on {address}"))?;
            self.tasks.spawn(self.vitals.probes().serve(listener, self.stop.clone()));
        }
        self.tasks.spawn(skew::watch(self.skew.clone(), self.log.clone(), self.stream, self.clock, self.stop.clone()));
        let signals = TaskTracker::new();
        signals.spawn(runtime::shutdown::on_signal(self.stop.clone()));
        Ok(())
    }
}

/// Variables of connectors and of the command line, which may share a machine.
fn is_for_others(name: &str) -> bool {
    name.starts_with("POSTERN_CONNECTOR_")
        || ["POSTERN_LOG", "POSTERN_OTLP_ENDPOINT", "POSTERN_CREDENTIAL", "POSTERN_UP_SETTINGS", "POSTERN_DRILL_CLOCK"]
            .contains(&name)
}

fn load<T: DeserializeOwned>(arguments: &RoleArguments) -> anyhow::Result<T> {
    let flag = |text: &String| {
        let (name, value) = text.split_once('=').with_context(|| format!("--set {text}: write NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    let flags = arguments.set.iter().map(flag).collect::<anyhow::Result<Vec<_>>>()?;
    let path = arguments.settings.display();
    let environment = std::env::vars().filter(|(name, _)| !is_for_others(name));
    runtime::settings::load(Some(&arguments.settings), "POSTERN", environment, flags)
        .with_context(|| format!("reading settings from {path}"))
}

/// Unknown keys, wrong types and missing values are found without starting.
fn check(arguments: &RoleArguments) -> anyhow::Result<()> {
    let settings: Settings = load(arguments)?;
    crate::output::say(&format!("{} is readable; the log is at {}", arguments.settings.display(), settings.log.url));
    Ok(())
}

async fn connect(settings: &Settings, role: &str) -> anyhow::Result<EventLog> {
    let log = &settings.log;
    let own = settings.keys.join("nats.nk");
    let nkey = log.nkey.clone().or_else(|| own.exists().then_some(own));
    let options = jetstream::Settings {
        url: log.url.clone(),
        ca: log.ca.clone(),
        certificate: log.certificate.clone().zip(log.certificate_key.clone()),
        nkey,
        inbox: role.to_owned(),
        replicas: log.replicas,
        activity_mib_max: log.activity_mib_max,
        state_mib_max: log.state_mib_max,
        create: role == "controller",
    };
    EventLog::connect(&options).await.with_context(|| format!("connecting to {}", log.url))
}

/// The log that a role's settings name, and the folder of its keys.
pub(crate) async fn log_of(settings: &Path) -> anyhow::Result<(EventLog, PathBuf)> {
    let arguments = RoleArguments { settings: settings.to_owned(), set: vec![], check: false };
    let settings: Settings = load(&arguments)?;
    let log = connect(&settings, "controller").await?;
    Ok((log, settings.keys))
}

fn snapshot_readiness(projection: &Projection) -> Readiness {
    let view = projection.view();
    let detail = match &view.quarantine {
        Some(why) => format!("at {}, {} s old, stopped at {why}", view.snapshot.config, view.age().as_secs()),
        None => format!("at {}, {} s old", view.snapshot.config, view.age().as_secs()),
    };
    Readiness { part: "snapshot", ready: view.snapshot.config > 0 && view.quarantine.is_none(), detail }
}

pub async fn controller(arguments: RoleArguments) -> anyhow::Result<()> {
    if arguments.check {
        return check(&arguments);
    }
    let mut process = Process::begin("controller", &arguments).await?;
    let state = process.settings.state().to_owned();
    std::fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
    refuse_lost_log(&process.log, &state, &process.settings.log.url).await?;
    let memory = log_memory(&state, "controller");
    let projection = process.projection(&Stream::STATE, Files { mirror: None, memory: Some(&memory) }).await?;
    let settings = process.settings.controller.clone().context("the settings have no [controller]")?;
    let origin = process.settings.identity.as_ref().map(|it| format!("unix:{}", it.socket.display()));
    let origin =
        origin.context("the settings have no [identity] socket: where identity listens, for the login page")?;
    let hashing = assembly::identity::hashing()?;
    let base = process.base(&projection);
    let role = assembly::controller::assemble(&base, settings, &origin, hashing, &state).await?;
    let role = role.listen(&process.vitals).await?;
    if role.first_owner.is_some() {
        let path = state.join(first_owner::FILE);
        info!(file = %path.display(), "the first owner's password is in this file; read it and delete it");
    }
    // Due now: it is written at once, and whatever keeps it from being written
    // keeps nobody from calling the admin API.
    let (file, due) = (role.owner_file.clone(), role.controller.writer.now());
    process.tasks.spawn(file.keep(due, process.clock, process.stop.clone()));
    process.attend().await?;
    role.run(process.stop.clone()).await;
    end(process).await
}

/// A log that is empty where a controller has run before is not a new one. The
/// memory of the log would say so too, but not what an empty log means.
async fn refuse_lost_log(log: &EventLog, state: &Path, url: &str) -> anyhow::Result<()> {
    let trace = state.join("owner.json");
    if trace.exists() && log.head(Stream::Config).await.context("reading the event log")? == 0 {
        bail!(
            "the log at {url} is empty, but a controller has run here before: {} is from it. Restore the log from a \
             backup, or move that file aside to begin a new installation, in which nobody who joined or signed in \
             before is known",
            trace.display()
        );
    }
    Ok(())
}

pub async fn relay(arguments: RoleArguments) -> anyhow::Result<()> {
    if arguments.check {
        return check(&arguments);
    }
    let mut process = Process::begin("relay", &arguments).await?;
    let settings = process.settings.relay.clone().context("the settings have no [relay]")?;
    let mirror = settings.mirror.as_deref();
    // Where the mirror is, a relay may write; its keys are often read-only.
    let memory = match mirror {
        Some(mirror) => mirror.with_extension("memory.db"),
        None => log_memory(process.settings.state(), "relay"),
    };
    let projection =
        process.projection(&[Stream::Config, Stream::Risk], Files { mirror, memory: Some(&memory) }).await?;
    let Process { keys, log, clock, vitals, stop, .. } = &mut process;
    let (token_faults, metrics) = (vitals.token_faults.clone(), vitals.metrics.clone());
    let base = Base { keys, log, projection: &projection, clock: *clock, token_faults, metrics };
    let running = assembly::relay::assemble(&base, settings, None, vitals, stop)?;
    process.attend().await?;
    running.run().await;
    end(process).await
}

pub async fn identity(arguments: RoleArguments) -> anyhow::Result<()> {
    if arguments.check {
        return check(&arguments);
    }
    let mut process = Process::begin("identity", &arguments).await?;
    let it = process.settings.identity.clone().context("the settings have no [identity]")?;
    // Two would take each other's socket, and join with each other's key.
    runtime::files::private_folder(&it.connector_state)
        .with_context(|| format!("preparing {}", it.connector_state.display()))?;
    let _held = held(&it.connector_state.join(".lock"), &it.connector_state, "identity")?;
    let memory = log_memory(&it.connector_state, "identity");
    let projection = process.projection(&Stream::STATE, Files { mirror: None, memory: Some(&memory) }).await?;
    let settings = identity::Settings { socket: it.socket, controllers: it.controllers, token_life_s: it.token_life_s };
    let (service, listener) = assembly::identity::listen(&process.base(&projection), settings)?;
    let connector = joined(&it.connector_state, it.join_token_file.as_deref()).await?;
    process.vitals.of_connector(&connector);
    process.attend().await?;
    tokio::join!(service.run(listener, process.stop.clone()), connector.run(process.stop.clone()));
    end(process).await
}

/// The connector beside identity, which joins at the first start.
async fn joined(state: &Path, token_file: Option<&Path>) -> anyhow::Result<connector::Connector> {
    if connector::enrol::Identity::load(state).is_err() {
        let Some(path) = token_file else {
            bail!("identity has not joined yet: give identity.join_token_file, with a token for the group Postern");
        };
        let token = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        connector::enrol::join(&token, "identity", state, &Default::default()).await.context("joining")?;
    }
    let settings = connector::Settings { state: state.to_owned(), ..Default::default() };
    Ok(connector::Connector::prepare(&settings)?)
}

pub async fn analytics(arguments: RoleArguments) -> anyhow::Result<()> {
    if arguments.check {
        return check(&arguments);
    }
    let process = Process::begin("analytics", &arguments).await?;
    let settings = process.settings.analytics.clone().context("the settings have no [analytics]")?;
    // Two would write each line twice.
    let _held = held(&settings.cursor.with_extension("lock"), &settings.cursor, "analytics")?;
    let trust = process.keys.trust.of_activity()?;
    process.attend().await?;
    analytics::run(settings, process.log.clone(), trust, process.vitals.metrics.clone(), process.stop.clone()).await?;
    end(process).await
}

/// Holds what one process of a role may use at a time.
fn held(lock: &Path, what: &Path, role: &str) -> anyhow::Result<std::fs::File> {
    let held = runtime::files::hold(lock).with_context(|| format!("locking {}", what.display()))?;
    held.with_context(|| format!("{} is in use by another `postern {role}`: each has one of its own", what.display()))
}

async fn end(process: Process) -> anyhow::Result<()> {
    process.stop.cancel();
    process.tasks.close();
    process.tasks.wait().await;
    Ok(())
}
