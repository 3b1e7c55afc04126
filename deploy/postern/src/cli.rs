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
    Publish {
        /// http|https|h2c://HOST[:PORT] or unix:/PATH, as its connectors reach it.
        origin: String,
        /// What users and commands call it, and its host: NAME under your domain.
        #[arg(long)]
        name: String,
        /// https://HOST[/PATH/]; by default the name under your domain.
        #[arg(long, default_value = "")]
        url: String,
        /// Connector group; by default `default`.
        #[arg(long, default_value = "")]
        group: String,
        /// Nobody signs in at the edge; the application has to ask by itself.
        #[arg(long)]
        passthrough: bool,
        /// Assign to this principal instead of you: user:NAME, group:NAME, everyone.
        #[arg(long)]
        assign: Option<String>,
        /// Tell the application who asks, in header NAME. NAME=CLAIM, where CLAIM is
        /// username, email, display_name, user_id or groups. May repeat.
        #[arg(long = "header")]
        headers: Vec<String>,
        /// Tell the application who asks in a signed header, Postern-Assertion (JWT).
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
    /// What happened.
    #[command(after_help = "Example: postern history --stream risk --size 50")]
    History {
        /// config, directory, risk or activity.
        #[arg(long, default_value = "config")]
        stream: String,
        /// Only subjects that contain this: a kind or an id.
        #[arg(long, default_value = "")]
        subject: String,
        /// How many entries, the newest ones.
        #[arg(long, default_value_t = 20)]
        size: u32,
        /// Only what is older than this position; 0 begins with the newest.
        #[arg(long, default_value_t = 0)]
        before: u64,
    },
    /// Makes things as files describe them; what they do not mention stays.
    #[command(after_help = "Example: postern apply -f all.yaml --dry-run")]
    Apply {
        /// A YAML file, or a folder of them.
        #[arg(short = 'f', long = "file")]
        file: PathBuf,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints everything as a file for `apply`.
    #[command(after_help = "Example: postern export > all.yaml")]
    Export,
}

#[derive(Subcommand)]
pub enum AppCommand {
    /// Lists what is published.
    #[command(after_help = "Example: postern app list")]
    List,
    /// Shows one application with all its fields.
    #[command(after_help = "Example: postern app show wiki --output json")]
    Show {
        /// Name or id.
        app: String,
    },
    /// Changes fields: NAME=VALUE, as `show --output json` names them.
    #[command(after_help = "Example: postern app set wiki maintenance=true home_path=/start")]
    Set {
        /// Name or id.
        app: String,
        /// NAME=VALUE; the value is JSON or else text. May repeat.
        fields: Vec<String>,
    },
    /// From here to the relay, to a connector, to the application's door.
    #[command(after_help = "Example: postern app test wiki")]
    Test {
        /// Name or id.
        app: String,
    },
    /// What its pages ask for on its host where nothing is published.
    #[command(after_help = "Example: postern app missing wiki")]
    Missing {
        /// Name or id.
        app: String,
    },
    /// Takes it off the Internet; open exchanges are cut.
    #[command(after_help = "Example: postern app retire wiki")]
    Retire {
        /// Name or id.
        app: String,
    },
    /// Lets people use it.
    #[command(after_help = "Example: postern app assign wiki group:staff")]
    Assign {
        /// Name or id.
        app: String,
        /// user:NAME, group:NAME or everyone.
        principal: String,
    },
    /// Takes it from people again; what they have open is cut.
    #[command(after_help = "Example: postern app unassign wiki group:staff")]
    Unassign {
        /// Name or id.
        app: String,
        /// user:NAME, group:NAME or everyone.
        principal: String,
    },
    /// Lists who may use it.
    #[command(after_help = "Example: postern app assignments wiki")]
    Assignments {
        /// Name or id.
        app: String,
    },
}

#[derive(Subcommand)]
pub enum GroupCommand {
    /// Lists the groups.
    #[command(after_help = "Example: postern group list")]
    List,
    /// Makes a group.
    #[command(after_help = "Example: postern group create staff")]
    Create {
        /// What policies and assignments call it.
        name: String,
    },
    /// Gives a group another name; what refers to it follows.
    #[command(after_help = "Example: postern group rename staff employees")]
    Rename {
        /// Name or id of the group.
        group: String,
        /// The new name.
        name: String,
    },
    /// Removes a group that no policy names.
    #[command(after_help = "Example: postern group remove staff")]
    Remove {
        /// Name or id of the group.
        group: String,
    },
    /// Adds user:NAME or group:NAME.
    #[command(after_help = "Example: postern group add staff user:alice")]
    Add {
        /// Name or id of the group.
        group: String,
        /// user:NAME or group:NAME.
        member: String,
    },
    /// Removes user:NAME or group:NAME.
    #[command(after_help = "Example: postern group drop staff user:alice")]
    Drop {
        /// Name or id of the group.
        group: String,
        /// user:NAME or group:NAME.
        member: String,
    },
    /// Lists the members of a group.
    #[command(after_help = "Example: postern group members staff")]
    Members {
        /// Name or id of the group.
        group: String,
    },
}

#[derive(Subcommand)]
pub enum ConnectorCommand {
    /// Lists the connectors and their groups.
    #[command(after_help = "Example: postern connector list")]
    List,
    /// Its links are cut within a second.
    #[command(after_help = "Example: postern connector revoke 0198c3f0-7c1e-7aaa-8000-000000000001")]
    Revoke {
        /// Its id, from `postern connector list`.
        connector: String,
    },
    /// Makes a one-time token for `postern-connector join`.
    #[command(after_help = "Example: postern connector token --group berlin > token")]
    Token {
        /// The connector group that it lets in to.
        #[arg(long, default_value = "default")]
        group: String,
        /// Seconds it can be used; 0 means 900.
        #[arg(long, default_value_t = 0)]
        life: u32,
    },
    /// Lists the connector groups.
    #[command(after_help = "Example: postern connector groups")]
    Groups,
    /// Makes a connector group: connectors that reach the same applications.
    #[command(after_help = "Example: postern connector create-group berlin")]
    CreateGroup {
        /// What `publish --group` calls it.
        name: String,
    },
    /// Removes a connector group without applications and connectors.
    #[command(after_help = "Example: postern connector retire-group berlin")]
    RetireGroup {
        /// Name or id of the connector group.
        group: String,
    },
}

#[derive(Subcommand)]
pub enum UserCommand {
    /// Lists the users.
    #[command(after_help = "Example: postern user list")]
    List,
    /// Makes a user, and prints a password unless one is given.
    #[command(after_help = "Example: postern user create alice --display-name 'Alice Liddell'")]
    Create {
        /// What the user types to sign in.
        username: String,
        /// The name that people see.
        #[arg(long, default_value = "")]
        display_name: String,
        /// Told to applications that ask for it; nothing is sent there.
        #[arg(long, default_value = "")]
        email: String,
        /// A file with the password; without it one is made and printed.
        #[arg(long)]
        password_file: Option<PathBuf>,
    },
    /// Ends all sessions and lets the user in no more.
    #[command(after_help = "Example: postern user disable alice")]
    Disable {
        /// Username or id.
        user: String,
    },
    /// Lets a disabled user in again.
    #[command(after_help = "Example: postern user enable alice")]
    Enable {
        /// Username or id.
        user: String,
    },
    /// Removes a user with all memberships and assignments.
    #[command(after_help = "Example: postern user remove alice")]
    Remove {
        /// Username or id.
        user: String,
    },
    /// Sets a password and ends all sessions.
    #[command(after_help = "Example: postern user password alice --password-file new-password")]
    Password {
        /// Username or id.
        user: String,
        /// A file with the password; without it one is made and printed.
        #[arg(long)]
        password_file: Option<PathBuf>,
    },
    /// The user sets up an authenticator at the next sign-in that needs one.
    #[command(after_help = "Example: postern user reset-mfa alice")]
    ResetMfa {
        /// Username or id.
        user: String,
    },
    /// Says what a user may do in the admin API.
    #[command(after_help = "Example: postern user role alice auditor")]
    Role {
        /// Username or id.
        user: String,
        /// An auditor reads, an admin changes, an owner also gives roles.
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
    /// Lists the policies.
    #[command(after_help = "Example: postern policy list")]
    List,
    /// Makes a policy: whom it is for, when it applies, what it asks.
    #[command(
        after_help = "Example: postern policy create vault --require mfa --app vault --exclude-network 10.0.0.0/8"
    )]
    Create {
        /// What history and what-if call it.
        name: String,
        /// Let nobody in whom it applies to.
        #[arg(long, conflicts_with = "require")]
        block: bool,
        /// What must be proved: `mfa`. May repeat.
        #[arg(long)]
        require: Vec<String>,
        /// Whom it is for: user:NAME, group:NAME; everyone without it. May repeat.
        #[arg(long)]
        include: Vec<String>,
        /// Whom it is not for, even when included: user:NAME, group:NAME. May repeat.
        #[arg(long)]
        exclude: Vec<String>,
        /// Applications it is for; all without it. May repeat.
        #[arg(long)]
        app: Vec<String>,
        /// Applies only to requests from this network, such as 10.0.0.0/8. May repeat.
        #[arg(long)]
        network: Vec<String>,
        /// Applies to no request from this network. May repeat.
        #[arg(long)]
        exclude_network: Vec<String>,
        /// `report-only` says in the log what it would have done.
        #[arg(long, value_enum, default_value_t = StateName::On)]
        state: StateName,
    },
    /// Turns a policy on or off, or has it only report.
    #[command(after_help = "Example: postern policy state vault report-only")]
    State {
        /// Name or id of the policy.
        policy: String,
        /// `report-only` says in the log what it would have done.
        state: StateName,
    },
    /// Removes a policy.
    #[command(after_help = "Example: postern policy remove vault")]
    Remove {
        /// Name or id of the policy.
        policy: String,
    },
    /// What would happen, and why.
    #[command(after_help = "Example: postern policy what-if --user alice --app vault --address 198.51.100.7")]
    WhatIf {
        /// Username or id of who asks.
        #[arg(long)]
        user: String,
        /// Name or id of the application that is asked for.
        #[arg(long)]
        app: String,
        /// Where the request comes from.
        #[arg(long, default_value = "127.0.0.1")]
        address: String,
        /// As if a second factor had been shown.
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
    #[command(after_help = "Example: postern key list")]
    List,
    /// A new key beside the old one, known to everybody before it is used.
    #[command(after_help = "Example: postern key rotate session --active-in 300")]
    Rotate {
        /// Tokens, assertions, or what relays seal.
        purpose: KeyName,
        /// Seconds until it is used, 60 unless given; 0 when the old one leaked.
        #[arg(long)]
        active_in: Option<u32>,
    },
    /// What the key signed counts no more.
    #[command(after_help = "Example: postern key retire 0198c3f07c1e7aaa8000000000000001")]
    Retire {
        /// Its id, from `postern key list`.
        key: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum KeyName {
    Session,
    Assertion,
    RelaySecret,
}

#[derive(Subcommand)]
pub enum CertificateCommand {
    /// Lists the certificates, and when each ends.
    #[command(after_help = "Example: postern certificate list")]
    List,
    /// A chain with its key: PEM, or PKCS#12 (.pfx, .p12).
    #[command(after_help = "Example: postern certificate install chain.pem --key key.pem")]
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
    #[command(after_help = "Example: postern certificate order wiki.example.com --method http-01")]
    Order {
        /// The hosts it is for; one certificate has all of them.
        #[arg(required = true)]
        hosts: Vec<String>,
        /// How the server is shown that the hosts are yours: docs/certificates.md.
        #[arg(long, default_value = "tls-alpn-01")]
        method: MethodName,
    },
    /// Removes a certificate; another one for its hosts is shown instead.
    #[command(after_help = "Example: postern certificate remove 0198c3f0-7c1e-7aaa-8000-000000000001")]
    Remove {
        /// From `postern certificate list`.
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
    /// Lists who is signed in, since when and from where.
    #[command(after_help = "Example: postern session list --user alice")]
    List {
        /// Only sessions of this user; name or id.
        #[arg(long, default_value = "")]
        user: String,
    },
    /// Ends one session everywhere, open WebSockets included.
    #[command(after_help = "Example: postern session revoke 0198c3f0-7c1e-7aaa-8000-000000000001")]
    Revoke {
        /// Its id, from `postern session list`.
        session: String,
    },
    /// Ends all sessions of a user.
    #[command(after_help = "Example: postern session revoke-user alice")]
    RevokeUser {
        /// Username or id.
        user: String,
    },
}

#[cfg(test)]
mod tests;
