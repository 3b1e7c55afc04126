//! One request and its response on a stream, and when the stream may serve
//! the next.
//!
//! Each direction is a half. A half that ends cleanly comes back to its
//! [`StreamReunion`]; when both are back, the stream is whole and goes on. A half that
//! is dropped in any other state takes the stream with it, unless what it left
//! unread is drained first.

use std::{
    cell::Cell,
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame as BodyFrame};
use proto::v1::{Frame, RequestHead, ResetCode, ResponseHead, frame::Kind};

use crate::{
    TunnelError, fields,
    frame::Item,
    stream_halves::{FrameReceiver, FrameSender},
};

/// A stream of a link that no exchange is on.
#[derive(Debug)]
pub struct IdleStream {
    pub sender: FrameSender,
    pub receiver: FrameReceiver,
    /// The exchange that was last on it; the next one has a higher id.
    pub last_exchange: u64,
}

type Welcome = Box<dyn FnOnce(IdleStream) + Send>;

/// Joins the two halves of a stream again when both have ended their exchange.
#[derive(Clone)]
pub struct StreamReunion {
    state: Arc<Mutex<Halves>>,
}

struct Halves {
    exchange_id: u64,
    sender: Option<FrameSender>,
    receiver: Option<FrameReceiver>,
    /// A receiving half whose reader stopped early.
    unread: Option<FrameReceiver>,
    welcome: Option<Welcome>,
}

impl fmt::Debug for StreamReunion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamReunion(..)")
    }
}

impl StreamReunion {
    /// `welcome` gets the stream when both halves are back.
    pub fn new(exchange_id: u64, welcome: impl FnOnce(IdleStream) + Send + 'static) -> Self {
        let welcome: Welcome = Box::new(welcome);
        let halves = Halves { exchange_id, sender: None, receiver: None, unread: None, welcome: Some(welcome) };
        Self { state: Arc::new(Mutex::new(halves)) }
    }

    pub fn sent(&self, sender: FrameSender) {
        self.put(|halves| halves.sender = Some(sender));
    }

    fn received(&self, receiver: FrameReceiver) {
        if receiver.is_clean() {
            self.put(|halves| halves.receiver = Some(receiver));
        }
    }

    /// Reads what nobody wanted any more, so that a finished answer is not cut
    /// by resetting the stream under it. Gives up, and with it the stream, after
    /// so many bytes.
    pub async fn drain(&self, bytes_max: usize) {
        let (unread, id) = {
            let mut halves = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (halves.unread.take(), halves.exchange_id)
        };
        let Some(mut receiver) = unread else { return };
        let mut read = 0;
        while read <= bytes_max {
            match receiver.next().await {
                Some(Ok(Item::Data { exchange_id, bytes, fin })) if exchange_id == id => {
                    read += bytes.len();
                    if fin {
                        return self.received(receiver);
                    }
                }
                Some(Ok(Item::Head(frame))) if frame.exchange_id == id && frame.fin => return self.received(receiver),
                Some(Ok(_) | Err(_)) | None => return,
            }
        }
    }

    fn put(&self, put: impl FnOnce(&mut Halves)) {
        let complete = {
            let mut halves = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            put(&mut halves);
            if halves.sender.is_none() || halves.receiver.is_none() {
                return;
            }
            halves.welcome.take().zip(halves.sender.take()).zip(halves.receiver.take()).map(
                |((welcome, sender), receiver)| {
                    (welcome, IdleStream { sender, receiver, last_exchange: halves.exchange_id })
                },
            )
        };
        if let Some((welcome, whole)) = complete {
            welcome(whole);
        }
    }
}

/// The relay's side: sends the head, gives back both halves at work.
pub struct Exchange {
    pub id: u64,
    pub upload: Upload,
    pub download: Download,
}

impl Exchange {
    /// Begins the next exchange on a stream. A body that is complete and small
    /// leaves with the head.
    pub fn begin(
        mut whole: IdleStream,
        head: RequestHead,
        body: FirstBody,
        welcome: impl FnOnce(IdleStream) + Send + 'static,
    ) -> Result<Self, TunnelError> {
        if !whole.receiver.is_clean() {
            return Err(TunnelError::Protocol("bytes before the exchange"));
        }
        let id = next_id(whole.last_exchange);
        let home = StreamReunion::new(id, welcome);
        let kind = Some(Kind::Request(head));
        let done = match body {
            FirstBody::None => {
                whole.sender.head(&Frame { exchange_id: id, fin: true, kind })?;
                true
            }
            FirstBody::Whole(bytes) => {
                whole.sender.head_with(&Frame { exchange_id: id, fin: false, kind }, bytes, true)?;
                true
            }
            FirstBody::Later => {
                whole.sender.head(&Frame { exchange_id: id, fin: false, kind })?;
                false
            }
        };
        let mut upload = Upload { id, sender: Some(whole.sender), home: home.clone() };
        if done {
            upload.come_home();
        }
        Ok(Self { id, upload, download: Download::begin(id, whole.receiver, home) })
    }
}

