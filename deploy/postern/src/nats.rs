//! A nats-server configuration that gives each role what the design's table of
//! streams says, and nothing else. Users are the nkeys of `postern keys`.

use std::path::Path;

use anyhow::Context;

use crate::keys::ROLES;

pub fn config(keys: &Path, store: &Path) -> anyhow::Result<String> {
    let mut users = String::new();
    for role in ROLES {
        let path = keys.join(role).join("nats.pub");
        let public = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let (publish, subscribe) = permissions(role);
        users.push_str(&format!(
            "    {{ nkey: {}, permissions: {{\n      publish: {{ allow: [{}] }}\n      subscribe: {{ allow: [{}] }}\n    }} }} # {role}\n",
            public.trim(),
            quoted(&publish),
            quoted(&subscribe),
        ));
    }
    Ok(format!(
        "# Made by `postern nats-config`. One user a role; see the table of streams in ARCHITECTURE.md.\n\
         # With the default sync_interval of two minutes a power cut loses events that were acknowledged.\n\
         jetstream {{\n  store_dir: {store:?}\n  sync_interval: always\n}}\n\
         max_payload: 1MB\n\
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
    let mut subscribe = vec!["_INBOX.>".to_owned()];
    match role {
        "relay" => publish.push("postern.presence.relay.>".into()),
        "controller" => subscribe.push("postern.presence.>".into()),
        _ => {}
    }
    (publish, subscribe)
}
