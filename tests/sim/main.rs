//! Simulations: the real relay, tunnel and connector on virtual time, over a
//! network that delays, stalls and breaks by a seed, among liars.
//!
//! Whatever happens: no byte reaches an application without a grant of the relay
//! in the same step, and no answer reaches another request than its own. And
//! when it is over, whatever it was, a crowd is answered within a second.
//!
//! `SIM_SEED=N cargo test -p postern-tests --test sim` runs one seed, and
//! `SIM_RUNS=N` that many. The seed decides what the network and the people do;
//! the order of ready branches is tokio's own, so a seed finds a failure again
//! but not always at the same step.

#![allow(clippy::unwrap_used, reason = "a simulation that cannot go on should stop")]
#![allow(clippy::disallowed_methods, reason = "which seeds to run is the caller's to say")]

mod administrators;
mod installation;
mod liars;
mod network;
mod people;
mod world;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use controller::bootstrap::DEFAULT_GROUP;
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use model::{ObjectKey, Policy, PolicyId, Position, app::Name, command::Command, policy::Grant};
use runtime::clock::fresh_id;
use tokio::{
    io::AsyncWriteExt,
    task::JoinSet,
    time::{Duration, sleep, timeout},
};
use url::Url;

use crate::{
    administrators::{Administrator, address_of},
    installation::Installation,
    network::{Chance, Weather, wire},
    people::Browser,
    world::{Door, ENDLESS, World, answer_to},
};

const RUNS: u64 = 12;
const USERS: usize = 12;
const REQUESTS: usize = 40;

/// Runs a story for each seed, and says which one failed.
fn each_seed(story: impl AsyncFn(Chance)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("this was SIM_SEED={}", self.0);
            }
        }
    }
    runtime::install_crypto();
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_RUNS").unwrap_or(RUNS),
    };
    for seed in seeds {
        let _says = Seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(story(Chance::new(seed)));
    }
}

/// Which addresses were blocked, by position of CONFIG.
#[derive(Default)]
struct Blocked(Vec<(Position, BTreeSet<IpAddr>)>);

impl Blocked {
    fn at(&self, position: Position, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let then = self.0.iter().rev().find(|(since, _)| *since <= position);
        then.is_some_and(|(_, blocked)| blocked.contains(&address))
    }
}

#[derive(Default)]
struct Outcomes {
    whole: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
}

