//! Everything that happened, appended to `events.jsonl` beside the record, one object a line.
//!
//! Each event has an `id` that no other has: the epoch in which it happened and the nanosecond, in hexadecimal. Notifications carry the same one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Where events go. The flow tests collect them in memory.
pub trait Journal {
    /// Appends one event. A journal that cannot be written is said in the log and stops nothing: the record, not the journal, is what recovery rests on.
    fn append(&self, event: &str, details: Value);
}

/// The journal as a file.
#[derive(Debug, Clone)]
pub struct JournalFile {
    path: PathBuf,
}

impl JournalFile {
    /// The journal at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The events, oldest first. Lines that are no JSON object (a write cut short by a crash) are passed over.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(&self) -> io::Result<Vec<Map<String, Value>>> {
        match fs::read(&self.path) {
            Ok(content) => Ok(String::from_utf8_lossy(&content).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// How long the file is; 0 where there is none.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn length(&self) -> io::Result<u64> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Hands each event behind `offset` to `take`, with the offset behind its line, and returns the offset behind the last whole line. A file that is shorter than `offset` was begun anew
    /// and is read from its beginning.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn follow(&self, offset: u64, mut take: impl FnMut(Map<String, Value>, u64)) -> io::Result<u64> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut offset = if file.metadata()?.len() < offset { 0 } else { offset };
        file.seek(SeekFrom::Start(offset))?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            // The rest of a line that is being written comes with the next look.
            if length == 0 || (line.last() != Some(&b'\n') && u64::try_from(length) != Ok(LONGEST_LINE)) {
                return Ok(offset);
            }
            offset += u64::try_from(length).unwrap_or_default();
            if let Ok(event) = serde_json::from_slice(&line) {
                take(event, offset);
            }
        }
    }
}

/// What is longer is no event of ours, and is not worth its memory.
const LONGEST_LINE: u64 = 64 * 1024;

/// Readable by all: the app, which runs as a user of its own, shows it. It holds no secrets.
const MODE: u32 = 0o644;

impl Journal for JournalFile {
    fn append(&self, event: &str, details: Value) {
        let now = Timestamp::now();
        let epoch = details.get("epoch").and_then(Value::as_u64).unwrap_or_default();
        let mut line = json!({ "at": now.to_string(), "event": event, "id": format!("{epoch}-{:x}", now.as_nanosecond()) });
        if let (Value::Object(line), Value::Object(details)) = (&mut line, details) {
            line.extend(details);
        }
        // One write of one whole line: with O_APPEND it lands behind whatever another program wrote.
        let written = OpenOptions::new().create(true).append(true).open(&self.path).and_then(|mut file| {
            file.write_all(format!("{line}\n").as_bytes())?;
            // Made under whatever umask a person's shell has.
            if file.metadata()?.mode() & 0o777 == MODE { Ok(()) } else { file.set_permissions(Permissions::from_mode(MODE)) }
        });
        if let Err(error) = written {
            log::error!("cannot append to the journal '{}': {error}; the event was: {line}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn events_are_read_back_in_order_and_a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let journal = JournalFile::new(&path);
        assert!(journal.read().unwrap().is_empty());
        journal.append("paused", json!({ "reason": "upgrade" }));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at\":\"20\n").unwrap();
        journal.append("resumed", json!({}));
        let events = journal.read().unwrap();
        assert_eq!(events.iter().map(|event| event["event"].as_str().unwrap()).collect::<Vec<_>>(), ["paused", "resumed"]);
        assert_eq!(events[0]["reason"], "upgrade");
        assert_eq!(events[0].keys().next().unwrap(), "at", "the time comes first on the line");
    }

    #[test]
    fn each_event_has_an_id_of_its_own_and_everybody_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path).unwrap();
        let journal = JournalFile::new(&path);
        (0..100).for_each(|_| journal.append("decision", json!({ "epoch": 7 })));
        let ids: BTreeSet<String> = journal.read().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.starts_with("7-")), "{ids:?}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_follower_gets_each_whole_line_once_and_begins_anew_with_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let journal = JournalFile::new(&path);
        let follow = |offset: u64| {
            let mut names = Vec::new();
            let end = journal.follow(offset, |event, _| names.push(event["event"].as_str().unwrap().to_owned())).unwrap();
            (end, names)
        };
        assert_eq!(follow(0), (0, vec![]));
        journal.append("paused", json!({}));
        let (first, names) = follow(0);
        assert_eq!((first, names), (journal.length().unwrap(), vec!["paused".to_owned()]));
        journal.append("resumed", json!({}));
        let whole = journal.length().unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at\":\"20").unwrap();
        assert_eq!(follow(first), (whole, vec!["resumed".to_owned()]), "a line that is not whole yet is left for later");
        fs::remove_file(&path).unwrap();
        journal.append("app_ready", json!({}));
        assert_eq!(follow(whole).1, ["app_ready"]);
    }
}
