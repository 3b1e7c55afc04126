//! Room for revocations on a disk that is full.
//!
//! A file of nothing lies beside the log. When the disk is full, ordinary events
//! are refused; for a revocation the file goes, and what it held is for
//! revocations only, until there is room for the file again. So nobody has to
//! restart anything: the first event after somebody made room is taken.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use crate::presence::now;

/// Room for at least a thousand revocations, each with a commit of its own.
pub(crate) const RESERVE_BYTES: usize = 8 * 1024 * 1024;
/// Making the file again is tried this often, when an event asks for it.
const TRY_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Reserve {
    path: PathBuf,
    held: bool,
    tried: Option<Instant>,
}

impl Reserve {
    pub(crate) fn beside(log: &Path) -> Self {
        let mut reserve = Self { path: log.with_extension("reserve"), held: false, tried: None };
        if !reserve.hold() {
            warn!(file = %reserve.path.display(), "there is no room on the disk of the log; only revocations are taken");
        }
        reserve
    }

    /// Is the room there? Ordinary events are taken only then.
    pub(crate) fn hold(&mut self) -> bool {
        if !self.held && self.tried.is_none_or(|tried| tried.elapsed() >= TRY_AGAIN) {
            let before = self.tried.replace(now());
            self.held = self.fill().is_ok();
            if self.held && before.is_some() {
                info!("there is room on the disk of the log again");
            }
        }
        self.held
    }

    /// Gives the room away; whether there was any.
    pub(crate) fn release(&mut self) -> bool {
        if self.held {
            error!("the disk of the log is full; only revocations are taken, from what was kept for them");
        }
        // Not made again by the next event: what becomes free is for revocations.
        self.tried = Some(now());
        std::mem::take(&mut self.held) && fs::remove_file(&self.path).is_ok()
    }

    fn fill(&self) -> std::io::Result<()> {
        let filled = fs::metadata(&self.path).is_ok_and(|it| it.len() == RESERVE_BYTES as u64);
        if filled {
            return Ok(());
        }
        // Not zeros: a file system may keep those for nothing.
        let nothing: Vec<u8> =
            (0..RESERVE_BYTES).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let written = File::create(&self.path).and_then(|mut file| {
            file.write_all(&nothing)?;
            file.sync_all()
        });
        if written.is_err() {
            let _gone = fs::remove_file(&self.path);
        }
        written
    }
}
