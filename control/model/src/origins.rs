//! Applications by the origins they are on: the inside read backwards.

use std::{collections::BTreeSet, sync::Arc};

use imbl::HashMap;

use crate::{
    app::{App, Origin, Scheme},
    ids::AppId,
};

/// Applications by the origins they are on, and which of their addresses it is.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct ByOrigin(HashMap<Address, Arc<BTreeSet<(AppId, u16)>>>);

/// A place on the inside network, as URLs name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) tls: bool,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

impl Address {
    fn of(origin: &Origin) -> Option<Self> {
        let tls = match origin.scheme {
            Scheme::Http | Scheme::H2c => false,
            Scheme::Https => true,
            Scheme::Unix => return None,
        };
        Some(Self { tls, host: origin.host.clone(), port: origin.port })
    }
}

/// Inside addresses of an application with their segment numbers.
fn addresses(app: &App) -> impl Iterator<Item = (Address, u16)> {
    let own = (0u16..).zip(app.addresses()).filter_map(|(segment, (_, origin))| Some((Address::of(origin)?, segment)));
    own.chain(app.more_origins.iter().filter_map(|origin| Some((Address::of(origin)?, 0))))
}

impl ByOrigin {
    pub(crate) fn at(&self, address: &Address) -> Option<&BTreeSet<(AppId, u16)>> {
        self.0.get(address).map(Arc::as_ref)
    }

    pub(crate) fn insert(&mut self, app: &App) {
        for (address, segment) in addresses(app) {
            Arc::make_mut(self.0.entry(address).or_default()).insert((app.id, segment));
        }
    }

    pub(crate) fn remove(&mut self, app: &App) {
        for (address, segment) in addresses(app) {
            let Some(apps) = self.0.get_mut(&address) else { continue };
            Arc::make_mut(apps).remove(&(app.id, segment));
            if apps.is_empty() {
                self.0.remove(&address);
            }
        }
    }
}
