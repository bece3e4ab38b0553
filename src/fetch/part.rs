//! `NAME.part` on the disk, until it is `NAME`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, OFlag, PosixFadviseAdvice, RenameFlags, fallocate, posix_fadvise, renameat2};

use super::error::Error;
use super::sidecar::Sidecar;
use super::verify::Check;
use crate::replace_file;

/// From this size on, in bytes, the space is taken before the bytes come: a full disk shows at once, and a file lies in one piece.
const WORTH_RESERVING: u64 = 1024 * 1024;

/// How much the disk is given to write at once while more comes, in bytes.
const WRITTEN_EARLY: u64 = 4 * 1024 * 1024;

/// A part, held by this process alone.
#[derive(Debug)]
pub struct Part {
    file: File,
    directory: PathBuf,
    name: String,
    /// The disk did not keep what was written. It says so once (fsync(2)): nothing may be claimed of the part after it.
    lost: OnceLock<Error>,
}

/// The name of a file's part. What lies under it an earlier run has left, or another process is at it. A sidecar alone is of nothing.
#[must_use]
pub fn part_name(name: &str) -> String {
    format!("{name}.part")
}

/// Where the part of a file is.
#[must_use]
pub fn part_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(part_name(name))
}

/// Where its sidecar is.
#[must_use]
pub fn sidecar_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.part.json"))
}

/// Where a sidecar is written before it takes the place of the older one.
fn draft_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.part.json.new"))
}

