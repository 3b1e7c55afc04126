//! `postern up`: every role in one process over the embedded log, with a demo
//! application behind a real connector. Nothing is a shortcut: the connectors
//! join with tokens and dial the relay as any other would.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use admin_client::Credential;
use anyhow::{Context, bail};
use controller::{
    bootstrap::{DEFAULT_GROUP, SYSTEM_GROUP},
    first_owner::{self, FirstOwner},
    writer::Writer,
};
use eventlog::{EventLog, Files, Projection};
use model::{
    TenantId,
    event::Stream,
    hosts::{Hosts, port_suffix},
};
use runtime::{
    Clock,
    files::{hold_folder, private_folder, write_public},
    probes::Probes,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    assembly::{self, Base, Vitals},
    demo, join,
    keys::{self, RoleKeys},
    output::say,
};

#[derive(Clone, Debug, clap::Args)]
pub struct UpArguments {
    /// Folder for everything that is kept (mode 0700).
    #[arg(long, default_value = "./postern-data")]
    pub data: PathBuf,
    /// Where users and connectors come in.
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Hosts are published under this domain.
    #[arg(long, default_value = "postern.localhost")]
    pub domain: String,
    /// The admin API.
    #[arg(long, default_value = "127.0.0.1:8444")]
    pub admin_api: SocketAddr,
    /// Liveness, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:8445")]
    pub admin_listen: SocketAddr,
    /// No demo application.
    #[arg(long)]
    pub no_demo: bool,
    /// A TOML file with sections `controller`, `relay` and `analytics`, for what
    /// has no flag: an ACME server, a port for plain HTTP, limits, a SIEM.
    #[arg(long, env = "POSTERN_UP_SETTINGS")]
    pub settings: Option<PathBuf>,
}

/// What flags say counts before what these say.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sections {
    controller: controller::Settings,
    relay: relay::Settings,
    /// Only `sinks`: the file is in the data folder.
    analytics: analytics::Settings,
}

/// Everything that runs, for whoever starts it: the binary, or a test.
pub struct Up {
    pub relay: SocketAddr,
    pub admin: SocketAddr,
    pub first_owner: Option<FirstOwner>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _held: std::fs::File,
}

/// The relay's part of a stop is the longest; everybody else waits for it.
struct Stops {
    /// The relay drains.
    first: CancellationToken,
    /// Nothing is open any more.
    last: CancellationToken,
}

pub async fn run(arguments: UpArguments) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let up = start(&arguments, stop.clone()).await?;
    greet(&arguments, &up);
    // Not among what is waited for: it stays for a second signal.
    let signals = TaskTracker::new();
    signals.spawn(async move {
        if let Err(error) = runtime::shutdown::on_signal(stop).await {
            tracing::error!(%error, "signals cannot be received");
        }
    });
    up.wait().await;
    Ok(())
}

