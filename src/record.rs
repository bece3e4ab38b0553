//! The cluster record: one JSON file on the host that says who is primary, since which epoch, and what transition is under way.
//!
//! It is the single source of truth. `failover-check` writes it; the nodes and the app read it through a read-only mount. It is replaced as a
//! whole (temp file, fsync, rename, fsync of the directory), so a reader sees the old or the new record and never a mixture, also after a crash.
//!
//! Beyond the fields that the design names, the record keeps the `system_identifier` of the cluster once a primary was seen: a primary with an
//! empty data directory may run `initdb` only while it is null, so that a lost volume can never be replaced by an empty database.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::replace_file;

/// The record's layout that this program reads and writes. Any other number is refused.
pub const RECORD_VERSION: u32 = 1;

/// Name of a node (`pg-a`, `pg-b`). Names never change; roles do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// Why a text is no node name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no node name: 1 to 63 lower-case letters, digits and hyphens, starting with a letter")]
pub struct InvalidNodeName(String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The physical replication slot that this node streams through on its primary. Slot names allow no hyphens.
    #[must_use]
    pub fn slot(&self) -> String {
        format!("understudy_{}", self.0.replace('-', "_"))
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidNodeName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        let allowed = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if starts && allowed && name.len() <= 63 { Ok(Self(name)) } else { Err(InvalidNodeName(name)) }
    }
}

impl std::str::FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::try_from(name.to_owned())
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What moves the role of primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransitionKind {
    /// The primary was lost.
    Failover,
    /// A person asked for it; the old primary is shut down in good order first.
    Switchover,
}

/// How far a transition has come. Each step is written before the next effect begins, so that a run that finds it knows what may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Decided; the old primary may still run. From here on it does not start any more.
    Intent,
    /// The old primary is verified stopped.
    Fenced,
    /// The standby has replayed all that it received.
    Replayed,
    /// Promotion may have been asked for: from here on a transition only goes forward.
    PromoteRequested,
    /// The new primary has been seen writable over a fresh connection.
    Writable,
}

/// A change of primary that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// What moves the role.
    pub kind: TransitionKind,
    /// The old primary. It does not start while this transition is unfinished.
    pub from: NodeName,
    /// The node that is to become primary.
    pub to: NodeName,
    /// The last step that is known to be done (or, for `promote_requested`, begun).
    pub step: Step,
    /// When it was decided.
    pub since: Timestamp,
    /// A person accepted that acknowledged commits are lost.
    pub lossy: bool,
    /// Why, in words for a person.
    pub reason: String,
}

/// A person's order to leave the pair alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// When it was given.
    pub since: Timestamp,
    /// Login name of the person.
    pub by: String,
    /// Their words.
    pub reason: String,
    /// When it ends by itself; none: only by `resume`. Left out where there is none, so that a program from before it reads the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Pause {
    /// What is left of it; none where it has no end. Zero: it is over. By the wall clock, which the person meant: setting that forward ends a pause early.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        // A time before now cannot be a `Duration`, and nothing is left of such a pause.
        self.until.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or_default())
    }
}

/// A finished change of primary, kept for the flapping guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastFailover {
    /// When the new primary was recorded.
    pub at: Timestamp,
    /// The old primary.
    pub from: NodeName,
    /// The new primary.
    pub to: NodeName,
    /// The epoch that began with it.
    pub epoch: u64,
    /// A person accepted that acknowledged commits were lost: the old primary holds the only copy of them.
    pub lossy: bool,
}

/// The cluster record. See the module's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Layout of this file, see [`RECORD_VERSION`]. First, so that a newer layout is recognised before anything else is read.
    pub version: u32,
    /// Grows by one at each change of primary.
    pub epoch: u64,
    /// The node that may take writes.
    pub primary: NodeName,
    /// May the other node be promoted without losing an acknowledged commit? See [`crate::failover::act`] for when it changes.
    pub standby_eligible: bool,
    /// The change of primary under way, if any.
    pub transition: Option<Transition>,
    /// A person's order to leave the pair alone, if any.
    pub paused: Option<Pause>,
    /// PostgreSQL's identity of this cluster; null until a primary was first seen.
    pub system_identifier: Option<String>,
    /// Since when failovers count as flapping: a person's `resume` sets it to now.
    #[serde(default)]
    pub counted_since: Option<Timestamp>,
    /// The latest failovers, oldest first, at most [`KEPT_FAILOVERS`]. Switchovers do not count as flapping.
    pub failovers: Vec<PastFailover>,
}

/// How many past failovers the record keeps; the flapping limit cannot be higher than this makes sense of.
pub const KEPT_FAILOVERS: usize = 50;

