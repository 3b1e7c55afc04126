//! A file of lines, durable before it is acknowledged, and opened anew for each
//! batch, so that it is rotated by renaming it.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{Line, Outcome, SendError};

pub(crate) struct FileSink {
    path: PathBuf,
}

impl FileSink {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) async fn send(&mut self, batch: &[Line]) -> Outcome {
        let mut lines = String::with_capacity(batch.iter().map(|it| it.text.len() + 1).sum());
        for line in batch {
            lines.push_str(&line.text);
            lines.push('\n');
        }
        let path = self.path.clone();
        let appended = tokio::task::spawn_blocking(move || append(&path, lines.as_bytes())).await;
        match appended.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
            Ok(()) => Outcome::Accepted,
            Err(source) => {
                let target = self.path.display().to_string();
                Outcome::Retry(SendError { attempted: "appending to", target, source })
            }
        }
    }
}

/// All or nothing, as far as the disk lets us: half a batch is cut off again.
fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let before = file.metadata()?.len();
    let torn = before > 0 && last_byte(&mut file)? != b'\n';
    let write = |file: &mut std::fs::File| {
        if torn {
            // A crash left part of a line, which is written again as a whole.
            file.write_all(b"\n")?;
        }
        file.write_all(lines)?;
        file.sync_data()
    };
    write(&mut file).inspect_err(|_| {
        // If this fails too, the next batch begins with a line end.
        let _cut = file.set_len(before);
    })
}

fn last_byte(file: &mut std::fs::File) -> io::Result<u8> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_crash_tore_does_not_spoil_the_next() {
        let path = std::env::temp_dir().join(format!("postern-lines-{}", uuid::Uuid::now_v7()));
        append(&path, b"one\n").unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"tor").unwrap();
        append(&path, b"two\n").unwrap();
        append(&path, b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n{\"tor\ntwo\nthree\n");
        std::fs::remove_file(path).unwrap();
    }
}
