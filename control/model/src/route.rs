//! Which application a request is for: by host, then by the longest path prefix.

use std::sync::Arc;

use imbl::HashMap;

use crate::{
    app::{App, ExternalUrl, is_under},
    ids::{AppId, TenantId},
};

#[derive(Clone, Default, Debug, PartialEq)]
pub struct Routes {
    hosts: HashMap<Arc<str>, Arc<Vec<Route>>>,
}

/// One application on a host. Routes of a host are sorted, longest path first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub path: Arc<str>,
    pub tenant: TenantId,
    pub app: AppId,
}

impl Routes {
    pub(crate) fn insert(&mut self, tenant: TenantId, app: &App) {
        let routes = Arc::make_mut(self.hosts.entry(app.external.host.clone()).or_default());
        routes.push(Route { path: app.external.path.clone(), tenant, app: app.id });
        routes
            .sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| a.path.cmp(&b.path)).then(a.app.cmp(&b.app)));
    }

    pub(crate) fn remove(&mut self, url: &ExternalUrl, app: AppId) {
        let Some(routes) = self.hosts.get_mut(&url.host) else { return };
        Arc::make_mut(routes).retain(|route| route.app != app);
        if routes.is_empty() {
            self.hosts.remove(&url.host);
        }
    }

    /// `path` is canonical and begins with `/`. `/wiki` and `/wiki/x` are under
    /// `/wiki/`; `/wikipedia` is not.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        self.on_host(host).iter().find(|route| is_under(path, &route.path))
    }

    pub fn on_host(&self, host: &str) -> &[Route] {
        self.hosts.get(host).map_or(&[], |routes| routes.as_slice())
    }

    pub fn knows_host(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }
}