/// Why the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is no such file.
    #[error("the cluster record '{}' is missing", path.display())]
    Missing {
        /// The record's path.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read the cluster record '{}': {source}", path.display())]
    Unreadable {
        /// The record's path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is not a record.
    #[error("the cluster record '{}' is corrupt: {why}", path.display())]
    Corrupt {
        /// The record's path.
        path: PathBuf,
        /// What the parser says, with line and column.
        why: String,
    },
    /// The file was written by another version of this program.
    #[error("the cluster record '{}' has version {found}; this program knows version {RECORD_VERSION}", path.display())]
    UnknownVersion {
        /// The record's path.
        path: PathBuf,
        /// The version found.
        found: u64,
    },
    /// The new record could not be put in place; the old one is still there.
    #[error("cannot write the cluster record '{}': {source}", path.display())]
    Unwritable {
        /// The record's path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl RecordError {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Missing { .. } => {
                "restore the record from a backup of its folder; on a new installation run playbooks/run_containers.yml; never invent one by hand while data volumes exist".to_owned()
            }
            Self::Unreadable { .. } => "run as root and check the file's owner and mode".to_owned(),
            Self::Corrupt { path, .. } => {
                format!("compare '{}' with the last 'recorded' line of events.jsonl beside it, which names the primary and its epoch, and repair it", path.display())
            }
            Self::UnknownVersion { .. } => "install the version of understudy that wrote it; nothing was changed".to_owned(),
            Self::Unwritable { .. } => "check free space and the mount of that folder (df, mount)".to_owned(),
        }
    }
}

impl Record {
    /// Reads a record's text. `path` is for the error's words only.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] or [`RecordError::UnknownVersion`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u64,
        }
        let corrupt = |error: serde_json::Error| RecordError::Corrupt { path: path.to_owned(), why: error.to_string() };
        let VersionOnly { version } = serde_json::from_str(text).map_err(corrupt)?;
        if version != u64::from(RECORD_VERSION) {
            return Err(RecordError::UnknownVersion { path: path.to_owned(), found: version });
        }
        let record: Self = serde_json::from_str(text).map_err(corrupt)?;
        record.check().map_err(|why| RecordError::Corrupt { path: path.to_owned(), why })?;
        Ok(record)
    }

    /// What the types cannot say: a transition leads away from the recorded primary and to the other node.
    fn check(&self) -> Result<(), String> {
        if self.epoch == 0 {
            return Err("epoch 0 does not exist; the first is 1".to_owned());
        }
        match &self.transition {
            Some(transition) if transition.from != self.primary => {
                Err(format!("the transition leads away from '{}', but the primary is '{}'", transition.from, self.primary))
            }
            Some(transition) if transition.from == transition.to => {
                Err(format!("the transition leads from '{0}' to '{0}'", transition.from))
            }
            _ => Ok(()),
        }
    }

    /// How many failovers by the tool itself lie within `window` before `now`. A failover that seems to lie in the future (the clock was set back) counts:
    /// the guard may refuse too much after a clock jump, never too little.
    #[must_use]
    pub fn failovers_within(&self, window: Duration, now: Timestamp) -> u32 {
        let window = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        let counted = self.failovers.iter().filter(|past| self.counted_since.is_none_or(|since| past.at >= since));
        let recent = counted.filter(|past| now.as_second().saturating_sub(past.at.as_second()) <= window).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    /// The record from which on no failover so far counts. One that lies ahead was dated by a clock that has been set back since, and would count until that
    /// time comes again: it is dated back.
    #[must_use]
    pub fn counted_anew(mut self, now: Timestamp) -> Self {
        self.counted_since = Some(now);
        let before = now.checked_sub(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MIN);
        self.failovers.iter_mut().for_each(|past| past.at = past.at.min(before));
        self
    }
}

/// Where the record is kept. One implementation today, a file; a pair across hosts will bring another.
pub trait RecordStore {
    /// Reads the record.
    ///
    /// # Errors
    /// Whatever kept it from being read; never a made-up record.
    fn load(&self) -> Result<Record, RecordError>;

    /// Replaces the record; when this returns, the new one survives a crash of the machine.
    ///
    /// # Errors
    /// [`RecordError::Unwritable`]; the old record is then still in place.
    fn save(&self, record: &Record) -> Result<(), RecordError>;
}

/// The record as a file on this host.
#[derive(Debug, Clone)]
pub struct RecordFile {
    path: PathBuf,
}

