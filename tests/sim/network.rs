//! Chance with a seed, and connections that delay, stall and break by it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
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

/// Pieces a direction has sent that have not arrived.
const ON_THE_WAY_MAX: usize = 256;

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

/// What all connections share, and what changes while they last.
#[derive(Clone, Default)]
pub(crate) struct Weather(Arc<Conditions>);

/// What is left of a connection's faults.
const ALL: usize = 0;
/// It only delays.
const DELAYS: usize = 1;
const NONE: usize = 2;

#[derive(Default)]
struct Conditions {
    faults: AtomicUsize,
    /// Beside what each connection has of its own: a longer way, or machines
    /// that are short of CPU.
    delay_ms: AtomicUsize,
    /// For each direction of each connection; 0 is no limit.
    bytes_per_ms: AtomicUsize,
}

impl Weather {
    /// Nothing stalls or breaks from now on.
    pub(crate) fn spare_connections(&self) {
        self.0.faults.store(DELAYS, Ordering::SeqCst);
    }

    /// Nothing is even delayed from now on.
    pub(crate) fn calm_down(&self) {
        self.0.faults.store(NONE, Ordering::SeqCst);
    }

    pub(crate) fn breaks(&self) -> bool {
        self.0.faults.load(Ordering::SeqCst) == ALL
    }

    pub(crate) fn change(&self, delay_ms: usize, bytes_per_ms: usize) {
        self.0.delay_ms.store(delay_ms, Ordering::SeqCst);
        self.0.bytes_per_ms.store(bytes_per_ms, Ordering::SeqCst);
    }

    fn delay(&self, faults: Faults, chance: &mut Chance) -> Duration {
        match self.0.faults.load(Ordering::SeqCst) {
            NONE => Duration::ZERO,
            _ => {
                chance.up_to_ms(faults.delay_ms) + Duration::from_millis(self.0.delay_ms.load(Ordering::SeqCst) as u64)
            }
        }
    }

    fn transmission(&self, bytes: usize) -> Duration {
        match (self.0.faults.load(Ordering::SeqCst), self.0.bytes_per_ms.load(Ordering::SeqCst)) {
            (NONE, _) | (_, 0) => Duration::ZERO,
            (_, rate) => Duration::from_millis((bytes / rate) as u64),
        }
    }
}

/// Two ends of a connection.
pub(crate) fn wire(
    chance: &mut Chance,
    faults: Faults,
    weather: &Weather,
    tasks: &TaskTracker,
) -> (DuplexStream, DuplexStream) {
    const BUFFER: usize = 32 * 1024;
    let (here, near) = duplex(BUFFER);
    let (there, far) = duplex(BUFFER);
    let (one, other) = (chance.fork(), chance.fork());
    let weather = weather.clone();
    tasks.spawn(async move {
        let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
        let mut there = std::pin::pin!(pass(near_read, far_write, faults, &weather, one));
        let mut back = std::pin::pin!(pass(far_read, near_write, faults, &weather, other));
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
    weather: &Weather,
    mut chance: Chance,
) -> bool {
    let (sent, mut on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
    let sending = async move {
        let mut buffer = vec![0; 16 * 1024];
        let mut last = Instant::now();
        loop {
            let most = 1 + chance.below(buffer.len());
            let count = match from.read(&mut buffer[..most]).await {
                Ok(0) => return true,
                Ok(count) => count,
                Err(_) => return false,
            };
            if weather.breaks() {
                if chance.one_in(faults.stall) {
                    sleep(chance.up_to_ms(faults.stall_ms)).await;
                }
                if chance.one_in(faults.cut) {
                    return false;
                }
            }
            sleep(weather.transmission(count)).await;
            // Bytes arrive in the order they left.
            last = last.max(Instant::now() + weather.delay(faults, &mut chance));
            if sent.send((last, buffer[..count].to_vec())).await.is_err() {
                return false;
            }
        }
    };
    let arriving = async move {
        while let Some((at, bytes)) = on_the_way.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return false;
            }
        }
        to.shutdown().await.is_ok()
    };
    let mut arriving = std::pin::pin!(arriving);
    tokio::select! {
        ended = sending => ended && arriving.await,
        arrived = &mut arriving => arrived,
    }
}