impl Part {
    /// Opens the part of a file, or begins it.
    ///
    /// # Errors
    /// The directory cannot be written into, or another process has it.
    pub fn open(directory: &Path, name: &str) -> Result<Self, Error> {
        let path = part_path(directory, name);
        let unwritable = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull => Error::DiskFull { needed: 0 },
            _ => Error::Directory { directory: directory.display().to_string(), cause: error.to_string() },
        };
        loop {
            // Neither through a link to somewhere else, nor waiting for who writes into a pipe.
            let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(flags)
                .open(&path)
                .map_err(unwritable)?;
            let opened = file.metadata().map_err(unwritable)?;
            if !opened.is_file() {
                return Err(Error::InTheWay { name: part_name(name) });
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Err(Error::Locked { name: name.to_owned() }),
                Err(std::fs::TryLockError::Error(error)) => return Err(unwritable(error)),
            }
            // Who held it before may have given it its final name meanwhile: that file is not to be touched.
            if std::fs::symlink_metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (opened.dev(), opened.ino())) {
                return Ok(Self { file, directory: directory.to_owned(), name: name.to_owned(), lost: OnceLock::new() });
            }
        }
    }

    /// How large it is, in bytes.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.len())
    }

    /// Begins afresh, with room for so many bytes where that is known. What an earlier run claimed is gone first, and durably: never may it be said of
    /// what is written from here on.
    ///
    /// # Errors
    /// See [`Error::Disk`] and [`Error::DiskFull`].
    pub fn begin(&self, size: Option<u64>) -> Result<(), Error> {
        let sidecar = sidecar_path(&self.directory, &self.name);
        if sidecar.symlink_metadata().is_ok() {
            replace_file::remove(&sidecar).map_err(|error| Error::disk("remove an old sidecar", &error))?;
        }
        self.file.set_len(0).map_err(|error| Error::disk("empty an old part", &error))?;
        let Some(size) = size.filter(|&size| size >= WORTH_RESERVING) else { return Ok(()) };
        let too_large = |_| Error::DiskFull { needed: size };
        match fallocate(&self.file, FallocateFlags::empty(), 0, i64::try_from(size).map_err(too_large)?) {
            Ok(()) => Ok(()),
            Err(Errno::ENOSPC | Errno::EFBIG | Errno::EDQUOT) => Err(Error::DiskFull { needed: size }),
            // Not every file system can; then the space shows when it is written to.
            Err(_) => self.file.set_len(size).map_err(|error| Error::disk("make the part as large as the file", &error)),
        }
    }

    /// Writes bytes to their place.
    ///
    /// # Errors
    /// See [`Error::Disk`] and [`Error::DiskFull`].
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_all_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::DiskFull { needed: bytes.len() as u64 }
            }
            _ => Error::disk("write the part", &error),
        })
    }

    /// Writes pieces one after the other, from this place on, and lets the disk begin with what is complete: the file is to be durable soon after its last
    /// byte has come. How many bytes that were.
    ///
    /// # Errors
    /// See [`Part::write_at`].
    pub fn write_block(&self, block: &[Bytes], offset: u64) -> Result<u64, Error> {
        let mut written = 0;
        for piece in block {
            self.write_at(piece, offset + written)?;
            written += piece.len() as u64;
        }
        let (begin, end) = (offset / WRITTEN_EARLY * WRITTEN_EARLY, (offset + written) / WRITTEN_EARLY * WRITTEN_EARLY);
        if let (Ok(start), Ok(length)) = (i64::try_from(begin), i64::try_from(end - begin))
            && length > 0
        {
            // Advice. Linux begins to write what is dirty there and does not wait for it; what is written by then it drops (`generic_fadvise` in mm/fadvise.c).
            let _ = posix_fadvise(&self.file, start, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        Ok(written)
    }

    /// Makes what was written durable, and then says of what the sidecar claims that it is there. The claim has to be from before this call.
    ///
    /// # Errors
    /// See [`Error::Disk`]; the older sidecar stays then.
    pub fn checkpoint(&self, claim: &Sidecar) -> Result<(), Error> {
        self.make_durable(File::sync_data)?;
        let (sidecar, draft) = (sidecar_path(&self.directory, &self.name), draft_path(&self.directory, &self.name));
        claim.store(&sidecar, &draft).map_err(|error| Error::disk("write the sidecar", &error))
    }

    fn make_durable(&self, sync: impl Fn(&File) -> io::Result<()>) -> Result<(), Error> {
        if let Err(error) = sync(&self.file) {
            let _ = self.lost.set(Error::disk("make the part durable", &error));
        }
        self.lost().map_or(Ok(()), Err)
    }

    /// Why nothing can come of this part any more.
    #[must_use]
    pub fn lost(&self) -> Option<Error> {
        self.lost.get().cloned()
    }

    /// Makes the part durable, looks at its checksums, and gives it its final name. A part with another checksum is removed.
    /// The name itself is durable when the directory is; see [`sync_directory`].
    ///
    /// # Errors
    /// A checksum does not fit, the name is in use meanwhile, or the disk refuses.
    pub fn finish(self, checks: &[Check], replace: bool) -> Result<(), Error> {
        self.make_durable(File::sync_all)?;
        for check in checks {
            let content = ReadAt { file: &self.file, at: 0 };
            if let Err(error) = check.verify(content) {
                self.discard();
                return Err(error);
            }
        }
        let (from, to) = (part_path(&self.directory, &self.name), self.directory.join(&self.name));
        let renamed = if replace {
            std::fs::rename(&from, &to)
        } else {
            match renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE) {
                // The file system does not know how.
                Err(Errno::EINVAL | Errno::ENOSYS) if to.symlink_metadata().is_err() => std::fs::rename(&from, &to),
                Err(Errno::EINVAL | Errno::ENOSYS) => Err(Errno::EEXIST.into()),
                other => other.map_err(io::Error::from),
            }
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { name: self.name.clone() },
            io::ErrorKind::IsADirectory => Error::InTheWay { name: self.name.clone() },
            _ => Error::disk("give the file its name", &error),
        })?;
        // After the name: who is killed in between has a file that is whole, and a sidecar of nothing.
        self.remove_sidecar();
        Ok(())
    }

    /// Removes the part and its sidecar.
    pub fn discard(&self) {
        // The sidecar first: it may not outlive what it speaks of.
        self.remove_sidecar();
        let _ = std::fs::remove_file(part_path(&self.directory, &self.name));
    }

    fn remove_sidecar(&self) {
        let _ = std::fs::remove_file(sidecar_path(&self.directory, &self.name));
        let _ = std::fs::remove_file(draft_path(&self.directory, &self.name));
    }
}

