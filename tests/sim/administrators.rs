//! Administrators who change things at either controller at the same time, and
//! repeat what nobody answered.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use admin_client::{Admin, lists::by_name};
use model::event::Stream;
use proto::v1;
use runtime::clock::fresh_id;
use serde_json::json;
use tokio::time::{Duration, sleep, timeout};
use tonic::{Code, Status};

use crate::{installation::Recorded, network::Chance, people::PASSWORD};

/// A call that takes longer is given up and repeated.
const CALL_PATIENCE: Duration = Duration::from_secs(90);
/// Names that administrators choose from, so that they want the same ones.
const NAMES: usize = 8;

/// A change that was acknowledged: what it made, and under which request.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    pub(crate) request_id: String,
    stream: Stream,
    /// The object.
    id: String,
}

impl Acknowledged {
    /// How often its stream has what it made: the most of any subject, since a user
    /// comes with credentials.
    pub(crate) fn times_in(&self, log: &[Recorded]) -> usize {
        let of_request = log.iter().filter(|it| it.stream == self.stream && it.body.cause == self.request_id);
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for event in of_request.filter(|it| it.body.subject.ends_with(&self.id)) {
            *times.entry(&event.body.subject).or_default() += 1;
        }
        times.into_values().max().unwrap_or(0)
    }
}

pub(crate) struct Administrator {
    /// One at each controller.
    pub(crate) at: Vec<Admin>,
    pub(crate) chance: Chance,
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) rejected: usize,
    /// Policies that block somebody's address, to be removed again.
    blocks: Vec<String>,
}

impl Administrator {
    pub(crate) fn new(at: &[Admin], chance: Chance) -> Self {
        Self { at: at.to_vec(), chance, acknowledged: vec![], rejected: 0, blocks: vec![] }
    }

    /// Changes one thing after the other.
    pub(crate) async fn work(mut self, changes: usize, people: usize) -> Self {
        for _ in 0..changes {
            sleep(self.chance.up_to_ms(4000)).await;
            match self.chance.below(5) {
                0 | 1 => {
                    let name = format!("app-{}", self.chance.below(NAMES));
                    self.publish(&name).await;
                }
                2 => {
                    let name = format!("user-{}", self.chance.below(NAMES));
                    self.create_user(&name).await;
                }
                3 if !self.blocks.is_empty() => {
                    let policy = self.blocks.swap_remove(0);
                    self.unblock(&policy).await;
                }
                _ => {
                    let address = address_of(self.chance.below(people));
                    self.block(address).await;
                }
            }
        }
        while let Some(policy) = self.blocks.pop() {
            self.unblock(&policy).await;
        }
        self
    }

    pub(crate) async fn publish(&mut self, name: &str) -> Option<v1::App> {
        let origin = format!("http://{name}.inside:80");
        let app = v1::App { name: name.to_owned(), origin, ..Default::default() };
        let made = self.insist(async |admin, change| {
            let request = v1::PublishAppRequest { change, app: Some(app.clone()), assign_caller: false };
            admin.applications().publish(request).await.map(|it| it.into_inner().app.unwrap())
        });
        let (request_id, app) = made.await?;
        self.acknowledged.push(Acknowledged { request_id, stream: Stream::Config, id: app.id.clone() });
        Some(app)
    }

    pub(crate) async fn assign_to_everyone(&mut self, app: &v1::App) {
        let everyone = json!({ "app": app.id, "principal": "everyone" });
        let assigned = self.insist(async |admin, change| admin.put(change, "assignment", everyone.clone()).await);
        assigned.await.expect("nobody else assigns");
    }

    pub(crate) async fn create_user(&mut self, username: &str) -> Option<v1::User> {
        let user = v1::User { username: username.to_owned(), ..Default::default() };
        let made = self.insist(async |admin, change| {
            let request = v1::CreateUserRequest { change, user: Some(user.clone()), password: PASSWORD.into() };
            admin.users().create(request).await.map(|it| it.into_inner().user.unwrap())
        });
        let (request_id, user) = made.await?;
        self.acknowledged.push(Acknowledged { request_id, stream: Stream::Directory, id: user.id.clone() });
        Some(user)
    }

    /// Ends every session of somebody.
    pub(crate) async fn revoke(&mut self, username: &str) {
        let revoked = self.insist(async |admin, change| {
            let request = v1::RevokeUserSessionsRequest { change, user: username.to_owned() };
            admin.sessions().revoke_user(request).await
        });
        revoked.await.expect("a user who exists can be signed out");
    }

    async fn block(&mut self, address: IpAddr) {
        let policy = v1::Policy {
            name: fresh_id().simple().to_string(),
            networks: vec![format!("{address}/32")],
            block: true,
            ..Default::default()
        };
        let made = self.insist(async |admin, change| {
            admin.create(change, "policy", json!(policy)).await.map(|it| it.objects[0].key.clone())
        });
        let (request_id, id) = made.await.expect("a policy of a new name");
        self.acknowledged.push(Acknowledged { request_id, stream: Stream::Config, id: id.clone() });
        self.blocks.push(id);
    }

    async fn unblock(&mut self, policy: &str) {
        // That it is gone already is what a lost answer leaves behind.
        let _removed = self.insist(async |admin, change| admin.remove(change, "policy", by_name(policy)).await).await;
    }

    /// The same request at either controller, until one says yes or no.
    async fn insist<T>(
        &mut self,
        ask: impl AsyncFn(&Admin, Option<v1::Change>) -> Result<T, Status>,
    ) -> Option<(String, T)> {
        let request_id = fresh_id().to_string();
        loop {
            let change = v1::Change { request_id: request_id.clone(), ..Default::default() };
            let admin = self.chance.pick(&self.at).clone();
            let answer = timeout(CALL_PATIENCE, ask(&admin, Some(change))).await;
            match answer {
                Ok(Ok(made)) => return Some((request_id, made)),
                Ok(Err(status)) if is_final(&status) => {
                    self.rejected += 1;
                    return None;
                }
                Ok(Err(_)) | Err(_) => sleep(self.chance.up_to_ms(1000)).await,
            }
        }
    }
}

/// Where somebody sits.
pub(crate) fn address_of(person: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, person as u8).into()
}

/// A rule said no; all else may be asked again.
fn is_final(status: &Status) -> bool {
    let rules = [Code::AlreadyExists, Code::NotFound, Code::FailedPrecondition, Code::InvalidArgument];
    rules.contains(&status.code())
}
