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
