//! A small file on its way to the disk: it has no name until it is whole and durable, so whoever is killed before leaves nothing behind.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

/// Of a new file, before the umask.
const MODE: Mode = Mode::from_bits_truncate(0o666);

/// A file without a name.
#[derive(Debug)]
pub struct Unnamed {
    file: File,
}

impl Unnamed {
    /// Writes a file without a name into a directory's file system.
    ///
    /// # Errors
    /// The disk refuses, or the file system knows no such files (`O_TMPFILE` in open(2)).
    pub fn write(directory: &File, bytes: &[u8]) -> io::Result<Self> {
        let file = File::from(openat(directory, ".", OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC, MODE)?);
        file.write_all_at(bytes, 0)?;
        Ok(Self { file })
    }

    /// What is to be made durable.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it a name in a directory, which nobody there may have.
    ///
    /// # Errors
    /// Somebody has it, or the system says no.
    pub fn give_name(self, directory: &File, name: &str) -> io::Result<()> {
        match linkat(&self.file, "", directory, name, AtFlags::AT_EMPTY_PATH) {
            // Not everybody may do that on every kernel; this way needs no privilege and takes twice as long (open(2)).
            Err(Errno::ENOENT) => {
                let present = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                Ok(linkat(AT_FDCWD, present.as_str(), directory, name, AtFlags::AT_SYMLINK_FOLLOW)?)
            }
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_seen_when_it_has_its_name_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        let unnamed = Unnamed::write(&directory, b"abc").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        unnamed.give_name(&directory, "a").unwrap();
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"abc");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_is_in_use_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("a"), "mine").unwrap();
        let refused = Unnamed::write(&directory, b"abc").unwrap().give_name(&directory, "a").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"mine");
    }
}
