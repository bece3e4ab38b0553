//! What one pass leaves for the next: since when things have been as they are.
//!
//! Kept in `memory.json` beside the record and bound to the boot, so that a file from before a reboot or a jump of the wall clock counts for nothing.
//! It is no truth: losing it delays a decision, and never makes one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Moment;
use super::observation::{AppView, ContainerView, Elapsed, InsideView, Observation, ServerView};
use crate::postgres::lsn::Lsn;
use crate::record::NodeName;

/// After this long without a pass nothing is known to have gone on "without a break".
const LONGEST_GAP: Duration = Duration::from_secs(15);

/// What one pass leaves for the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    boot: String,
    epoch: u64,
    /// When the last pass looked; times are milliseconds since boot throughout.
    looked_at: u64,
    silent_since: Option<u64>,
    silent_passes: u32,
    isolated_since: Option<u64>,
    starting_since: Option<u64>,
    app_unready_since: Option<u64>,
    link_lost_since: Option<u64>,
    app_restarted_at: Option<u64>,
    starts: BTreeMap<NodeName, Start>,
    primary_position: Option<Position>,
    /// The rule of the last pass: the log tells changes only.
    pub last_rule: Option<String>,
    /// A change of primary whose app has not been seen ready yet.
    pub awaiting_app: bool,
    /// A change of primary whose old primary has not been seen streaming yet.
    pub awaiting_standby: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Start {
    at: u64,
    attempts: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Position {
    lsn: Lsn,
    at: u64,
}

/// Where a pass leaves its memory for the next.
pub trait MemoryStore {
    /// The last pass's memory; whatever is wrong with it, an empty one is right.
    fn load(&self) -> Memory;

    /// Keeps this one, without waiting for the disk: it is written every second and is worth nothing after a crash of the machine.
    ///
    /// # Errors
    /// Why it could not be kept.
    fn save(&self, memory: &Memory) -> io::Result<()>;
}

/// The memory as a file.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    path: PathBuf,
}

impl MemoryFile {
    /// The memory at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl MemoryStore for MemoryFile {
    fn load(&self) -> Memory {
        let Ok(text) = fs::read_to_string(&self.path) else { return Memory::default() };
        Memory::parse(&text).unwrap_or_else(|error| {
            log::warn!("forgetting '{}': {error}", self.path.display());
            Memory::default()
        })
    }

    /// As a whole, so that no reader meets half of it.
    fn save(&self, memory: &Memory) -> io::Result<()> {
        let temporary = self.path.with_extension("json.new");
        let written = memory.to_json().and_then(|text| fs::write(&temporary, text)).and_then(|()| fs::rename(&temporary, &self.path));
        written.map_err(|error| io::Error::new(error.kind(), format!("'{}': {error}", self.path.display())))
    }
}

impl Memory {
    /// Reads a memory as [`Memory::to_json`] writes it.
    ///
    /// # Errors
    /// What the parser says.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The memory as JSON.
    ///
    /// # Errors
    /// Never for what a memory holds; the serialiser cannot know.
    pub fn to_json(&self) -> io::Result<String> {
        serde_json::to_string(self).map_err(io::Error::other)
    }

    /// The memory after a pass that began at `began`, ended at `ended` and saw `seen`, while the record was of `epoch`. What a pass sees for the first time
    /// counts from its beginning.
    #[must_use]
    pub fn after(mut self, seen: &Observation, epoch: u64, began: &Moment, ended: &Moment) -> Self {
        let at = millis(began.since_boot);
        if self.boot != began.boot {
            self = Self {
                boot: began.boot.clone(),
                awaiting_app: self.awaiting_app,
                awaiting_standby: self.awaiting_standby,
                ..Self::default()
            };
        }
        let broken = self.epoch != epoch || at.saturating_sub(self.looked_at) > millis(LONGEST_GAP);
        if broken {
            self.silent_since = None;
            self.isolated_since = None;
            self.starting_since = None;
            self.app_unready_since = None;
            self.link_lost_since = None;
        }
        if self.epoch != epoch {
            self.primary_position = None;
        }
        self.epoch = epoch;
        self.looked_at = millis(ended.since_boot);

        let runs = seen.primary.container == ContainerView::Running;
        let silent = runs && matches!(seen.primary.server, ServerView::Silent(_));
        let alive_inside = seen.primary.inside == InsideView::Alive;
        let preparing = matches!(seen.primary.inside, InsideView::Preparing(_));
        let dead_inside = matches!(seen.primary.inside, InsideView::Dead(_));
        let writable = seen.primary.is_seen_as_primary();
        go_on(&mut self.silent_since, silent && dead_inside, at);
        self.silent_passes = if self.silent_since.is_none() {
            0
        } else if broken {
            1
        } else {
            self.silent_passes.saturating_add(1)
        };
        // While it serves others nothing counts: the grace is for the time in which nobody is served.
        go_on(&mut self.isolated_since, silent && alive_inside && !seen.others_reach_the_primary(), at);
        go_on(&mut self.starting_since, runs && (preparing || matches!(seen.primary.server, ServerView::Starting(_))), at);
        go_on(&mut self.app_unready_since, writable && seen.app != AppView::Ready, at);
        go_on(&mut self.link_lost_since, seen.link().is_some_and(|link| !link.streaming), at);
        if let ServerView::Primary { status, .. } = &seen.primary.server {
            self.primary_position = Some(Position { lsn: status.flushed, at });
            if let Some(start) = self.starts.get_mut(&seen.primary.name) {
                start.attempts = 0;
            }
        }
        if seen.link().is_some_and(|link| link.streaming)
            && let Some(start) = self.starts.get_mut(&seen.standby.name)
        {
            start.attempts = 0;
        }
        self
    }

