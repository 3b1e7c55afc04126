//! A DNS server whose records a test sets.

use std::process::Command;

use crate::processes::{Running, free_port};

pub struct NameServer {
    pub port: u16,
    /// Takes records, as JSON over HTTP.
    pub management: u16,
    _running: Running,
}

impl Default for NameServer {
    fn default() -> Self {
        let (port, management) = (free_port(), free_port());
        let running = Running::start(
            "pebble-challtestsrv",
            Command::new("pebble-challtestsrv")
                .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
                .args(["-dns01", &format!("127.0.0.1:{port}"), "-management", &format!("127.0.0.1:{management}")]),
        );
        Self { port, management, _running: running }
    }
}

impl NameServer {
    /// Waits until the server takes it.
    pub async fn set_text(&self, name: &str, value: &str) {
        let record = serde_json::json!({ "host": format!("{name}."), "value": value }).to_string();
        let url = format!("http://127.0.0.1:{}/set-txt", self.management);
        crate::until("a TXT record", async || {
            let set = Command::new("curl").args(["-sf", "-d", &record, &url]).status().unwrap();
            set.success().then_some(())
        })
        .await;
    }
}
