//! What a security team gets: every record, in a format of its SIEM, at a real
//! receiver that is stopped and started meanwhile.

use std::{path::Path, process::Command};

use postern_tests::{
    processes::{Folder, Running, free_port},
    until,
    world::World,
};

#[tokio::test]
async fn a_syslog_receiver_gets_what_happened_while_it_was_away() {
    let folder = Folder::default();
    let port = free_port();
    let receiver = Receiver::start(&folder.0, port).await;
    let settings = format!(
        "[[analytics.sinks]]\nname = \"siem\"\nsyslog = \"127.0.0.1:{port}\"\n
         [[analytics.sinks]]\nname = \"cef\"\nfile = {:?}\nformat = \"cef\"\n",
        folder.0.join("lines.cef")
    );
    let world = World::with_settings(&settings).await;
    let hostile = "nobody\u{1b}[2j|=\\\n<110>1 - - forged";
    let sign_in = async |name: &str| world.browser().sign_in(&world.url("demo", "/"), name, "wrong").await;
    sign_in("first").await;
    until("the first is received", async || receiver.has("\"name\":\"first\"").then_some(())).await;

    let received = receiver.stop().await;
    sign_in("second").await;
    sign_in(hostile).await;
    let file = || std::fs::read_to_string(world.folder.0.join("data/activity.ocsf.jsonl")).unwrap_or_default();
    until("the file waits for no receiver", async || file().contains("forged").then_some(())).await;
    assert!(!received.contains("\"second\""));

    let receiver = Receiver::start(&folder.0, port).await;
    sign_in("third").await;
    until("the third is received", async || receiver.has("\"name\":\"third\"").then_some(())).await;
    until("all of it is in CEF too", async || {
        let lines = std::fs::read_to_string(folder.0.join("lines.cef")).unwrap_or_default();
        (lines.contains(" suser=third ") && lines.lines().all(|it| it.starts_with("CEF:0|Postern|"))).then_some(())
    })
    .await;

    let received = receiver.stop().await;
    let mut ids = Vec::new();
    for line in received.lines() {
        let (header, text) = line.split_once(" {").unwrap_or_else(|| panic!("no message of ours: {line}"));
        assert!(["postern sign_in", "postern access", "postern connector"].contains(&header), "{line}");
        let event: serde_json::Value = serde_json::from_str(&format!("{{{text}")).unwrap();
        ids.push(event["metadata"]["uid"].as_str().unwrap().to_owned());
    }
    let file = file();
    let exported: Vec<serde_json::Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let in_file: Vec<_> = exported.iter().map(|it| it["metadata"]["uid"].as_str().unwrap()).collect();
    let lost: Vec<_> = in_file.iter().filter(|id| !ids.iter().any(|it| it == *id)).collect();
    // The third was awaited here, and what came after it may still be on its way.
    let third = exported.iter().position(|it| it["user"]["name"] == "third").unwrap();
    assert!(lost.iter().all(|id| in_file.iter().position(|it| it == *id).unwrap() > third), "{lost:?}");
    let names: Vec<_> = exported.iter().filter_map(|it| it["user"]["name"].as_str()).collect();
    assert_eq!(names, ["first", "second", hostile, "third"]);
}

/// A real rsyslogd, with a file for what it receives.
struct Receiver {
    running: Running,
    file: std::path::PathBuf,
}

impl Receiver {
    async fn start(folder: &Path, port: u16) -> Self {
        let file = folder.join("received");
        let settings = format!(
            "global(workDirectory={folder:?})\n\
             module(load=\"imtcp\")\n\
             template(name=\"plain\" type=\"string\" string=\"%app-name% %msgid% %msg%\\n\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             if $app-name == \"postern\" then action(type=\"omfile\" file={file:?} template=\"plain\")\n"
        );
        std::fs::write(folder.join("rsyslog.conf"), settings).unwrap();
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(folder.join("rsyslog.conf")).arg("-i").arg(folder.join("rsyslog.pid"));
        let running = Running::start("rsyslogd (tests/setup installs it)", &mut command);
        until("rsyslogd listens", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        Self { running, file }
    }

    fn received(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    fn has(&self, text: &str) -> bool {
        self.received().contains(text)
    }

    /// Everything it ever received in this folder.
    async fn stop(mut self) -> String {
        self.running.terminate();
        self.running.ended().await;
        self.received()
    }
}
