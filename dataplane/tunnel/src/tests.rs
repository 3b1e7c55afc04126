//! The two ends of the tunnel over a pipe in memory.

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::Body;
use proptest::prelude::*;
use proto::{
    Message,
    v1::{Frame, RequestHead, ResetCode, ResponseHead, Trailers, frame::Kind},
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    TunnelError,
    exchange::{self, Download, Exchange, FirstBody, IdleStream, Upload},
    fields,
    frame::{Chunk, Decoder, Item},
    link,
};

#[tokio::test]
async fn a_stream_serves_one_exchange_after_the_other() {
    let mut pipe = Pipe::new(echo).await;
    for n in 0..50 {
        let body = Bytes::from(vec![n as u8; 10_000 * n]);
        let answer = pipe.exchange(body.clone()).await.unwrap();
        assert_eq!(answer, body, "exchange {n}");
    }
    assert_eq!(pipe.streams, 1);
}

#[tokio::test]
async fn bodies_larger_than_every_window_pass_both_ways() {
    let mut pipe = Pipe::new(echo).await;
    let body = Bytes::from((0..8_000_000u32).map(|n| n as u8).collect::<Vec<_>>());
    assert_eq!(pipe.exchange(body.clone()).await.unwrap(), body);
}

#[tokio::test]
async fn a_stream_with_an_unread_body_is_not_used_again() {
    let mut pipe = Pipe::new(echo).await;
    let whole = pipe.parked.recv().await.unwrap();
    let home = pipe.home.clone();
    let body = FirstBody::Whole(Bytes::from_static(b"secret"));
    let mut first = Exchange::begin(whole, RequestHead::default(), body, move |whole| {
        let _open = home.try_send(whole);
    })
    .unwrap();
    first.download.response().await.unwrap();
    drop(first);
    // The connector replaces the stream; the next exchange sees nothing of the first.
    assert_eq!(pipe.exchange(Bytes::from_static(b"mine")).await.unwrap(), "mine");
    assert_eq!(pipe.streams, 2);
}

#[tokio::test]
async fn an_answer_to_another_exchange_is_refused() {
    let (relay, mut connector, _tasks) = one_stream().await;
    let mut exchange = Exchange::begin(relay, RequestHead::default(), FirstBody::None, |_| panic!("reused")).unwrap();
    let kind = Some(Kind::Response(ResponseHead::default()));
    connector.sender.head(&Frame { exchange_id: exchange.id + 1, fin: true, kind }).unwrap();
    assert!(matches!(exchange.download.response().await, Err(TunnelError::Protocol(_))));
}

