//! Compiles the .proto files with a compiler written in Rust: no protoc needed.
//! What people see of messages is said in them, by the options of `options.proto`.

use std::{env, error::Error, fs, path::PathBuf};

use protox::{
    Compiler,
    prost_reflect::{DynamicMessage, ExtensionDescriptor, Kind, MessageDescriptor},
};
use tonic_prost_build::Builder;

const FILES: [&str; 5] = ["resources", "event", "tunnel", "enrolment", "admin"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=postern");
    let mut compiler = Compiler::new(["."])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES.map(|file| format!("postern/v1/{file}.proto")))?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let mut config = tonic_prost_build::configure()
        // In the order of names, so that a message has one encoding.
        .btree_map(".postern.v1")
        .bytes(".postern.v1.SignedEvent")
        .bytes(".postern.v1.EventBody")
        .bytes(".postern.v1.Frame")
        .bytes(".postern.v1.RequestHead")
        .bytes(".postern.v1.ResponseHead")
        .bytes(".postern.v1.Trailers")
        .bytes(".postern.v1.LinkSettings")
        .bytes(".postern.v1.Judgement");
    let pool = compiler.descriptor_pool();
    let shown = pool.get_extension_by_name("postern.v1.shown").ok_or("options.proto has no `shown`")?;
    let hidden = pool.get_extension_by_name("postern.v1.hidden").ok_or("options.proto has no `hidden`")?;
    for message in pool.all_messages().filter(|it| is_set(&it.options(), &shown)) {
        config = show(config, &message, &hidden);
    }
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn is_set(options: &DynamicMessage, option: &ExtensionDescriptor) -> bool {
    options.get_extension(option).as_bool().unwrap_or_default()
}

/// Makes JSON and YAML of a message: every field may be left out, none may be unknown.
fn show(config: Builder, message: &MessageDescriptor, hidden: &ExtensionDescriptor) -> Builder {
    let name = format!(".{}", message.full_name());
    let mut config = config
        .type_attribute(&name, "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(&name, "#[serde(default, deny_unknown_fields)]");
    for field in message.fields() {
        let path = format!("{name}.{}", field.name());
        if is_set(&field.options(), hidden) {
            config = config.field_attribute(path, "#[serde(skip)]");
        } else if let Kind::Enum(of) = field.kind() {
            let names = format!("{}{}", snake_case(of.name()), if field.is_list() { "s" } else { "" });
            config = config.field_attribute(path, format!("#[serde(with = \"crate::names::{names}\")]"));
        }
    }
    config
}

/// The module of `names` for an enumeration: `PolicyState` is `policy_state`.
fn snake_case(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}
