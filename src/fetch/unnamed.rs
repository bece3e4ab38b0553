//! A small file on its way to the disk: it has no name until it is whole and durable, so whoever is killed before leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;

/// A file without a name.
#[derive(Debug)]
pub struct Unnamed {
    file: File,
}

impl Unnamed {
    /// Writes a file without a name into the file system of a directory.
    ///
    /// # Errors
    /// The disk refuses, or the file system knows no such files (`O_TMPFILE` in open(2)).
    pub fn write(directory: &Path, bytes: &[u8]) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_TMPFILE.bits()).open(directory)?;
        file.write_all_at(bytes, 0)?;
        Ok(Self { file })
    }

    /// What is to be made durable.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it a name, which nobody may have.
    ///
    /// # Errors
    /// Somebody has it, or the system says no.
    pub fn give_name(self, path: &Path) -> io::Result<()> {
        // The way that needs no privilege (open(2)).
        let present = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(linkat(AT_FDCWD, present.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_seen_when_it_has_its_name_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let unnamed = Unnamed::write(folder.path(), b"abc").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        unnamed.give_name(&folder.path().join("a")).unwrap();
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"abc");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_is_in_use_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "mine").unwrap();
        let refused = Unnamed::write(folder.path(), b"abc").unwrap().give_name(&folder.path().join("a")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"mine");
    }
}