#[test]
#[expect(clippy::too_many_lines, reason = "one run, from its beginning to what must hold at its end")]
fn an_application_sees_only_what_was_granted_and_a_user_only_their_own() {
    each_seed(async |mut chance| {
        let mut world = World::start(&mut chance).await;
        let honest = world.publish("honest").await;
        let liar = world.publish("liar").await;
        let names = [world.enrol(honest.group).await, world.enrol(honest.group).await];
        let lying = world.enrol(liar.group).await;
        tokio::time::pause();
        for name in names {
            world.connect(name, chance.fork());
        }
        liars::connect(&world, lying, chance.fork());

        let (outcomes, of_liar) = (Arc::new(Outcomes::default()), Arc::new(Outcomes::default()));
        let person = |n: usize, host: &str, outcomes: &Arc<Outcomes>, chance: Chance| Person {
            name: format!("{host}-{n}"),
            host: host.to_owned(),
            address: Ipv4Addr::new(10, 0, 0, n as u8).into(),
            outcomes: outcomes.clone(),
            chance,
        };
        let mut users = JoinSet::new();
        for n in 0..USERS {
            users.spawn(person(n, &honest.host, &outcomes, chance.fork()).live(world.door(), true));
            users.spawn(person(n, &liar.host, &of_liar, chance.fork()).live(world.door(), false));
        }
        let leaving = JoinSet::from_iter([honest.host.clone(), liar.host.clone()].map(|host| {
            let (door, chance) = (world.door(), chance.fork());
            crowds(door, host, chance)
        }));
        let weather = JoinSet::from_iter([change_weather(world.weather.clone(), chance.fork())]);
        // A person who finds something wrong takes the run down.
        let all = async {
            while let Some(lived) = users.join_next().await {
                lived.unwrap();
            }
        };
        let blocked = Mutex::new(Blocked::default());
        tokio::select! {
            () = all => {}
            () = change_policies(&world, &blocked, chance.fork()) => unreachable!(),
        }
        drop(weather);
        // From now on links last, with all that users do to them.
        world.weather.spare_connections();
        world.weather.change(0, 60);
        sleep(AFTERMATH).await;
        drop(leaving);
        // And become short when much has passed over a long way.
        world.weather.change(100, 0);
        let more: JoinSet<()> = (0..4 * USERS)
            .map(|n| person(n, &honest.host, &outcomes, chance.fork()).live(world.door(), true))
            .collect();
        more.join_all().await;
        world.weather.calm_down();
        it_works_again(&world.door(), &honest.host, &mut chance).await;
        world.stop.cancel();
        while world.relay.open_exchanges() > 0 {
            sleep(Duration::from_millis(100)).await;
        }

        let accesses = world.accesses().await;
        let arrivals = world.places.arrivals.lock().unwrap().clone();
        let blocked = blocked.into_inner().unwrap();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for arrival in &arrivals {
            let access = accesses.get(&arrival.request_id).unwrap_or_else(|| panic!("no grant: {arrival:?}"));
            assert_eq!(access.address, arrival.from, "judged by another address: {arrival:?}");
            assert!(!access.refusal.starts_with("blocked"), "refused and served: {arrival:?}");
            assert!(!blocked.at(access.snapshot, &access.address), "granted against policy: {arrival:?} {access:?}");
            assert_eq!(arrival.host, "honest.inside", "only one application is dialled");
            let count = seen.entry(&arrival.request_id).or_default();
            *count += 1;
            // The relay repeats what a broken link took, a connector what a kept
            // connection took; nobody repeats what may do harm twice.
            let most = if arrival.method == "GET" { 2 * relay::settings::ATTEMPTS_MAX } else { 1 };
            assert!(*count <= most, "sent {count} times: {arrival:?}");
        }
        for access in accesses.values().filter(|it| it.refusal == "blocked_by_policy") {
            assert!(blocked.at(access.snapshot, &access.address), "blocked without reason: {access:?}");
        }
        let counted = |of: &Outcomes| [&of.whole, &of.refused, &of.broken].map(|it| it.load(Ordering::SeqCst));
        let ([whole, refused, broken], lies) = (counted(&outcomes), counted(&of_liar));
        assert!(whole > USERS * REQUESTS / 4, "hardly anything works: {whole} {refused} {broken}");
        assert!(refused > 0 && lies[0] > 0 && lies[1] + lies[2] > 0, "{refused} {lies:?}");
    });
}

#[test]
fn a_lying_relay_reaches_nothing_the_controller_did_not_sign() {
    let served = AtomicUsize::new(0);
    each_seed(async |mut chance| {
        let world = World::start(&mut chance).await;
        let (own, foreign) = (world.publish("own").await, world.publish("foreign").await);
        let view = world.projection.view();
        let signed = [&own, &foreign].map(|it| view.signed_apps.get(&it.id).unwrap().clone());
        tokio::time::pause();
        let worker = world.worker(own.group);
        let begun = Mutex::default();
        for _ in 0..4 {
            let (here, there) = wire(&mut chance, world::LINK, &world.weather, &world.tasks);
            let relay = liars::relay(there, &own, &foreign, &signed, &begun, chance.fork());
            tokio::select! {
                () = relay => {}
                () = world::serve_link(here, worker.clone(), &world.stop) => {}
            }
        }
        world.weather.calm_down();
        sleep(AFTERMATH).await;
        let (here, there) = wire(&mut chance, world::LINK, &world.weather, &world.tasks);
        tokio::select! {
            () = liars::honest_relay(there, &own, &signed[0], &begun) => {}
            () = world::serve_link(here, worker, &world.stop) => panic!("the connector gave its link up"),
        }
        world.stop.cancel();
        let dialled = world.places.dialled.lock().unwrap().clone();
        assert!(dialled.iter().all(|it| it == "own.inside"), "{dialled:?}");
        let (arrivals, begun) = (world.places.arrivals.lock().unwrap().clone(), begun.into_inner().unwrap());
        served.fetch_add(arrivals.len(), Ordering::SeqCst);
        for arrival in arrivals {
            assert!(begun.contains(&arrival.path), "not what was asked for: {arrival:?}");
            assert!(!arrival.path.starts_with("/of-nobody"), "a user whom identity did not sign: {arrival:?}");
        }
    });
    assert!(served.into_inner() > 0, "what is no lie is served");
}

