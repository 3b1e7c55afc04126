//! Rules about the tree itself: which way dependencies point, what files are
//! called, that the role table speaks of every method, the page of settings of
//! every setting, and that links in the documents lead somewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// DESIGN's table. A new arrow is argued, and a line here.
const MAY_USE: [(&str, &[&str]); 15] = [
    ("proto", &[]),
    ("control/model", &[]),
    ("control/eventlog", &["model", "proto"]),
    ("control/controller", &["model", "eventlog", "proto", "runtime", "tokens"]),
    ("control/identity", &["model", "eventlog", "proto", "runtime", "tokens"]),
    ("control/admin-client", &["proto", "runtime"]),
    // Without the model, so that connectors may verify tokens and know no policies.
    ("control/tokens", &["runtime"]),
    ("dataplane/strict", &[]),
    ("dataplane/tunnel", &["proto"]),
    // Only the model says where links lead.
    ("dataplane/translate", &["model"]),
    ("dataplane/relay", &["model", "eventlog", "strict", "tunnel", "translate", "proto", "runtime", "tokens"]),
    ("connector", &["strict", "tunnel", "proto", "runtime", "tokens"]),
    ("analytics", &["model", "eventlog", "proto", "runtime"]),
    ("deploy/runtime", &[]),
    (
        "deploy/postern",
        &[
            "model",
            "eventlog",
            "proto",
            "runtime",
            "controller",
            "identity",
            "admin-client",
            "relay",
            "connector",
            "analytics",
            "tokens",
        ],
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

/// Folders of the relay, by the life of a request, and below them the files they
/// all know. Each row may use those named in it, which are rows further down.
const RELAY_MAY_USE: [(&str, &[&str]); 13] = [
    (
        "entrance",
        &[
            "request",
            "forward",
            "open",
            "links",
            "record",
            "current",
            "keys",
            "refusal",
            "refusal_texts",
            "life",
            "settings",
        ],
    ),
    ("request", &["forward", "open", "sessions", "record", "current", "keys", "refusal", "refusal_texts"]),
    ("forward", &["open", "sessions", "links", "record", "keys", "refusal", "settings"]),
    ("open", &["sessions", "record", "current", "life", "settings"]),
    ("sessions", &["links", "current", "keys", "refusal", "settings"]),
    ("links", &["record", "current", "life", "settings"]),
    ("record", &["settings"]),
    ("current", &["keys"]),
    ("keys", &[]),
    ("refusal", &["refusal_texts"]),
    ("refusal_texts", &[]),
    ("life", &[]),
    ("settings", &[]),
];

#[test]
fn the_relay_goes_one_way_from_entrance_to_record() {
    goes_one_way("dataplane/relay", &RELAY_MAY_USE);
}

/// Parts of the model: what is decided, above what it is decided about. A kind is
/// a rule over a tenant, and a tenant is made of kinds: those are one part.
const MODEL_MAY_USE_OF_ITSELF: [(&str, &[&str]); 22] = [
    ("session", &["activity", "ids", "policy", "risk", "snapshot"]),
    ("url_map", &["app", "hosts", "ids", "kinds", "origins"]),
    ("arrival", &["command", "directory", "ids", "kinds"]),
    ("batch", &["command", "event", "ids", "kinds", "snapshot"]),
    ("command", &["event", "ids", "kinds"]),
    ("snapshot", &["app", "directory", "event", "hosts", "ids", "kinds", "policy", "route"]),
    ("connector", &["kinds"]),
    ("keys", &["kinds"]),
    (
        "kinds",
        &["app", "branding", "directory", "http_rules", "event", "ids", "origins", "policy", "risk", "route", "text"],
    ),
    ("policy", &["directory", "ids", "text"]),
    ("origins", &["app", "ids"]),
    ("route", &["app", "ids", "text"]),
    ("app", &["directory", "http_rules", "hosts", "ids", "text"]),
    ("http_rules", &["text"]),
    ("directory", &["ids", "text"]),
    ("branding", &["text"]),
    ("risk", &["ids"]),
    ("event", &["ids"]),
    ("hosts", &[]),
    ("activity", &[]),
    ("text", &["ids"]),
    ("ids", &[]),
];

#[test]
fn the_model_goes_one_way_from_commands_to_ids() {
    goes_one_way("control/model", &MODEL_MAY_USE_OF_ITSELF);
}

/// Parts of identity, from its addresses down to what is true.
const IDENTITY_MAY_USE: [(&str, &[&str]); 15] = [
    ("endpoints", &["current", "keys", "pages", "portal", "provider", "upstream", "visitor"]),
    ("portal", &["current", "keys", "pages"]),
    ("provider", &["controller", "current", "keys", "pages", "sessions", "sign_in", "throttle", "visitor"]),
    (
        "sign_in",
        &["attempts", "controller", "current", "pages", "proofs", "sessions", "throttle", "upstream", "visitor"],
    ),
    ("upstream", &["current"]),
    ("proofs", &[]),
    ("controller", &["current"]),
    ("sessions", &["current"]),
    ("attempts", &[]),
    ("throttle", &[]),
    ("visitor", &[]),
    ("pages", &[]),
    ("keys", &[]),
    ("current", &[]),
    ("settings", &[]),
];

#[test]
fn identity_goes_one_way_from_its_addresses_to_what_is_true() {
    goes_one_way("control/identity", &IDENTITY_MAY_USE);
}

/// Each part of a crate, a file or a folder beside its root, uses only those in
/// its row, which stand below it; and no two files use each other in a circle.
/// What a file says of its own modules (`self::`) is no use.
fn goes_one_way(member: &str, may_use: &[(&str, &[&str])]) {
    let names: Vec<&str> = may_use.iter().map(|(name, _)| *name).collect();
    for (at, (name, used)) in may_use.iter().enumerate() {
        assert!(used.iter().all(|it| names[at + 1..].contains(it)), "{name} may use only rows below it");
    }
    let known: BTreeMap<&str, &[&str]> = may_use.iter().copied().collect();
    let folder = root().join(member).join("src");
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut arrows = BTreeSet::new();
    for path in sources(&folder) {
        let file = path.strip_prefix(&folder).unwrap().with_extension("").to_str().unwrap().to_owned();
        // The root puts the parts together, and tests are nobody's part.
        if file == "lib" || file.split('/').any(|it| it == "tests") {
            continue;
        }
        let part = file.split('/').next().unwrap();
        let allowed = known.get(part).unwrap_or_else(|| panic!("{part} is not in the table"));
        let uses = uses_of_crate(&fs::read_to_string(&path).unwrap());
        for used in &uses {
            let other = used.split('/').next().unwrap();
            assert!(other == part || allowed.contains(&other), "{file} may not use {used}");
            arrows.insert((part.to_owned(), other.to_owned()));
        }
        let of_file = |used: String| match folder.join(&used).with_extension("rs").exists() {
            true => used,
            false => used.split('/').next().unwrap().to_owned(),
        };
        files.insert(file.clone(), uses.into_iter().map(of_file).filter(|it| *it != file).collect());
    }
    for (part, allowed) in may_use {
        let unused: Vec<_> =
            allowed.iter().filter(|it| !arrows.contains(&((*part).to_owned(), (**it).to_owned()))).collect();
        assert!(unused.is_empty(), "{part} does not use {unused:?}");
    }
    assert!(files.len() > 15);
    // Without those that use none of the others, again and again, nothing is left.
    while let Some(ends) = files.iter().find(|(_, uses)| uses.iter().all(|it| !files.contains_key(it))) {
        let ends = ends.0.clone();
        files.remove(&ends);
    }
    assert!(files.is_empty(), "these files use each other in a circle: {files:#?}");
}

/// The first two names, `a/b`, of each path that begins with `crate::`.
fn uses_of_crate(text: &str) -> BTreeSet<String> {
    let (text, _tests) = text.split_once("\n#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
    // A macro at the root of the crate is in no file.
    let text = text.replace("$crate::with_toy!", "");
    let code: String = text.lines().filter(|line| !line.trim().starts_with("//")).collect();
    let code: String = code.chars().filter(|it| !it.is_whitespace()).collect();
    let paths = code.split("crate::").skip(1).flat_map(|rest| {
        let mut depth = 0;
        let end = rest.find(|it: char| {
            depth += i32::from(it == '{') - i32::from(it == '}');
            it == ';' || depth < 0 || depth == 0 && !(it.is_alphanumeric() || "_:}".contains(it))
        });
        branches(&rest[..end.unwrap_or(rest.len())])
    });
    paths.map(|path| path.split("::").take(2).collect::<Vec<_>>().join("/")).collect()
}

/// `a::{b, c::d}` is `a::b` and `a::c::d`.
fn branches(tree: &str) -> Vec<String> {
    let Some((front, rest)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, byte) in rest.bytes().enumerate() {
        let ends = depth == 0 && matches!(byte, b',' | b'}');
        if ends {
            found
                .extend(branches(&rest[start..at]).iter().filter(|it| !it.is_empty()).map(|it| format!("{front}{it}")));
            start = at + 1;
        }
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
    }
    found
}

/// What the model may use of anyone's: data, and nothing that waits, reads a
/// clock or rolls dice.
const MODEL_MAY_USE: [&str; 5] = ["imbl", "ipnet", "serde", "thiserror", "uuid"];

#[test]
fn the_model_uses_only_plain_data_of_others() {
    let manifest: toml::Table = fs::read_to_string(root().join("control/model/Cargo.toml")).unwrap().parse().unwrap();
    let used: Vec<&str> = manifest["dependencies"].as_table().unwrap().keys().map(String::as_str).collect();
    assert!(!used.is_empty());
    for name in used {
        assert!(MODEL_MAY_USE.contains(&name), "control/model may not use {name}");
    }
}

/// Callers of a library branch on its errors; text is for programs' own ends.
const MAY_USE_ANYHOW: [&str; 2] = ["connector", "deploy/postern"];

#[test]
fn libraries_name_their_errors() {
    for (member, _) in MAY_USE.iter().filter(|(member, _)| !MAY_USE_ANYHOW.contains(member)) {
        let manifest: toml::Table =
            fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap();
        let uses =
            manifest.get("dependencies").and_then(|it| it.as_table()).is_some_and(|it| it.contains_key("anyhow"));
        assert!(!uses, "{member} is a library: an enum of errors in place of anyhow");
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

/// A host that can be published can be asked for, and no other: two crates that
/// may not know each other say what a host is.
#[test]
fn a_host_is_the_same_to_administrators_and_to_relays() {
    let function = |file: &str, name: &str| {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let (_, rest) = text.split_once(&format!("fn {name}(")).unwrap_or_else(|| panic!("{file} has no {name}"));
        rest.split_once("\n}").unwrap().0.to_owned()
    };
    let strict = "dataplane/strict/src/canonical.rs";
    assert_eq!(function("control/model/src/text.rs", "is_host"), function(strict, "is_host"));
    assert_eq!(function("control/model/src/ids.rs", "is_label"), function(strict, "is_label"));
}

/// A file that is longer tells two stories.
const LINES_MAX: usize = 500;

#[test]
fn no_file_of_the_control_plane_is_too_long() {
    let folders = ["control", "deploy/postern"].map(|it| root().join(it));
    let of_tests = |path: &Path| {
        path.components().any(|it| matches!(it.as_os_str().to_str(), Some("tests" | "tests.rs" | "benches")))
    };
    let all: Vec<_> =
        folders.iter().flat_map(|it| sources(it)).filter(|it| !of_tests(it.strip_prefix(root()).unwrap())).collect();
    assert!(all.len() > 100);
    for path in all {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, and {LINES_MAX} are the most", path.display());
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
    assert!(methods.len() > 25);
    for method in &methods {
        assert!(known.contains(&method.as_str()), "{method} is in no line of roles.txt");
    }
    for method in known.iter().filter(|it| it.starts_with("/postern.v1.")) {
        assert!(methods.iter().any(|it| it == method), "{method} does not exist");
    }
}

/// Where settings are declared: the section of docs/settings.md, the file, the
/// struct, and what stands before its fields' names.
const SETTINGS: [(&str, &str, &str, &str); 12] = [
    ("Every role", "deploy/postern/src/roles.rs", "Settings", ""),
    ("Every role", "deploy/postern/src/roles.rs", "LogSettings", "log."),
    ("Every role", "deploy/runtime/src/telemetry.rs", "Settings", "telemetry."),
    ("Controller", "control/controller/src/settings.rs", "Settings", "controller."),
    ("Controller", "control/controller/src/acme.rs", "Settings", "controller.acme."),
    ("Controller", "control/controller/src/domains.rs", "Settings", "controller.domains."),
    ("Relay", "dataplane/relay/src/settings.rs", "Settings", "relay."),
    ("Identity", "deploy/postern/src/roles.rs", "IdentitySettings", "identity."),
    ("Analytics", "analytics/src/settings.rs", "Settings", "analytics."),
    ("Analytics", "analytics/src/settings.rs", "SinkSettings", "analytics.sinks."),
    ("Connector", "connector/src/settings.rs", "Settings", ""),
    ("Connector", "deploy/runtime/src/telemetry.rs", "Settings", "telemetry."),
];

/// Not a table of its own on the page: `log` and `telemetry` are sections there.
const SECTIONS_OF_EVERY_ROLE: [&str; 2] = ["log", "telemetry"];

#[test]
fn every_setting_is_on_its_page() {
    let mut declared = BTreeSet::new();
    for (section, file, name, prefix) in SETTINGS {
        let fields = fields(file, name);
        assert!(!fields.is_empty(), "{name} of {file} has no fields; has it moved?");
        declared.extend(fields.into_iter().map(|field| (section.to_owned(), format!("{prefix}{field}"))));
    }
    declared.retain(|(section, name)| section != "Every role" || !SECTIONS_OF_EVERY_ROLE.contains(&name.as_str()));
    let page = fs::read_to_string(root().join("docs/settings.md")).unwrap();
    let mut section = "";
    let mut shown = BTreeSet::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let is_of_a_role = SETTINGS.iter().any(|(it, ..)| *it == section);
        if let [name, default, meaning] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|it| it.strip_suffix('`'))
            && is_of_a_role
        {
            assert!(!default.is_empty() && !meaning.is_empty(), "{name}: its default or meaning is missing");
            assert!(shown.insert((section.to_owned(), name.to_owned())), "{name} is there twice");
        }
    }
    let missing: Vec<_> = declared.difference(&shown).collect();
    let gone: Vec<_> = shown.difference(&declared).collect();
    assert!(missing.is_empty() && gone.is_empty(), "docs/settings.md: missing {missing:?}, no longer there {gone:?}");
}

#[test]
fn every_struct_of_settings_is_known() {
    for path in sources(&root()) {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(root()).unwrap().to_str().unwrap();
        let mut read = false;
        for line in text.lines() {
            // What is read from outside and not also written is settings, or on the wire.
            read = if line.starts_with("#[derive(") { line.contains("Deserialize") } else { read };
            let name =
                line.trim_start_matches("pub ").strip_prefix("struct ").and_then(|it| it.split([' ', '<']).next());
            if let Some(name) = name.filter(|it| read && it.ends_with("Settings")) {
                // Identity's own are read as part of IdentitySettings.
                let known = SETTINGS.iter().any(|(_, it, known, _)| *it == file && *known == name)
                    || file == "control/identity/src/settings.rs";
                assert!(known, "{name} of {file} is not in the table, and so on no page");
            }
        }
    }
}

/// The names of a struct's fields.
fn fields(file: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let opening = [format!("\npub struct {name} {{\n"), format!("\nstruct {name} {{\n")];
    let body =
        opening.iter().find_map(|it| text.split_once(it.as_str())).unwrap_or_else(|| panic!("{name} of {file}")).1;
    let lines = body.lines().take_while(|line| *line != "}");
    let lines = lines.map(|line| line.trim().trim_start_matches("pub ")).filter(|line| !line.starts_with(['/', '#']));
    lines.filter_map(|line| line.split_once(": ")).map(|(field, _)| field.to_owned()).collect()
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md", "deploy/README.md"].map(|it| root().join(it)).to_vec();
    for folder in ["docs", "docs/roles"] {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|it| it.unwrap().path());
        pages.extend(entries.filter(|it| it.extension().is_some_and(|it| it == "md")));
    }
    assert!(pages.len() > 20);
    let mut lost = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|it| it.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = target.exists() && (anchor.is_empty() || anchors(&target).contains(anchor));
            if !found {
                lost.push(format!("{}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(lost.is_empty(), "links that lead nowhere:\n{}", lost.join("\n"));
}

/// What headings of a page are called in links, as GitHub makes it.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|it| {
            it.to_lowercase().chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it)).collect::<String>()
        })
        .map(|it| it.replace(' ', "-"))
        .collect()
}

#[test]
fn every_page_is_one_click_from_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for folder in ["docs", "docs/roles"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let link = format!("]({folder}/{}", path.file_name().unwrap().to_str().unwrap());
            let is_page = path.extension().is_some_and(|it| it == "md");
            assert!(!is_page || readme.contains(&link), "README.md has no link to {}", path.display());
        }
    }
}
