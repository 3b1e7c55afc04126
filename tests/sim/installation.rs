//! A whole installation without a machine: two controllers, identity and a relay
//! over one log, each with a late and forgetful view of it, on virtual time.
//!
//! Everything is the real code, put together as `up` and the roles do it. What is
//! not: connections are pipes; passwords are hashed on the one thread there is,
//! and the log's file is written while time stands still, since virtual time
//! waits for no other thread. Connectors enrol over a pipe to a controller and
//! not through a relay, whose call to a controller is a real TCP connection, as
//! are identity's (signing out, a second factor): those two are left out.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use admin_client::{Admin, Credential};
use controller::{bootstrap::SYSTEM_GROUP, server::Controller};
use eventlog::{
    EventLog, Projection,
    simulated::{Disturbance, Moment},
};
use model::{Position, TenantId, event::Stream};
use postern::{
    assembly::{self, Base, Vitals, controller::ControllerRole},
    keys::{self, RoleKeys},
};
use postern_tests::processes::Folder;
use proto::enrolment::CONTROLLER_NAME;
use proto::{
    Message,
    v1::{self, EventBody, SignedEvent, enrolment_client::EnrolmentClient},
};
use rcgen::{CertificateParams, KeyPair};
use relay::link::ConnectorName;
use runtime::{
    Clock,
    clock::{FollowingTimers, follow_timers},
    dial::dial_over,
    hashing::Hashing,
    tls::{link_client, pem_certificates, roots},
};
use rustls::pki_types::CertificateDer;
use tokio::io::DuplexStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    network::{Chance, Weather, wire},
    world::{IDENTITY_HOST, LINK, Places, World},
};

pub(crate) const CONTROLLERS: usize = 2;
/// Short, so that every session is renewed many times.
const TOKEN_LIFE_S: u32 = 60;

pub(crate) struct Installation {
    pub(crate) world: World,
    /// As the first owner, at each controller.
    pub(crate) owners: Vec<Admin>,
    controllers: Vec<Reachable>,
    credential: Credential,
    storm: Arc<AtomicBool>,
    _clocks: FollowingTimers,
}

/// A controller and the way there.
#[derive(Clone)]
struct Reachable {
    controller: Arc<Controller>,
    chance: Arc<Mutex<Chance>>,
    weather: Weather,
    tasks: TaskTracker,
}

impl Reachable {
    /// A connection to its port.
    fn dial(&self) -> DuplexStream {
        let chance = &mut *self.chance.lock().unwrap();
        let (here, there) = wire(chance, LINK, &self.weather, &self.tasks);
        self.tasks.spawn(self.controller.serve_on(there, CancellationToken::new()));
        here
    }
}

/// An event of a state stream, as it lies in the log.
pub(crate) struct Recorded {
    pub(crate) stream: Stream,
    pub(crate) body: EventBody,
}

fn base_of<'a>(keys: &'a RoleKeys, log: &'a EventLog, projection: &'a Projection) -> Base<'a> {
    Base {
        keys,
        log,
        projection,
        clock: Clock::default(),
        token_faults: Default::default(),
        metrics: Default::default(),
    }
}

impl Installation {
    pub(crate) async fn start(chance: &mut Chance) -> Self {
        let clocks = follow_timers();
        let folder = Folder::default();
        keys::ensure(&folder.0.join("keys")).unwrap();
        let role = |name: &str| RoleKeys::load(&folder.0.join("keys").join(name)).unwrap();
        let (controller_keys, relay_keys, identity_keys) = (role("controller"), role("relay"), role("identity"));
        let log = EventLog::open(&folder.0.join("log.db")).unwrap();
        let storm = Arc::new(AtomicBool::new(false));
        let (tasks, weather, stop) = (TaskTracker::new(), Weather::default(), CancellationToken::new());
        let places = Places::new(chance.fork(), weather.clone(), tasks.clone());

        let mut controllers = Vec::new();
        let mut credentials = Vec::new();
        let mut projections = Vec::new();
        for n in 0..CONTROLLERS {
            let log = disturbed(&log, &storm, chance.fork(), 150);
            let projection = folded(&log, &Stream::STATE, &controller_keys).await;
            let state = folder.0.join(format!("controller-{n}"));
            std::fs::create_dir(&state).unwrap();
            let base = base_of(&controller_keys, &log, &projection);
            let role = controller(&base, &state).await;
            let (name, file) = (format!("https://controller-{n}:8444"), state.join("owner.json"));
            credentials.push(assembly::controller::owner_file(&role.controller, name, file).write().unwrap().0);
            tasks.spawn(role.controller.writer.clone().follow_up_always(stop.clone()));
            controllers.push(Reachable {
                controller: Arc::new(role.controller),
                chance: Arc::new(Mutex::new(chance.fork())),
                weather: weather.clone(),
                tasks: tasks.clone(),
            });
            projections.push(projection);
        }
        let identity_log = disturbed(&log, &storm, chance.fork(), 400);
        let projection = folded(&identity_log, &Stream::STATE, &identity_keys).await;
        let base = base_of(&identity_keys, &identity_log, &projection);
        let settings = identity::Settings { token_life_s: TOKEN_LIFE_S, ..Default::default() };
        let identity = assembly::identity::assemble(&base, settings, Hashing::on_callers_thread());
        places.settle_identity(identity.unwrap());
        let relay_log = disturbed(&log, &storm, chance.fork(), 300);
        let projection = folded(&relay_log, &[Stream::Config, Stream::Risk], &relay_keys).await;
        let base = base_of(&relay_keys, &relay_log, &projection);
        let (settings, vitals) = (relay::Settings::default(), Vitals::default());
        let relay = assembly::relay::without_listener(&base, settings, &vitals, &stop).unwrap();

        let world = World {
            relay,
            tasks,
            stop,
            weather,
            places,
            tenant: TenantId::default_tenant(),
            signer: controller_keys.signer().unwrap(),
            writer: controllers[0].controller.writer.clone(),
            activity_trust: relay_keys.trust.of_activity().unwrap(),
            projection,
            log: log.simulated(|_| Disturbance::default()),
            _folder: folder,
        };
        let mut owners = Vec::new();
        for (credential, reachable) in credentials.iter().zip(&controllers) {
            let reachable = reachable.clone();
            let dial = move |_| std::future::ready(Ok::<_, std::io::Error>(reachable.dial()));
            // Connections break here from the first moment.
            let admin = loop {
                if let Ok(admin) = Admin::connect_over(credential, dial.clone()).await {
                    break admin;
                }
            };
            owners.push(admin);
        }
        let credential = credentials.remove(0);
        Self { world, owners, controllers, credential, storm, _clocks: clocks }
    }

