//! Commands for one kind of object each, with fewer words than the general ones.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

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
    /// Lists the connectors: which are online, since when, from where and how busy.
    #[command(after_help = "Example: postern connector list")]
    List,
    /// Its links are cut within a second.
    #[command(after_help = "Example: postern connector revoke berlin-1")]
    Revoke {
        /// Name; where several have it, the id from `postern connector list --output json`.
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
pub enum ProviderCommand {
    /// Lists the identity providers.
    #[command(after_help = "Example: postern provider list")]
    List,
    /// Stores what the provider gave Postern as its client secret.
    #[command(after_help = "Example: postern provider secret Entra --secret-file secret.txt")]
    Secret {
        /// Name or id.
        provider: String,
        /// A file with the secret; an empty one takes the stored secret away.
        #[arg(long)]
        secret_file: PathBuf,
    },
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
        /// What must be shown: `mfa`, or `sign-in-within:TIME` (5m to 12h). May repeat.
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
        /// As if this had been shown: `mfa`, `sign-in-within` (a sign-in of this moment). May repeat.
        #[arg(long)]
        satisfied: Vec<String>,
        /// Short for `--satisfied mfa`.
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
