//! All policies of a tenant, filed by application, so that a request looks only
//! at those that may concern it.

use std::{collections::HashMap, sync::Arc};

use super::{Policy, Scope};
use crate::ids::{AppId, PolicyId};

#[derive(Clone, Default, Debug, PartialEq)]
pub struct Policies {
    everywhere: Arc<Vec<Arc<Policy>>>,
    by_app: Arc<HashMap<AppId, Vec<Arc<Policy>>>>,
}

impl Policies {
    /// No policy of its id is in it.
    pub(crate) fn insert(&mut self, policy: Policy) {
        let policy = Arc::new(policy);
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

    /// `policy` is as it was inserted.
    pub(crate) fn remove(&mut self, policy: &Policy) {
        match &policy.apps.scope {
            Scope::All => take_out(Arc::make_mut(&mut self.everywhere), policy.id),
            Scope::Only(apps) => {
                let by_app = Arc::make_mut(&mut self.by_app);
                for app in apps {
                    if let Some(filed) = by_app.get_mut(app) {
                        take_out(filed, policy.id);
                        if filed.is_empty() {
                            by_app.remove(app);
                        }
                    }
                }
            }
        }
    }

    pub fn for_app(&self, app: AppId) -> impl Iterator<Item = &Arc<Policy>> {
        self.everywhere.iter().chain(self.by_app.get(&app).into_iter().flatten())
    }
}

/// Sorted by id, so the order of events does not show.
fn file(policies: &mut Vec<Arc<Policy>>, policy: &Arc<Policy>) {
    let at = policies.partition_point(|it| it.id < policy.id);
    policies.insert(at, policy.clone());
}

fn take_out(policies: &mut Vec<Arc<Policy>>, id: PolicyId) {
    policies.retain(|it| it.id != id);
}
