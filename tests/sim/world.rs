//! A relay without a door, connectors without a network, applications without a
//! machine: the real code of each, on one thread and on virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use connector::{
    backend::{Dialling, Io, Network, Target},
    links::{self, Ending},
    origin::Pools,
    origins::Origins,
    serve::Worker,
    statements::Statements,
    trust::Trust,
};
use controller::writer::{ChangeContext, Writer};
use eventlog::{Activity, EventLog, Fact, Projection};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use model::{
    App, AppId, Assignment, Connector, ConnectorGroup, ConnectorGroupId, ConnectorId, JoinTokenId, Position, Principal,
    TenantId, Timestamp,
    app::{ExternalUrl, Name, Origin, PreAuthentication},
    command::Command,
    event::Stream,
};
use postern::{
    assembly::{self, Base, Vitals},
    keys::{self, RoleKeys},
};
use postern_tests::processes::Folder;
use proto::{
    Message,
    signed::{Signer, Verifier},
    v1::{Access, ResetCode, SignedEvent},
};
use relay::{Relay, link::ConnectorName};
use runtime::{Clock, clock::fresh_id, hashing::Hashing};
use tokio::{
    io::DuplexStream,
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::network::{Chance, Faults, Weather, wire};

pub(crate) const LINK: Faults = Faults { delay_ms: 15, stall: 150, stall_ms: 18_000, cut: 400 };
pub(crate) const USER: Faults = Faults { delay_ms: 20, stall: 200, stall_ms: 9_000, cut: 300 };
const INSIDE: Faults = Faults { delay_ms: 3, stall: 200, stall_ms: 4_000, cut: 300 };

pub(crate) struct World {
    pub(crate) relay: Arc<Relay>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) weather: Weather,
    pub(crate) places: Places,
    pub(crate) tenant: TenantId,
    pub(crate) projection: Projection,
    /// Whose word counts.
    pub(crate) signer: Arc<Signer>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) log: EventLog,
    pub(crate) activity_trust: Verifier,
    pub(crate) _folder: Folder,
}

/// Where users come in.
#[derive(Clone)]
pub(crate) struct Door {
    relay: Arc<Relay>,
    weather: Weather,
    tasks: TaskTracker,
}

impl Door {
    /// A user's connection, at its far end.
    pub(crate) fn knock(&self, chance: &mut Chance, address: IpAddr, host: &str) -> DuplexStream {
        let (here, there) = wire(chance, USER, &self.weather, &self.tasks);
        let (relay, host) = (self.relay.clone(), host.to_owned());
        self.tasks.spawn(async move { relay.serve_user_on(there, address, &host).await });
        here
    }

    /// Something that lasts as long as a connection.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// One request on a connection of its own; whole, or nothing.
    pub(crate) async fn ask(
        &self,
        chance: &mut Chance,
        address: IpAddr,
        host: &str,
        path: &str,
    ) -> Option<(StatusCode, Bytes)> {
        let here = self.knock(chance, address, host);
        let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(here)).await.ok()?;
        self.tasks.spawn(async move { _ = connection.await });
        let request = Request::get(path).header("host", host).body(Full::new(Bytes::new())).unwrap();
        let response = requests.send_request(request).await.ok()?;
        let status = response.status();
        Some((status, response.into_body().collect().await.ok()?.to_bytes()))
    }
}

/// An application and the connectors' group that serves it.
pub(crate) struct Published {
    pub(crate) id: AppId,
    pub(crate) group: ConnectorGroupId,
    pub(crate) host: String,
}

impl World {
    pub(crate) async fn start(chance: &mut Chance) -> Self {
        let folder = Folder::default();
        keys::ensure(&folder.0.join("keys")).unwrap();
        let role = |name: &str| RoleKeys::load(&folder.0.join("keys").join(name)).unwrap();
        let (controller_keys, relay_keys) = (role("controller"), role("relay"));
        let log = EventLog::open(&folder.0.join("log.db")).unwrap();
        let trust = controller_keys.trust.of_state().unwrap();
        let projection = Projection::start(log.clone(), &Stream::STATE, trust, None).await.unwrap();
        let base = |keys| Base {
            keys,
            log: &log,
            projection: &projection,
            clock: Clock::default(),
            token_faults: Default::default(),
            metrics: Default::default(),
        };
        let (nowhere, hashing) = ("unix:/nowhere", Hashing::on_callers_thread());
        // It makes the keys of the tenant; nobody calls it.
        let settings = controller::Settings::default();
        let role = assembly::controller::assemble(&base(&controller_keys), settings, nowhere, hashing, &folder.0)
            .await
            .unwrap();
        let stop = CancellationToken::new();
        let (settings, vitals) = (relay::Settings::default(), Vitals::default());
        let relay = assembly::relay::without_listener(&base(&relay_keys), settings, &vitals, &stop).unwrap();
        let (tasks, weather) = (TaskTracker::new(), Weather::default());
        Self {
            relay,
            places: Places::new(chance.fork(), weather.clone(), tasks.clone()),
            weather,
            tasks,
            stop,
            tenant: TenantId::default_tenant(),
            signer: controller_keys.signer().unwrap(),
            writer: role.controller.writer.clone(),
            activity_trust: relay_keys.trust.of_activity().unwrap(),
            projection,
            log,
            _folder: folder,
        }
    }

