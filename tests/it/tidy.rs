//! Rules about the tree itself: which way dependencies point, what files are
//! called, and that the role table speaks of every method.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// DESIGN's table. A new arrow is argued, and a line here.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("proto", &[]),
    ("control/model", &[]),
    ("control/eventlog", &["model", "proto"]),
    ("control/controller", &["model", "eventlog", "proto", "runtime"]),
    ("control/identity", &["model", "eventlog", "proto", "runtime"]),
    ("dataplane/tunnel", &["proto"]),
    // Only the model says where links lead.
    ("dataplane/translate", &["model"]),
    ("dataplane/relay", &["model", "eventlog", "tunnel", "translate", "proto", "runtime"]),
    ("connector", &["tunnel", "proto", "runtime"]),
    ("analytics", &["model", "eventlog", "proto", "runtime"]),
    ("deploy/runtime", &[]),
    (
        "deploy/postern",
        &["model", "eventlog", "proto", "runtime", "controller", "identity", "relay", "connector", "analytics"],
    ),
];

#[test]
fn dependencies_point_down() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let ours: Vec<String> = manifest["workspace"]["dependencies"]
        .as_table()
        .unwrap()
        .iter()
        .filter(|(_, it)| it.get("path").is_some())
        .map(|(name, _)| name.clone())
        .collect();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let known: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    for member in members.iter().map(|it| it.as_str().unwrap()).filter(|it| *it != "tests") {
        let allowed = known.get(member).unwrap_or_else(|| panic!("{member} is not in the table"));
        let manifest: toml::Table =
            fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap();
        for name in manifest["dependencies"].as_table().unwrap().keys().filter(|it| ours.contains(it)) {
            assert!(allowed.contains(&name.as_str()), "{member} may not use {name}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_is_about_something() {
    const EMPTY_NAMES: [&str; 7] =
        ["utils.rs", "util.rs", "helpers.rs", "types.rs", "common.rs", "misc.rs", "manager.rs"];
    for path in sources(&root()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!EMPTY_NAMES.contains(&name), "{} is a name for anything", path.display());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} has no header", path.display());
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !matches!(name.as_str(), "target" | ".git" | ".tools" | "postern-data") {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_role_table_speaks_of_every_method() {
    let table = controller::callers::RoleTable::load().unwrap();
    let known: Vec<&str> = table.methods().map(|(method, _)| method).collect();
    let mut methods = Vec::new();
    for file in ["admin", "enrolment"] {
        let text = fs::read_to_string(root().join(format!("proto/postern/v1/{file}.proto"))).unwrap();
        let mut service = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("service ") {
                service = name.split(' ').next().unwrap();
            }
            if let Some(rpc) = line.trim().strip_prefix("rpc ") {
                methods.push(format!("/postern.v1.{service}/{}", rpc.split('(').next().unwrap()));
            }
        }
    }
    assert!(methods.len() > 40);
    for method in &methods {
        assert!(known.contains(&method.as_str()), "{method} is in no line of roles.txt");
    }
    for method in known.iter().filter(|it| it.starts_with("/postern.v1.")) {
        assert!(methods.iter().any(|it| it == method), "{method} does not exist");
    }
}
