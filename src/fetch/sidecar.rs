//! `NAME.part.json`: what a part belongs to, and which of its bytes are there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::address::Address;
use super::head::Validator;
use super::ranges::Ranges;
use super::verify::Check;

/// The version that this program writes and reads.
const VERSION: u32 = 1;

/// The largest that is read, in bytes: far more than the ranges of any file take.
const LARGEST: u64 = 1024 * 1024;

/// What binds a part to what it was begun from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    version: u32,
    /// The address without credentials and query.
    url: String,
    /// A digest of its query, without what signs it; empty where there is none.
    query_sha256: String,
    /// The whole file, in bytes.
    pub size: u64,
    /// What tells one version of the object from another.
    pub validator: Validator,
    /// The checksums that the server told of this version.
    pub checks: Vec<Check>,
    /// The bytes that are on the disk.
    pub finished: Ranges,
}

impl Sidecar {
    /// Binds a part to an address and to the version of the object there.
    #[must_use]
    pub fn new(address: &Address, size: u64, validator: Validator, checks: Vec<Check>, finished: Ranges) -> Self {
        Self { version: VERSION, url: address.to_string(), query_sha256: address.query_digest(), size, validator, checks, finished }
    }

    /// Reads the sidecar of a part that was begun from this address and is of the size that it says. Anything else is none: the file is begun afresh then.
    #[must_use]
    pub fn load(path: &Path, address: &Address, part_size: Option<u64>) -> Option<Self> {
        // What lies there may be anybody's: neither through a link, nor waiting for a pipe.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        let mut text = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut text).ok()?;
        if text.len() as u64 > LARGEST {
            return None;
        }
        let read: Self = serde_json::from_slice(&text).ok()?;
        let fits = read.version == VERSION
            && read.url == address.to_string()
            && read.query_sha256 == address.query_digest()
            && Some(read.size) == part_size
            && read.finished.end() <= read.size;
        fits.then_some(read)
    }

    /// Writes it durably in place of an older one, by way of `draft`. That has a name of its own, so that a kill in the middle leaves nothing that nobody
    /// knows; only the process that holds the part writes there.
    ///
    /// # Errors
    /// What the system says; the older one stays then.
    pub fn store(&self, path: &Path, draft: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(draft, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> (tempfile::TempDir, std::path::PathBuf, Address) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.part.json");
        let address = Address::parse("https://user:hush@h/a?id=7&X-Amz-Signature=hush").unwrap();
        let mut finished = Ranges::default();
        finished.insert(0, 60);
        Sidecar::new(&address, 100, Validator::ETag("\"x\"".to_owned()), Vec::new(), finished)
            .store(&path, &folder.path().join("a.part.json.new"))
            .unwrap();
        (folder, path, address)
    }

    #[test]
    fn it_is_found_again_and_tells_no_secret() {
        let (_folder, path, address) = stored();
        assert_eq!(Sidecar::load(&path, &address, Some(100)).unwrap().finished.missing(100), [(60, 100)]);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains("hush") && !text.contains("id=7") && !text.contains("user"), "{text}");
    }

    #[test]
    fn a_link_a_pipe_or_something_endless_is_none() {
        let (folder, path, address) = stored();
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(Sidecar::load(&path, &address, Some(100)), None, "a link");
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Sidecar::load(&path, &address, Some(100)), None, "a pipe");
        let text = std::fs::read(&elsewhere).unwrap();
        std::fs::write(&elsewhere, [text, vec![b' '; 2 << 20]].concat()).unwrap();
        assert_eq!(Sidecar::load(&elsewhere, &address, Some(100)), None, "more than is read");
    }

    #[test]
    fn what_does_not_fit_is_none() {
        let (_folder, path, address) = stored();
        for other in ["https://h/b?id=7", "https://h/a?id=8", "http://h/a?id=7", "s3://h/a"] {
            assert_eq!(Sidecar::load(&path, &Address::parse(other).unwrap(), Some(100)), None, "{other}");
        }
        assert_eq!(Sidecar::load(&path, &address, Some(99)), None, "a part of another size");
        assert_eq!(Sidecar::load(&path, &address, None), None, "no part");
        let text = std::fs::read_to_string(&path).unwrap();
        for broken in [
            text[..40].to_owned(),
            text.replace("\"version\":1", "\"version\":2"),
            text.replace("[0,60]", "[0,101]"),
            text.replace("[0,60]", "[6,5]"),
        ] {
            assert_ne!(broken, text);
            std::fs::write(&path, &broken).unwrap();
            assert_eq!(Sidecar::load(&path, &address, Some(100)), None, "{broken}");
        }
    }
}