    /// Carries out commands; no virtual time passes meanwhile.
    pub(crate) async fn execute(&self, commands: Vec<Command>) -> Position {
        let context = ChangeContext::of_system(&self.tenant, "simulation");
        tokio::select! {
            position = self.writer.execute(&context, commands) => position.unwrap(),
            () = busy() => unreachable!(),
        }
    }

    /// An application that needs no sign-in, served by a group of its own.
    pub(crate) async fn publish(&self, name: &str) -> Published {
        let (id, group) = (AppId(fresh_id()), ConnectorGroupId(fresh_id()));
        let host = format!("{name}.postern.localhost");
        let url = ExternalUrl::parse(&format!("https://{host}/")).unwrap();
        let origin = Origin::parse(&format!("http://{name}.inside:80")).unwrap();
        let plain = App::new(id, Name::parse(name).unwrap(), url, origin, group);
        let app = App { pre_authentication: PreAuthentication::Passthrough, ..plain };
        let group_of_its_own =
            ConnectorGroup { id: group, name: Name::parse(name).unwrap(), labels: Default::default() };
        self.execute(vec![
            Command::Create(group_of_its_own.into()),
            Command::Create(app.into()),
            Command::Put(Assignment { app: id, principal: Principal::Everyone }.into()),
        ])
        .await;
        Published { id, group, host }
    }

    /// A connector that has enrolled.
    pub(crate) async fn enrol(&self, group: ConnectorGroupId) -> ConnectorName {
        let id = ConnectorId(fresh_id());
        let (token, now) = (JoinTokenId(fresh_id()), Timestamp(Clock::default().now_ms()));
        let invitation =
            model::JoinToken { id: token, group, secret_hash: vec![0; 32], expires: Timestamp(now.0 + 60_000) };
        let connector = Connector {
            id,
            name: Name::parse(&id.0.simple().to_string()).unwrap(),
            group,
            public_key: vec![1],
            join_token: token,
            revoked: false,
        };
        self.execute(vec![Command::Put(invitation.into()), Command::Enrol { connector, now }]).await;
        let expires_s = i64::MAX / 4;
        ConnectorName { tenant: self.tenant.clone(), group, connector: id, expires_s }
    }

    /// What an honest connector serves requests with.
    pub(crate) fn worker(&self, group: ConnectorGroupId) -> Worker {
        let trust = Trust { roots: Arc::new(rustls::RootCertStore::empty()), client_certificates: None };
        let writers = vec![self.signer.public_key().to_vec()];
        let origins = Arc::new(Origins::new(&group.to_string(), writers.clone()));
        let statements = Statements::new(&self.tenant.to_string(), writers, Default::default(), Clock::default());
        Worker {
            origins,
            pools: Arc::new(Pools::new(Arc::new(trust), Arc::new(self.places.clone()), self.tasks.clone())),
            statements: Arc::new(statements),
        }
    }

    /// An honest connector: one link after the other over a bad network.
    pub(crate) fn connect(&self, name: ConnectorName, mut chance: Chance) {
        let (relay, tasks, stop) = (self.relay.clone(), self.tasks.clone(), self.stop.clone());
        let (worker, weather) = (self.worker(name.group), self.weather.clone());
        self.tasks.spawn(async move {
            while !stop.is_cancelled() {
                let (here, there) = wire(&mut chance, LINK, &weather, &tasks);
                tasks.spawn(relay.clone().serve_connector_on(there, name.clone()));
                serve_link(here, worker.clone(), &stop).await;
                sleep(chance.up_to_ms(500)).await;
            }
        });
    }

    pub(crate) fn door(&self) -> Door {
        Door { relay: self.relay.clone(), weather: self.weather.clone(), tasks: self.tasks.clone() }
    }

    /// Every access the relay recorded, by request. The log is a real file, which
    /// virtual time would not wait for.
    pub(crate) async fn accesses(&mut self) -> BTreeMap<String, Access> {
        tokio::time::resume();
        self.relay.settle().await;
        let (mut found, mut after) = (BTreeMap::new(), 0);
        loop {
            let entries = self.log.read(Stream::Activity, after).await.unwrap();
            let Some(last) = entries.last() else { return found };
            after = last.position;
            for entry in entries {
                let event = SignedEvent::decode(entry.bytes).unwrap();
                let (body, _) = self.activity_trust.verify(&event).unwrap();
                let accesses = match Fact::decode(&body.kind, &body.payload).unwrap() {
                    Fact::Activity(Activity::Access(it)) => vec![it],
                    Fact::Activity(Activity::Accesses(it)) => it.accesses,
                    Fact::State(_) | Fact::Activity(_) => vec![],
                };
                found.extend(accesses.into_iter().map(|it| (it.request_id.clone(), it)));
            }
        }
    }
}