#[test]
fn an_installation_keeps_its_word() {
    each_seed(async |mut chance| {
        let installation = Installation::start(&mut chance).await;
        let world = &installation.world;
        let mut owner = Administrator::new(&installation.owners, chance.fork());
        let app = owner.publish("wiki").await.unwrap();
        owner.assign_to_everyone(&app).await;
        for n in 0..PEOPLE {
            owner.create_user(&format!("person-{n}")).await.unwrap();
        }
        installation.connect(&[DEFAULT_GROUP, DEFAULT_GROUP], &mut chance).await;
        tokio::time::pause();
        installation.disturb();

        let url = Url::parse(&app.external_url).unwrap();
        let mut people = JoinSet::new();
        for n in 0..PEOPLE {
            let browser = Browser::new(world.door(), address_of(n), chance.fork());
            people.spawn(office_day(browser, url.clone(), format!("person-{n}"), chance.fork()));
        }
        let working = (0..ADMINISTRATORS).map(|_| {
            let administrator = Administrator::new(&installation.owners, chance.fork());
            administrator.work(CHANGES, PEOPLE)
        });
        let (administrators, pages) = tokio::join!(join_all(working), people.join_all());
        let served: usize = pages.into_iter().sum();
        let mut acknowledged = std::mem::take(&mut owner.acknowledged);
        let mut rejected = 0;
        for administrator in administrators {
            rejected += administrator.rejected;
            acknowledged.extend(administrator.acknowledged);
        }
        assert!(served > PEOPLE * PAGES / 4, "hardly anything works: {served} pages");
        assert!(rejected > 0, "administrators want the same names");

        installation.calm_down();
        sleep(AFTERMATH).await;
        a_revoked_session_is_cut(&installation, &mut owner, &url, &mut chance).await;
        somebody_new_signs_in_and_is_served(&installation, &mut owner, &url, &mut chance).await;
        acknowledged.extend(owner.acknowledged);
        world.stop.cancel();
        let log = installation.recorded().await;
        for change in &acknowledged {
            assert_eq!(change.times_in(&log), 1, "acknowledged, and so in the log, once: {change:?}");
        }
    });
}

const PEOPLE: usize = 6;
const PAGES: usize = 12;
const ADMINISTRATORS: usize = 3;
const CHANGES: usize = 10;
/// A revocation reaches what is open within this.
const CUT_WITHIN: Duration = Duration::from_secs(2);

/// Signs in, and asks for pages with pauses in which tokens end. Returns how many
/// pages of the application came.
async fn office_day(mut browser: Browser, url: Url, username: String, mut chance: Chance) -> usize {
    let mut served = 0;
    for n in 0..PAGES {
        let url = url.join(&format!("/{username}-{n}")).unwrap();
        let page = browser.insist(&url, &username, 5).await;
        served += usize::from(page.is_some_and(|it| it.is_of_the_application()));
        sleep(chance.up_to_ms(90_000)).await;
    }
    served
}

/// What is open ends, and the cookies that opened it open nothing more.
async fn a_revoked_session_is_cut(
    installation: &Installation,
    owner: &mut Administrator,
    url: &Url,
    chance: &mut Chance,
) {
    let (username, address) = ("person-0", address_of(0));
    let mut browser = Browser::new(installation.world.door(), address, chance.fork());
    let page = browser.insist(&url.join("/before").unwrap(), username, 3).await;
    assert!(page.is_some_and(|it| it.is_of_the_application()), "the storm is over");
    let endless = url.join(ENDLESS).unwrap();
    let open = browser.begin(Method::GET, &endless, Bytes::new()).await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    let mut body = open.into_body();
    assert!(body.frame().await.is_some_and(|it| it.is_ok()), "it flows");
    owner.revoke(username).await;
    let ends = async { while body.frame().await.is_some_and(|it| it.is_ok()) {} };
    timeout(CUT_WITHIN, ends).await.expect("a revoked session is cut");
    let page = browser.get(&url.join("/after").unwrap()).await.unwrap();
    assert!(!page.is_of_the_application(), "the cookies of before count no more");
    assert!(page.status.is_redirection(), "{}", page.status);
}