#[tokio::test]
async fn an_answer_before_its_request_cannot_name_it() {
    let mut ids = Vec::new();
    for _ in 0..64 {
        let (relay, mut connector, _tasks) = one_stream().await;
        let kind = Some(Kind::Response(ResponseHead::default()));
        let guess = Frame { exchange_id: ids.last().map_or(1, |id| id + 1), fin: true, kind };
        connector.sender.head(&guess).unwrap();
        let exchange = Exchange::begin(relay, RequestHead::default(), FirstBody::None, |_| panic!("reused"));
        let mut exchange = exchange.unwrap();
        assert!(matches!(exchange.download.response().await, Err(TunnelError::Protocol(_))));
        ids.push(exchange.id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 60, "the first of each stream differs: {ids:?}");
}

#[tokio::test]
async fn data_of_another_exchange_is_refused() {
    let (relay, mut connector, _tasks) = one_stream().await;
    let mut exchange = Exchange::begin(relay, RequestHead::default(), FirstBody::None, |_| panic!("reused")).unwrap();
    let kind = Some(Kind::Response(ResponseHead::default()));
    let exchange_id = exchange.id;
    connector.sender.head(&Frame { exchange_id, fin: false, kind }).unwrap();
    exchange.download.response().await.unwrap();
    connector.sender.send(exchange_id + 1, Bytes::from_static(b"somebody else's"), false).await.unwrap();
    assert!(matches!(frame(&mut exchange.download).await, Some(Err(TunnelError::Protocol(_)))));
}

#[tokio::test]
async fn a_stream_with_something_left_over_is_not_used_again() {
    let (relay, mut connector, _tasks) = one_stream().await;
    let mut exchange = Exchange::begin(relay, RequestHead::default(), FirstBody::None, |_| panic!("reused")).unwrap();
    let kind = Some(Kind::Response(ResponseHead::default()));
    let head = Frame { exchange_id: exchange.id, fin: true, kind };
    connector.sender.head_with(&head, Bytes::from_static(b"late"), true).unwrap();
    exchange.download.response().await.unwrap();
    assert!(exchange.upload.is_done() && exchange.download.is_done());
}

#[tokio::test]
async fn a_reader_that_stops_at_the_last_byte_leaves_a_whole_stream() {
    // HTTP/1 readers count: they drop a body of known length without asking for its end.
    let mut pipe = Pipe::new(|_, mut download: Download, mut upload: Upload| {
        Box::pin(async move {
            let mut read = 0;
            while read < 5 {
                let data = frame(&mut download).await.unwrap().unwrap().into_data().unwrap();
                read += data.len();
            }
            drop(download);
            upload.respond_with(ResponseHead::default(), Bytes::from_static(b"done")).unwrap();
        })
    })
    .await;
    for _ in 0..3 {
        let whole = pipe.parked.recv().await.unwrap();
        let home = pipe.home.clone();
        let mut exchange = Exchange::begin(whole, RequestHead::default(), FirstBody::Later, move |whole| {
            let _open = home.try_send(whole);
        })
        .unwrap();
        exchange.upload.send(Bytes::from_static(b"12")).await.unwrap();
        exchange.upload.send_last(Bytes::from_static(b"345")).await.unwrap();
        exchange.download.response().await.unwrap();
        assert_eq!(frame(&mut exchange.download).await.unwrap().unwrap().into_data().unwrap(), "done");
        assert!(exchange.download.is_done());
    }
    while pipe.opened.try_recv().is_ok() {
        pipe.streams += 1;
    }
    assert_eq!(pipe.streams, 1);
}

#[tokio::test]
async fn a_failed_exchange_says_why_and_the_stream_goes_on() {
    let mut pipe = Pipe::new(|head: RequestHead, download, mut upload: Upload| {
        Box::pin(async move {
            match head.target.as_str() {
                "/fail" => upload.reset(ResetCode::Dns).unwrap(),
                _ => echo(head, download, upload).await,
            }
        })
    })
    .await;
    let whole = pipe.parked.recv().await.unwrap();
    let home = pipe.home.clone();
    let head = RequestHead { target: "/fail".into(), ..Default::default() };
    let mut exchange = Exchange::begin(whole, head, FirstBody::None, move |whole| {
        let _open = home.try_send(whole);
    })
    .unwrap();
    assert!(matches!(exchange.download.response().await, Err(TunnelError::Reset(ResetCode::Dns))));
    drop(exchange);
    assert_eq!(pipe.exchange(Bytes::from_static(b"x")).await.unwrap(), "x");
    assert_eq!(pipe.streams, 1);
}

#[tokio::test]
async fn trailers_arrive_after_the_body() {
    let mut pipe = Pipe::new(|_, _, mut upload| {
        Box::pin(async move {
            upload.respond(ResponseHead { status: 200, ..Default::default() }, false).unwrap();
            upload.send(Bytes::from_static(b"body")).await.unwrap();
            let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
            upload.trailers(&trailers).unwrap();
        })
    })
    .await;
    let whole = pipe.parked.recv().await.unwrap();
    let mut exchange = Exchange::begin(whole, RequestHead::default(), FirstBody::None, |_| {}).unwrap();
    exchange.download.response().await.unwrap();
    let data = frame(&mut exchange.download).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data, "body");
    let trailers = frame(&mut exchange.download).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(frame(&mut exchange.download).await.is_none());
}

#[tokio::test]
async fn a_reader_that_stops_does_not_stop_the_others() {
    let mut pipe = Pipe::with_streams(echo, 3).await;
    let big = Bytes::from(vec![1; 4_000_000]);
    let whole = pipe.parked.recv().await.unwrap();
    let mut stalled = Exchange::begin(whole, RequestHead::default(), FirstBody::Later, |_| {}).unwrap();
    let mut sending = Box::pin(stalled.upload.send(big));
    let stuck = tokio::time::timeout(Duration::from_millis(100), &mut sending).await;
    assert!(stuck.is_err(), "nobody reads the echo, so the upload waits");
    for _ in 0..20 {
        assert_eq!(pipe.exchange(Bytes::from_static(b"y")).await.unwrap(), "y");
    }
}

