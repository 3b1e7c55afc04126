//! `postern up`: every role in one process over the embedded log, with a demo
//! application behind a real connector. Nothing is a shortcut: the connectors
//! join with tokens and dial the relay as any other would.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context, bail};
use controller::{
    bootstrap::{DEFAULT_GROUP, SYSTEM_GROUP},
    first_owner::{self, FirstOwner},
    server::Controller,
    writer::{Wish, Writer},
};
use eventlog::{EventLog, Files, Journal, Projection};
use model::{
    App, AppId, Command, ExternalUrl, Origin, Principal, TenantId,
    app::{Claim, HeaderName, IdentityHeader, Name},
    event::Stream,
    hosts::{Hosts, port_suffix},
};
use runtime::{
    Clock,
    clock::fresh_id,
    endings::{Endings, What},
    files::{hold_folder, private_folder, write_public},
    metrics::Metrics,
    probes::Probes,
};
use tokens::TokenFaults;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    demo, endings, join,
    keys::{self, RoleKeys},
    output::say,
    owner_file::OwnerFile,
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
    refuse_lost_log(&data, data.join("log.db").exists())?;
    keys::ensure(&data.join("keys"))?;
    let role = |name: &str| RoleKeys::load(&data.join("keys").join(name));
    let (controller_keys, relay_keys, identity_keys) = (role("controller")?, role("relay")?, role("identity")?);
    let log = EventLog::open(&data.join("log.db")).context("opening the event log")?;
    refuse_lost_log(&data, log.head(Stream::Config).await.context("reading the event log")? > 0)?;
    let trust = controller_keys.trust.of_state()?;
    let memory = data.join("log-memory.db");
    let files = Files { mirror: None, memory: Some(&memory) };
    let projection =
        Projection::start_with(log.clone(), &Stream::STATE, trust, files).await.context("reading the event log")?;
    let clock = Clock::default();
    let tasks = TaskTracker::new();
    let stops = Stops { first: stop.clone(), last: CancellationToken::new() };

    let sections = match &arguments.settings {
        Some(path) => runtime::settings::load(Some(path), "POSTERN", [], [])
            .with_context(|| format!("reading settings from {}", path.display()))?,
        None => Sections::default(),
    };
    let settings = controller::Settings {
        listen: arguments.admin_api,
        domain: arguments.domain.clone(),
        relay_addresses: vec![arguments.listen.to_string()],
        public_port: arguments.listen.port(),
        ..sections.controller
    };
    let metrics = Metrics::default();
    let token_faults = TokenFaults::register(&metrics);
    let surroundings = controller::Surroundings {
        projection: projection.clone(),
        journal: Journal::new(log.clone(), controller_keys.signer()?),
        sealing: controller_keys.sealing.clone(),
        peers: controller_keys.trust.peers()?,
        clock,
        token_faults: token_faults.clone(),
    };
    let identity_socket = data.join("identity.sock");
    let origin = format!("unix:{}", identity_socket.display());
    let mut relay_settings = relay::Settings { listen: arguments.listen, ..sections.relay };
    // The relay's port may be chosen by the system, and tokens must name it.
    let reserved = reserve(arguments.listen)?;
    relay_settings.listen = reserved;
    let settings =
        controller::Settings { relay_addresses: vec![reserved.to_string()], public_port: reserved.port(), ..settings };
    let controller = controller::server::start(settings, surroundings.clone(), &origin).await?;
    let (writer, authority, admin_api) = (controller.writer.clone(), controller.authority.clone(), controller.address);
    let tenant = TenantId::default_tenant();
    let certificate = controller.certificate.clone();
    let first_owner = first_owner::ensure(&writer, &surroundings, &tenant, &data).await?;
    relay_settings.controllers = vec![format!("https://{admin_api}")];
    run_controller(controller, &tasks, &stops);

    let relay = relay::start(
        relay_settings,
        relay::Surroundings {
            projection: projection.clone(),
            journal: Journal::new(log.clone(), relay_keys.signer()?),
            trust: relay_keys.trust.of_state()?,
            sealing: relay_keys.sealing.clone(),
            clock,
            metrics: metrics.clone(),
            token_faults: token_faults.clone(),
            stop: stops.first.clone(),
        },
    )?;
    let relay_address = relay.address;
    let relay_handle = relay.relay.clone();
    let last = stops.last.clone();
    tasks.spawn(async move {
        relay.run().await;
        last.cancel();
    });

    let identity_settings = identity::Settings {
        socket: identity_socket,
        controllers: vec![format!("https://{admin_api}")],
        ..Default::default()
    };
    let listener = identity::listen(&identity_settings)?;
    let identity_surroundings = identity::Surroundings {
        projection: projection.clone(),
        journal: Journal::new(log.clone(), identity_keys.signer()?),
        sealing: identity_keys.sealing.clone(),
        signing: identity_keys.signing.clone(),
        clock,
        token_faults,
    };
    tasks.spawn(identity::serve(identity_settings, identity_surroundings, listener, stops.last.clone()));
    let analytics_settings = analytics::Settings {
        file: data.join("activity.ocsf.jsonl"),
        cursor: data.join("activity.cursor"),
        ..sections.analytics
    };
    let activity_trust = controller_keys.trust.of_activity()?;
    let (follow_log, counted, last) = (log.clone(), metrics.clone(), stops.last.clone());
    tasks.spawn(async move {
        if let Err(error) = analytics::run(analytics_settings, follow_log, activity_trust, counted, last).await {
            tracing::error!(error = %runtime::telemetry::chain(&error), "analytics ended");
        }
    });

    let mut probes = Probes { metrics, ..Default::default() };
    let links = relay_handle.clone();
    probes.checks.push(Arc::new(move || relay_handle.readiness()));
    probes.checks.push(Arc::new(move || links.links_readiness()));
    let file = OwnerFile {
        writer: writer.clone(),
        authority: authority.clone(),
        controller: format!("https://{admin_api}"),
        path: data.join("owner.json"),
        ends_s: Arc::default(),
    };
    let (credential, due) = file.write()?;
    let owner_ends_s = file.ends_s.clone();
    tasks.spawn(file.keep(due, clock, stops.last.clone()));
    let ends = Endings::register(&probes.metrics);
    endings::of_snapshot(&ends, &projection);
    ends.tell(What::ControllerCertificate, move || Some(certificate.expires().seconds()));
    ends.tell(What::OwnerCredential, move || Some(owner_ends_s.load(Ordering::Relaxed)));
    write_public(&data.join("authority.pem"), runtime::tls::pem("CERTIFICATE", authority.certificate()).as_bytes())?;
    for (group, name) in [(SYSTEM_GROUP, "identity"), (DEFAULT_GROUP, "local")] {
        let connector =
            join::ensure(&credential, group, name, &data.join("connectors").join(name), relay_address).await?;
        probes.checks.push(Arc::new(connector.readiness()));
        ends.tell(What::ConnectorCertificate, connector.certificate_ends());
        tasks.spawn(connector.run(stops.last.clone()));
    }
    if !arguments.no_demo {
        let socket = data.join("demo.sock");
        tasks.spawn(demo::serve(demo::listen(&socket)?, stops.last.clone()));
        publish_demo(&writer, &tenant, &socket).await?;
    }
    let listener = Probes::bind(arguments.admin_listen).await;
    let listener = listener.with_context(|| format!("listening on {}", arguments.admin_listen))?;
    let admin = listener.local_addr()?;
    wait_until_ready(&probes).await?;
    tasks.spawn(probes.serve(listener, stops.last.clone()));
    Ok(Up { relay: relay_address, admin, first_owner, stop: stops.last, tasks, _held: held })
}

