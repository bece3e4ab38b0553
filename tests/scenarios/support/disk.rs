//! A small disk of its own for a part of a node's volume.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What it is called in the table of mounts.
const NAME: &str = "understudy-small-disk";

/// The name of the file that takes the room up.
const FILLER: &str = "filler-of-the-test";

/// A disk in memory, mounted on a folder whose content it holds. Taken away when dropped, with whatever folder it is in by then.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Below `folder`, of a node that does not run, with so much room beside what is there.
    pub fn below(folder: &Path, room: u64) -> Self {
        let used: u64 = fs::read_dir(folder).unwrap().flatten().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
        let owner = fs::metadata(folder).unwrap();
        let aside = folder.with_extension("aside");
        fs::rename(folder, &aside).unwrap();
        fs::create_dir(folder).unwrap();
        let options = format!("size={},mode=0700,uid={},gid={}", used + room, owner.uid(), owner.gid());
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, NAME]).arg(folder));
        run(Command::new("cp").args(["--archive", "--no-target-directory"]).arg(&aside).arg(folder));
        fs::remove_dir_all(aside).unwrap();
        Self { folder: folder.to_owned() }
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut filler = File::create(self.folder.join(FILLER)).unwrap();
        let block = [0; 64 * 1024];
        loop {
            match filler.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("'{}': {error}", self.folder.display()),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A data directory that was replaced has moved aside with the disk in it, and could not be removed because of it.
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let moved = mounts.lines().filter_map(|line| line.strip_prefix(NAME)?.split_whitespace().next());
        for folder in moved {
            run(Command::new("umount").args(["--lazy", folder]));
            let data = Path::new(folder).parent().unwrap();
            if data.file_name().is_some_and(|name| name.to_string_lossy().starts_with("data.old-")) {
                let _ = fs::remove_dir_all(data);
            }
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