    /// How long before `now` the pass that wrote this looked; none where it was before the last boot.
    #[must_use]
    pub fn age(&self, now: &Moment) -> Option<Duration> {
        (self.boot == now.boot && self.looked_at > 0).then(|| now.since_boot.saturating_sub(Duration::from_millis(self.looked_at)))
    }

    /// Notes that a node's container was started.
    pub fn started(&mut self, node: &NodeName, now: &Moment) {
        let attempts = self.starts.get(node).map_or(0, |start| start.attempts);
        self.starts.insert(node.clone(), Start { at: millis(now.since_boot), attempts: attempts.saturating_add(1) });
    }

    /// Notes that the app was restarted.
    pub fn restarted_app(&mut self, now: &Moment) {
        self.app_restarted_at = Some(millis(now.since_boot));
    }

    /// For how long things have been as they are, for the pass that [`Memory::after`] took in.
    #[must_use]
    pub fn elapsed(&self, seen: &Observation, recent_failovers: u32) -> Elapsed {
        let since = |mark: Option<u64>| mark.map(|mark| Duration::from_millis(self.looked_at.saturating_sub(mark)));
        let start = |node: &NodeName| self.starts.get(node);
        let received = match &seen.standby.server {
            ServerView::Standby { status, .. } => status.received,
            ServerView::Primary { .. }
            | ServerView::Starting(_)
            | ServerView::Refusing(_)
            | ServerView::Silent(_)
            | ServerView::NotAsked => None,
        };
        Elapsed {
            silent_passes: self.silent_passes,
            silent_for: since(self.silent_since).unwrap_or_default(),
            isolated_for: since(self.isolated_since).unwrap_or_default(),
            starting_for: since(self.starting_since).unwrap_or_default(),
            app_unready_for: since(self.app_unready_since).unwrap_or_default(),
            app_restarted_ago: since(self.app_restarted_at),
            link_lost_for: since(self.link_lost_since).unwrap_or_default(),
            primary_started_ago: since(start(&seen.primary.name).map(|start| start.at)),
            primary_start_attempts: start(&seen.primary.name).map_or(0, |start| start.attempts),
            standby_start_attempts: start(&seen.standby.name).map_or(0, |start| start.attempts),
            standby_started_ago: since(start(&seen.standby.name).map(|start| start.at)),
            recent_failovers,
            behind: self.primary_position.as_ref().zip(received).map(|(position, received)| {
                (position.lsn.bytes_since(received), Duration::from_millis(self.looked_at.saturating_sub(position.at)))
            }),
        }
    }

    /// Where the primary's log ended when it was last seen, and how long before the latest look that was.
    #[must_use]
    pub fn primary_position(&self) -> Option<(Lsn, Duration)> {
        let position = self.primary_position.as_ref()?;
        Some((position.lsn, Duration::from_millis(self.looked_at.saturating_sub(position.at))))
    }

    /// Is something going on that calls for passes in quick succession?
    #[must_use]
    pub fn is_suspicious(&self) -> bool {
        self.silent_since.is_some()
    }
}

/// Keeps the mark of when a state began while it holds, and forgets it when it does not.
fn go_on(mark: &mut Option<u64>, holds: bool, at: u64) {
    *mark = if holds { Some(mark.unwrap_or(at)) } else { None };
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
