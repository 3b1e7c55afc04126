//! Controllers that start on nothing, several at once, and killed on the way.

use std::{path::PathBuf, pin::pin, sync::Arc, task::Poll};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use eventlog::{EventLog, Journal, Projection};
use futures_util::future::join_all;
use model::{Proof, Role, event::Stream};
use proto::signed::{Signer, Verifier};
use runtime::{
    Clock,
    hashing::{Area, Hashing},
};

use super::*;
use crate::{Peers, first_owner};

const DOMAIN: &str = "example.com";
const CONTROLLERS: usize = 8;

#[tokio::test]
async fn controllers_that_start_together_on_nothing_have_one_authority() {
    let world = World::new();
    let controllers = join_all((0..CONTROLLERS).map(|_| world.controller())).await;
    let authorities = join_all(controllers.iter().map(|it| it.start())).await;
    let first = authorities[0].certificate().to_vec();
    assert!(authorities.iter().all(|it| it.certificate() == first));
    // And so after a restart, with one of everything.
    let again = world.controller().await;
    assert_eq!(again.start().await.certificate(), first);
    let tenant = again.tenant();
    for purpose in KeyPurpose::ALL {
        assert_eq!(tenant.keys_for(purpose).len(), 1, "{purpose:?}");
    }
    assert_eq!((tenant.certificates.len(), tenant.apps.len(), tenant.connector_groups.len()), (1, 2, 2));
}

#[tokio::test]
async fn keys_of_the_first_start_are_in_use_on_a_clock_that_is_behind() {
    let world = World::new();
    let first = world.controller().await.start().await.certificate().to_vec();
    let behind = world.controller_at(Clock { skew_ms: -600_000 }).await;
    assert_eq!(behind.start().await.certificate(), first);
}

#[tokio::test]
async fn of_many_that_make_a_first_owner_one_knows_the_password() {
    let world = World::new();
    let controllers = join_all((0..CONTROLLERS).map(|_| world.controller())).await;
    join_all(controllers.iter().map(|it| it.start())).await;
    let said = join_all(controllers.iter().map(|it| it.owner())).await;
    let passwords: Vec<String> = said.into_iter().flatten().map(|it| it.password).collect();
    assert_eq!(passwords.len(), 1);
    let files: Vec<_> = controllers.iter().filter_map(|it| it.file()).collect();
    assert_eq!(files, [format!("username admin\npassword {}\n", passwords[0])]);
    assert!(world.opens(&controllers[0].tenant(), &passwords[0]));
    for controller in &controllers {
        let left = std::fs::read_dir(&controller.folder).unwrap().count();
        assert_eq!(left, usize::from(controller.file().is_some()), "drafts do not stay");
    }
}

#[tokio::test]
async fn a_start_that_is_killed_anywhere_leaves_the_password_in_the_file() {
    let mut whole = 0;
    for polls in 1.. {
        let world = World::new();
        let killed = world.controller().await;
        killed.start().await;
        let ended = polled_at_most(polls, killed.owner()).await.is_some();
        let next = Controller { folder: killed.folder.clone(), ..world.controller().await };
        next.start().await;
        let said = next.owner().await;
        assert!(said.is_some() || ended, "after {polls} polls nobody said the password");
        let file = next.file().unwrap_or_else(|| panic!("no file after {polls} polls"));
        let password = file.lines().find_map(|it| it.strip_prefix("password ")).unwrap().to_owned();
        assert!(world.opens(&next.tenant(), &password), "another password after {polls} polls");
        whole += usize::from(ended);
        if whole == 3 {
            break;
        }
    }
}

