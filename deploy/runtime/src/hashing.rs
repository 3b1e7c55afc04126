//! Passwords, hashed with Argon2id on threads and in memory of their own.
//!
//! A hash takes 19 MiB. Allocated anew for each hash, on whatever thread is
//! free, that memory stays with the allocator of every thread that ever hashed,
//! for as long as the process runs. So `HASHING_THREADS` threads own one area
//! each, made at their first hash and used for all others.
//!
//! Not here: which passwords are allowed, and whose they are.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, PasswordHash, Version,
    password_hash::phc::{Output, ParamsString, Salt},
};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::clock::random_bytes;

/// Each keeps 19 MiB and uses one core while it hashes.
pub const HASHING_THREADS: usize = 2;
/// Hashes waiting for a thread. One takes about 20 ms of a core, so the last of
/// these is answered after 3 s on two free cores; whoever comes later should
/// rather be told to come again.
pub const WAITING_HASHES_MAX: usize = 256;
/// Longer ones are never right.
pub const PASSWORD_BYTES_MAX: usize = 512;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum HashingError {
    #[error("{WAITING_HASHES_MAX} passwords wait to be checked or hashed already; try again in a few seconds")]
    Busy,
    #[error("the password cannot be hashed")]
    Failed,
}

type Job = Box<dyn FnOnce(&mut Area) + Send>;

/// Who hashes.
pub struct Hashing(Hashers);

enum Hashers {
    /// They end when this is dropped.
    Threads(SyncSender<Job>),
    Caller(Mutex<Area>),
}

impl Hashing {
    pub fn start() -> io::Result<Self> {
        let (waiting, jobs) = sync_channel(WAITING_HASHES_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..HASHING_THREADS {
            let jobs = jobs.clone();
            thread::Builder::new().name(format!("hashing-{n}")).spawn(move || work(&jobs))?;
        }
        Ok(Self(Hashers::Threads(waiting)))
    }

    /// On the thread of whoever asks, who waits meanwhile: for simulations, where
    /// time would run on while another thread works.
    pub fn on_callers_thread() -> Self {
        Self(Hashers::Caller(Mutex::default()))
    }

    /// A PHC string with a fresh salt.
    pub async fn hash(&self, password: String) -> Result<String, HashingError> {
        match password.len() <= PASSWORD_BYTES_MAX {
            true => self.run(move |area| area.hash(password.as_bytes())).await?,
            false => Err(HashingError::Failed),
        }
    }

    /// Is it the password of this PHC string? One that is too long takes as much
    /// time to refuse as any other.
    pub async fn verify(&self, password: String, hash: String) -> Result<bool, HashingError> {
        let mut password = password.into_bytes();
        let fits = password.len() <= PASSWORD_BYTES_MAX;
        password.truncate(PASSWORD_BYTES_MAX);
        let right = self.run(move |area| area.verify(&password, &hash)).await?;
        Ok(right && fits)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Area) -> T + Send + 'static,
    ) -> Result<T, HashingError> {
        let waiting = match &self.0 {
            Hashers::Threads(waiting) => waiting,
            Hashers::Caller(area) => return Ok(work(&mut area.lock().unwrap_or_else(PoisonError::into_inner))),
        };
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |area| {
            // Whoever asked may have left meanwhile; the others wait no longer for that.
            if !reply.is_closed() {
                let _left = reply.send(work(area));
            }
        });
        waiting.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => HashingError::Busy,
            TrySendError::Disconnected(_) => HashingError::Failed,
        })?;
        answer.await.map_err(|_| HashingError::Failed)
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    let mut area = Area::default();
    loop {
        // A statement of its own: the lock is free again before the job begins.
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            // A job that panics answers nobody, and costs no thread: without threads
            // nobody could sign in again.
            Ok(job) => {
                if catch_unwind(AssertUnwindSafe(|| job(&mut area))).is_err() {
                    area = Area::default();
                }
            }
            Err(_) => return,
        }
    }
}

/// Memory for one hash at a time (OWASP minimum: 19 MiB, 2 passes).
#[derive(Default)]
pub struct Area(Vec<Block>);

impl Area {
    /// A PHC string with a fresh salt.
    pub fn hash(&mut self, password: &[u8]) -> Result<String, HashingError> {
        let salt: [u8; 16] = random_bytes();
        let output = self.output(&Argon2::default(), password, &salt, Params::DEFAULT_OUTPUT_LEN);
        let parts = (output, Salt::new(&salt).ok(), ParamsString::try_from(&Params::DEFAULT).ok());
        let (Some(output), Some(salt), Some(params)) = parts else { return Err(HashingError::Failed) };
        let phc = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::default().into()),
            params,
            salt: Some(salt),
            hash: Some(output),
        };
        Ok(phc.to_string())
    }

    /// Is it the password of this PHC string? A string that asks for more memory
    /// than this area has is none of ours, and not right.
    pub fn verify(&mut self, password: &[u8], hash: &str) -> bool {
        let Ok(known) = PasswordHash::new(hash) else { return false };
        let algorithm = Algorithm::try_from(known.algorithm.as_str()).ok();
        let version = known.version.map_or(Some(Version::default()), |it| Version::try_from(it).ok());
        let (Some(algorithm), Some(version), Ok(params)) = (algorithm, version, Params::try_from(&known)) else {
            return false;
        };
        let (Some(salt), Some(expected)) = (known.salt, known.hash) else { return false };
        let output = self.output(&Argon2::new(algorithm, version, params), password, &salt, expected.len());
        // This type's equality takes the same time wherever the two differ.
        output == Some(expected)
    }

    fn output(&mut self, argon2: &Argon2<'_>, password: &[u8], salt: &[u8], bytes: usize) -> Option<Output> {
        self.0.resize(Params::DEFAULT.block_count(), Block::new());
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..bytes)?;
        argon2.hash_password_into_with_memory(password, salt, output, &mut self.0).ok()?;
        Output::new(output).ok()
    }
}

#[cfg(test)]
mod tests;
