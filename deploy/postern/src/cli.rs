//! The commands and their arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    Up(UpArguments),
    /// Runs the controller.
    Controller(RoleArguments),
    /// Runs a relay.
    Relay(RoleArguments),
    /// Runs the sign-in service and the connector beside it.
    Identity(RoleArguments),
    /// Runs analytics.
    Analytics(RoleArguments),
    /// Makes the keys of every role.
    Keys {
        #[arg(long)]
        out: PathBuf,
    },
    /// Prints a nats-server configuration with the permissions of each role.
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
    /// Prints a completion script for a shell.
    Completion { shell: clap_complete::Shell },
    /// Signs in for the commands below, in a browser or with a code.
    Login(LoginArguments),
    /// Checks the way from here to the relay, and what administrators forget.
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
    Publish {
        /// http|https|h2c://HOST[:PORT] or unix:/PATH, as its connectors reach it.
        origin: String,
        #[arg(long)]
        name: String,
        /// https://HOST[/PATH/]; by default the name under your domain.
        #[arg(long, default_value = "")]
        url: String,
        /// Connector group; by default `default`.
        #[arg(long, default_value = "")]
        group: String,
        #[arg(long)]
        passthrough: bool,
        /// Assign to this principal instead of you: user:NAME, group:NAME, everyone.
        #[arg(long)]
        assign: Option<String>,
        /// NAME=CLAIM: username, email, display_name, user_id or groups. May repeat.
        #[arg(long = "header")]
        headers: Vec<String>,
        #[arg(long)]
        assertion: bool,
        /// A protocol connections may be upgraded to beside websocket. May repeat.
        #[arg(long = "upgrade", value_name = "PROTOCOL")]
        upgrades: Vec<String>,
        /// A field of users that ends at the relay otherwise (docs/fields.md):
        /// NAME, or NAME-* for all that begin so. May repeat.
        #[arg(long = "pass-field", value_name = "NAME")]
        passed_fields: Vec<String>,
    },
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
    Domain { domain: String },
    /// How pages for people who are refused look; shows it without options.
    Branding {
        /// Of the organisation.
        #[arg(long)]
        name: Option<String>,
        /// A colour such as #2f5d50.
        #[arg(long)]
        accent: Option<String>,
        /// https: or mailto:, where people get help.
        #[arg(long)]
        support_url: Option<String>,
    },
    /// What happened.
    History {
        #[arg(long, default_value = "config")]
        stream: String,
        /// Only subjects that contain this: a kind or an id.
        #[arg(long, default_value = "")]
        subject: String,
        #[arg(long, default_value_t = 20)]
        size: u32,
        #[arg(long, default_value_t = 0)]
        before: u64,
    },
    /// Makes things as files describe them; what they do not mention stays.
    Apply {
        /// A YAML file, or a folder of them.
        #[arg(short = 'f', long = "file")]
        file: PathBuf,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints everything as a file for `apply`.
    Export,
}

#[derive(Subcommand)]
pub enum AppCommand {
    List,
    Show {
        app: String,
    },
    /// Changes fields: NAME=VALUE, as `show --output json` names them.
    Set {
        app: String,
        fields: Vec<String>,
    },
    /// From here to the relay, to a connector, to the application's door.
    Test {
        app: String,
    },
    /// What its pages ask for on its host where nothing is published.
    Missing {
        app: String,
    },
    /// Takes it off the Internet; open exchanges are cut.
    Retire {
        app: String,
    },
    Assign {
        app: String,
        principal: String,
    },
    Unassign {
        app: String,
        principal: String,
    },
    Assignments {
        app: String,
    },
}

#[derive(Subcommand)]
pub enum GroupCommand {
    List,
    Create {
        name: String,
    },
    Rename {
        group: String,
        name: String,
    },
    Remove {
        group: String,
    },
    /// Adds user:NAME or group:NAME.
    Add {
        group: String,
        member: String,
    },
    /// Removes user:NAME or group:NAME.
    Drop {
        group: String,
        member: String,
    },
    Members {
        group: String,
    },
}

