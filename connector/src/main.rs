//! `postern-connector`: join once, then run beside the applications.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use connector::{Connector, Settings, dial::Dialer, enrol, links::LinkMetrics};
use runtime::{
    endings::{Endings, What},
    files,
    metrics::Metrics,
    probes::Probes,
    shutdown, telemetry,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// Connects applications here to Postern's relays. Dials out only.
#[derive(Parser)]
#[command(name = "postern-connector", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Settings file (TOML).
    #[arg(long, global = true)]
    settings: Option<PathBuf>,
    /// Folder for key and certificate.
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    /// For drills: a file with the milliseconds to add to this process's clock, now
    /// and whenever it changes.
    #[arg(long, global = true, hide = true, env = "POSTERN_DRILL_CLOCK")]
    drill_clock: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Uses a token from `postern connector token` to become a connector.
    #[command(after_help = "Example: postern-connector join --token-file token --name berlin-1")]
    Join {
        /// The token. Other users of this machine can see it: prefer --token-file.
        token: Option<String>,
        /// A file with the token.
        #[arg(long, conflicts_with = "token")]
        token_file: Option<PathBuf>,
        /// The name administrators see; this machine's unless given.
        #[arg(long)]
        name: Option<String>,
    },
    /// Serves until SIGTERM, then drains.
    #[command(after_help = "Example: postern-connector run --settings /etc/postern/connector.toml")]
    Run,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    runtime::install_crypto();
    let arguments = Arguments::parse();
    if let Some(path) = &arguments.drill_clock {
        runtime::clock::drill(path).context("bending the clock")?;
    }
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let flags = arguments.state.map(|it| ("state".to_owned(), it.display().to_string()));
    let settings = Settings::load(arguments.settings.as_deref(), &environment, flags.into_iter().collect())?;
    let _telemetry = telemetry::start("connector", &settings.telemetry)?;
    if let Some(path) = &arguments.drill_clock {
        warn!(file = %path.display(), "the clock of this process is what a file says: for drills only");
    }
    match arguments.command {
        Command::Join { token, token_file, name } => {
            let token = match (token, token_file) {
                (Some(token), _) => token,
                (None, Some(path)) => {
                    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?
                }
                (None, None) => bail!("give a token or --token-file"),
            };
            let name = name.unwrap_or_else(host_name);
            let way = Dialer::new(settings.proxy.as_deref(), settings.proxy_credentials_file.as_deref())?;
            files::private_folder(&settings.state)
                .with_context(|| format!("preparing {}", settings.state.display()))?;
            let held = files::hold_folder(&settings.state)?;
            let _held = held.with_context(|| format!("another process is joining in {}", settings.state.display()))?;
            let identity = enrol::join(&token, &name, &settings.state, &way).await?;
            info!(connector = %identity.state.connector, state = %settings.state.display(), "joined");
            Ok(())
        }
        Command::Run => run(settings).await,
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let metrics = Metrics::default();
    let connector = Connector::counting(&settings, LinkMetrics::register(&metrics))?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    if let Some(address) = settings.admin_listen {
        let listener = Probes::bind(address).await.with_context(|| format!("listening on {address}"))?;
        let mut probes = Probes { metrics, ..Probes::default() };
        probes.checks.push(std::sync::Arc::new(connector.readiness()));
        Endings::register(&probes.metrics).tell(What::ConnectorCertificate, connector.certificate_ends());
        tasks.spawn(probes.serve(listener, stop.clone()));
    }
    tasks.spawn(shutdown::on_signal(stop.clone()));
    connector.run(stop).await;
    Ok(())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "connector".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_and_every_option_explains_itself() {
        let program = Arguments::command();
        for command in program.get_subcommands() {
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let line = example.strip_prefix("Example: ").unwrap_or_default();
            assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{}: an example", command.get_name());
            for argument in command.get_arguments().chain(program.get_arguments()) {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
