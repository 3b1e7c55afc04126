//! A nats-server configuration that gives each role what the design's table of
//! streams says, and nothing else. Users are the nkeys of `postern keys`.

use std::path::{Path, PathBuf};

use anyhow::Context;

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
        let (publish, subscribe) = permissions(role);
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

/// What a role may publish and subscribe to.
fn permissions(role: &str) -> (Vec<String>, Vec<String>) {
    let (writes, reads): (&[&str], &[&str]) = match role {
        "controller" => (&["config", "directory", "risk", "activity"], &["CONFIG", "DIRECTORY", "RISK", "ACTIVITY"]),
        "identity" => (&["activity"], &["CONFIG", "DIRECTORY", "RISK"]),
        "relay" => (&["activity"], &["CONFIG", "RISK"]),
        _ => (&[], &["ACTIVITY"]),
    };
    let mut publish: Vec<String> = writes.iter().map(|stream| format!("postern.{stream}.>")).collect();
    for stream in reads {
        publish.push(format!("$JS.API.STREAM.INFO.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}.>"));
        publish.push(format!("$JS.API.CONSUMER.INFO.{stream}.>"));
        publish.push(format!("$JS.API.CONSUMER.DELETE.{stream}.>"));
        publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.>"));
        publish.push(format!("$JS.ACK.{stream}.>"));
        if role == "controller" {
            publish.push(format!("$JS.API.STREAM.CREATE.{stream}"));
        }
    }
    // An inbox of its own: answers of the broker carry events of other streams.
    let mut subscribe = vec![format!("_INBOX_{role}.>")];
    match role {
        "relay" => publish.push("postern.presence.relay.>".into()),
        "controller" => subscribe.push("postern.presence.>".into()),
        _ => {}
    }
    (publish, subscribe)
}
