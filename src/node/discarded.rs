//! What a node has that the primary has not: the log after the place where their histories part. Only looks; the server need not run.
//!
//! A rewind takes these records back, a copy leaves them in a data directory kept aside. Whoever decides about a node sees first what that is.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::volume::Volume;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::Timelines;

/// What one data directory has that the primary has not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// The data directory's name on the volume.
    pub directory: String,
    /// The timeline that it is on.
    pub timeline: u32,
    /// Where the histories part; none where all that it has is the primary's too.
    pub from: Option<Lsn>,
    /// The end of the last whole record.
    pub to: Option<Lsn>,
    /// Bytes of log between the two.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Transactions that were committed in them; whether a commit was acknowledged the log does not say.
    pub commits: u64,
    /// When the first of these was committed, in PostgreSQL's words.
    pub first_commit: Option<String>,
    /// When the last one was.
    pub last_commit: Option<String>,
}

/// Looks at every data directory of the volume, those kept aside included. `theirs`: the primary's timelines.
///
/// # Errors
/// Whatever keeps one from being read; nothing is guessed about data.
pub fn discarded(volume: &Volume, theirs: &Timelines) -> io::Result<Vec<Discarded>> {
    volume.data_directories()?.iter().map(|directory| look(directory, theirs)).collect()
}

fn look(directory: &Path, theirs: &Timelines) -> io::Result<Discarded> {
    let log = directory.join("pg_wal");
    let ours = timelines(&log)?;
    let mut found = Discarded {
        directory: directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        timeline: ours.current,
        ..Discarded::default()
    };
    for (timeline, from, to) in ours.beyond(theirs) {
        found.from.get_or_insert(from);
        found.to = Some(from.max(found.to.unwrap_or_default()));
        read_log(&log, timeline, from, to, &mut found)?;
    }
    found.bytes = found.to.zip(found.from).map_or(0, |(to, from)| to.bytes_since(from));
    // The log was closed there, and nothing came after it.
    if found.records == 0 {
        (found.from, found.to) = (None, None);
    }
    Ok(found)
}

/// The timelines of a data directory. By its log and not by its control file, which tells of a promotion only at the next checkpoint.
fn timelines(log: &Path) -> io::Result<Timelines> {
    let mut current = None;
    for entry in fs::read_dir(log)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_segment = name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let timeline = name.get(..8).filter(|_| is_segment).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        current = current.max(timeline);
    }
    let current = current.ok_or_else(|| io::Error::other(format!("'{}' holds no log", log.display())))?;
    let history = match fs::read_to_string(log.join(format!("{current:08X}.history"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && current == 1 => String::new(),
        history => history?,
    };
    Timelines::from_history(&history, current).map_err(io::Error::other)
}

/// Counts what `pg_waldump` shows of one timeline. It ends with an error where the log ends, which is no failure.
fn read_log(log: &Path, timeline: u32, from: Lsn, to: Option<Lsn>, found: &mut Discarded) -> io::Result<()> {
    let mut dump = Command::new("pg_waldump");
    dump.arg("--path").arg(log).args(["--timeline", &timeline.to_string(), "--start", &from.to_string()]);
    if let Some(to) = to {
        dump.args(["--end", &to.to_string()]);
    }
    let mut running = dump.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    if let Some(output) = running.stdout.take() {
        for line in BufReader::new(output).lines() {
            count(&line?, found);
        }
    }
    running.wait().map(drop)
}

/// Takes in one line: `rmgr: Transaction len (rec/tot):     34/    34, tx:        741, lsn: 0/01546A28, prev 0/015469F0, desc: COMMIT 2026-…`
fn count(line: &str, found: &mut Discarded) {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest.trim_start());
    let Some(lsn) = after(" lsn: ").and_then(|rest| rest.split(',').next()).and_then(|lsn| lsn.parse::<Lsn>().ok()) else { return };
    let lengths = after("len (rec/tot):").and_then(|rest| rest.split(',').next());
    let length = lengths.and_then(|rest| rest.split_once('/')).and_then(|(_, total)| total.trim().parse::<u64>().ok()).unwrap_or_default();
    // Records begin at multiples of eight bytes.
    found.to = Some(lsn.plus(length.next_multiple_of(8)).max(found.to.unwrap_or_default()));
    found.records += 1;
    if let Some(rest) = after("desc: COMMIT") {
        found.commits += 1;
        let words = rest.strip_prefix("_PREPARED").unwrap_or(rest).trim_start_matches([':', ' ']);
        let at = words.split(';').next().unwrap_or_default().trim().to_owned();
        if found.first_commit.is_none() {
            found.first_commit = Some(at.clone());
        }
        found.last_commit = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_commits_are_counted_as_pg_waldump_shows_them() {
        let mut found = Discarded::default();
        for line in [
            "rmgr: Heap        len (rec/tot):     54/  1234, tx:        741, lsn: 0/01546000, prev 0/01545FC8, desc: INSERT off: 1",
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        741, lsn: 0/015464D8, prev 0/01546000, desc: COMMIT 2026-11-21 08:00:01.5 UTC",
            "rmgr: Transaction len (rec/tot):     66/    66, tx:        742, lsn: 0/01546500, prev 0/015464D8, desc: COMMIT 2026-11-21 08:00:02.5 UTC; inval msgs: catcache 7",
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        743, lsn: 0/01546548, prev 0/01546500, desc: ABORT 2026-11-21 08:00:03 UTC",
            "pg_waldump: error: error in WAL record at 0/1546548: invalid record length at 0/1546570",
        ] {
            count(line, &mut found);
        }
        assert_eq!((found.records, found.commits, found.to), (4, 2, Some("0/1546570".parse().unwrap())));
        assert_eq!(found.first_commit.as_deref(), Some("2026-11-21 08:00:01.5 UTC"));
        assert_eq!(found.last_commit.as_deref(), Some("2026-11-21 08:00:02.5 UTC"));
    }

    #[test]
    fn the_timelines_of_a_log_are_those_of_its_newest_segment() {
        let folder = tempfile::tempdir().unwrap();
        let touch = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        assert!(timelines(folder.path()).is_err(), "no log at all");
        touch("000000010000000000000003", "");
        assert_eq!(timelines(folder.path()).unwrap().to_string(), "1");
        touch("000000020000000000000003.partial", "");
        touch("00000002.history", "1\t0/3000148\tno recovery target specified\n");
        assert_eq!(timelines(folder.path()).unwrap().to_string(), "1");
        touch("000000020000000000000003", "");
        assert_eq!(timelines(folder.path()).unwrap().to_string(), "1@0/3000148,2");
    }
}