async fn somebody_new_signs_in_and_is_served(
    installation: &Installation,
    owner: &mut Administrator,
    url: &Url,
    chance: &mut Chance,
) {
    owner.create_user("newcomer").await.expect("a name nobody else chose");
    let address = Ipv4Addr::new(10, 3, 0, 1).into();
    let mut browser = Browser::new(installation.world.door(), address, chance.fork());
    let page = browser.sign_in(&url.join("/welcome").unwrap(), "newcomer").await.unwrap();
    assert!(page.is_of_the_application(), "{} at {}", page.status, page.url);
}

/// What has begun to stall goes on so long, and so long a lost link is not noticed.
const AFTERMATH: Duration = Duration::from_secs(60);
/// More than streams are parked, so that every one of them is used.
const CROWD: usize = 64;

/// The fault-free end of every run: a crowd that comes at once is answered
/// within a second, though nobody restarted anything.
async fn it_works_again(door: &Door, host: &str, chance: &mut Chance) {
    sleep(AFTERMATH).await;
    for round in 0..3 {
        let mut crowd = JoinSet::new();
        for n in 0..CROWD {
            let (door, host, mut chance) = (door.clone(), host.to_owned(), chance.fork());
            let address = IpAddr::from(Ipv4Addr::new(10, 1, round, n as u8));
            crowd.spawn(async move {
                let path = format!("/after-{round}-{n}");
                let answered = timeout(Duration::from_secs(1), door.ask(&mut chance, address, &host, &path)).await;
                let (status, body) = answered.expect("a request is answered within a second").expect("and not cut");
                assert_eq!((status, &body), (StatusCode::OK, &answer_to(&path, b"")), "{path}");
            });
        }
        while let Some(answered) = crowd.join_next().await {
            answered.unwrap();
        }
    }
}