#[test]
fn a_window_follows_the_round_trip() {
    assert_eq!(link::stream_window(Duration::from_micros(100)), 512 * 1024);
    assert_eq!(link::stream_window(Duration::from_millis(10)), 2_500_000);
    assert_eq!(link::stream_window(Duration::from_millis(100)), 25_000_000);
    assert_eq!(link::stream_window(Duration::from_secs(1)), 24 * 1024 * 1024);
}

#[test]
fn a_field_cannot_bring_a_line_of_its_own() {
    for evil in ["a: b\r\nc", "a b: c\r\n", ": x\r\n", "a:b\r\n", "a: b\n", "a: \u{1}\r\n", "a: b\rc\r\n"] {
        assert!(fields::decode(&Bytes::copy_from_slice(evil.as_bytes())).is_err(), "{evil:?}");
    }
    let headers = fields::decode(&Bytes::from_static(b"a: 1\r\nb: \r\na: 2\r\n")).unwrap();
    assert_eq!(headers.get_all("a").iter().count(), 2);
    assert_eq!(fields::decode(&fields::encode(&headers)).unwrap(), headers);
}

proptest! {
    #[test]
    fn what_is_decoded_is_what_was_encoded_however_it_is_cut(frames in frames(), cuts in prop::collection::vec(1usize..40, 1..50)) {
        let mut bytes = Vec::new();
        for frame in &frames {
            bytes.extend(match &frame.kind {
                Some(Kind::Data(data)) => flatten(Chunk::data(frame.exchange_id, frame.fin, data.clone())),
                _ => flatten(Chunk::message(frame)),
            });
        }
        prop_assert_eq!(collect(&bytes, &cuts).unwrap(), frames);
    }

    #[test]
    fn an_ordinary_encoder_is_understood(frames in frames()) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| flatten(Chunk::message(frame))).collect();
        prop_assert_eq!(collect(&bytes, &[7]).unwrap(), frames);
    }

    #[test]
    fn a_decoder_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _refused_or_not = link::decode_all(&bytes);
    }
}

// ---------------------------------------------------------------- helpers

/// Found by fuzzing: a length that no memory has.
#[test]
fn data_of_any_claimed_length_is_measured_by_its_message() {
    for length in [u64::MAX, u64::MAX - 5, 1 << 63, 4] {
        let mut message = vec![0x08, 1, 0x7a];
        let mut rest = length;
        while rest >= 0x80 {
            message.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        message.push(rest as u8);
        message.extend(b"abc");
        let mut bytes = vec![0];
        bytes.extend((message.len() as u32).to_be_bytes());
        bytes.extend(message);
        let mut decoder = Decoder::default();
        decoder.push(bytes.into());
        assert!(decoder.step().is_err(), "{length}");
    }
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let kind = prop_oneof![
        (any::<u32>(), bytes.clone()).prop_map(|(status, fields)| Kind::Response(ResponseHead { status, fields })),
        ("[a-z/]{0,20}", bytes.clone()).prop_map(|(target, fields)| Kind::Request(RequestHead {
            target,
            fields,
            ..Default::default()
        })),
        bytes.clone().prop_map(|fields| Kind::Trailers(Trailers { fields })),
        bytes.prop_map(Kind::Data),
    ];
    let frame = (1u64..u64::MAX, any::<bool>(), kind).prop_map(|(exchange_id, fin, kind)| Frame {
        exchange_id,
        fin,
        kind: Some(kind),
    });
    prop::collection::vec(frame, 0..12)
}

fn flatten(mut chunk: Chunk) -> Vec<u8> {
    use bytes::Buf;
    chunk.copy_to_bytes(chunk.remaining()).to_vec()
}

/// Feeds the bytes in pieces and puts the pieces of data together again.
fn collect(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, TunnelError> {
    let mut decoder = Decoder::default();
    let mut frames: Vec<Frame> = vec![];
    let mut open: Option<(Vec<u8>, usize)> = None;
    let mut input = Bytes::copy_from_slice(bytes);
    let mut cuts = cuts.iter().cycle();
    let lengths = data_lengths(bytes);
    let mut lengths = lengths.iter();
    loop {
        while let Some(item) = decoder.step()? {
            match item {
                Item::Head(frame) => frames.push(frame),
                Item::Data { exchange_id, bytes, fin } => {
                    let (mut data, length) = open.take().unwrap_or_else(|| (vec![], *lengths.next().unwrap()));
                    data.extend_from_slice(&bytes);
                    match data.len() == length {
                        true => frames.push(Frame { exchange_id, fin, kind: Some(Kind::Data(data.into())) }),
                        false => open = Some((data, length)),
                    }
                }
            }
        }
        if input.is_empty() {
            assert!(decoder.is_clean());
            return Ok(frames);
        }
        let cut = (*cuts.next().unwrap()).min(input.len());
        decoder.push(input.split_to(cut));
    }
}

fn data_lengths(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = vec![];
    while bytes.len() >= 5 {
        let len = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        if let Some(Kind::Data(data)) = Frame::decode(&bytes[5..5 + len]).unwrap().kind {
            lengths.push(data.len());
        }
        bytes = &bytes[5 + len..];
    }
    lengths
}

/// One stream, both ends by hand.
async fn one_stream() -> (IdleStream, IdleStream, JoinSet<()>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (parking, mut parked) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connection = link::serve(ours).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            let _full = parking.try_send(link::park(request, respond).unwrap());
        }
    });
    let (requests, connection) = link::connect(theirs).await.unwrap();
    tasks.spawn(async move {
        let _closed = connection.await;
    });
    let connector = link::open(&requests).await.unwrap();
    (parked.recv().await.unwrap(), connector, tasks)
}

