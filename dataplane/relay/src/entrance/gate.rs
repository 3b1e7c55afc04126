//! A user's connection as the HTTP library sees it: bytes that break the framing
//! do not get through, and a peer who sends a head too slowly (Slowloris) or does
//! not take what is written is cut off by a timeout.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use strict::{
    framing::Framing,
    http2_frames::{Frames, PseudoTrailer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tracing::debug;

use crate::settings::{HEAD_TIMEOUT, WRITE_STALL_TIMEOUT};

/// No head and no chunk line may have it, and the library need not wait for
/// more to say so.
const NEVER_VALID: &[u8] = b"\0\r\n\r\n";

pub(crate) struct Gate<T> {
    inner: T,
    protocol: Protocol,
    /// With the head that is waited for.
    reading: Option<(u64, Timer)>,
    writing: Option<Timer>,
    /// The rest is not read: it cannot be trusted.
    ended: bool,
}

type Timer = Pin<Box<Sleep>>;

enum Protocol {
    Http1(Framing),
    Http2(Frames),
}

impl<T> Gate<T> {
    pub(crate) fn http1(inner: T) -> Self {
        Self::new(inner, Protocol::Http1(Framing::default()))
    }

    pub(crate) fn http2(inner: T) -> Self {
        Self::new(inner, Protocol::Http2(Frames::default()))
    }

    fn new(inner: T, protocol: Protocol) -> Self {
        Self { inner, protocol, reading: None, writing: None, ended: false }
    }

    /// Which head is under way, by number.
    fn head(&self) -> Option<u64> {
        match &self.protocol {
            Protocol::Http1(framing) => framing.head(),
            Protocol::Http2(frames) => frames.head(),
        }
    }

    fn answered(&mut self, wrote: bool) {
        if let (Protocol::Http1(framing), true) = (&mut self.protocol, wrote) {
            framing.answered();
        }
    }

    fn wrote<R>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        // What goes only when somebody looks goes into a buffer of the kernel, not to the user.
        let is_late = self.writing.as_ref().is_some_and(|it| it.is_elapsed());
        if wrote.is_ready() && !is_late {
            self.writing = None;
            return wrote;
        }
        let timer = self.writing.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_TIMEOUT)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Looks at what was read into `buffer` from `start` on.
    fn inspect(&mut self, buffer: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        let framing = match &mut self.protocol {
            Protocol::Http1(framing) => framing,
            Protocol::Http2(frames) => {
                return frames.follow(&buffer.filled()[start..]).map_err(|PseudoTrailer| {
                    debug!("malformed HTTP/2: a pseudo-field in trailers");
                    io::ErrorKind::InvalidData.into()
                });
            }
        };
        let Err(bad) = framing.follow(&buffer.filled()[start..]) else { return Ok(()) };
        debug!(why = bad.why, "malformed HTTP/1");
        self.ended = true;
        buffer.set_filled(start + bad.good);
        match framing.is_switching() || buffer.remaining() < NEVER_VALID.len() {
            true => Err(io::ErrorKind::InvalidData.into()),
            false => {
                buffer.put_slice(NEVER_VALID);
                Ok(())
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gate<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(Ok(()));
        }
        let start = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(context, buffer) {
            read?;
            this.inspect(buffer, start)?;
            let head = this.head();
            if this.reading.as_ref().map(|(waited_for, _)| *waited_for) != head {
                this.reading = head.map(|head| (head, Box::pin(sleep(HEAD_TIMEOUT))));
            }
            return Poll::Ready(Ok(()));
        }
        if let Some((_, timer)) = &mut this.reading {
            ready!(timer.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gate<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.answered(wrote.is_ready());
        self.wrote(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.answered(wrote.is_ready());
        self.wrote(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.wrote(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    /// Sends a byte each second, as long as somebody reads.
    async fn drip(
        gate: &mut Gate<tokio::io::DuplexStream>,
        mut user: tokio::io::DuplexStream,
        bytes: &[u8],
    ) -> Duration {
        let started = Instant::now();
        let sent = async {
            for byte in bytes.iter().cycle() {
                user.write_all(&[*byte]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let read = async {
            let mut buffer = [0; 64];
            loop {
                match gate.read(&mut buffer).await {
                    Ok(_) => {}
                    Err(error) => return error.kind(),
                }
            }
        };
        let ended = tokio::select! {
            kind = read => kind,
            () = sent => unreachable!(),
        };
        assert_eq!(ended, io::ErrorKind::TimedOut);
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_given_up_on() {
        let (user, inner) = duplex(1024);
        let waited = drip(&mut Gate::http1(inner), user, b"a").await;
        assert!((HEAD_TIMEOUT..HEAD_TIMEOUT * 2).contains(&waited), "{waited:?}");

        let (mut user, inner) = duplex(1024);
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0x40, 0, 1, 0, 0, 0, 0, 1]);
        user.write_all(&bytes).await.unwrap();
        let waited = drip(&mut Gate::http2(inner), user, b"\0").await;
        assert!((HEAD_TIMEOUT..HEAD_TIMEOUT * 2).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_takes_nothing_is_given_up_on() {
        let (_user, inner) = duplex(16);
        let mut gate = Gate::http1(inner);
        let started = Instant::now();
        let error = gate.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed()), (io::ErrorKind::TimedOut, WRITE_STALL_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_and_a_body_have_no_such_limit() {
        let (mut user, inner) = duplex(1024);
        let mut gate = Gate::http1(inner);
        user.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
        let mut buffer = [0; 64];
        assert!(gate.read(&mut buffer).await.unwrap() > 0);
        let idle = tokio::time::timeout(HEAD_TIMEOUT * 4, gate.read(&mut buffer)).await;
        assert!(idle.is_err());
    }

    #[tokio::test]
    async fn what_breaks_the_framing_is_replaced_by_what_no_library_takes() {
        let (mut user, inner) = duplex(1024);
        let mut gate = Gate::http1(inner);
        user.write_all(b"GET / HTTP/1.1\r\nHost: a\nEvil: b\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        gate.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"GET / HTTP/1.1\r\n\0\r\n\r\n");
    }
}
