//! The commands and their arguments.

mod objects;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use self::objects::*;
use crate::{login::LoginArguments, output::Format, roles::RoleArguments, up::UpArguments};

/// Publishes on-premises web applications without a VPN or one inbound port.
#[derive(Parser)]
#[command(name = "postern", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
    /// Log level of `up`.
    #[arg(long, global = true, default_value = "warn", env = "POSTERN_LOG")]
    pub log: String,
    /// Where `up` sends traces, `http://HOST:4317`.
    #[arg(long, global = true, env = "POSTERN_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// For drills: a file with the milliseconds to add to this process's clock, now
    /// and whenever it changes.
    #[arg(long, global = true, hide = true, env = "POSTERN_DRILL_CLOCK")]
    pub drill_clock: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct Global {
    /// A file from `postern up` (owner.json) or `postern login`.
    #[arg(long = "credential", global = true, env = "POSTERN_CREDENTIAL")]
    pub credential_file: Option<PathBuf>,
    /// `table` for people, `json` for machines.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// Answer when every live relay serves the change.
    #[arg(long, global = true)]
    pub wait: bool,
    /// Repeating a change with the same id changes nothing more.
    #[arg(long, global = true, default_value = "")]
    pub request_id: String,
    /// Refuse if the configuration has moved on from here.
    #[arg(long, global = true)]
    pub expected_position: Option<u64>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Runs everything in one process, with a demo application.
    #[command(after_help = "Example: postern up --domain example.com --listen 0.0.0.0:443")]
    Up(UpArguments),
    /// Runs the controller.
    #[command(after_help = "Example: postern controller --settings /etc/postern/controller.toml")]
    Controller(RoleArguments),
    /// Runs a relay.
    #[command(after_help = "Example: postern relay --settings relay.toml --set relay.listen=0.0.0.0:443")]
    Relay(RoleArguments),
    /// Runs the sign-in service and the connector beside it.
    #[command(after_help = "Example: postern identity --settings /etc/postern/identity.toml")]
    Identity(RoleArguments),
    /// Runs analytics.
    #[command(after_help = "Example: postern analytics --settings analytics.toml --check")]
    Analytics(RoleArguments),
    /// Makes the keys of every role.
    #[command(after_help = "Example: postern keys --out keys")]
    Keys {
        /// The folder to make: one folder in it for each role. Keys that are there stay.
        #[arg(long)]
        out: PathBuf,
    },
    /// Prints a nats-server configuration with the permissions of each role.
    #[command(after_help = "Example: postern nats-config --keys keys > nats-server.conf")]
    NatsConfig {
        /// The folder `postern keys` made. Without it, the server reads each
        /// role's public nkey from its environment: POSTERN_NKEY_CONTROLLER and so on.
        #[arg(long)]
        keys: Option<PathBuf>,
        /// Where nats-server keeps its streams.
        #[arg(long, default_value = "/var/lib/nats")]
        store: PathBuf,
        #[command(flatten)]
        tls: crate::nats::Tls,
    },
    /// Copies the log into one file while everything runs, and verifies the copy.
    /// The keys are not in it: docs/backup.md says which files to keep apart.
    #[command(after_help = "Example: postern backup postern-2026-05-01.backup --data /var/lib/postern")]
    Backup {
        /// The file to make, such as postern-2026-05-01.backup.
        file: PathBuf,
        #[command(flatten)]
        place: crate::backup::Place,
    },
    /// Puts a backup back where there is no log. Everybody has to sign in again.
    #[command(after_help = "Example: postern restore postern-2026-05-01.backup --data /var/lib/postern")]
    Restore {
        /// A file from `postern backup`.
        file: PathBuf,
        #[command(flatten)]
        place: crate::backup::Place,
        /// Only say whether the file is whole, and what is in it.
        #[arg(long)]
        check: bool,
    },
    /// Prints a completion script for a shell.
    #[command(after_help = "Example: postern completion bash > /etc/bash_completion.d/postern")]
    Completion {
        /// The shell that will read it.
        shell: clap_complete::Shell,
    },
    /// Signs in for the commands below, in a browser or with a code.
    #[command(
        after_help = "Example: postern login --url https://login.example.com --controller https://controller.example.com:8444 --ca authority.pem"
    )]
    Login(LoginArguments),
    /// Checks the way from here to the relay, and what administrators forget.
    #[command(after_help = "Example: postern doctor")]
    Doctor {
        /// Also check this published address.
        url: Option<String>,
    },
    #[command(flatten)]
    Admin(AdminCommand),
}

