//! Bodies: the user's on its way in, the application's on its way out.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use model::activity::RefusalCode;
use tokio::time::{Instant, Sleep, sleep};
use translate::Translator;
use tunnel::{
    TunnelError,
    exchange::{Download, Upload},
};

use crate::{
    forward::user_body::{BrokenBody, UserBody},
    open::{exchanges::OpenGuard, user_connection::ExchangeGuard},
    record::access::Record,
    settings::{BODY_PROGRESS_BYTES, BODY_STALL_TIMEOUT},
};

/// What hyper sends to the user.
pub(crate) enum Body {
    Whole(Option<Bytes>),
    Forwarded(Box<Forwarded>),
}

impl Body {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|it| !it.is_empty()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Forwarded(forwarded) => forwarded.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Forwarded(forwarded) => forwarded.download.is_done() && forwarded.translator.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64)),
            Self::Forwarded(_) => SizeHint::default(),
        }
    }
}

/// A response from an application. Drives the rest of the user's upload beside
/// it, stops when the exchange is cut, and records the access when it ends.
pub(crate) struct Forwarded {
    pub download: Download,
    pub upload: Option<Pump>,
    pub place: OpenGuard,
    pub record: Record,
    #[expect(dead_code, reason = "the connection is busy until this goes")]
    pub busy: ExchangeGuard,
    /// Boxed: few bodies have one.
    pub translator: Option<Box<Translator>>,
}

impl Forwarded {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.place.open.asked();
        let frame = ready!(self.poll_next(context));
        if let Some(Ok(_)) = &frame {
            self.place.open.handed();
        }
        Poll::Ready(frame)
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.place.open.poll_cut(context) {
            return Poll::Ready(Some(Err(io::Error::other("access has ended"))));
        }
        if let Some(upload) = &mut self.upload {
            match Pin::new(&mut *upload).poll(context) {
                Poll::Ready(sent) => {
                    self.record.access.bytes_in = upload.sent;
                    self.upload = None;
                    sent.map_err(io::Error::other)?;
                }
                Poll::Pending => {}
            }
        }
        match self.translator.take() {
            Some(translator) => self.poll_translated(translator, context),
            None => self.poll_download(context),
        }
    }

    fn poll_translated(
        &mut self,
        mut translator: Box<Translator>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(bytes) = translator.take().map_err(io::Error::other)? {
                self.translator = Some(translator);
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let frame = match self.poll_download(context) {
                Poll::Pending => {
                    self.translator = Some(translator);
                    return Poll::Pending;
                }
                Poll::Ready(None) => None,
                Poll::Ready(Some(frame)) => frame?.into_data().ok(),
            };
            match frame {
                Some(data) => translator.push(data),
                // The end, or trailers, which a page has no use for.
                None => {
                    let rest = translator.finish().map_err(io::Error::other)?;
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            }
        }
    }

    fn poll_download(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match ready!(Pin::new(&mut self.download).poll_frame(context)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.record.access.bytes_out += data.len() as u64;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            // The user must see a cut, never a short success.
            Some(Err(error)) => Poll::Ready(Some(Err(io::Error::other(error)))),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        if self.place.open.is_cut() {
            self.record.access.refusal = RefusalCode::Cut.into();
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PumpError {
    #[error("the user's body broke off")]
    User(#[from] BrokenBody),
    #[error("the user's body made no progress (timeout)")]
    Stalled,
    #[error("the tunnel ended")]
    Tunnel(#[from] TunnelError),
}

/// Moves the user's body into the tunnel, as fast as the slower of the two.
pub(crate) struct Pump {
    body: UserBody,
    upload: Upload,
    pending: Bytes,
    /// Nothing comes after `pending`.
    last: bool,
    stall: Option<Stall>,
    pub sent: u64,
}

/// Runs while the user owes bytes, and starts anew with each KiB of them.
struct Stall {
    timer: Pin<Box<Sleep>>,
    owed: usize,
}

impl Stall {
    fn new() -> Self {
        Self { timer: Box::pin(sleep(BODY_STALL_TIMEOUT)), owed: BODY_PROGRESS_BYTES }
    }

    fn received(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_sub(bytes);
        if self.owed == 0 {
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.owed = BODY_PROGRESS_BYTES;
        self.timer.as_mut().reset(Instant::now() + BODY_STALL_TIMEOUT);
    }
}

impl Pump {
    /// `may_pause`: a stream of messages, whose sender may have nothing to say.
    pub(crate) fn new(body: UserBody, upload: Upload, may_pause: bool) -> Self {
        let stall = (!may_pause).then(Stall::new);
        Self { body, upload, pending: Bytes::new(), last: false, stall, sent: 0 }
    }
}

impl Future for Pump {
    type Output = Result<(), PumpError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if this.last || !this.pending.is_empty() {
                if this.upload.poll_send(context, &mut this.pending, this.last)?.is_pending() {
                    // It is the application that is slow.
                    if let Some(stall) = &mut this.stall {
                        stall.restart();
                    }
                    return Poll::Pending;
                }
                if this.last {
                    return Poll::Ready(Ok(()));
                }
            }
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(frame)) => {
                    // Trailers of users are not forwarded: nobody judged them.
                    if let Ok(data) = frame?.into_data() {
                        this.sent += data.len() as u64;
                        if let Some(stall) = &mut this.stall {
                            stall.received(data.len());
                        }
                        this.pending = data;
                        this.last = this.body.is_end_stream();
                    }
                }
                Poll::Ready(None) => this.last = true,
                Poll::Pending => {
                    let Some(stall) = &mut this.stall else { return Poll::Pending };
                    ready!(stall.timer.as_mut().poll(context));
                    return Poll::Ready(Err(PumpError::Stalled));
                }
            }
        }
    }
}