impl RecordFile {
    /// The record at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl RecordStore for RecordFile {
    fn load(&self) -> Result<Record, RecordError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Record::parse(&text, &self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RecordError::Missing { path: self.path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(RecordError::Corrupt { path: self.path.clone(), why: error.to_string() })
            }
            Err(source) => Err(RecordError::Unreadable { path: self.path.clone(), source }),
        }
    }

    fn save(&self, record: &Record) -> Result<(), RecordError> {
        let text = serde_json::to_string_pretty(record).map_err(io::Error::other);
        text.and_then(|text| replace_file::write(&self.path, format!("{text}\n").as_bytes()))
            .map_err(|source| RecordError::Unwritable { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FIRST: &str = r#"{"version":1,"epoch":1,"primary":"pg-a","standby_eligible":false,"transition":null,"paused":null,"system_identifier":null,"failovers":[]}"#;

    fn parse(text: &str) -> Result<Record, RecordError> {
        Record::parse(text, Path::new("/r/cluster.json"))
    }

    #[test]
    fn the_first_record_that_ansible_writes_is_read() {
        let record = parse(FIRST).unwrap();
        assert_eq!((record.epoch, record.primary.as_str(), record.standby_eligible), (1, "pg-a", false));
    }

    #[test]
    fn each_way_a_record_can_be_wrong_has_its_own_words() {
        let words = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            words(&FIRST.replace("\"version\":1", "\"version\":2")),
            "the cluster record '/r/cluster.json' has version 2; this program knows version 1"
        );
        assert_eq!(
            words("{\"version\":2,\"whatever\":true}"),
            "the cluster record '/r/cluster.json' has version 2; this program knows version 1"
        );
        assert!(words("").starts_with("the cluster record '/r/cluster.json' is corrupt: EOF while parsing"), "{}", words(""));
        assert!(words(&FIRST[..60]).starts_with("the cluster record '/r/cluster.json' is corrupt: EOF"));
        assert!(words(&FIRST.replace("pg-a", "PG a")).contains("'PG a' is no node name"));
        assert!(words(&FIRST.replace("\"paused\"", "\"pauzed\"")).contains("unknown field `pauzed`"));
        assert!(words(&FIRST.replace("\"epoch\":1", "\"epoch\":0")).contains("epoch 0 does not exist"));
        let astray =
            r#"{"kind":"failover","from":"pg-b","to":"pg-a","step":"intent","since":"2026-01-01T00:00:00Z","lossy":false,"reason":"x"}"#;
        assert!(
            words(&FIRST.replace("\"transition\":null", &format!("\"transition\":{astray}")))
                .contains("leads away from 'pg-b', but the primary is 'pg-a'")
        );
    }

    #[test]
    fn a_saved_record_is_read_back_and_readable_by_the_containers() {
        let folder = tempfile::tempdir().unwrap();
        let store = RecordFile::new(folder.path().join("cluster.json"));
        assert!(matches!(store.load(), Err(RecordError::Missing { .. })));
        let record = parse(FIRST).unwrap();
        // As Ansible lays the first one down; each later one keeps the mode, since the containers read it as other users.
        fs::write(folder.path().join("cluster.json"), FIRST).unwrap();
        fs::set_permissions(folder.path().join("cluster.json"), fs::Permissions::from_mode(0o644)).unwrap();
        store.save(&record).unwrap();
        assert_eq!(store.load().unwrap(), record);
        let mode = fs::metadata(folder.path().join("cluster.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temp file is left behind");
        assert!(fs::read_to_string(folder.path().join("cluster.json")).unwrap().starts_with("{\n  \"version\": 1,"));
    }

    #[test]
    fn a_record_that_cannot_be_written_leaves_the_old_one() {
        let store = RecordFile::new("/proc/understudy/cluster.json");
        assert!(matches!(store.save(&parse(FIRST).unwrap()), Err(RecordError::Unwritable { .. })));
    }

    #[test]
    fn a_pause_from_before_it_could_end_is_read_and_one_without_an_end_is_written_as_then() {
        let old = r#"{"since":"2026-01-01T00:00:00Z","by":"root","reason":"x"}"#;
        let record = parse(&FIRST.replace("\"paused\":null", &format!("\"paused\":{old}"))).unwrap();
        let pause = record.paused.unwrap();
        assert_eq!(serde_json::to_string(&pause).unwrap(), old);
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert_eq!(pause.left(at(1)), None);
        let ending = Pause { until: Some(at(100)), ..pause };
        let left = [99, 100, 101].map(|second| ending.left(at(second)).unwrap().as_secs());
        assert_eq!(left, [1, 0, 0]);
    }

    #[test]
    fn failovers_count_within_the_window_and_when_the_clock_was_set_back() {
        let mut record = parse(FIRST).unwrap();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for second in [1_000, 2_000, 9_000] {
            record.failovers.push(PastFailover {
                at: at(second),
                from: "pg-a".parse().unwrap(),
                to: "pg-b".parse().unwrap(),
                epoch: 2,
                lossy: false,
            });
        }
        assert_eq!(record.failovers_within(Duration::from_secs(1_000), at(2_500)), 2, "2000 is inside, 9000 lies ahead, 1000 is out");
        record.counted_since = Some(at(2_200));
        assert_eq!(record.failovers_within(Duration::from_secs(1_000), at(2_500)), 1, "a person resumed after the one at 2000");
        let mut record = record.counted_anew(at(2_500));
        assert_eq!(
            record.failovers_within(Duration::from_secs(1_000), at(2_600)),
            0,
            "a person resumed after all of them, whatever they are dated"
        );
        let past = PastFailover { at: at(2_550), ..record.failovers[2].clone() };
        record.failovers.push(past);
        assert_eq!(record.failovers_within(Duration::from_secs(1_000), at(2_600)), 1, "and the next one counts");
    }
}