/// Reads a file from its beginning, wherever its own position is.
struct ReadAt<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the system says.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::address::Address;
    use crate::fetch::head::Validator;
    use crate::fetch::ranges::Ranges;
    use crate::fetch::verify::Algorithm;

    fn claim() -> Sidecar {
        let mut finished = Ranges::default();
        finished.insert(0, 3);
        Sidecar::new(&Address::parse("http://h/a").unwrap(), 3, Validator::ETag("\"x\"".to_owned()), Vec::new(), finished)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_part_gets_its_name_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::open(folder.path(), "a").unwrap();
        part.begin(Some(3)).unwrap();
        part.write_at(b"c", 2).unwrap();
        part.write_at(b"ab", 0).unwrap();
        part.checkpoint(&claim()).unwrap();
        assert_eq!(names(folder.path()), ["a.part", "a.part.json"]);
        let crc = Check::from_hexadecimal(Algorithm::Crc32, "352441c2").unwrap();
        part.finish(&[crc], false).unwrap();
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"abc");
    }

    #[test]
    fn a_part_with_another_checksum_gets_no_name_and_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::open(folder.path(), "a").unwrap();
        part.write_at(b"abd", 0).unwrap();
        part.checkpoint(&claim()).unwrap();
        let crc = Check::from_hexadecimal(Algorithm::Crc32, "352441c2").unwrap();
        assert!(matches!(part.finish(&[crc], true), Err(Error::Mismatch { .. })));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn of_what_the_disk_did_not_keep_nothing_is_claimed_and_nothing_gets_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::open(folder.path(), "a").unwrap();
        part.write_at(b"abc", 0).unwrap();
        part.checkpoint(&claim()).unwrap();
        let before = std::fs::read(folder.path().join("a.part.json")).unwrap();
        assert!(part.make_durable(|_| Err(Errno::EIO.into())).is_err());
        assert!(part.lost().is_some() && part.checkpoint(&claim()).is_err(), "the disk says it once");
        assert_eq!(std::fs::read(folder.path().join("a.part.json")).unwrap(), before, "what was claimed before stays true");
        assert!(part.finish(&[], true).is_err());
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn a_claim_is_gone_before_a_part_is_begun_afresh() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::open(folder.path(), "a").unwrap();
        part.checkpoint(&claim()).unwrap();
        part.begin(Some(3)).unwrap();
        assert_eq!(names(folder.path()), ["a.part"]);
    }

    #[test]
    fn only_one_process_has_a_part() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::open(folder.path(), "a").unwrap();
        assert!(matches!(Part::open(folder.path(), "a"), Err(Error::Locked { .. })));
        drop(part);
        assert!(Part::open(folder.path(), "a").is_ok());
    }

    #[test]
    fn a_name_that_came_into_use_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "mine").unwrap();
        assert!(matches!(Part::open(folder.path(), "a").unwrap().finish(&[], false), Err(Error::Exists { .. })));
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"mine");
    }

    #[test]
    fn a_link_or_a_pipe_is_no_part() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("elsewhere"), "mine").unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("a.part")).unwrap();
        assert!(Part::open(folder.path(), "a").is_err());
        nix::unistd::mkfifo(&folder.path().join("b.part"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Part::open(folder.path(), "b"), Err(Error::InTheWay { .. })));
        assert_eq!(std::fs::read(folder.path().join("elsewhere")).unwrap(), b"mine");
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::open(folder.path(), "a").unwrap();
        assert_eq!(part.begin(Some(1 << 60)), Err(Error::DiskFull { needed: 1 << 60 }));
    }
}
