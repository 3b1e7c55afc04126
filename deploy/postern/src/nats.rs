//! A nats-server configuration that gives each role what the design's table of
//! streams says, and nothing else. Users are the nkeys of `postern keys`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use eventlog::jetstream::{Permissions, permissions};

use crate::keys::ROLES;

/// Certificate, key and the authority of clients, for TLS both ways.
#[derive(Clone, Debug, clap::Args)]
pub struct Tls {
    /// The server's certificate (PEM).
    #[arg(long, requires_all = ["tls_key", "tls_ca"])]
    tls_certificate: Option<PathBuf>,
    /// The server's private key (PEM).
    #[arg(long)]
    tls_key: Option<PathBuf>,
    /// Who signs the clients' certificates (PEM); clients without one are refused.
    #[arg(long)]
    tls_ca: Option<PathBuf>,
}

/// Without a folder of keys each user is a variable of the server's environment.
pub fn config(keys: Option<&Path>, store: &Path, tls: &Tls) -> anyhow::Result<String> {
    let mut users = String::new();
    for role in ROLES {
        let public = match keys {
            Some(keys) => {
                let path = keys.join(role).join("nats.pub");
                std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?
            }
            None => format!("$POSTERN_NKEY_{}", role.to_ascii_uppercase()),
        };
        let Permissions { publish, subscribe } = permissions(role);
        users.push_str(&format!(
            "    {{ nkey: {}, permissions: {{\n      publish: {{ allow: [{}] }}\n      subscribe: {{ allow: [{}] }}\n    }} }} # {role}\n",
            public.trim(),
            quoted(&publish),
            quoted(&subscribe),
        ));
    }
    let tls = match (&tls.tls_certificate, &tls.tls_key, &tls.tls_ca) {
        (Some(certificate), Some(key), Some(ca)) => format!(
            "tls {{\n  cert_file: {certificate:?}\n  key_file: {key:?}\n  ca_file: {ca:?}\n  verify: true\n}}\n"
        ),
        _ => String::new(),
    };
    Ok(format!(
        "# Made by `postern nats-config`. One user a role; see the table of streams in ARCHITECTURE.md.\n\
         # With the default sync_interval of two minutes a power cut loses events that were acknowledged.\n\
         jetstream {{\n  store_dir: {store:?}\n  sync_interval: always\n}}\n\
         max_payload: 1MB\n{tls}\
         authorization {{\n  users: [\n{users}  ]\n}}\n",
    ))
}

fn quoted(subjects: &[String]) -> String {
    subjects.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ")
}