async fn frame(download: &mut Download) -> Option<Result<http_body::Frame<Bytes>, TunnelError>> {
    poll_fn(|context| std::pin::Pin::new(&mut *download).poll_frame(context)).await
}

type Handling = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn echo(_: RequestHead, mut download: Download, mut upload: Upload) -> Handling {
    Box::pin(async move {
        upload.respond(ResponseHead { status: 200, ..Default::default() }, false).unwrap();
        while let Some(Ok(frame)) = frame(&mut download).await {
            if upload.send(frame.into_data().unwrap()).await.is_err() {
                return;
            }
        }
        if download.is_done() {
            let _gone = upload.finish();
        }
    })
}

/// A relay that parks what comes, and a connector that answers with a function.
struct Pipe {
    parked: mpsc::Receiver<IdleStream>,
    home: mpsc::Sender<IdleStream>,
    streams: usize,
    opened: mpsc::Receiver<()>,
    _tasks: JoinSet<()>,
}

impl Pipe {
    async fn new(handler: impl Fn(RequestHead, Download, Upload) -> Handling + Send + Sync + 'static) -> Self {
        Self::with_streams(handler, 1).await
    }

    async fn with_streams(
        handler: impl Fn(RequestHead, Download, Upload) -> Handling + Send + Sync + 'static,
        count: usize,
    ) -> Self {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (home, parked) = mpsc::channel(64);
        let (opening, opened) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let parking = home.clone();
        tasks.spawn(async move {
            let mut connection = link::serve(ours).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                let _full = parking.try_send(link::park(request, respond).unwrap());
            }
        });
        let (requests, connection) = link::connect(theirs).await.unwrap();
        tasks.spawn(async move {
            let _closed = connection.await;
        });
        let handler = Arc::new(handler);
        for _ in 0..count {
            let (requests, handler, opening) = (requests.clone(), handler.clone(), opening.clone());
            tasks.spawn(async move {
                loop {
                    let _full = opening.try_send(());
                    let Ok(mut whole) = link::open(&requests).await else { return };
                    while let Ok(Some(accepted)) = exchange::accept(whole).await {
                        let (back, mut welcome) = mpsc::channel(1);
                        let (head, download, upload, _) = accepted.open(move |whole| {
                            let _gone = back.try_send(whole);
                        });
                        handler(head, download, upload).await;
                        match welcome.recv().await {
                            Some(next) => whole = next,
                            None => break,
                        }
                    }
                }
            });
        }
        Self { parked, home, streams: 0, opened, _tasks: tasks }
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Bytes, TunnelError> {
        let whole = self.parked.recv().await.unwrap();
        while self.opened.try_recv().is_ok() {
            self.streams += 1;
        }
        let home = self.home.clone();
        let mut exchange = Exchange::begin(whole, RequestHead::default(), FirstBody::Later, move |whole| {
            let _full = home.try_send(whole);
        })?;
        let Exchange { upload, download, .. } = &mut exchange;
        let sending = async {
            upload.send(body).await?;
            upload.finish()
        };
        let receiving = async {
            download.response().await?;
            let mut received = Vec::new();
            while let Some(next) = frame(download).await {
                received.extend_from_slice(&next?.into_data().unwrap());
            }
            Ok(Bytes::from(received))
        };
        let (sent, received) = tokio::join!(sending, receiving);
        sent?;
        received
    }
}
