//! Compiles the .proto files with a compiler written in Rust: no protoc needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 5] = ["resources", "event", "tunnel", "enrolment", "admin"];

/// Messages that people read and write.
const RESOURCES: [&str; 37] = [
    "Accesses",
    "Branding",
    "App",
    "Segment",
    "Hsts",
    "CorsRule",
    "HeaderRule",
    "IdentityHeader",
    "ConnectorGroup",
    "Connector",
    "JoinToken",
    "User",
    "Credentials",
    "Group",
    "Membership",
    "Assignment",
    "Policy",
    "RoleAssignment",
    "Tenant",
    "Key",
    "SealedKey",
    "Certificate",
    "SessionRevocation",
    "UserRevocation",
    "OutdatedTokens",
    "AllSessionsEnded",
    "SignInAttempt",
    "Access",
    "ConnectorActivity",
    "ActivityGap",
    "Session",
    "HistoryEntry",
    "WhatIfResponse",
    "PolicyExplanation",
    "IssueTokenResponse",
    "MissingPath",
    "DomainProof",
];

/// Enumerations are written by name, never by number.
const ENUM_FIELDS: [(&str, &str); 15] = [
    ("Certificate.source", "certificate_source"),
    ("Certificate.method", "acme_method"),
    ("App.cookie_same_site", "same_site"),
    ("App.translate", "translate"),
    ("HeaderRule.action", "header_action"),
    ("App.host_header", "host_header"),
    ("App.pre_authentication", "pre_authentication"),
    ("IdentityHeader.claim", "claim"),
    ("Policy.state", "policy_state"),
    ("Policy.require", "controls"),
    ("WhatIfResponse.missing", "controls"),
    ("PolicyExplanation.state", "policy_state"),
    ("RoleAssignment.role", "role"),
    ("Key.purpose", "key_purpose"),
    ("SealedKey.holder", "key_holder"),
];

/// Sealed, hashed or packed, of no use to a reader.
const NEVER_SHOWN: [&str; 10] = [
    "Connector.public_key",
    "OutdatedTokens.users",
    "JoinToken.secret_hash",
    "Credentials.password",
    "Credentials.totp",
    "Key.public_key",
    "SealedKey.ciphertext",
    "Certificate.chain",
    "Certificate.sealed_private_key",
    "Certificate.key_authorization",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=postern");
    let paths = FILES.map(|file| format!("postern/v1/{file}.proto"));
    let descriptors = protox::compile(&paths, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::configure()
        .bytes(".postern.v1.SignedEvent")
        .bytes(".postern.v1.EventBody")
        .bytes(".postern.v1.Frame")
        .bytes(".postern.v1.RequestHead")
        .bytes(".postern.v1.ResponseHead")
        .bytes(".postern.v1.Trailers")
        .bytes(".postern.v1.LinkSettings");
    // People write these in YAML and read them as JSON.
    for message in RESOURCES {
        config = config
            .type_attribute(format!(".postern.v1.{message}"), "#[derive(serde::Serialize, serde::Deserialize)]")
            .message_attribute(format!(".postern.v1.{message}"), "#[serde(default, deny_unknown_fields)]");
    }
    for (field, names) in ENUM_FIELDS {
        config = config
            .field_attribute(format!(".postern.v1.{field}"), format!("#[serde(with = \"crate::names::{names}\")]"));
    }
    for field in NEVER_SHOWN {
        config = config.field_attribute(format!(".postern.v1.{field}"), "#[serde(skip)]");
    }
    config.compile_fds(descriptors)?;
    Ok(())
}