/// Comes at once, asks, and leaves before it is answered, for ever.
async fn crowds(door: Door, host: String, mut chance: Chance) {
    loop {
        sleep(chance.up_to_ms(10_000)).await;
        let mut crowd = JoinSet::new();
        for n in 0..CROWD {
            let mut here = door.knock(&mut chance, Ipv4Addr::new(10, 2, 0, n as u8).into(), &host);
            let (stays, length) = (chance.up_to_ms(60), chance.below(2) * 20_000);
            let head = format!("POST /left-{n} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
            let sent = [head.into_bytes(), chance.bytes(length)].concat();
            crowd.spawn(async move {
                let _left = timeout(stays, here.write_all(&sent)).await;
            });
        }
        crowd.join_all().await;
    }
}

/// Links become long or slow and short and fast again, for ever; so do machines.
async fn change_weather(weather: Weather, mut chance: Chance) {
    const KINDS: [(usize, usize); 7] = [(0, 0), (0, 0), (0, 0), (100, 0), (30, 400), (300, 0), (20, 60)];
    loop {
        let (delay_ms, bytes_per_ms) = *chance.pick(&KINDS);
        weather.change(delay_ms, bytes_per_ms);
        sleep(chance.up_to_ms(20_000)).await;
    }
}

#[test]
fn a_link_that_has_no_streams_is_given_up_by_either_end() {
    each_seed(async |mut chance| {
        let world = World::start(&mut chance).await;
        let app = world.publish("app").await;
        let name = world.enrol(app.group).await;
        let signed = world.projection.view().signed_apps.get(&app.id).unwrap().clone();
        tokio::time::pause();
        world.weather.calm_down();
        // A connector that parks nothing, at an honest relay.
        let (here, there) = wire(&mut chance, world::LINK, &world.weather, &world.tasks);
        let relay = world.relay.clone().serve_connector_on(there, name.clone());
        tokio::select! {
            given_up = timeout(GIVEN_UP_WITHIN, relay) => given_up.expect("the relay gives the link up"),
            () = liars::mute_connector(here) => panic!("the connector was to stay"),
        }
        // A relay that takes no stream, before an honest connector.
        let (here, there) = wire(&mut chance, world::LINK, &world.weather, &world.tasks);
        let connector = world::serve_link(here, world.worker(app.group), &world.stop);
        tokio::select! {
            given_up = timeout(GIVEN_UP_WITHIN, connector) => given_up.expect("the connector gives the link up"),
            () = liars::mute_relay(there, &signed) => panic!("the relay was to stay"),
        }
        // Dialled again, it serves.
        world.connect(name, chance.fork());
        sleep(Duration::from_secs(1)).await;
        let answered = world.door().ask(&mut chance, Ipv4Addr::LOCALHOST.into(), &app.host, "/again").await;
        assert_eq!(answered.unwrap().0, StatusCode::OK);
        world.stop.cancel();
    });
}

/// Either end notices a link without streams.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(2);

/// Blocks addresses and lets them in again, for ever.
async fn change_policies(world: &World, blocked: &Mutex<Blocked>, mut chance: Chance) {
    let mut policies: Vec<(PolicyId, IpAddr)> = Vec::new();
    loop {
        sleep(chance.up_to_ms(3000)).await;
        let command = if policies.len() > USERS / 3 || (!policies.is_empty() && chance.one_in(2)) {
            Command::Remove(ObjectKey::Policy(policies.swap_remove(chance.below(policies.len())).0))
        } else {
            let (id, address) =
                (PolicyId(fresh_id()), IpAddr::from(Ipv4Addr::new(10, 0, 0, chance.below(USERS) as u8)));
            policies.push((id, address));
            let networks = model::policy::Selection::only([IpNet::from(address)]);
            let name = Name::parse(&id.0.simple().to_string()).unwrap();
            Command::Create(Policy { networks, ..Policy::new(id, name, Grant::Block) }.into())
        };
        let position = world.execute(vec![command]).await;
        let now = policies.iter().map(|(_, address)| *address).collect();
        blocked.lock().unwrap().0.push((position, now));
    }
}

struct Person {
    name: String,
    host: String,
    address: IpAddr,
    outcomes: Arc<Outcomes>,
    chance: Chance,
}

impl Person {
    /// Asks on one connection after the other. With `trusting`, an answer that is
    /// whole is compared with what the application says; else, with what it must
    /// never be.
    async fn live(mut self, door: Door, trusting: bool) {
        let mut connections = JoinSet::new();
        let mut asked = 0;
        while asked < REQUESTS {
            let here = door.knock(&mut self.chance, self.address, &self.host);
            let Ok((mut requests, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(here)).await else {
                continue;
            };
            connections.spawn(async move { _ = connection.await });
            while asked < REQUESTS && requests.ready().await.is_ok() {
                asked += 1;
                let path = format!("/{}-{asked}", self.name);
                let sent = match self.chance.one_in(3) {
                    true => {
                        let count = self.chance.below(100_000);
                        self.chance.bytes(count)
                    }
                    false => vec![],
                };
                let mut request = Request::new(Full::new(Bytes::from(sent.clone())));
                *request.method_mut() = if sent.is_empty() { Method::GET } else { Method::POST };
                *request.uri_mut() = path.parse().unwrap();
                request.headers_mut().insert("host", self.host.parse().unwrap());
                let answered = timeout(Duration::from_secs(300), requests.send_request(request)).await;
                let Ok(response) = answered.expect("the relay answers or hangs up") else {
                    self.outcomes.broken.fetch_add(1, Ordering::SeqCst);
                    break;
                };
                let (parts, body) = response.into_parts();
                let is_ours = parts.headers.contains_key("postern-refusal");
                let read = timeout(Duration::from_secs(300), body.collect()).await.expect("a body ends or breaks");
                let Ok(body) = read.map(|it| it.to_bytes()) else {
                    self.outcomes.broken.fetch_add(1, Ordering::SeqCst);
                    break;
                };
                if is_ours {
                    self.outcomes.refused.fetch_add(1, Ordering::SeqCst);
                } else {
                    self.outcomes.whole.fetch_add(1, Ordering::SeqCst);
                    match trusting {
                        true => assert_eq!(body, answer_to(&path, &sent), "another request's answer at {path}"),
                        false => liars::judge(&path, &body),
                    }
                }
                sleep(self.chance.up_to_ms(400)).await;
            }
        }
    }
}
