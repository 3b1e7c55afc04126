//! Which application a request is for: by host, then by the longest path prefix.

use std::sync::Arc;

use imbl::HashMap;

use crate::{
    app::App,
    ids::{AppId, TenantId},
    text::is_under,
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

    /// Would a server that reads paths leniently find another application here?
    /// Such servers decode once or several times, without case, parameters,
    /// trailing dots and backslashes, and resolve `..` after it. Then the path has
    /// two readings (attack class R3), and the server would serve what another
    /// policy guards.
    pub fn reads_otherwise(&self, host: &str, path: &str) -> bool {
        let routes = self.on_host(host);
        let plain = !path.bytes().any(|it| it.is_ascii_uppercase() || b"%;\\.".contains(&it));
        if routes.len() < 2 || plain && !path.contains("//") {
            return false;
        }
        let route = self.find(host, path);
        let mut bytes = path.as_bytes().to_vec();
        // Each reading counts: what is decoded once more may lead back again.
        (0..=DECODINGS_MAX).any(|_| {
            let folded = fold(&bytes);
            bytes = decode(&bytes);
            routes.iter().find(|route| is_under(&folded, &route.path.to_ascii_lowercase())) != route
        })
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

/// Decoded twice by some, and once more by what stands behind them.
const DECODINGS_MAX: usize = 3;

/// A decoded path as the most lenient server reads it.
fn fold(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&shortest(bytes)).to_ascii_lowercase().replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        let name = segment.split(';').next().unwrap_or_default().trim_end_matches([' ', '\0']);
        match name {
            ".." => _ = segments.pop(),
            name => segments.push(name.trim_end_matches(['.', ' ', '\0'])),
        }
        if segments.last().is_some_and(|it| it.is_empty()) {
            segments.pop();
        }
    }
    // `/` at the end tells a folder from its prefix and nothing else.
    segments.iter().fold(String::new(), |path, segment| path + "/" + segment) + "/"
}

/// ASCII written in two bytes, which UTF-8 forbids and some decoders take
/// (RFC 3629, section 10).
fn shortest(bytes: &[u8]) -> Vec<u8> {
    let mut short = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        (short, rest) = match (first, after.split_first()) {
            (0xc0 | 0xc1, Some((second @ 0x80..=0xbf, after))) => {
                short.push((first & 1) << 6 | second & 0x3f);
                (short, after)
            }
            _ => {
                short.push(*first);
                (short, after)
            }
        };
    }
    short
}

/// `%XX`, and `%uXXXX` as IIS takes it.
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
            (b'%', None, _) if matches!(bytes.get(at + 1), Some(b'u' | b'U')) => {
                let unit = (2..6).try_fold(0, |unit, digit| Some(unit * 16 + hex(at + digit)?));
                match unit.filter(|it| *it < 0x80) {
                    Some(ascii) => {
                        decoded.push(ascii as u8);
                        at += 6;
                    }
                    None => {
                        decoded.push(b'%');
                        at += 1;
                    }
                }
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}
