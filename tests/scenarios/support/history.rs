//! What `failover-check history` tells.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::installation::Installation;

/// Follows the file of the history itself, which is quicker than to ask the program.
pub struct Watch {
    file: PathBuf,
    read: u64,
}

impl Watch {
    /// Sees what is written from now on.
    pub fn begin(installation: &Installation) -> Self {
        let file = installation.state().join("events.jsonl");
        let read = fs::metadata(&file).map_or(0, |found| found.len());
        Self { file, read }
    }

    /// Whether an event of this name was written since.
    pub fn has_seen(&self, name: &str) -> bool {
        let mut text = String::new();
        let mut file = File::open(&self.file).unwrap();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text.contains(&format!("\"event\":\"{name}\""))
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Event(Map<String, Value>);

/// All events, oldest first.
pub fn read(installation: &Installation) -> Vec<Event> {
    let output = installation.failover_check(&["history", "--limit", "100000", "--json"]);
    let history: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("'history --json' printed no JSON ({error}): {output:?}"));
    let Some(events) = history["events"].as_array() else {
        panic!("'history --json' has no list of events: {history}");
    };
    events.iter().map(|event| Event(event.as_object().expect("an event is an object").clone())).collect()
}

impl Event {
    pub fn at(&self) -> Timestamp {
        self.text("at").parse().expect("an event has a time")
    }

    pub fn name(&self) -> &str {
        self.text("event")
    }

    /// A field, empty where it is missing.
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// The reason's sentence, without the rule.
    pub fn reason(&self) -> &str {
        let reason = self.text("reason");
        match reason.split_once(": ") {
            Some((rule, sentence)) if is_rule(rule) => sentence,
            _ => reason,
        }
    }

    /// The rule that decided, from its own field or from the front of the reason.
    pub fn rule(&self) -> &str {
        let front = self.text("reason").split(':').next().unwrap_or_default();
        match self.text("rule") {
            "" if is_rule(front) => front,
            rule => rule,
        }
    }
}

fn is_rule(word: &str) -> bool {
    word.strip_prefix('R').is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", Value::Object(self.0.clone()))
    }
}
