//! All policies of a tenant, filed by application, so that a request looks only
//! at those that may concern it.

use std::{collections::HashMap, sync::Arc};

use imbl::OrdMap;

use super::{Policy, Scope};
use crate::ids::{AppId, PolicyId};

#[derive(Clone, Default, Debug)]
pub struct Policies {
    by_id: OrdMap<PolicyId, Arc<Policy>>,
    everywhere: Arc<Vec<Arc<Policy>>>,
    by_app: Arc<HashMap<AppId, Vec<Arc<Policy>>>>,
}

/// The files are derived from `by_id`.
impl PartialEq for Policies {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl Policies {
    pub(crate) fn insert(&mut self, policy: Policy) {
        self.remove(policy.id);
        let policy = Arc::new(policy);
        self.by_id.insert(policy.id, policy.clone());
        match &policy.apps.scope {
            Scope::All => file(Arc::make_mut(&mut self.everywhere), &policy),
            Scope::Only(apps) => {
                let by_app = Arc::make_mut(&mut self.by_app);
                for app in apps {
                    file(by_app.entry(*app).or_default(), &policy);
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, id: PolicyId) {
        let Some(policy) = self.by_id.remove(&id) else { return };
        match &policy.apps.scope {
            Scope::All => Arc::make_mut(&mut self.everywhere).retain(|it| it.id != id),
            Scope::Only(apps) => {
                let by_app = Arc::make_mut(&mut self.by_app);
                for app in apps {
                    if let Some(filed) = by_app.get_mut(app) {
                        filed.retain(|it| it.id != id);
                    }
                }
            }
        }
    }

    pub fn for_app(&self, app: AppId) -> impl Iterator<Item = &Arc<Policy>> {
        self.everywhere.iter().chain(self.by_app.get(&app).into_iter().flatten())
    }

    pub fn get(&self, id: PolicyId) -> Option<&Arc<Policy>> {
        self.by_id.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_id.values()
    }
}

/// Sorted by id, so the order of events does not show.
fn file(policies: &mut Vec<Arc<Policy>>, policy: &Arc<Policy>) {
    let at = policies.partition_point(|it| it.id < policy.id);
    policies.insert(at, policy.clone());
}