#[derive(Subcommand)]
pub enum AdminCommand {
    /// Publishes an application, assigns it to you, prints its address.
    #[command(after_help = "Example: postern publish http://127.0.0.1:3000 --name wiki --assign group:staff")]
    Publish(PublishArguments),
    /// Applications.
    #[command(subcommand)]
    App(AppCommand),
    /// Groups of users.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Connectors, their groups and join tokens.
    #[command(subcommand)]
    Connector(ConnectorCommand),
    /// Users.
    #[command(subcommand)]
    User(UserCommand),
    /// Identity providers that people sign in with.
    #[command(subcommand)]
    Provider(ProviderCommand),
    /// Conditional access.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Who is signed in.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Keys that sign tokens and assertions.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Certificates that browsers see.
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// The TXT records that prove a domain, and whether they are there.
    #[command(after_help = "Example: postern domain shop.example.org")]
    Domain {
        /// The host, or a domain above it.
        domain: String,
    },
    /// How pages for people who are refused look; shows it without options.
    #[command(after_help = "Example: postern branding --name 'Example Corp' --accent '#2f5d50'")]
    Branding {
        /// The name of the organisation, as its pages show it.
        #[arg(long)]
        name: Option<String>,
        /// The colour of buttons and links, such as #2f5d50.
        #[arg(long)]
        accent: Option<String>,
        /// Where people get help: an https: or mailto: address.
        #[arg(long)]
        support_url: Option<String>,
    },
    /// What happened, newest first.
    #[command(after_help = "Example: postern history --kind app --object wiki --since 2026-05-01")]
    History(HistoryArguments),
    /// Makes an object again what it was before an event.
    #[command(after_help = "Example: postern revert config 4711 --dry-run")]
    Revert {
        /// config or directory, as `postern history` shows it.
        stream: String,
        /// The position of the event.
        position: u64,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Lists the kinds of objects, and which role may do what to them.
    #[command(after_help = "Example: postern kinds")]
    Kinds,
    /// Lists the objects of a kind.
    #[command(after_help = "Example: postern list app --label team=web")]
    List {
        /// From `postern kinds`.
        kind: String,
        /// Only objects with this label, NAME=VALUE. May repeat.
        #[arg(long)]
        label: Vec<String>,
        /// Only objects that contain this text.
        #[arg(long, default_value = "")]
        contains: String,
    },
    /// Shows one object with all its fields.
    #[command(after_help = "Example: postern show policy vault --output json")]
    Show {
        /// From `postern kinds`.
        kind: String,
        /// Name or id; empty where there is only one.
        #[arg(default_value = "")]
        name: String,
    },
    /// Makes or changes one object: NAME=VALUE, as `show --output json` names the fields.
    #[command(after_help = "Example: postern set group --name staff labels='{\"team\":\"web\"}'")]
    Set {
        /// From `postern kinds`.
        kind: String,
        /// The object to change; without it the fields say which.
        #[arg(long)]
        name: Option<String>,
        /// NAME=VALUE; the value is JSON or else text. May repeat.
        #[arg(required = true)]
        fields: Vec<String>,
    },
    /// Removes one object, and what is only a part of it.
    #[command(after_help = "Example: postern delete assignment app=wiki principal=group:staff")]
    Delete {
        /// From `postern kinds`.
        kind: String,
        /// Name or id, or NAME=VALUE for each field of its key.
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// Prints what there is, and then each change as it happens.
    #[command(after_help = "Example: postern watch app policy")]
    Watch {
        /// Only these kinds; all that you may read without.
        kinds: Vec<String>,
    },
    /// Makes things as files describe them; what they do not mention stays.
    #[command(after_help = "Example: postern apply -f all.yaml --prune team=web --dry-run")]
    Apply {
        /// A YAML file, or a folder of them.
        #[arg(short = 'f', long = "file")]
        file: PathBuf,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
        /// Remove what has this label, NAME=VALUE, is of a kind in the file and is
        /// not in the file. May repeat: all of them.
        #[arg(long)]
        prune: Vec<String>,
    },
    /// Says what `apply` would change.
    #[command(after_help = "Example: postern diff -f all.yaml")]
    Diff {
        /// A YAML file, or a folder of them.
        #[arg(short = 'f', long = "file")]
        file: PathBuf,
        /// As for `apply`.
        #[arg(long)]
        prune: Vec<String>,
    },
    /// Prints everything as a file for `apply`.
    #[command(after_help = "Example: postern export app assignment --label team=web > web.yaml")]
    Export {
        /// Only these kinds.
        kinds: Vec<String>,
        /// Only objects with this label, NAME=VALUE. May repeat.
        #[arg(long)]
        label: Vec<String>,
    },
}

#[derive(clap::Args)]
pub struct PublishArguments {
    /// http|https|h2c://HOST[:PORT] or unix:/PATH, as its connectors reach it.
    pub origin: String,
    /// What users and commands call it, and its host: NAME under your domain.
    #[arg(long)]
    pub name: String,
    /// https://HOST[/PATH/]; by default the name under your domain.
    #[arg(long, default_value = "")]
    pub url: String,
    /// Connector group; by default `default`.
    #[arg(long, default_value = "")]
    pub group: String,
    /// Nobody signs in at the edge; the application has to ask by itself.
    #[arg(long)]
    pub passthrough: bool,
    /// Assign to this principal instead of you: user:NAME, group:NAME, everyone.
    #[arg(long)]
    pub assign: Option<String>,
    /// Tell the application who asks, in header NAME. NAME=CLAIM, where CLAIM is
    /// username, email, display_name, user_id or groups. May repeat.
    #[arg(long = "header")]
    pub headers: Vec<String>,
    /// Tell the application who asks in a signed header, Postern-Assertion (JWT).
    #[arg(long)]
    pub assertion: bool,
    /// A protocol connections may be upgraded to beside websocket. May repeat.
    #[arg(long = "upgrade", value_name = "PROTOCOL")]
    pub upgrades: Vec<String>,
    /// A field of users that ends at the relay otherwise (docs/fields.md):
    /// NAME, or NAME-* for all that begin so. May repeat.
    #[arg(long = "pass-field", value_name = "NAME")]
    pub passed_fields: Vec<String>,
}

#[derive(Args)]
pub struct HistoryArguments {
    /// config, directory, risk or activity; all but activity without it.
    #[arg(long, default_value = "")]
    pub stream: String,
    /// Only objects of this kind, from `postern kinds`.
    #[arg(long, default_value = "")]
    pub kind: String,
    /// Only this object of the kind, and its parts: name or id.
    #[arg(long, default_value = "", requires = "kind")]
    pub object: String,
    /// Only changes by this user, or by `system`.
    #[arg(long, default_value = "")]
    pub actor: String,
    /// Not before this time, such as 2026-05-01 or 2026-05-01T12:00:00Z.
    #[arg(long)]
    pub since: Option<String>,
    /// Not after this time.
    #[arg(long)]
    pub until: Option<String>,
    /// Only subjects that contain this: a kind or an id.
    #[arg(long, default_value = "")]
    pub subject: String,
    /// How many entries, the newest ones.
    #[arg(long, default_value_t = 20)]
    pub size: u32,
    /// Only what is older than this position of the stream; 0 begins with the newest.
    #[arg(long, default_value_t = 0)]
    pub before: u64,
}

#[cfg(test)]
mod tests;
