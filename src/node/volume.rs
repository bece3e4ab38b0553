//! The node's volume: what it holds, and how one data directory takes the place of another.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::plan::{DataDirectory, Noted};
use crate::postgres::control_file;
use crate::replace_file;

/// The role of a primary in the note.
const LEADING: &str = "leads";

/// The node's volume.
#[derive(Debug, Clone)]
pub struct Volume {
    directory: PathBuf,
}

impl Volume {
    /// The volume mounted at `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where a data directory is made; worth nothing until it takes `data`'s place.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.directory.join("data.incoming")
    }

    fn rewinding(&self) -> PathBuf {
        self.directory.join("rewinding")
    }

    fn copy_ordered(&self) -> PathBuf {
        self.directory.join("copy-ordered")
    }

    fn epoch(&self) -> PathBuf {
        self.directory.join("epoch")
    }

    /// What the volume holds.
    ///
    /// # Errors
    /// Whatever keeps it from being read, a data directory without a readable control file included: nothing is guessed about data.
    pub fn inspect(&self) -> io::Result<DataDirectory> {
        let data = self.data();
        if !data.join("PG_VERSION").try_exists()? {
            let is_empty = match fs::read_dir(&data) {
                Ok(mut entries) => entries.next().is_none(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => return Err(error),
            };
            let odd = || {
                io::Error::other(format!(
                    "'{}' is not empty and holds no PG_VERSION; move it away, it is not deleted by itself",
                    data.display()
                ))
            };
            return if is_empty { Ok(DataDirectory::Empty) } else { Err(odd()) };
        }
        Ok(DataDirectory::Present {
            system_identifier: control_file::system_identifier(&data)?,
            standby_signal: data.join("standby.signal").try_exists()?,
            unpromoted: control_file::is_unpromoted_standby(&data)?,
            rewinding: self.rewinding().try_exists()?,
        })
    }

    /// How this node has last started, or been promoted.
    ///
    /// # Errors
    /// When the note is there and cannot be read.
    pub fn noted(&self) -> io::Result<Option<Noted>> {
        match fs::read_to_string(self.epoch()) {
            Ok(text) => {
                let odd = || {
                    io::Error::other(format!(
                        "'{}' holds no epoch and role; remove it if you know that the record is the newest",
                        self.epoch().display()
                    ))
                };
                let (epoch, role) = text.trim().split_once(' ').ok_or_else(odd)?;
                Ok(Some(Noted { epoch: epoch.parse().map_err(|_| odd())?, leading: role == LEADING }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes how the node starts, or that it was promoted.
    ///
    /// # Errors
    /// The first system call that failed.
    pub fn note(&self, Noted { epoch, leading }: Noted) -> io::Result<()> {
        let role = if leading { LEADING } else { "follows" };
        replace_file::write(&self.epoch(), format!("{epoch} {role}\n").as_bytes())
    }

    /// Notes that the data directory is about to become a mixture, or is whole again.
    ///
    /// # Errors
    /// The first system call that failed.
    pub fn note_rewinding(&self, rewinding: bool) -> io::Result<()> {
        if rewinding {
            return replace_file::write(&self.rewinding(), b"");
        }
        remove_file(&self.rewinding())?;
        File::open(&self.directory)?.sync_all()
    }

    /// Notes that a person wants a fresh copy in the data directory's place. It goes when a copy has taken that place.
    ///
    /// # Errors
    /// The first system call that failed.
    pub fn order_copy(&self) -> io::Result<()> {
        replace_file::write(&self.copy_ordered(), b"")
    }

    /// Does a person want one?
    ///
    /// # Errors
    /// The system's answer.
    pub fn copy_is_ordered(&self) -> io::Result<bool> {
        self.copy_ordered().try_exists()
    }

    /// The data directory and those kept aside, where they are whole; by name.
    ///
    /// # Errors
    /// The first system call that failed.
    pub fn data_directories(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if (name == "data" || name.starts_with("data.old-") || name.starts_with("data.kept-"))
                && path.join("PG_VERSION").try_exists()?
            {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Free space, in bytes, as an unprivileged user may use it.
    ///
    /// # Errors
    /// The system's answer.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.directory)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Removes what an interrupted attempt to make a data directory has left.
    ///
    /// # Errors
    /// The first system call that failed.
    pub fn clear_incoming(&self) -> io::Result<()> {
        remove_tree(&self.incoming())
    }

    /// Puts the incoming data directory in `data`'s place. What was there is kept as `data.old-…` until the replacement streams; with `keep` as `data.kept-…`,
    /// which only a person removes.
    ///
    /// # Errors
    /// The first system call that failed. A crash in between leaves no `data` at all, and the next start makes a new one; nothing is lost.
    pub fn install_incoming(&self, epoch: u64, keep: bool) -> io::Result<()> {
        let data = self.data();
        if data.try_exists()? {
            let name = if keep { "kept" } else { "old" };
            let mut number = 0;
            let mut kept = self.directory.join(format!("data.{name}-{epoch}"));
            while kept.try_exists()? {
                number += 1;
                kept = self.directory.join(format!("data.{name}-{epoch}.{number}"));
            }
            fs::rename(&data, &kept)?;
        }
        fs::rename(self.incoming(), &data)?;
        remove_file(&self.copy_ordered())?;
        self.note_rewinding(false)
    }

    /// Removes the replaced data directories; to be called when the replacement streams. Says which.
    ///
    /// # Errors
    /// The first system call that failed.
    pub fn discard_old(&self) -> io::Result<Vec<String>> {
        let mut discarded = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("data.old-") {
                remove_tree(&self.directory.join(&name))?;
                discarded.push(name);
            }
        }
        Ok(discarded)
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_data_directory_is_kept_until_it_is_discarded() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        for content in ["one", "two", "three", "four"] {
            fs::create_dir(volume.incoming()).unwrap();
            fs::write(volume.incoming().join("content"), content).unwrap();
            volume.install_incoming(2, content == "four").unwrap();
        }
        assert_eq!(fs::read_to_string(volume.data().join("content")).unwrap(), "four");
        assert_eq!(fs::read_to_string(folder.path().join("data.old-2/content")).unwrap(), "one");
        let mut discarded = volume.discard_old().unwrap();
        discarded.sort();
        assert_eq!(discarded, ["data.old-2", "data.old-2.1"]);
        assert!(volume.data().exists());
        assert_eq!(fs::read_to_string(folder.path().join("data.kept-2/content")).unwrap(), "three", "only a person removes it");
    }

    #[test]
    fn an_ordered_copy_is_wanted_until_one_has_taken_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        for name in ["data", "data.kept-2", "data.incoming", "other"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("PG_VERSION"), "17\n").unwrap();
        }
        let names =
            |found: Vec<PathBuf>| found.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>();
        assert_eq!(names(volume.data_directories().unwrap()), ["data", "data.kept-2"]);
        assert!(!volume.copy_is_ordered().unwrap());
        volume.order_copy().unwrap();
        volume.clear_incoming().unwrap();
        assert!(volume.copy_is_ordered().unwrap(), "an attempt that failed does not count");
        fs::create_dir(volume.incoming()).unwrap();
        volume.install_incoming(3, false).unwrap();
        assert!(!volume.copy_is_ordered().unwrap());
    }

    #[test]
    fn what_is_neither_empty_nor_a_data_directory_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        assert_eq!(volume.inspect().unwrap(), DataDirectory::Empty);
        fs::create_dir(volume.data()).unwrap();
        assert_eq!(volume.inspect().unwrap(), DataDirectory::Empty);
        fs::write(volume.data().join("precious"), "").unwrap();
        assert!(volume.inspect().unwrap_err().to_string().contains("holds no PG_VERSION"));
        fs::write(volume.data().join("PG_VERSION"), "17\n").unwrap();
        assert!(volume.inspect().is_err(), "no control file");
    }

    #[test]
    fn the_epoch_and_the_mark_of_a_rewind_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        assert_eq!(volume.noted().unwrap(), None);
        for noted in [Noted { epoch: 4, leading: false }, Noted { epoch: 5, leading: true }] {
            volume.note(noted).unwrap();
            assert_eq!(volume.noted().unwrap(), Some(noted));
        }
        volume.note_rewinding(true).unwrap();
        volume.note_rewinding(true).unwrap();
        assert!(volume.rewinding().exists());
        volume.note_rewinding(false).unwrap();
        volume.note_rewinding(false).unwrap();
        assert!(!volume.rewinding().exists());
    }
}
