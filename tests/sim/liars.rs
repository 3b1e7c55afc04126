//! Ends of a tunnel that say whatever they like.

use std::{collections::BTreeSet, sync::Mutex};

use bytes::Bytes;
use h2::RecvStream;
use http::Request;
use http_body_util::BodyExt;
use proto::Message;
use proto::v1::{Frame, LinkReport, LinkSettings, RequestHead, ResetCode, ResponseHead, SignedEvent, frame::Kind};
use relay::link::ConnectorName;
use tokio::{
    io::DuplexStream,
    sync::mpsc,
    time::{Duration, sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tunnel::{
    exchange::{Exchange, FirstBody, IdleStream},
    frame::Item,
    link::{self, FOLLOW, SERVE, ServerResponse},
};

use crate::{
    network::{Chance, wire},
    world::{LINK, Published, World},
};

/// Sent before anybody asked, or for another exchange: nobody may ever see it.
const POISON: &str = "poison";

/// What a user of the lying connector must never get as a whole answer.
pub(crate) fn judge(path: &str, body: &[u8]) {
    let body = String::from_utf8_lossy(body);
    assert!(!body.contains(POISON), "{path} got what nobody asked for");
    // It may say less than it sends.
    let own = path.starts_with(&*body);
    assert!(own, "{path} got another's: {body}");
}

/// A connector that enrolled, and then lies.
pub(crate) fn connect(world: &World, name: ConnectorName, mut chance: Chance) {
    let (relay, tasks, stop) = (world.relay.clone(), world.tasks.clone(), world.stop.clone());
    let weather = world.weather.clone();
    world.tasks.spawn(async move {
        while !stop.is_cancelled() {
            let (here, there) = wire(&mut chance, LINK, &weather, &tasks);
            tasks.spawn(relay.clone().serve_connector_on(there, name.clone()));
            let Ok((requests, connection)) = link::connect(here).await else { continue };
            let lying = async {
                let streams = TaskTracker::new();
                for _ in 0..6 {
                    let (requests, mut chance) = (requests.clone(), chance.fork());
                    streams.spawn(async move {
                        while let Ok(whole) = link::open(&requests).await {
                            lie(whole, &mut chance).await;
                        }
                    });
                }
                streams.close();
                streams.wait().await;
            };
            tokio::select! {
                _ended = connection => {}
                () = lying => {}
                () = stop.cancelled() => {}
            }
            sleep(chance.up_to_ms(300)).await;
        }
    });
}

fn response(exchange_id: u64, status: u32, fields: &'static str, fin: bool) -> Frame {
    let head = ResponseHead { status, fields: Bytes::from_static(fields.as_bytes()) };
    Frame { exchange_id, fin, kind: Some(Kind::Response(head)) }
}

/// One stream, until it is used up. Errors are the relay's way to hang up.
async fn lie(whole: IdleStream, chance: &mut Chance) {
    let IdleStream { mut sender, mut receiver, .. } = whole;
    if chance.one_in(8) {
        let _gone = sender.head_with(&response(1, 200, "", false), POISON.into(), true);
    }
    loop {
        let Some(Ok(Item::Head(Frame { exchange_id, kind: Some(Kind::Request(head)), fin }))) = receiver.next().await
        else {
            return;
        };
        let mut done = fin;
        while !done {
            match receiver.next().await {
                Some(Ok(Item::Data { fin, .. })) => done = fin,
                Some(Ok(Item::Head(frame))) => done = frame.fin,
                Some(Err(_)) | None => return,
            }
        }
        sleep(chance.up_to_ms(80)).await;
        let own = Bytes::from(head.target.clone());
        let said = match chance.below(14) {
            0 => sender.head_with(&response(exchange_id + 1, 200, "", false), POISON.into(), true),
            1 => sender.head_with(&response(exchange_id.saturating_sub(1), 200, "", false), POISON.into(), true),
            2 => sender.send(exchange_id, Bytes::from_static(POISON.as_bytes()), false).await,
            3 => {
                // A second answer behind the first, for whoever comes next.
                let first = sender.head_with(&response(exchange_id, 200, "", false), own, true);
                first.and_then(|()| sender.head_with(&response(exchange_id + 1, 200, "", false), POISON.into(), true))
            }
            4 => sender.reset(exchange_id, *chance.pick(&[ResetCode::Dns, ResetCode::Tls, ResetCode::Unspecified])),
            5 => return,
            6 => sender.head(&response(exchange_id, *chance.pick(&[0, 99, 101, 1000, u32::MAX]), "", true)),
            7 => {
                let bad = chance.pick(&["x", "x\r\n", "a: b\nc: d\r\n", "a : b\r\n", ": b\r\n", "a: b\0\r\n"]);
                sender.head(&response(exchange_id, 200, bad, true))
            }
            8 => {
                let length = chance.pick(&[
                    "content-length: 9999\r\n",
                    "content-length: 1\r\n",
                    "transfer-encoding: chunked\r\n",
                ]);
                sender.head_with(&response(exchange_id, 200, length, false), own, true)
            }
            9 => {
                let whole = sender.head(&response(exchange_id, 200, "", false));
                let sent = whole.and(sender.send(exchange_id, own, false).await);
                // Without an end.
                if sent.is_err() || chance.one_in(2) {
                    return;
                }
                sender.head(&response(exchange_id, 200, "", true))
            }
            _ => sender.head_with(&response(exchange_id, 200, "x-fine: yes\r\n", false), own, true),
        };
        if said.is_err() {
            return;
        }
    }
}

/// A relay that lies to an honest connector; `begun` takes the targets it asks for.
pub(crate) async fn relay(
    io: DuplexStream,
    own: &Published,
    foreign: &Published,
    signed: &[Bytes; 2],
    begun: &Mutex<BTreeSet<String>>,
    mut chance: Chance,
) {
    const LIES: usize = 120;
    let Ok(mut connection) = link::serve(io).await else { return };
    let (parked, mut streams) = mpsc::channel(64);
    let tasks = TaskTracker::new();
    let news = vec![signed[0].clone(), signed[1].clone(), forged(&signed[0], &mut chance), chance.bytes(40).into()];
    let accepting = async {
        while let Some(Ok((request, respond))) = connection.accept().await {
            match request.uri().path() {
                SERVE => {
                    if let Ok(whole) = link::park(request, respond) {
                        let _full = parked.try_send(whole);
                    }
                }
                FOLLOW => {
                    let news = news.clone();
                    tasks.spawn(async move {
                        let Ok((mut sender, mut receiver)) = link::followed(request, respond) else { return };
                        let settings =
                            LinkSettings { apps: news, relay_threads: u32::MAX, complete: true, ..Default::default() };
                        let _gone = sender.send(&settings);
                        while let Ok(Some(_)) = receiver.next::<LinkReport>().await {}
                    });
                }
                _ => {}
            }
        }
    };
    let back = parked.clone();
    let lying = async {
        for n in 0..LIES {
            let Ok(Some(whole)) = timeout(Duration::from_secs(30), streams.recv()).await else { return };
            let (head, body) = false_head(n, own, foreign, &mut chance);
            begun.lock().unwrap().insert(head.target.clone());
            let back = back.clone();
            let welcome = move |whole| _ = back.try_send(whole);
            let Ok(mut exchange) = Exchange::begin(whole, head, body, welcome) else { continue };
            let _answered = timeout(Duration::from_secs(100), exchange.download.response()).await;
        }
    };
    tokio::select! {
        () = accepting => {}
        () = lying => {}
    }
}

/// A relay that asks what it may: every stream the connector has parked, and
/// those it parks in their stead, until each was used many times.
pub(crate) async fn honest_relay(io: DuplexStream, own: &Published, signed: &Bytes, begun: &Mutex<BTreeSet<String>>) {
    const QUESTIONS: usize = 120;
    let mut connection = link::serve(io).await.unwrap();
    let (parked, mut streams) = mpsc::channel(64);
    let tasks = TaskTracker::new();
    let back = parked.clone();
    let accepting = async {
        while let Some(Ok((request, respond))) = connection.accept().await {
            if request.uri().path() == SERVE {
                parked.try_send(link::park(request, respond).unwrap()).unwrap();
                continue;
            }
            tasks.spawn(tell(request, respond, vec![signed.clone()]));
        }
    };
    let asking = async {
        for n in 0..QUESTIONS {
            let whole = timeout(Duration::from_secs(1), streams.recv()).await.expect("a stream is parked").unwrap();
            let head = RequestHead {
                app: own.id.to_string(),
                app_version: 1,
                method: "GET".into(),
                target: format!("/honest-{n}"),
                fields: Bytes::from_static(b"host: own\r\n"),
                ..Default::default()
            };
            begun.lock().unwrap().insert(head.target.clone());
            let back = back.clone();
            let mut exchange =
                Exchange::begin(whole, head, FirstBody::None, move |whole| _ = back.try_send(whole)).unwrap();
            // A crowd that left at once, larger than what is parked: of such
            // requests nothing is sent but that the stream is over.
            if n % 40 < 20 {
                continue;
            }
            let answered = timeout(Duration::from_secs(1), exchange.download.response()).await;
            let (head, _) = answered.expect("a request is answered within a second").unwrap();
            assert_eq!(head.status, 200, "/honest-{n}");
            // Every second one leaves before the body, which costs the stream.
            if n % 2 == 0 {
                while let Some(frame) = exchange.download.frame().await {
                    frame.unwrap();
                }
            }
        }
    };
    tokio::select! {
        () = accepting => panic!("the connector gave its link up"),
        () = asking => {}
    }
}

/// The control stream of an honest relay: what to serve, and nothing after it.
async fn tell(request: Request<RecvStream>, respond: ServerResponse, apps: Vec<Bytes>) {
    let (mut sender, mut receiver) = link::followed(request, respond).unwrap();
    sender.send(&LinkSettings { apps, relay_threads: 1, complete: true, ..Default::default() }).unwrap();
    while let Ok(Some(_)) = receiver.next::<LinkReport>().await {}
}

/// A connector that says who it is, and never parks a stream.
pub(crate) async fn mute_connector(io: DuplexStream) {
    let (requests, mut connection) = link::connect(io).await.unwrap();
    let talking = async {
        let (mut reports, mut settings) = link::follow(&requests).await.unwrap();
        reports.send(&LinkReport::default()).unwrap();
        while let Ok(Some(_)) = settings.next::<LinkSettings>().await {}
    };
    let pings = connection.ping_pong().unwrap();
    tokio::select! {
        _ = &mut connection => {}
        () = talking => {}
        _ = link::keep_alive(pings, |_| {}) => {}
    }
    // The relay has hung up: it is for the relay's end to say so.
    std::future::pending().await
}

/// A relay that tells a connector what to serve, and answers no call for a stream.
pub(crate) async fn mute_relay(io: DuplexStream, signed: &Bytes) {
    let mut connection = link::serve(io).await.unwrap();
    let tasks = TaskTracker::new();
    let mut unanswered = Vec::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == SERVE {
            unanswered.push((request, respond));
            continue;
        }
        tasks.spawn(tell(request, respond, vec![signed.clone()]));
    }
    std::future::pending().await
}

/// The same application, said to be elsewhere: the signature does not fit.
fn forged(event: &Bytes, chance: &mut Chance) -> Bytes {
    let mut forged = SignedEvent::decode(event.clone()).unwrap();
    let mut body = forged.body.to_vec();
    let at = body.windows(10).position(|it| it == b"own.inside").unwrap();
    body[at..at + 3].copy_from_slice(b"bad");
    if chance.one_in(2) {
        body.truncate(body.len() - 1);
    }
    forged.body = body.into();
    forged.encode_to_vec().into()
}

fn false_head(n: usize, own: &Published, foreign: &Published, chance: &mut Chance) -> (RequestHead, FirstBody) {
    // Nobody signed what it says of its user: a kid that no key has, and no JWT at all.
    let statements = ["", "", "", "made up", "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.e30.AAAA"];
    let user_statement = Bytes::from_static(chance.pick(&statements).as_bytes());
    let path = if user_statement.is_empty() { format!("/true-{n}") } else { format!("/of-nobody-{n}") };
    let apps = [own.id.to_string(), own.id.to_string(), own.id.to_string(), foreign.id.to_string(), String::new()];
    let targets = [
        path.clone(),
        path.clone(),
        path.clone(),
        path,
        "http://bad.inside/".into(),
        "*".into(),
        String::new(),
        "/a b".into(),
        "/a HTTP/1.1\r\nhost: bad\r\n\r\nGET /smuggled".into(),
        "@bad.inside".into(),
    ];
    let methods = ["GET", "GET", "POST", "HEAD", "", "G ET", "GET /smuggled HTTP/1.1\r\n\r\n", "CONNECT"];
    let fields = [
        "host: own\r\n",
        "host: own\r\n",
        "host: own\r\ncontent-length: 3\r\n",
        "x: y\r\n\r\nGET /smuggled HTTP/1.1\r\n",
        "host: own\r\ntransfer-encoding: chunked\r\n",
        "nonsense",
        "host: a\r\nhost: b\r\n",
    ];
    let labels = ["", "", "x", "bad.inside/", "../.."];
    let head = RequestHead {
        app: chance.pick(&apps).clone(),
        app_version: *chance.pick(&[0, 1, 1, 1000]),
        method: (*chance.pick(&methods)).into(),
        target: chance.pick(&targets).clone(),
        fields: Bytes::from_static(chance.pick(&fields).as_bytes()),
        upgrade: chance.one_in(6),
        segment: *chance.pick(&[0, 0, 0, 1, u32::MAX]),
        label: (*chance.pick(&labels)).into(),
        only_connect: chance.one_in(8),
        user_statement,
        ..Default::default()
    };
    let body = match chance.one_in(3) {
        true => FirstBody::Whole(Bytes::from_static(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")),
        false => FirstBody::None,
    };
    (head, body)
}