impl Up {
    pub async fn wait(self) {
        self.stop.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

pub async fn start(arguments: &UpArguments, stop: CancellationToken) -> anyhow::Result<Up> {
    let data = prepare_folder(&arguments.data)?;
    let held = hold_folder(&data).with_context(|| format!("locking {}", data.display()))?;
    let Some(held) = held else {
        bail!(
            "{} is in use by another `postern up`: stop that one, or choose another folder with --data",
            data.display()
        );
    };
    let sections = Sections::load(arguments.settings.as_deref())?;
    let stops = Stops { first: stop, last: CancellationToken::new() };
    let mut starting = Starting::begin(data, stops).await?;
    // The relay's port may be chosen by the system, and tokens must name it.
    let port = relay::Port::open_alone(arguments.listen).with_context(|| {
        format!("listening on {}; is another Postern running? choose another with --listen", arguments.listen)
    })?;
    let relay = port.address;
    let controller = starting.controller(sections.controller, arguments, relay).await?;
    let (first_owner, controllers) = (controller.first_owner, vec![controller.url]);
    starting.relay(relay::Settings { listen: relay, controllers: controllers.clone(), ..sections.relay }, port)?;
    starting.identity(controllers)?;
    starting.analytics(sections.analytics)?;
    starting.connectors(&controller.credential, relay).await?;
    if !arguments.no_demo {
        starting.demo(&controller.writer).await?;
    }
    let listener = Probes::bind(arguments.admin_listen).await;
    let listener = listener.with_context(|| format!("listening on {}", arguments.admin_listen))?;
    let admin = listener.local_addr()?;
    let Starting { vitals, tasks, stops, .. } = starting;
    let probes = vitals.probes();
    wait_until_ready(&probes).await?;
    tasks.spawn(probes.serve(listener, stops.last.clone()));
    Ok(Up { relay, admin, first_owner, stop: stops.last, tasks, _held: held })
}

impl Sections {
    fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        runtime::settings::load(Some(path), "POSTERN", [], [])
            .with_context(|| format!("reading settings from {}", path.display()))
    }
}

/// What roles share while one after the other starts.
struct Starting {
    data: PathBuf,
    keys: Keys,
    log: EventLog,
    projection: Projection,
    clock: Clock,
    vitals: Vitals,
    tasks: TaskTracker,
    stops: Stops,
}

struct Keys {
    controller: RoleKeys,
    relay: RoleKeys,
    identity: RoleKeys,
}

/// A controller that serves already.
struct Started {
    url: String,
    writer: Arc<Writer>,
    first_owner: Option<FirstOwner>,
    credential: Credential,
}

impl Starting {
    async fn begin(data: PathBuf, stops: Stops) -> anyhow::Result<Self> {
        refuse_lost_log(&data, data.join("log.db").exists())?;
        keys::ensure(&data.join("keys"))?;
        let role = |name: &str| RoleKeys::load(&data.join("keys").join(name));
        let keys = Keys { controller: role("controller")?, relay: role("relay")?, identity: role("identity")? };
        let log = EventLog::open(&data.join("log.db")).context("opening the event log")?;
        refuse_lost_log(&data, log.head(Stream::Config).await.context("reading the event log")? > 0)?;
        let trust = keys.controller.trust.of_state()?;
        let memory = data.join("log-memory.db");
        let files = Files { mirror: None, memory: Some(&memory) };
        let projection =
            Projection::start_with(log.clone(), &Stream::STATE, trust, files).await.context("reading the event log")?;
        let vitals = Vitals::default();
        vitals.of_snapshot(&projection);
        let (clock, tasks) = (Clock::default(), TaskTracker::new());
        Ok(Self { data, keys, log, projection, clock, vitals, tasks, stops })
    }

    async fn controller(
        &self,
        section: controller::Settings,
        arguments: &UpArguments,
        relay: SocketAddr,
    ) -> anyhow::Result<Started> {
        let settings = controller::Settings {
            listen: arguments.admin_api,
            domain: arguments.domain.clone(),
            relay_addresses: vec![relay.to_string()],
            public_port: relay.port(),
            ..section
        };
        let origin = format!("unix:{}", self.identity_socket().display());
        let hashing = assembly::identity::hashing()?;
        let base = self.base(&self.keys.controller);
        let role = assembly::controller::assemble(&base, settings, &origin, hashing, &self.data).await?;
        let mut role = role.listen(&self.vitals).await?;
        let authority = runtime::tls::pem("CERTIFICATE", role.controller.authority.certificate());
        let (credential, due) = role.owner_file.write()?;
        write_public(&self.data.join("authority.pem"), authority.as_bytes())?;
        self.tasks.spawn(role.owner_file.clone().keep(due, self.clock, self.stops.last.clone()));
        let (url, writer) = (role.url.clone(), role.controller.writer.clone());
        let first_owner = role.first_owner.take();
        self.tasks.spawn(role.run(self.stops.last.clone()));
        Ok(Started { url, writer, first_owner, credential })
    }

    fn relay(&mut self, settings: relay::Settings, port: relay::Port) -> anyhow::Result<()> {
        let Self { keys, log, projection, clock, vitals, .. } = self;
        let (token_faults, metrics) = (vitals.token_faults.clone(), vitals.metrics.clone());
        let base = Base { keys: &keys.relay, log, projection, clock: *clock, token_faults, metrics };
        let relay = assembly::relay::assemble(&base, settings, Some(port), vitals, &self.stops.first)?;
        let last = self.stops.last.clone();
        self.tasks.spawn(async move {
            relay.run().await;
            last.cancel();
        });
        Ok(())
    }

    fn identity(&self, controllers: Vec<String>) -> anyhow::Result<()> {
        let settings = identity::Settings { socket: self.identity_socket(), controllers, ..Default::default() };
        let (service, listener) = assembly::identity::listen(&self.base(&self.keys.identity), settings)?;
        self.tasks.spawn(service.run(listener, self.stops.last.clone()));
        Ok(())
    }