#[tokio::test]
async fn an_installation_with_people_and_no_owner_gets_one() {
    let world = World::new();
    let controller = world.controller().await;
    controller.start().await;
    let people = ["admin", "alice"].map(|name| {
        Command::Create(
            model::User {
                id: model::UserId(fresh_id()),
                username: model::directory::Username::parse(name).unwrap(),
                display_name: "".into(),
                email: "".into(),
                disabled: false,
                labels: Default::default(),
            }
            .into(),
        )
    });
    let context = ChangeContext::of_system(&TenantId::default_tenant(), "test");
    controller.writer.execute(&context, people.into()).await.unwrap();
    let owner = controller.owner().await.unwrap();
    assert!(world.opens(&controller.tenant(), &owner.password));
    assert!(controller.owner().await.is_none(), "once");
}

struct World {
    folder: PathBuf,
    log: EventLog,
    signing: Vec<u8>,
    sealing: [std::sync::Arc<SealingKey>; 3],
}

/// One controller process, as far as this crate goes.
struct Controller {
    writer: Writer,
    surroundings: Surroundings,
    folder: PathBuf,
}

impl World {
    fn new() -> Self {
        runtime::install_crypto();
        let folder = std::env::temp_dir().join(format!("postern-bootstrap-{}", fresh_id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = EventLog::open(&folder.join("log.db")).unwrap();
        let signing = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap().as_ref().to_vec();
        let sealing = std::array::from_fn(|_| std::sync::Arc::new(SealingKey::generate()));
        Self { folder, log, signing, sealing }
    }

    async fn controller(&self) -> Controller {
        self.controller_at(Clock::default()).await
    }

    async fn controller_at(&self, clock: Clock) -> Controller {
        let pair = Ed25519KeyPair::from_pkcs8(&self.signing).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let trust = Verifier::trusting([public.clone()]);
        let projection = Projection::start(self.log.clone(), &Stream::STATE, trust, None).await.unwrap();
        let journal = Journal::new(self.log.clone(), std::sync::Arc::new(Signer::new(pair)));
        let [own, relays, identity] = &self.sealing;
        let peers = Peers {
            seal_to_relays: relays.public(),
            seal_to_identity: identity.public(),
            identity_key: public.clone(),
            activity: Verifier::trusting([public]),
            writers: std::collections::BTreeMap::new(),
        };
        let folder = self.folder.join(fresh_id().to_string());
        std::fs::create_dir(&folder).unwrap();
        let writer = Writer::new(journal.clone(), projection.clone(), clock);
        let surroundings = Surroundings {
            projection,
            journal,
            sealing: own.clone(),
            peers,
            hashing: Arc::new(Hashing::on_callers_thread()),
            clock,
            token_faults: Default::default(),
        };
        Controller { writer, surroundings, folder }
    }

    /// Is it the password of the owner?
    fn opens(&self, tenant: &Tenant, password: &str) -> bool {
        let owner = tenant.roles.values().find(|it| it.role == Role::Owner).unwrap().user;
        let sealed = tenant.credential(owner, Proof::Password).unwrap();
        let hash = self.sealing[2].open(crate::passwords::PURPOSE, sealed).unwrap();
        Area::default().verify(password.as_bytes(), &String::from_utf8(hash).unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

impl Controller {
    async fn start(&self) -> Authority {
        let relays = ["127.0.0.1:8443".to_owned()];
        let place = (DOMAIN, 8443, relays.as_slice());
        let tenant = TenantId::default_tenant();
        ensure(&self.writer, &self.surroundings, &tenant, place, "unix:/run/identity.sock").await.unwrap()
    }

    async fn owner(&self) -> Option<first_owner::FirstOwner> {
        let tenant = TenantId::default_tenant();
        first_owner::ensure(&self.writer, &self.surroundings, &tenant, &self.folder).await.unwrap()
    }

    fn tenant(&self) -> std::sync::Arc<Tenant> {
        tenant_of(&self.writer, &TenantId::default_tenant())
    }

    fn file(&self) -> Option<String> {
        std::fs::read_to_string(self.folder.join(first_owner::FILE)).ok()
    }
}

/// What a process does that is killed after so many steps.
async fn polled_at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
