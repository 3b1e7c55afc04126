//! Settings are understood or refused, from files and from the environment.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Vec<(String, String)>)| {
    let (text, pairs) = input;
    if let Ok(settings) = toml::from_str::<relay::Settings>(text) {
        let _limit = settings.memory_limit_kib();
    }
    let environment = pairs.into_iter().map(|(name, value)| (format!("POSTERN_RELAY_{name}"), value));
    let _settings = runtime::settings::load::<relay::Settings>(None, "POSTERN_RELAY", environment, []);
});