    /// From now on the log is late and forgets answers.
    pub(crate) fn disturb(&self) {
        self.storm.store(true, Ordering::SeqCst);
    }

    pub(crate) fn calm_down(&self) {
        self.storm.store(false, Ordering::SeqCst);
        self.world.weather.calm_down();
    }

    /// A connector of a group, joined with a token of an owner's.
    pub(crate) async fn enrol(&self, group: &str) -> ConnectorName {
        let request = v1::IssueTokenRequest { group: group.to_owned(), life_s: 3600, ..Default::default() };
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let name = format!("{group}-{}", self.world.tasks.len());
        loop {
            let Ok(token) = self.owners[0].connectors().issue_token(request.clone()).await else { continue };
            let token = token.into_inner().token;
            let asked = v1::EnrolRequest { token, name: name.clone(), csr: csr.clone() };
            let Ok(mut stranger) = self.stranger().await else { continue };
            if let Ok(answer) = stranger.enrol(asked).await {
                let leaf = CertificateDer::from(answer.into_inner().chain[0].clone());
                return ConnectorName::read(&leaf).unwrap();
            }
        }
    }

    /// Who has no certificate yet.
    async fn stranger(&self) -> Result<EnrolmentClient<tonic::transport::Channel>, tonic::transport::Error> {
        let authority = pem_certificates(self.credential.authority.as_bytes()).unwrap();
        let tls = link_client(roots(authority.iter().map(|it| it.as_ref())).unwrap(), None).unwrap();
        let reachable = self.controllers[0].clone();
        let dial = move |_| std::future::ready(Ok::<_, std::io::Error>(reachable.dial()));
        let channel = dial_over("https://controller-0:8444", CONTROLLER_NAME, tls, crate::Duration::from_secs(5), dial);
        Ok(EnrolmentClient::new(channel.await?))
    }

    /// The connector that identity is reached by, and one for each of these groups.
    pub(crate) async fn connect(&self, groups: &[&str], chance: &mut Chance) {
        for group in [&[SYSTEM_GROUP], groups].concat() {
            let name = self.enrol(group).await;
            self.world.connect(name, chance.fork());
        }
    }

    /// Everything in CONFIG, DIRECTORY and RISK.
    pub(crate) async fn recorded(&self) -> Vec<Recorded> {
        let mut recorded = Vec::new();
        for stream in Stream::STATE {
            let mut after: Position = 0;
            loop {
                let entries = self.world.log.read(stream, after).await.unwrap();
                let Some(last) = entries.last() else { break };
                after = last.position;
                recorded.extend(entries.into_iter().map(|entry| {
                    let event = SignedEvent::decode(entry.bytes).unwrap();
                    Recorded { stream, body: EventBody::decode(event.body).unwrap() }
                }));
            }
        }
        recorded
    }
}

async fn folded(log: &EventLog, streams: &[Stream], keys: &RoleKeys) -> Projection {
    Projection::start(log.clone(), streams, keys.trust.of_state().unwrap(), None).await.unwrap()
}

async fn controller(base: &Base<'_>, state: &Path) -> ControllerRole {
    // Nobody writes a port into a URL here.
    let settings = controller::Settings { public_port: 443, ..Default::default() };
    let (origin, hashing) = (format!("http://{IDENTITY_HOST}:80"), Hashing::on_callers_thread());
    assembly::controller::assemble(base, settings, &origin, hashing, state).await.unwrap()
}

/// A log as one process has it while there is a storm: its events come up to
/// `lag_ms` late, appends take their time, and one answer in 25 is lost.
fn disturbed(log: &EventLog, storm: &Arc<AtomicBool>, chance: Chance, lag_ms: usize) -> EventLog {
    let (storm, chance) = (storm.clone(), Mutex::new(chance));
    log.simulated(move |moment| {
        if !storm.load(Ordering::SeqCst) {
            return Disturbance::default();
        }
        let mut chance = chance.lock().unwrap();
        match moment {
            Moment::Append => Disturbance { delay: chance.up_to_ms(40), lost: false },
            Moment::Answer => Disturbance { delay: chance.up_to_ms(40), lost: chance.one_in(25) },
            Moment::Follow => Disturbance { delay: chance.up_to_ms(lag_ms), lost: false },
        }
    })
}
