//! Makes files durable, many at once where that is cheaper.

use std::fs::File;
use std::io;
use std::thread;

use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use nix::sys::utsname::uname;
use nix::unistd::syncfs;

/// From so many files on, one call writes the whole file system down, which from here on takes less than a call for each.
const MANY: usize = 4;
/// Unless others have left more than this to be written, in KiB: nobody waits for a stranger's files, and a database beside us is not to be disturbed.
const LITTLE: u64 = 64 * 1024;
/// Where each has a call of its own: so many at a time. A disk that takes its time takes hardly more for these than for one.
const AT_A_TIME: usize = 8;
/// The first Linux whose `syncfs` tells all that could not be written: what was data from 5.8 on (its manual page), the rest from here.
const SYNCFS_TELLS: (u32, u32) = (5, 17);

/// Whether a file without a name that was made durable in this directory's file system is so still when it has one, and whether `syncfs` tells there what could
/// not be written. Of these it is known. Not of btrfs, whose fsync passes over files without a name (fs/btrfs/tree-log.c), and not of overlayfs, which
/// does not hear of errors below it.
pub fn keeps_unnamed(directory: &File) -> bool {
    fstatfs(directory).is_ok_and(|found| [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC].contains(&found.filesystem_type()))
}

/// Makes files durable; their names are not, see [`super::part::sync_directory`]. `directory` is where they are, and was opened before they were written.
pub fn make_durable(directory: &File, files: &[&File]) -> Vec<io::Result<()>> {
    let together = files.len() >= MANY && syncfs_tells() && left_to_write().is_some_and(|left| left <= LITTLE) && syncfs(directory).is_ok();
    if together {
        return files.iter().map(|_| Ok(())).collect();
    }
    // Also where the file system told of an error, which may be that of another file.
    at_once(files, |file| file.sync_all())
}

/// Does the same to each, several at a time. Results come in the order of the items.
fn at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let share = items.len().div_ceil(AT_A_TIME).max(1);
    let each = |chunk: &[T]| chunk.iter().map(&work).collect::<Vec<R>>();
    thread::scope(|scope| {
        let mut chunks = items.chunks(share);
        let here = chunks.next_back();
        let begun: Vec<_> = chunks.map(|chunk| (chunk, thread::Builder::new().spawn_scoped(scope, || each(chunk)))).collect();
        let mut here = here.map(each).unwrap_or_default();
        let mut results = Vec::with_capacity(items.len());
        for (chunk, thread) in begun {
            // Without a thread it takes longer.
            results.extend(
                thread.map_or_else(|_| each(chunk), |thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
            );
        }
        results.append(&mut here);
        results
    })
}

fn syncfs_tells() -> bool {
    uname().ok().and_then(|names| version(names.release().to_str()?)).is_some_and(|version| version >= SYNCFS_TELLS)
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What this machine has still to write to its disks, in KiB.
fn left_to_write() -> Option<u64> {
    dirty(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// What is dirty or being written, from the words of `/proc/meminfo` (proc_meminfo(5)).
fn dirty(meminfo: &str) -> Option<u64> {
    let of = |name: &str| -> Option<u64> {
        meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some(of("Dirty")? + of("Writeback")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_first_two_numbers() {
        assert_eq!(version("6.1.0-26-amd64"), Some((6, 1)));
        assert_eq!(version("5.8"), Some((5, 8)));
        assert_eq!(version("4.18.0-553.el8_10.x86_64"), Some((4, 18)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn what_is_left_to_write_is_what_is_dirty_and_what_is_under_way() {
        let words = "MemTotal:       24683712 kB\nDirty:               100 kB\nWriteback:            20 kB\nWritebackTmp:          3 kB\n";
        assert_eq!(dirty(words), Some(120));
        assert_eq!(dirty("Dirty:  100 kB\n"), None);
        assert!(left_to_write().is_some(), "as this machine tells it");
    }

    #[test]
    fn each_of_many_is_done_once_and_in_order() {
        for count in [0, 1, 2, 7, 8, 9, 100] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(at_once(&items, |item| item + 1), (1..=count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn files_become_durable_alone_and_in_company() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        let files: Vec<File> = (0..MANY).map(|number| File::create(folder.path().join(number.to_string())).unwrap()).collect();
        let files: Vec<&File> = files.iter().collect();
        for some in [&files[..1], &files[..]] {
            let results = make_durable(&directory, some);
            assert_eq!(results.len(), some.len());
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
    }
}