#[derive(Subcommand)]
pub enum ConnectorCommand {
    List,
    /// Its links are cut within a second.
    Revoke {
        connector: String,
    },
    /// Makes a one-time token for `postern-connector join`.
    Token {
        #[arg(long, default_value = "default")]
        group: String,
        /// Seconds it can be used.
        #[arg(long, default_value_t = 0)]
        life: u32,
    },
    Groups,
    CreateGroup {
        name: String,
    },
    RetireGroup {
        group: String,
    },
}

#[derive(Subcommand)]
pub enum UserCommand {
    List,
    Create {
        username: String,
        #[arg(long, default_value = "")]
        display_name: String,
        #[arg(long, default_value = "")]
        email: String,
        /// A file with the password; without it one is made and printed.
        #[arg(long)]
        password_file: Option<PathBuf>,
    },
    Disable {
        user: String,
    },
    Enable {
        user: String,
    },
    Remove {
        user: String,
    },
    /// Sets a password and ends all sessions.
    Password {
        user: String,
        #[arg(long)]
        password_file: Option<PathBuf>,
    },
    /// The user sets up an authenticator at the next sign-in that needs one.
    ResetMfa {
        user: String,
    },
    Role {
        user: String,
        role: RoleName,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum RoleName {
    None,
    Auditor,
    Admin,
    Owner,
}

#[derive(Subcommand)]
pub enum PolicyCommand {
    List,
    Create {
        name: String,
        #[arg(long, conflicts_with = "require")]
        block: bool,
        /// `mfa`. May repeat.
        #[arg(long)]
        require: Vec<String>,
        /// Principals it is for; everyone without it. May repeat.
        #[arg(long)]
        include: Vec<String>,
        #[arg(long)]
        exclude: Vec<String>,
        /// Applications it is for; all without it. May repeat.
        #[arg(long)]
        app: Vec<String>,
        /// Only from these networks. May repeat.
        #[arg(long)]
        network: Vec<String>,
        /// Not from these networks. May repeat.
        #[arg(long)]
        exclude_network: Vec<String>,
        #[arg(long, value_enum, default_value_t = StateName::On)]
        state: StateName,
    },
    State {
        policy: String,
        state: StateName,
    },
    Remove {
        policy: String,
    },
    /// What would happen, and why.
    WhatIf {
        #[arg(long)]
        user: String,
        #[arg(long)]
        app: String,
        #[arg(long, default_value = "127.0.0.1")]
        address: String,
        #[arg(long)]
        mfa: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum StateName {
    On,
    Off,
    ReportOnly,
}

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Which keys there are, and which are in use.
    List,
    /// A new key beside the old one, known to everybody before it is used.
    Rotate {
        purpose: KeyName,
        /// Seconds until it is used; 0 when the old one leaked.
        #[arg(long)]
        active_in: Option<u32>,
    },
    /// What the key signed counts no more.
    Retire { key: String },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum KeyName {
    Session,
    Assertion,
    RelaySecret,
}

#[derive(Subcommand)]
pub enum CertificateCommand {
    List,
    /// A chain with its key: PEM, or PKCS#12 (.pfx, .p12).
    Install {
        /// The chain, leaf first; with the key in it unless --key is given.
        file: PathBuf,
        /// The unencrypted private key, PEM.
        #[arg(long)]
        key: Option<PathBuf>,
        /// A file with the password of a PKCS#12 file; without it there is none.
        #[arg(long)]
        password_file: Option<PathBuf>,
    },
    /// From the ACME server the controller knows; renewed by itself.
    Order {
        #[arg(required = true)]
        hosts: Vec<String>,
        #[arg(long, default_value = "tls-alpn-01")]
        method: MethodName,
    },
    Remove {
        id: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum MethodName {
    #[value(name = "tls-alpn-01")]
    TlsAlpn01,
    #[value(name = "http-01")]
    Http01,
    #[value(name = "dns-01")]
    Dns01,
}

#[derive(Subcommand)]
pub enum SessionCommand {
    List {
        #[arg(long, default_value = "")]
        user: String,
    },
    /// Ends one session everywhere, open WebSockets included.
    Revoke { session: String },
    /// Ends all sessions of a user.
    RevokeUser { user: String },
}
