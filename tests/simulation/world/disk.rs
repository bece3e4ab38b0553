//! The host's disk, as far as `failover-check` writes to it: the record, its memory and the journal.
//!
//! The record is replaced by temp file, fsync, rename and fsync of the folder (`src/replace_file.rs`), so a loss of power leaves the old or the new one. The
//! memory and the journal are not flushed: a loss of power leaves an old memory, half of one, or none, and a journal without its end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tokio::time::Instant;
use understudy::failover::journal::Journal;
use understudy::failover::memory::{Memory, MemoryStore};
use understudy::record::{Record, RecordError, RecordStore};

use super::{Hand, name};
use crate::broken_rules::BrokenRule;

/// PostgreSQL's identity of the cluster.
pub const IDENTITY: &str = "7000";

/// How long a file that nobody flushes stays in memory only, at the most.
const WRITEBACK: Duration = Duration::from_secs(30);

/// The files.
pub struct Disk {
    pub record: Record,
    /// What a loss of power leaves of the record; None: what is there.
    unflushed: Option<(Record, Instant)>,
    /// The record cannot be read: it is missing, or somebody has broken it.
    pub unreadable: Option<Unreadable>,
    /// Nothing can be written.
    pub full: bool,
    memory: Option<Memory>,
    flushed_memory: Option<Memory>,
    broken_memory: bool,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    Missing,
    Torn,
}

impl Disk {
    pub fn new() -> Self {
        let record = Record {
            version: 1,
            epoch: 1,
            primary: name(super::A),
            standby_eligible: false,
            transition: None,
            paused: None,
            system_identifier: None,
            counted_since: None,
            failovers: Vec::new(),
        };
        Self { record, unflushed: None, unreadable: None, full: false, memory: None, flushed_memory: None, broken_memory: false }
    }

    pub fn begin_in_sync(&mut self) {
        self.record.standby_eligible = true;
        self.record.system_identifier = Some(IDENTITY.to_owned());
    }

    /// Reads the record, as every program does.
    pub fn load(&self) -> Result<Record, RecordError> {
        let path = PathBuf::from("cluster.json");
        match self.unreadable {
            None => Ok(self.record.clone()),
            Some(Unreadable::Missing) => Err(RecordError::Missing { path }),
            Some(Unreadable::Torn) => {
                let text = serde_json::to_string_pretty(&self.record).unwrap();
                Record::parse(&text[..text.len() / 2], &path)
            }
        }
    }

    /// What a loss of power would leave of the record.
    pub fn durable(&self) -> &Record {
        self.unflushed.as_ref().map_or(&self.record, |(old, _)| old)
    }

    /// The system writes back what is old enough.
    pub fn settle(&mut self) {
        self.unflushed.take_if(|(_, since)| since.elapsed() > WRITEBACK);
    }

    pub fn lose_power(&mut self, rng: &mut Rng) {
        if let Some((old, _)) = self.unflushed.take() {
            self.record = old;
        }
        let flushed = self.flushed_memory.take();
        self.broken_memory = false;
        self.memory = match rng.u32(0..4) {
            0 => None,
            1 => flushed,
            2 => self.memory.take().and_then(|memory| tear(&memory)),
            _ => self.memory.take(),
        };
    }

    /// Somebody writes nonsense into the memory.
    pub fn break_memory(&mut self) {
        self.broken_memory = true;
    }
}

/// Half of the file, read as the program reads it.
fn tear(memory: &Memory) -> Option<Memory> {
    let text = memory.to_json().unwrap();
    Memory::parse(&text[..text.len() / 2]).ok()
}

impl RecordStore for Hand {
    fn load(&self) -> Result<Record, RecordError> {
        let process = self.process.clone();
        let loaded = self.step(None, |state| {
            process.read_a_pause.set(state.is_paused() && state.disk.record.transition.is_none());
            state.disk.load()
        });
        let record = loaded.unwrap_or_else(|| Err(RecordError::Missing { path: PathBuf::from("the reader is dead") }))?;
        Ok(BrokenRule::load(self, record))
    }

    fn save(&self, record: &Record) -> Result<(), RecordError> {
        let failed = |why: &str| RecordError::Unwritable { path: PathBuf::from("cluster.json"), source: io::Error::other(why.to_owned()) };
        let (record, pretends) = BrokenRule::save(self, record);
        let step = record.transition.as_ref().map(|transition| transition.step);
        let words = format!(
            "primary {}, epoch {}, eligible {}, transition {step:?}{}",
            record.primary,
            record.epoch,
            record.standby_eligible,
            if record.paused.is_some() { ", paused" } else { "" }
        );
        let process = self.process.clone();
        let saved = self.step(Some(("record", words)), |state| {
            // Whatever is written must be readable again.
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(Record::parse(&text, Path::new("r")).unwrap(), record);
            if state.disk.full {
                state.tally.count("record could not be written");
                return Err(failed("no space left on device"));
            }
            let before = state.disk.record.clone();
            state.record_changes(&before, &record, &process);
            if before.transition.is_none() && record.transition.is_some() {
                process.began_transition.set(true);
            }
            if state.broken == Some(BrokenRule::RecordNotFlushed) {
                let now = Instant::now();
                let durable = state.disk.durable().clone();
                state.disk.unflushed = Some((durable, state.disk.unflushed.take().map_or(now, |(_, since)| since)));
            }
            state.disk.unreadable = None;
            state.disk.record = record.clone();
            Ok(())
        });
        match saved.unwrap_or_else(|| Err(failed("the writer is dead"))) {
            Err(_) if pretends => Ok(()),
            saved => saved,
        }
    }
}

impl MemoryStore for Hand {
    fn load(&self) -> Memory {
        let loaded = self.step(None, |state| {
            let is_broken = std::mem::take(&mut state.disk.broken_memory);
            let memory = state.disk.memory.clone()?;
            if is_broken { tear(&memory) } else { Some(memory) }
        });
        loaded.flatten().unwrap_or_default()
    }

    fn save(&self, memory: &Memory) -> io::Result<()> {
        let saved = self.step(None, |state| {
            state.passes += 1;
            if let Some(rule) = &memory.last_rule {
                state.tally.count_rule(rule);
                if state.last_rule.as_ref().is_none_or(|(last, _)| last != rule) {
                    state.last_rule = Some((rule.clone(), Instant::now()));
                }
            }
            if state.disk.full {
                return Err(io::Error::other("no space left on device"));
            }
            if state.passes.is_multiple_of(8) {
                state.disk.flushed_memory = state.disk.memory.take();
            }
            state.disk.memory = Some(memory.clone());
            Ok(())
        });
        saved.unwrap_or_else(|| Err(io::Error::other("the writer is dead")))
    }
}

impl Journal for Hand {
    fn append(&self, event: &str, details: Value) {
        let process = self.process.clone();
        self.step(None, |state| {
            state.tally.count_event(event);
            if process.is_crons() {
                state.a_decision_is_told(event, &details, &process);
            }
            state.say(|| format!("event: {event} {details}"));
        });
    }
}
