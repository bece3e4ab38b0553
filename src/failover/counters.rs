//! What is counted over passes and processes: cron begins a new one each minute, and a counter that began anew with it would count nothing.
//!
//! Kept in `counters.json` beside the record. What happened is counted from the journal, so that what a person's command did counts too, and so that the file
//! may be lost: the events are then counted again from the journal's beginning. Only the passes begin at zero then, which Prometheus knows how to read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::journal::JournalFile;
use crate::replace_file;

/// How many kinds of events are told apart; there are about thirty, and a journal that somebody else writes into must not grow the metrics without end.
const MOST_KINDS: usize = 64;

/// The counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Up to where the journal has been counted.
    journal_offset: u64,
    /// Events of the journal by their names.
    pub events: BTreeMap<String, u64>,
    /// Passes by what came of them.
    pub passes: BTreeMap<String, u64>,
    /// Passes in a row in which a target's probe failed.
    pub failures: BTreeMap<String, u64>,
    /// Notifications that could not be delivered and have been said in the log.
    pub failures_logged: u64,
}

impl Counters {
    /// Reads the file; whatever is wrong with it, counting begins anew.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        replace_file::write_unflushed(path, &serde_json::to_vec(self).map_err(std::io::Error::other)?)
    }

    /// Counts what is new in the journal.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn follow(&mut self, journal: &JournalFile) -> std::io::Result<()> {
        let events = &mut self.events;
        self.journal_offset = journal.follow(self.journal_offset, |event, _| {
            let Some(name) = event.get("event").and_then(Value::as_str) else { return };
            if let Some(count) = events.get_mut(name) {
                *count += 1;
            } else if events.len() < MOST_KINDS && name.len() <= 64 {
                events.insert(name.to_owned(), 1);
            }
        })?;
        Ok(())
    }

    /// How often an event happened.
    #[must_use]
    pub fn event(&self, name: &str) -> u64 {
        self.events.get(name).copied().unwrap_or_default()
    }

    /// Adds passes.
    pub fn add_passes(&mut self, outcome: &str, count: u64) {
        *self.passes.entry(outcome.to_owned()).or_default() += count;
    }

    /// Notes whether a target's probe succeeded.
    pub fn probed(&mut self, target: &str, success: bool) {
        let failures = self.failures.entry(target.to_owned()).or_default();
        *failures = if success { 0 } else { *failures + 1 };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::journal::Journal;
    use super::*;

    #[test]
    fn what_happened_is_counted_once_over_processes_and_again_where_the_file_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, journal) = (folder.path().join("counters.json"), JournalFile::new(folder.path().join("events.jsonl")));
        let pass = || {
            let mut counters = Counters::load(&path);
            counters.follow(&journal).unwrap();
            counters.add_passes("idle", 1);
            counters.save(&path).unwrap();
            counters
        };
        journal.append("failover_finished", json!({ "epoch": 2 }));
        assert_eq!((pass().event("failover_finished"), pass().event("failover_finished")), (1, 1));
        journal.append("failover_finished", json!({ "epoch": 3 }));
        assert_eq!((pass().event("failover_finished"), pass().passes["idle"]), (2, 4));
        fs::write(&path, "{").unwrap();
        assert_eq!((pass().event("failover_finished"), pass().passes["idle"]), (2, 2));
    }

    #[test]
    fn failures_in_a_row_end_with_the_first_success() {
        let mut counters = Counters::default();
        [false, false, true, false].into_iter().for_each(|success| counters.probed("pg-a", success));
        assert_eq!(counters.failures["pg-a"], 1);
    }

    #[test]
    fn a_journal_of_others_does_not_grow_the_counters_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let journal = JournalFile::new(folder.path().join("events.jsonl"));
        (0..100).for_each(|number| journal.append(&format!("event{number}"), json!({})));
        let mut counters = Counters::default();
        counters.follow(&journal).unwrap();
        assert_eq!(counters.events.len(), MOST_KINDS);
    }
}
