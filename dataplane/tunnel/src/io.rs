//! Buffers around TLS, for fewer and larger system calls: below it when reading,
//! above it when writing.
//!
//! TLS asks the kernel for 4 KiB at a time, and HTTP/2 flushes after each frame
//! of more than 256 bytes. On a busy connection both cost more than the bytes.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const READ_BYTES: usize = 64 * 1024;
/// After so much from one connection it is the others' turn.
const TURN_BYTES: usize = 4 * READ_BYTES;
/// More than this is written at once, and not gathered.
const GATHERED_BYTES_MAX: usize = 32 * 1024;

thread_local! {
    /// What to read into. A connection has it only while it holds what was not
    /// asked for yet: most are silent most of the time.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A socket that is read in large pieces, whoever asks for small ones.
#[derive(Debug)]
pub struct Wide<T> {
    io: T,
    /// Read and not asked for yet, from `at` on.
    ahead: Vec<u8>,
    at: usize,
    /// Bytes read in this turn.
    turn: usize,
}

impl<T> Wide<T> {
    pub fn new(io: T) -> Self {
        Self { io, ahead: Vec::new(), at: 0, turn: 0 }
    }

    /// The socket, when nothing was read ahead.
    pub fn into_inner(self) -> Option<T> {
        self.ahead.is_empty().then_some(self.io)
    }

    fn serve(&mut self, buffer: &mut ReadBuf<'_>) {
        let served = buffer.remaining().min(self.ahead.len() - self.at);
        buffer.put_slice(&self.ahead[self.at..self.at + served]);
        self.at += served;
        if self.at == self.ahead.len() {
            self.at = 0;
            let mut spare = std::mem::take(&mut self.ahead);
            spare.clear();
            SPARE.set(spare);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wide<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            if this.turn >= TURN_BYTES {
                this.turn = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut spare = SPARE.take();
            spare.reserve(READ_BYTES);
            let read = pin!(this.io.read_buf(&mut spare)).poll(context);
            if !matches!(read, Poll::Ready(Ok(1..))) {
                SPARE.set(spare);
                this.turn = 0;
                return read.map_ok(|_end| ());
            }
            this.turn += spare.len();
            this.ahead = spare;
        }
        this.serve(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wide<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// A connection whose driver reads whenever it is polled, as HTTP/2's does, and
/// whose writes wait for that: all who are ready to say something have said it
/// by then, and it leaves in one piece. A flush asks for that poll and returns.
#[derive(Debug)]
pub struct Corked<T> {
    io: T,
    gathered: Vec<u8>,
    /// Something was written since the last flush that was one.
    dirty: bool,
    /// A flush was asked for.
    asked: bool,
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    pub fn new(io: T) -> Self {
        Self { io, gathered: Vec::new(), dirty: false, asked: false }
    }

    fn poll_uncork(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let wrote = ready!(Pin::new(&mut self.io).poll_write(context, &self.gathered))?;
            self.wrote(wrote)?;
        }
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        (self.dirty, self.asked) = (false, false);
        Poll::Ready(Ok(()))
    }

    /// So much was written of what is gathered and what came with it; tells how
    /// much of the latter.
    fn wrote(&mut self, count: usize) -> io::Result<usize> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if count < self.gathered.len() {
            self.gathered.drain(..count);
            return Ok(0);
        }
        // Its memory goes: most connections are silent most of the time.
        Ok(count - std::mem::take(&mut self.gathered).len())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.asked
            && let Poll::Ready(failed @ Err(_)) = this.poll_uncork(context)
        {
            return Poll::Ready(failed);
        }
        Pin::new(&mut this.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let count = slices.iter().map(|it| it.len()).sum::<usize>();
        this.dirty = true;
        if this.gathered.len() + count <= GATHERED_BYTES_MAX {
            for slice in slices {
                this.gathered.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(count));
        }
        loop {
            let gathered = std::mem::take(&mut this.gathered);
            let mut all = Vec::with_capacity(1 + slices.len());
            all.push(IoSlice::new(&gathered));
            all.extend(slices.iter().map(|it| IoSlice::new(it)));
            let wrote = Pin::new(&mut this.io).poll_write_vectored(context, &all);
            drop(all);
            this.gathered = gathered;
            match this.wrote(ready!(wrote)?)? {
                0 => {}
                of_slices => return Poll::Ready(Ok(of_slices)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.dirty && !self.asked {
            self.asked = true;
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_uncork(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use bytes::Buf;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn small_reads_are_served_from_a_large_one() {
        let (mut far, near) = duplex(READ_BYTES * 2);
        let sent: Vec<u8> = (0..READ_BYTES + 999).map(|n| n as u8).collect();
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut wide = Wide::new(near);
        let mut seen = vec![0; 1000];
        wide.read_exact(&mut seen).await.unwrap();
        assert_eq!(wide.ahead.len(), READ_BYTES);
        wide.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, sent);
        assert!(wide.into_inner().is_some());
    }

    #[tokio::test]
    async fn who_has_much_to_say_lets_others_have_a_turn() {
        let (mut far, near) = duplex(TURN_BYTES * 2);
        far.write_all(&vec![0; TURN_BYTES + 1]).await.unwrap();
        let mut wide = Wide::new(near);
        let mut context = Context::from_waker(Waker::noop());
        let (mut read, mut turns) = (0, 1);
        while read < TURN_BYTES + 1 {
            let mut memory = [0; 4096];
            let mut buffer = ReadBuf::new(&mut memory);
            match Pin::new(&mut wide).poll_read(&mut context, &mut buffer) {
                Poll::Ready(_) => read += buffer.filled().len(),
                Poll::Pending => turns += 1,
            }
        }
        assert_eq!(turns, 2);
    }

    #[tokio::test]
    async fn what_is_written_leaves_with_the_next_poll_and_not_before() {
        let (mut far, near) = duplex(1024);
        let mut corked = Corked::new(near);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        for piece in ["one ", "two ", "three"] {
            assert!(Pin::new(&mut corked).poll_write(&mut context, piece.as_bytes()).is_ready());
            assert!(Pin::new(&mut corked).poll_flush(&mut context).is_ready());
        }
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "one poll is asked for, however many flushes there are");
        let mut buffer = [0; 64];
        let early = Pin::new(&mut far).poll_read(&mut context, &mut ReadBuf::new(&mut buffer));
        assert!(early.is_pending());
        assert!(Pin::new(&mut corked).poll_read(&mut context, &mut ReadBuf::new(&mut buffer)).is_pending());
        let count = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"one two three");
        let woken_before = woken.0.load(Ordering::SeqCst);
        assert!(Pin::new(&mut corked).poll_flush(&mut context).is_ready());
        assert_eq!(woken.0.load(Ordering::SeqCst), woken_before, "nothing to flush asks for nothing");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_stops_the_writer_and_loses_nothing() {
        let (mut far, near) = duplex(4096);
        let mut corked = Corked::new(near);
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
        let write = async {
            for piece in sent.chunks(9_999) {
                let (head, tail) = piece.split_at(piece.len().min(100));
                let mut both = Buf::chain(head, tail);
                while both.has_remaining() {
                    let mut slices = [IoSlice::new(&[]); 2];
                    both.chunks_vectored(&mut slices);
                    let wrote = poll_fn(|it| Pin::new(&mut corked).poll_write_vectored(it, &slices)).await.unwrap();
                    both.advance(wrote);
                }
                corked.flush().await.unwrap();
            }
            corked.shutdown().await.unwrap();
        };
        let mut seen = Vec::new();
        let (_, read) = tokio::join!(write, far.read_to_end(&mut seen));
        read.unwrap();
        assert_eq!(seen, sent);
        let (_far, near) = duplex(16);
        let mut stuck = Corked::new(near);
        let stopped = tokio::time::timeout(std::time::Duration::from_millis(20), stuck.write_all(&[0; 100_000])).await;
        assert!(stopped.is_err());
    }
}
