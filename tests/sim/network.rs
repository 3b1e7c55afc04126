//! Chance with a seed, and connections that delay, stall and break by it.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    time::sleep,
};
use tokio_util::task::TaskTracker;

/// splitmix64: small, and good enough to choose by.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    pub(crate) fn up_to_ms(&mut self, ms: usize) -> Duration {
        Duration::from_millis(self.below(ms + 1) as u64)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Another one, that goes its own way.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// What a connection suffers, by pieces that pass.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) delay_ms: usize,
    /// One in so many stalls the direction.
    pub(crate) stall: usize,
    pub(crate) stall_ms: usize,
    /// One in so many breaks the connection.
    pub(crate) cut: usize,
}

/// Two ends of a connection.
pub(crate) fn wire(chance: &mut Chance, faults: Faults, tasks: &TaskTracker) -> (DuplexStream, DuplexStream) {
    const BUFFER: usize = 32 * 1024;
    let (here, near) = duplex(BUFFER);
    let (there, far) = duplex(BUFFER);
    let (one, other) = (chance.fork(), chance.fork());
    tasks.spawn(async move {
        let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
        let mut there = std::pin::pin!(pass(near_read, far_write, faults, one));
        let mut back = std::pin::pin!(pass(far_read, near_write, faults, other));
        // An end passes on; a break takes both directions with it.
        let more = tokio::select! {
            ended = &mut there => ended.then_some(true),
            ended = &mut back => ended.then_some(false),
        };
        match more {
            Some(true) => _ = back.await,
            Some(false) => _ = there.await,
            None => {}
        }
    });
    (here, there)
}

/// True when the sender ended, false when the connection broke.
async fn pass(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    faults: Faults,
    mut chance: Chance,
) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let most = 1 + chance.below(buffer.len());
        let count = match from.read(&mut buffer[..most]).await {
            Ok(0) => return to.shutdown().await.is_ok(),
            Ok(count) => count,
            Err(_) => return false,
        };
        sleep(chance.up_to_ms(faults.delay_ms)).await;
        if chance.one_in(faults.stall) {
            sleep(chance.up_to_ms(faults.stall_ms)).await;
        }
        if chance.one_in(faults.cut) || to.write_all(&buffer[..count]).await.is_err() {
            return false;
        }
    }
}
