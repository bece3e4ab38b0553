//! Replaces a file so that a crash leaves the old text or the new one, never a part, and so that its owner and mode stay.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// The mode of a file that did not exist: settings may hold a password.
const NEW_FILE_MODE: u32 = 0o600;

/// The mode of what others are meant to read.
const READABLE_BY_ALL: u32 = 0o644;

/// Writes a file beside the old one, makes it durable and renames it over the old one.
/// A new file belongs to the owner of its directory.
///
/// # Errors
/// What the system says; the old file is untouched then.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = directory_of(path);
    let (model, mode) = match std::fs::metadata(path) {
        Ok(present) => {
            let mode = present.mode() & 0o7777;
            (present, mode)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (std::fs::metadata(directory)?, NEW_FILE_MODE),
        Err(error) => return Err(error),
    };
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(content)?;
    let made = temporary.as_file().metadata()?;
    // Only root may give a file away, and for anybody else there is nothing to give.
    if (made.uid(), made.gid()) != (model.uid(), model.gid()) {
        std::os::unix::fs::fchown(temporary.as_file(), Some(model.uid()), Some(model.gid()))?;
    }
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// Replaces a file at once for its readers, readable by all, and without waiting for the disk: for what is written anew each second and is worth nothing
/// after a crash of the machine.
///
/// # Errors
/// What the system says; the old file is untouched then.
pub fn write_unflushed(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, content)?;
    std::fs::set_permissions(&temporary, Permissions::from_mode(READABLE_BY_ALL))?;
    std::fs::rename(temporary, path)
}

/// Removes a file durably; a file that is gone already is no error.
///
/// # Errors
/// What the system says.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(directory_of(path))?.sync_all(),
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_is_kept_and_a_new_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, b"one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_flushed_is_replaced_as_a_whole_and_readable_by_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.json");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        write_unflushed(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_twice_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, b"").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