/// One link of an honest connector, until it ends.
pub(crate) async fn serve_link(io: DuplexStream, worker: Worker, stop: &CancellationToken) {
    let (_renewing, renewed) = watch::channel(());
    let day = Duration::from_secs(86_400);
    let ending = Ending { stop: stop.clone(), renewed, grace: Duration::from_secs(1), expires: Instant::now() + day };
    // A link that breaks is what this is about.
    let _broken = links::serve("simulated", io, worker, &watch::Sender::new(1), ending, &Arc::default()).await;
}

/// Virtual time stands still while somebody has something to do.
async fn busy() {
    loop {
        tokio::task::yield_now().await;
    }
}

/// A request as an application saw it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) request_id: String,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) from: String,
}

/// Where identity is dialled, in installations that have one.
pub(crate) const IDENTITY_HOST: &str = "identity.inside";
/// A path whose answer ends only when somebody ends it.
pub(crate) const ENDLESS: &str = "/endless";
const TICK: Duration = Duration::from_millis(500);

/// Everything that can be dialled.
#[derive(Clone)]
pub(crate) struct Places {
    identity: Arc<OnceLock<identity::Service>>,
    pub(crate) arrivals: Arc<Mutex<Vec<Arrival>>>,
    pub(crate) dialled: Arc<Mutex<BTreeSet<String>>>,
    chance: Arc<Mutex<Chance>>,
    weather: Weather,
    tasks: TaskTracker,
}

impl Places {
    pub(crate) fn new(chance: Chance, weather: Weather, tasks: TaskTracker) -> Self {
        let chance = Arc::new(Mutex::new(chance));
        Self { identity: Arc::default(), arrivals: Arc::default(), dialled: Arc::default(), chance, weather, tasks }
    }

    pub(crate) fn settle_identity(&self, service: identity::Service) {
        assert!(self.identity.set(service).is_ok(), "one identity");
    }

    async fn answer(&self, request: Request<Incoming>, host: &str) -> Result<Response<Answer>, Infallible> {
        let (parts, body) = request.into_parts();
        let field = |name: &str| parts.headers.get(name).map_or("", |it| it.to_str().unwrap()).to_owned();
        let path = parts.uri.path().to_owned();
        let arrival = Arrival {
            request_id: field("x-request-id"),
            method: parts.method.to_string(),
            host: host.into(),
            path: path.clone(),
            from: field("x-forwarded-for"),
        };
        self.arrivals.lock().unwrap().push(arrival);
        let pause = self.chance.lock().unwrap().up_to_ms(60);
        sleep(pause).await;
        let sent = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
        Ok(Response::new(match path.as_str() {
            ENDLESS => Either::Right(ticks()),
            _ => Either::Left(Full::new(answer_to(&path, &sent))),
        }))
    }
}

type Answer = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

fn ticks() -> UnsyncBoxBody<Bytes, Infallible> {
    let ticks = futures_util::stream::unfold((), |()| async {
        sleep(TICK).await;
        Some((Ok(Frame::data(Bytes::from_static(b"tick\n"))), ()))
    });
    StreamBody::new(ticks).boxed_unsync()
}

/// What an application answers: the user can tell it from any other's.
pub(crate) fn answer_to(path: &str, body: &[u8]) -> Bytes {
    let sum = body.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let head = format!("{path} {} {sum}\n", body.len());
    let mut chance = Chance::new(sum ^ path.len() as u64);
    let length = if chance.one_in(4) { chance.below(120_000) } else { chance.below(900) };
    head.bytes().cycle().take(head.len() + length).collect()
}

impl Network for Places {
    fn dial<'a>(&'a self, target: &'a Target) -> Dialling<'a> {
        Box::pin(async move {
            self.dialled.lock().unwrap().insert(target.host.clone());
            let (mut chance, fails) = {
                let mut chance = self.chance.lock().unwrap();
                (chance.fork(), chance.one_in(25) && self.weather.breaks())
            };
            if fails {
                return Err(ResetCode::Connect);
            }
            let (near, far) = wire(&mut chance, INSIDE, &self.weather, &self.tasks);
            if let Some(identity) = self.identity.get().filter(|_| target.host == IDENTITY_HOST) {
                self.tasks.spawn(identity.serve_on(far, CancellationToken::new()));
                return Ok(Box::new(near) as Box<dyn Io>);
            }
            let (host, places) = (target.host.clone(), self.clone());
            self.tasks.spawn(async move {
                let service = service_fn(|request| places.answer(request, &host));
                let _closed =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service).await;
            });
            Ok(Box::new(near) as Box<dyn Io>)
        })
    }
}
