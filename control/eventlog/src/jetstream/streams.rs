//! The streams of a broker: how they are made, and what each role may do with them.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use model::event::Stream;

use super::{PRESENCE, Settings};
use crate::{EVENT_BYTES_MAX, LogError, REPEAT_WINDOW};

const ACTIVITY_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Unless the settings say otherwise. The server keeps so much of its disk free for it.
const ACTIVITY_MIB_MAX: u64 = 8 * 1024;
/// Of CONFIG and of DIRECTORY: a million changes each. A stream with a limit
/// cannot take the room of RISK, which has none: what `max_file_store` of the
/// server leaves beside the limits is for revocations.
const STATE_MIB_MAX: u64 = 1024;

/// `CONFIG`, `DIRECTORY`, `RISK`, `ACTIVITY`.
pub(super) fn name(stream: Stream) -> String {
    stream.name().to_ascii_uppercase()
}

pub(super) fn config(stream: Stream, settings: &Settings) -> Config {
    let or = |given: u64, default: u64| {
        let mib = if given == 0 { default } else { given };
        i64::try_from(mib.saturating_mul(1024 * 1024)).unwrap_or(i64::MAX)
    };
    let mut config = Config {
        name: name(stream),
        subjects: vec![format!("postern.{}.>", stream.name())],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: settings.replicas.max(1),
        max_message_size: EVENT_BYTES_MAX as i32,
        duplicate_window: REPEAT_WINDOW,
        allow_direct: true,
        allow_atomic_publish: true,
        deny_delete: true,
        deny_purge: true,
        ..Default::default()
    };
    // Nothing of the state may ever be dropped to make room.
    config.discard = DiscardPolicy::New;
    match stream {
        Stream::Activity => {
            config.discard = DiscardPolicy::Old;
            config.max_age = ACTIVITY_AGE_MAX;
            config.max_bytes = or(settings.activity_mib_max, ACTIVITY_MIB_MAX);
        }
        Stream::Config | Stream::Directory => config.max_bytes = or(settings.state_mib_max, STATE_MIB_MAX),
        Stream::Risk => {}
    }
    config
}

/// Streams of earlier releases take smaller messages. Who creates streams may not
/// change them: that could also make them forget.
pub(super) fn takes_large_events(config: &Config) -> Result<(), LogError> {
    let max = config.max_message_size;
    if max <= 0 || max as usize >= EVENT_BYTES_MAX {
        return Ok(());
    }
    let name = &config.name;
    let remedy = format!(
        "stream {name} takes messages of {max} bytes at most, and events may have {EVENT_BYTES_MAX}; \
         raise it as the broker's operator: nats stream edit {name} --max-msg-size={EVENT_BYTES_MAX}"
    );
    Err(LogError::new("looking at the streams", remedy))
}

/// Subjects of the broker that a role may publish and subscribe to.
pub struct Permissions {
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
}

/// What the broker should allow a role, as `postern nats-config` writes it.
///
/// Consumers are made on a subject that takes no name: durable ones need one,
/// and so does deleting. A broker cannot tell a pull consumer from a push
/// consumer by its subject.
pub fn permissions(role: &str) -> Permissions {
    let (writes, reads): (&[Stream], &[Stream]) = match role {
        "controller" => (&Stream::ALL, &Stream::ALL),
        "identity" => (&[Stream::Activity], &Stream::STATE),
        "relay" => (&[Stream::Activity], &[Stream::Config, Stream::Risk]),
        _ => (&[], &[Stream::Activity]),
    };
    let mut publish: Vec<String> = writes.iter().map(|stream| format!("postern.{}.>", stream.name())).collect();
    for stream in reads.iter().map(|stream| name(*stream)) {
        publish.push(format!("$JS.API.STREAM.INFO.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"));
        if role == "controller" {
            publish.push(format!("$JS.API.STREAM.CREATE.{stream}"));
        }
    }
    // An inbox of its own: answers of the broker carry events of other streams.
    let mut subscribe = vec![format!("_INBOX_{role}.>")];
    match role {
        "relay" => publish.push(format!("{PRESENCE}.relay.>")),
        "controller" => subscribe.push(format!("{PRESENCE}.>")),
        _ => {}
    }
    Permissions { publish, subscribe }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The large event would be refused when somebody's access has to end.
    #[test]
    fn a_stream_of_an_earlier_release_is_refused_with_what_to_do() {
        let now = config(Stream::Risk, &Settings::default());
        assert!(takes_large_events(&now).is_ok());
        assert!(takes_large_events(&Config { max_message_size: -1, ..now.clone() }).is_ok(), "unlimited");
        let refused = takes_large_events(&Config { max_message_size: 512 * 1024, ..now }).unwrap_err();
        let said = std::error::Error::source(&refused).unwrap().to_string();
        assert!(said.contains("nats stream edit RISK --max-msg-size=1000000"), "{said}");
    }

    #[test]
    fn activity_takes_what_the_settings_say_and_state_is_never_dropped() {
        let settings = Settings { activity_mib_max: 64, ..Default::default() };
        assert_eq!(config(Stream::Activity, &settings).max_bytes, 64 << 20);
        assert_eq!(config(Stream::Activity, &Settings::default()).max_bytes, 8 << 30);
        let settings = Settings { state_mib_max: 32, ..Default::default() };
        for (stream, given, default) in
            [(Stream::Config, 32 << 20, 1 << 30), (Stream::Directory, 32 << 20, 1 << 30), (Stream::Risk, 0, 0)]
        {
            for (settings, max) in [(&settings, given), (&Settings::default(), default)] {
                let config = config(stream, settings);
                assert_eq!((config.max_bytes, config.discard), (max, DiscardPolicy::New), "{stream:?}");
            }
        }
    }
}
