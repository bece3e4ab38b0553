//! What lies in a directory before a run begins.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::plan::Present;

/// To read a directory is worth it up to so many entries for each name that is looked for: one takes a tenth of the time of a look that finds nothing.
const WORTH_READING: usize = 8;

/// The names in a directory, where they were read at once; else each is looked for by itself.
#[derive(Debug)]
pub struct Listing {
    directory: PathBuf,
    names: Option<HashSet<OsString>>,
}

impl Listing {
    /// Prepares to look for so many names.
    #[must_use]
    pub fn of(directory: &Path, wanted: usize) -> Self {
        Self { directory: directory.to_owned(), names: read(directory, wanted.saturating_mul(WORTH_READING)) }
    }

    /// What is under a name.
    #[must_use]
    pub fn look(&self, name: &str) -> Present {
        if self.names.as_ref().is_some_and(|names| !names.contains(OsStr::new(name))) {
            return Present::Nothing;
        }
        let path = self.directory.join(name);
        match path.symlink_metadata() {
            Err(_) => Present::Nothing,
            Ok(metadata) if metadata.is_file() => Present::File(metadata.len()),
            // A link to a file is replaced like one, and left alone like one.
            Ok(metadata) if metadata.is_symlink() => {
                path.metadata().ok().filter(std::fs::Metadata::is_file).map_or(Present::Other, |file| Present::File(file.len()))
            }
            Ok(_) => Present::Other,
        }
    }
}

/// All names, if there are not more than this.
fn read(directory: &Path, most: usize) -> Option<HashSet<OsString>> {
    let mut names = HashSet::new();
    for entry in directory.read_dir().ok()? {
        if names.len() == most {
            return None;
        }
        names.insert(entry.ok()?.file_name());
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn read_at_once_or_looked_for_one_by_one_the_same_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "abc").unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("directory", at("link to a directory")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        // Five are there: they are read for one name that is looked for, and not for none.
        let (read, unread) = (Listing::of(folder.path(), 1), Listing::of(folder.path(), 0));
        assert_eq!((read.names.as_ref().map(HashSet::len), unread.names.as_ref()), (Some(5), None));
        for listing in [read, unread] {
            let found = ["file", "directory", "link", "link to a directory", "dangling", "absent"].map(|name| listing.look(name));
            let (file, other) = (Present::File(3), Present::Other);
            assert_eq!(found, [file, other, file, other, other, Present::Nothing]);
        }
    }

    #[test]
    fn in_a_directory_that_is_not_there_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Listing::of(&folder.path().join("absent"), 1).look("a"), Present::Nothing);
    }
}
