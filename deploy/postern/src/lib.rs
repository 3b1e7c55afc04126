//! `postern`: every role, all of them in one process (`up`), and the admin CLI.
//!
//! Read: `cli` (what there is), `up` (everything at once), `roles` (each by
//! itself), `assembly` (how a role is put together for both), `commands` (the admin API from a shell).

pub mod assembly;
pub mod backup;
pub mod certificate;
pub mod cli;
pub mod commands;
pub mod demo;
pub mod doctor;
mod endings;
pub mod files;
pub mod join;
pub mod keys;
pub mod login;
pub mod nats;
pub mod objects;
pub mod output;
pub mod owner_file;
pub mod reachability;
pub mod roles;
pub mod skew;
pub mod up;

use clap::{CommandFactory, Parser};

use cli::{Arguments, Command};

/// The program.
pub fn main() -> std::process::ExitCode {
    runtime::install_crypto();
    let arguments = Arguments::parse();
    if let Some(path) = &arguments.drill_clock
        && let Err(error) = runtime::clock::drill(path)
    {
        return failed(&error.into());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let drilled = arguments.drill_clock.clone();
    let run = async move {
        if let Some(path) = drilled {
            tracing::warn!(file = %path.display(), "the clock of this process is what a file says: for drills only");
        }
        run(arguments).await
    };
    match runtime.block_on(run) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Up(it) => {
            let (level, otlp_endpoint) = (arguments.log, arguments.otlp_endpoint);
            let settings = runtime::telemetry::Settings { level, otlp_endpoint, ..Default::default() };
            let _telemetry = runtime::telemetry::start("up", &settings)?;
            up::run(it).await
        }
        Command::Controller(it) => roles::controller(it).await,
        Command::Relay(it) => roles::relay(it).await,
        Command::Identity(it) => roles::identity(it).await,
        Command::Analytics(it) => roles::analytics(it).await,
        Command::Keys { out } => {
            keys::ensure(&out)?;
            output::say(&format!("{} has the keys of every role; copy each folder to its machine only", out.display()));
            Ok(())
        }
        Command::NatsConfig { keys, store, tls } => {
            output::say(nats::config(keys.as_deref(), &store, &tls)?.trim_end());
            Ok(())
        }
        Command::Backup { file, place } => backup::backup(&file, &place).await,
        Command::Restore { file, place, check } => backup::restore(&file, &place, check).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "postern", &mut std::io::stdout());
            Ok(())
        }
        Command::Login(it) => login::run(it).await,
        Command::Doctor { url } => doctor::run(arguments.global.credential_file.as_deref(), url).await,
        Command::Admin(command) => {
            let context = commands::Context::new(&arguments.global).await?;
            commands::run(context, command).await
        }
    }
}

/// One line a cause, the first one what was attempted.
fn failed(error: &anyhow::Error) -> std::process::ExitCode {
    use std::io::Write;
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  because: {cause}\n"));
    }
    let _gone = std::io::stderr().write_all(text.as_bytes());
    std::process::ExitCode::FAILURE
}
