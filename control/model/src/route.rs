//! Which application a request is for: by host, then by the longest path prefix.

use std::sync::Arc;

use imbl::HashMap;

use crate::{
    app::{App, is_under},
    ids::{AppId, TenantId},
};

#[derive(Clone, Default, Debug, PartialEq)]
pub struct Routes {
    /// By exact host, or by `*.PARENT`.
    hosts: HashMap<Arc<str>, Arc<Vec<Route>>>,
}

/// One address of an application. Routes of a host are sorted, longest path first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub path: Arc<str>,
    pub tenant: TenantId,
    pub app: AppId,
    /// Which of the application's addresses.
    pub segment: u16,
}

impl Routes {
    pub(crate) fn insert(&mut self, tenant: &TenantId, app: &App) {
        for (segment, (external, _)) in (0u16..).zip(app.addresses()) {
            let routes = Arc::make_mut(self.hosts.entry(external.host.clone()).or_default());
            routes.push(Route { path: external.path.clone(), tenant: tenant.clone(), app: app.id, segment });
            routes.sort_by(|a, b| {
                b.path.len().cmp(&a.path.len()).then_with(|| a.path.cmp(&b.path)).then(a.app.cmp(&b.app))
            });
        }
    }

    pub(crate) fn remove(&mut self, app: &App) {
        for (external, _) in app.addresses() {
            let Some(routes) = self.hosts.get_mut(&external.host) else { continue };
            Arc::make_mut(routes).retain(|route| route.app != app.id);
            if routes.is_empty() {
                self.hosts.remove(&external.host);
            }
        }
    }

    /// `path` is canonical and begins with `/`.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        self.on_host(host).iter().find(|route| is_under(path, &route.path))
    }

    /// What servers that read paths leniently would make of this one: decoded
    /// more than once, without case, parameters, trailing dots and backslashes.
    /// Where it is another application, the path has two readings (attack class
    /// R3) and the lenient server would serve what another policy guards.
    pub fn read_otherwise(&self, host: &str, path: &str) -> Option<&Route> {
        let routes = self.on_host(host);
        let apart = routes.len() > 1;
        let plain = !path.bytes().any(|it| it.is_ascii_uppercase() || b"%;\\.".contains(&it));
        if !apart || plain && !path.contains("//") {
            return self.find(host, path);
        }
        let folded = fold(path);
        routes.iter().find(|route| is_under(&folded, &route.path.to_ascii_lowercase()))
    }

    /// A host that is published by name is not its parent's any more (PUB-16).
    pub fn on_host(&self, host: &str) -> &[Route] {
        let of_parent = || {
            let (_, parent) = host.split_once('.')?;
            self.hosts.get(format!("*.{parent}").as_str())
        };
        self.hosts.get(host).or_else(of_parent).map_or(&[], |routes| routes.as_slice())
    }

    /// What is published under exactly this name, `*.PARENT` too.
    pub fn named(&self, host: &str) -> &[Route] {
        self.hosts.get(host).map_or(&[], |routes| routes.as_slice())
    }
}

/// A path as the most lenient server reads it.
fn fold(path: &str) -> String {
    /// Decoded twice by some, and once more by what stands behind them.
    const DECODINGS: usize = 3;
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..DECODINGS {
        bytes = decode(&bytes);
    }
    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase().replace('\\', "/");
    let mut folded = String::with_capacity(text.len());
    for segment in text.split('/') {
        let name = segment.split(';').next().unwrap_or_default().trim_end_matches(['.', ' ', '\0']);
        if !name.is_empty() {
            folded.push('/');
            folded.push_str(name);
        }
    }
    // `/` at the end tells a folder from its prefix and nothing else.
    folded.push('/');
    folded
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let hex = |at: usize| bytes.get(at).and_then(|it| char::from(*it).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}
