//! Everything that happened, appended to `events.jsonl` beside the record, one object a line.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
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
}

impl Journal for JournalFile {
    fn append(&self, event: &str, details: Value) {
        let mut line = json!({ "at": Timestamp::now().to_string(), "event": event });
        if let (Value::Object(line), Value::Object(details)) = (&mut line, details) {
            line.extend(details);
        }
        // One write of one whole line: with O_APPEND it lands behind whatever another program wrote.
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            log::error!("cannot append to the journal '{}': {error}; the event was: {line}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
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
}