fn run_controller(controller: Controller, tasks: &TaskTracker, stops: &Stops) {
    tasks.spawn(controller.run(stops.last.clone()));
}

/// The address with a port the system chose, if it was to choose one.
fn reserve(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("listening on {address}; is another Postern running? choose another with --listen"))?;
    Ok(listener.local_addr()?)
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

async fn publish_demo(writer: &Writer, tenant_id: &TenantId, socket: &Path) -> anyhow::Result<()> {
    let snapshot = writer.snapshot();
    let tenant = snapshot.tenant(tenant_id).context("the tenant is missing")?;
    let url = ExternalUrl::parse(&format!("https://demo.{}/", tenant.domain))?;
    let origin = Origin::parse(&format!("unix:{}", socket.display()))?;
    let known = tenant.apps.values().find(|it| it.app.external == url);
    let group = tenant.groups.values().find(|it| it.name.as_str() == DEFAULT_GROUP).context("no connector group")?;
    let header = IdentityHeader { name: HeaderName::parse("X-Remote-User")?, claim: Claim::Username };
    let id = known.map_or_else(|| AppId(fresh_id()), |it| it.app.id);
    let plain = App::new(id, Name::parse("Demo")?, url, origin.clone(), group.id);
    let app = App { identity_headers: vec![header], assertion: true, ..plain };
    let wish = Wish::of_system(tenant_id, "demo");
    match known {
        None => {
            let assign = Command::Assign { app: app.id, principal: Principal::Everyone };
            writer.execute(&wish, vec![Command::PublishApp(Box::new(app)), assign]).await?;
        }
        Some(before) if before.app.origin != origin => {
            let moved = App { origin, ..before.app.clone() };
            writer.execute(&wish, vec![Command::ChangeApp(Box::new(moved))]).await?;
        }
        Some(_) => {}
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