/// May a request that has no body be sent twice without harm? (RFC 9110,
/// section 9.2.2.)
pub fn may_repeat(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

thread_local! {
    /// A secret, and how often it was used.
    static GUESSLESS: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
}

/// A higher one that nobody can guess: an answer that was sent before its
/// request names another exchange.
fn next_id(last: u64) -> u64 {
    const STEP_MAX: u64 = 1 << 20;
    let step = GUESSLESS.with(|(secret, uses)| {
        uses.set(uses.get().wrapping_add(1));
        secret.hash_one(uses.get()) % STEP_MAX
    });
    last + 1 + step
}

/// What is known of the request body when the head leaves.
pub enum FirstBody {
    None,
    Whole(Bytes),
    Later,
}

/// The sending half at work.
#[derive(Debug)]
pub struct Upload {
    id: u64,
    sender: Option<FrameSender>,
    home: StreamReunion,
}

impl Upload {
    pub fn new(id: u64, sender: FrameSender, home: StreamReunion) -> Self {
        Self { id, sender: Some(sender), home }
    }

    /// All of it is sent.
    pub fn is_done(&self) -> bool {
        self.sender.is_none()
    }

    /// Sends a payload; with `last` it ends this direction of the exchange.
    pub fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        payload: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), TunnelError>> {
        if last && payload.is_empty() {
            return Poll::Ready(self.finish());
        }
        let id = self.id;
        ready!(self.sender()?.poll_send(context, id, payload, last))?;
        if last {
            self.come_home();
        }
        Poll::Ready(Ok(()))
    }

    pub async fn send(&mut self, mut payload: Bytes) -> Result<(), TunnelError> {
        std::future::poll_fn(|context| self.poll_send(context, &mut payload, false)).await
    }

    pub async fn send_last(&mut self, mut payload: Bytes) -> Result<(), TunnelError> {
        std::future::poll_fn(|context| self.poll_send(context, &mut payload, true)).await
    }

    pub fn respond(&mut self, head: ResponseHead, fin: bool) -> Result<(), TunnelError> {
        let frame = Frame { exchange_id: self.id, fin, kind: Some(Kind::Response(head)) };
        self.sender()?.head(&frame)?;
        if fin {
            self.come_home();
        }
        Ok(())
    }

    /// A response whose body is complete and small.
    pub fn respond_with(&mut self, head: ResponseHead, body: Bytes) -> Result<(), TunnelError> {
        let frame = Frame { exchange_id: self.id, fin: false, kind: Some(Kind::Response(head)) };
        self.sender()?.head_with(&frame, body, true)?;
        self.come_home();
        Ok(())
    }

    pub fn finish(&mut self) -> Result<(), TunnelError> {
        let id = self.id;
        self.sender()?.finish(id)?;
        self.come_home();
        Ok(())
    }

    pub fn trailers(&mut self, trailers: &HeaderMap) -> Result<(), TunnelError> {
        let id = self.id;
        self.sender()?.trailers(id, fields::encode(trailers))?;
        self.come_home();
        Ok(())
    }

    /// Tells the relay that the head was read, when the response takes a while.
    pub fn acknowledge(&mut self) -> Result<(), TunnelError> {
        let id = self.id;
        self.sender()?.acknowledge(id)
    }

    /// Works for as long as the peer wants a result; `None` when it has reset the
    /// stream. What is sent home already is wanted.
    pub async fn while_wanted<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            match &mut self.sender {
                Some(sender) => sender.poll_gone(context).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The exchange failed before its response began; the stream is whole.
    pub fn reset(&mut self, code: ResetCode) -> Result<(), TunnelError> {
        let id = self.id;
        self.sender()?.reset(id, code)?;
        self.come_home();
        Ok(())
    }

    fn sender(&mut self) -> Result<&mut FrameSender, TunnelError> {
        self.sender.as_mut().ok_or(TunnelError::Ended)
    }

    fn come_home(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.home.sent(sender);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Not home: the exchange is cut, and the peer must not wait for the rest.
        if let Some(sender) = &mut self.sender {
            sender.abort();
        }
    }
}

/// The receiving half at work. After the head it is a body.
#[derive(Debug)]
pub struct Download {
    id: u64,
    receiver: Option<FrameReceiver>,
    home: StreamReunion,
    /// What the peer said first, until somebody asks for the response.
    first: Option<Frame>,
}

impl Download {
    fn begin(id: u64, receiver: FrameReceiver, home: StreamReunion) -> Self {
        Self { id, receiver: Some(receiver), home, first: None }
    }

    /// `fin` when the head said that nothing follows.
    pub fn new(id: u64, receiver: FrameReceiver, home: StreamReunion, fin: bool) -> Self {
        let mut download = Self::begin(id, receiver, home);
        if fin {
            download.come_home();
        }
        download
    }

    /// Waits until the peer has the request: it says so, or answers already.
    pub async fn heard(&mut self) -> Result<(), TunnelError> {
        if self.first.is_none() {
            self.first = Some(self.next_head().await?);
        }
        Ok(())
    }

    /// The response head, and whether a body follows.
    pub async fn response(&mut self) -> Result<(ResponseHead, bool), TunnelError> {
        self.heard().await?;
        let mut frame = self.first.take().ok_or(TunnelError::Ended)?;
        if let (Some(Kind::Acknowledged(_)), false) = (&frame.kind, frame.fin) {
            frame = self.next_head().await?;
        }
        match frame.kind {
            Some(Kind::Response(head)) => {
                if frame.fin {
                    self.come_home();
                }
                Ok((head, !frame.fin))
            }
            Some(Kind::Reset(reset)) => {
                self.come_home();
                Err(TunnelError::Reset(reset.code()))
            }
            Some(Kind::Request(_) | Kind::Trailers(_) | Kind::Data(_) | Kind::Acknowledged(_)) | None => {
                Err(TunnelError::Protocol("not a response"))
            }
        }
    }

    async fn next_head(&mut self) -> Result<Frame, TunnelError> {
        let receiver = self.receiver.as_mut().ok_or(TunnelError::Ended)?;
        let Item::Head(frame) = receiver.next().await.ok_or(TunnelError::Ended)?? else {
            return Err(TunnelError::Protocol("data before the response"));
        };
        match frame.exchange_id == self.id {
            true => Ok(frame),
            false => Err(TunnelError::Protocol("a response to another exchange")),
        }
    }

    pub fn is_done(&self) -> bool {
        self.receiver.is_none()
    }

    fn come_home(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            self.home.received(receiver);
        }
    }

    fn take(&mut self, item: Item) -> Result<Option<BodyFrame<Bytes>>, TunnelError> {
        match item {
            Item::Data { exchange_id, bytes, fin } if exchange_id == self.id => {
                if fin {
                    self.come_home();
                }
                Ok((!bytes.is_empty()).then(|| BodyFrame::data(bytes)))
            }
            Item::Head(Frame { exchange_id, fin: true, kind: Some(Kind::Trailers(it)) }) if exchange_id == self.id => {
                self.come_home();
                Ok(Some(BodyFrame::trailers(fields::decode(&it.fields)?)))
            }
            Item::Head(Frame { exchange_id, kind: Some(Kind::Reset(reset)), .. }) if exchange_id == self.id => {
                Err(TunnelError::Reset(reset.code()))
            }
            Item::Head(_) | Item::Data { .. } => Err(TunnelError::Protocol("a frame of another exchange")),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            self.home.put(|halves| halves.unread = Some(receiver));
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = TunnelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, TunnelError>>> {
        loop {
            let Some(receiver) = &mut self.receiver else { return Poll::Ready(None) };
            let item = match ready!(receiver.poll_next(context)) {
                Some(Ok(item)) => item,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(Some(Err(TunnelError::Ended))),
            };
            match self.take(item).transpose() {
                Some(frame) => return Poll::Ready(Some(frame)),
                // An empty last piece: the loop sees that the half is home.
                None => continue,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.receiver.is_none()
    }
}

/// The connector's side: waits for the next request on a stream.
pub async fn accept(whole: IdleStream) -> Result<Option<Accepted>, TunnelError> {
    let IdleStream { sender, mut receiver, last_exchange } = whole;
    let item = match receiver.next().await {
        Some(item) => item?,
        None => {
            sender.close();
            return Ok(None);
        }
    };
    match item {
        Item::Head(Frame { exchange_id, fin, kind: Some(Kind::Request(head)) }) if exchange_id > last_exchange => {
            Ok(Some(Accepted { id: exchange_id, head, fin, sender, receiver }))
        }
        Item::Head(_) | Item::Data { .. } => Err(TunnelError::Protocol("not a request")),
    }
}

/// A request that has arrived, before anybody works on it.
pub struct Accepted {
    pub id: u64,
    pub head: RequestHead,
    fin: bool,
    sender: FrameSender,
    receiver: FrameReceiver,
}

impl Accepted {
    pub fn has_body(&self) -> bool {
        !self.fin
    }

    pub fn open(
        self,
        welcome: impl FnOnce(IdleStream) + Send + 'static,
    ) -> (RequestHead, Download, Upload, StreamReunion) {
        let home = StreamReunion::new(self.id, welcome);
        let download = Download::new(self.id, self.receiver, home.clone(), self.fin);
        (self.head, download, Upload::new(self.id, self.sender, home.clone()), home)
    }
}