    fn analytics(&self, settings: analytics::Settings) -> anyhow::Result<()> {
        let (file, cursor) = (self.data.join("activity.ocsf.jsonl"), self.data.join("activity.cursor"));
        let trust = self.keys.controller.trust.of_activity()?;
        let settings = analytics::Settings { file, cursor, ..settings };
        let metrics = self.vitals.metrics.clone();
        let following = analytics::run(settings, self.log.clone(), trust, metrics, self.stops.last.clone());
        self.tasks.spawn(async move {
            if let Err(error) = following.await {
                tracing::error!(error = %runtime::telemetry::chain(&error), "analytics ended");
            }
        });
        Ok(())
    }

    /// One for identity, one for the demo and whatever is on this machine.
    async fn connectors(&mut self, credential: &Credential, relay: SocketAddr) -> anyhow::Result<()> {
        for (group, name) in [(SYSTEM_GROUP, "identity"), (DEFAULT_GROUP, "local")] {
            let state = self.data.join("connectors").join(name);
            let connector = join::ensure(credential, group, name, &state, relay).await?;
            self.vitals.of_connector(&connector);
            self.tasks.spawn(connector.run(self.stops.last.clone()));
        }
        Ok(())
    }

    async fn demo(&self, writer: &Writer) -> anyhow::Result<()> {
        let socket = self.data.join("demo.sock");
        self.tasks.spawn(demo::serve(demo::listen(&socket)?, self.stops.last.clone()));
        demo::publish(writer, &TenantId::default_tenant(), &socket).await
    }

    fn base<'a>(&'a self, keys: &'a RoleKeys) -> Base<'a> {
        let (token_faults, metrics) = (self.vitals.token_faults.clone(), self.vitals.metrics.clone());
        Base { keys, log: &self.log, projection: &self.projection, clock: self.clock, token_faults, metrics }
    }

    fn identity_socket(&self) -> PathBuf {
        self.data.join("identity.sock")
    }
}

fn prepare_folder(path: &Path) -> anyhow::Result<PathBuf> {
    private_folder(path).context("preparing the data folder")?;
    let path = path.canonicalize()?;
    private_folder(&path.join("connectors"))?;
    const SOCKET_PATH_BYTES_MAX: usize = 100;
    if path.join("identity.sock").as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        bail!("{} is too long a path for sockets in it; choose a shorter one with --data", path.display());
    }
    Ok(path)
}

/// A folder that was in use and has no events any more would silently become an
/// installation of its own, which no connector of the folder can join.
fn refuse_lost_log(data: &Path, has_log: bool) -> anyhow::Result<()> {
    let trace = data.join("authority.pem");
    if !has_log && trace.exists() {
        bail!(
            "{} has the keys of an installation and not its log: log.db is missing or empty. Restore it from a backup, \
             or move the folder aside to begin a new installation",
            data.display()
        );
    }
    Ok(())
}

async fn wait_until_ready(probes: &Probes) -> anyhow::Result<()> {
    const READY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);
    let ready = async {
        while !probes.checks.iter().all(|check| check().ready) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(READY_TIMEOUT, ready).await;
    let states = || probes.checks.iter().map(|check| format!("{:?}", check())).collect::<Vec<_>>().join(", ");
    waited.with_context(|| format!("not ready in time: {}", states()))
}

fn greet(arguments: &UpArguments, up: &Up) {
    let port = port_suffix(up.relay.port());
    let domain = &arguments.domain;
    let data = arguments.data.display();
    say("\nPostern is ready.\n");
    say(&format!("  My applications   https://{}{port}/", Hosts::of(domain).portal()));
    if !arguments.no_demo {
        say(&format!("  Demo application  https://demo.{domain}{port}/"));
    }
    say(&format!("  Health            http://{}/readyz\n", up.admin));
    if let Some(owner) = &up.first_owner {
        say("Your owner account, shown this once (the log keeps only a sealed hash):\n");
        say(&format!("  username  {}\n  password  {}\n", owner.username, owner.password));
    }
    if arguments.data.join(first_owner::FILE).exists() {
        say(&format!("The first owner's password is in {data}/{}: delete it when you have it.\n", first_owner::FILE));
    }
    say(&format!(
        "Browsers will warn until they trust this installation's own root certificate, {data}/authority.pem."
    ));
    say(&format!("It can vouch for *.{domain} only. To trust it, import it in the browser's certificate settings.\n"));
    say("Publish something of yours:\n\n  postern publish http://127.0.0.1:3000 --name wiki\n");
    info!(relay = %up.relay, "ready");
}
