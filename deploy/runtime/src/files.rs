//! Secrets and state in files only their owner can read.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// A folder of mode 0700, made if missing. An existing one that others can
/// enter is refused, not repaired: somebody may have meant it.
pub fn private_folder(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return DirBuilder::new().recursive(true).mode(0o700).create(path);
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} has mode {mode:o}; it holds secrets: chmod 700 it", path.display()),
        )),
    }
}

/// Writes a file of mode 0600, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, 0o600)
}

/// Writes a file anybody may read, whole or not at all.
pub fn write_public(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, 0o644)
}

fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::set_permissions(&draft, Permissions::from_mode(mode))?;
    fs::rename(&draft, path)?;
    // A name is durable when its folder is.
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

/// Holds a folder for this process, until the file that is returned is dropped.
/// None when another process holds it.
pub fn hold_folder(path: &Path) -> io::Result<Option<fs::File>> {
    hold(&path.join(".lock"))
}

/// The same with a lock file of its own, for what shares its folder with others.
pub fn hold(lock: &Path) -> io::Result<Option<fs::File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Reads a secret, and says how to fix a file that others can read too. A file
/// that root hands to this process through its group is private enough: that is
/// how secrets are mounted into containers and given to services.
pub fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::metadata(path)?;
    let mode = file.permissions().mode() & 0o777;
    let handed_down = file.uid() == 0 && fs::metadata("/proc/self")?.uid() != 0;
    let forbidden = if handed_down { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} has mode {mode:o}; it is a secret: chmod 600 it", path.display()),
        ));
    }
    fs::read(path)
}
