//! The clients, who remember what was acknowledged, and the app.
//!
//! They are as bad as clients can be: they write to every node that takes writes and that they reach, whatever the record says, and keep their connections
//! until the server's processes are gone.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use understudy::failover::observation::AppView;
use understudy::failover::observe::AppProbe;

use super::{Hand, State};
use crate::broken_rules::BrokenRule;
use crate::default_settings::default_settings;

/// Commits under way at once. In sync mode each client waits for its own.
const CLIENTS: usize = 3;

/// Of a hundred ticks so many bring a commit, where nobody says otherwise.
pub const BUSY: u32 = 30;

/// A set of commits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ids(Vec<u64>);

impl Ids {
    pub fn insert(&mut self, id: u32) {
        // 0 is no commit.
        if id > 0 {
            let at = id as usize / 64;
            if self.0.len() <= at {
                self.0.resize(at + 1, 0);
            }
            self.0[at] |= 1 << (id % 64);
        }
    }

    fn contains(&self, id: u32) -> bool {
        self.word(id as usize / 64) & 1 << (id % 64) != 0
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// How many of these are in none of those.
    pub fn missing_in(&self, sets: &[&Self]) -> u32 {
        (0..self.0.len()).map(|at| (self.word(at) & !sets.iter().fold(0, |all, set| all | set.word(at))).count_ones()).sum()
    }

    /// Those that are in none of those.
    pub fn without(&self, sets: &[&Self]) -> Self {
        Self((0..self.0.len()).map(|at| self.word(at) & !sets.iter().fold(0, |all, set| all | set.word(at))).collect())
    }

    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (at, word) in other.0.iter().enumerate() {
            self.0[at] |= word;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// What the clients were told.
#[derive(Debug)]
pub struct Ledger {
    next: u32,
    /// When each commit was acknowledged.
    times: Vec<(u32, Instant)>,
    /// Acknowledged by a node that may.
    pub acknowledged: Ids,
    /// Acknowledged by a node that a person has promoted behind the tool's back.
    pub outside: Ids,
    /// Lost by a person's order, who was told how much it would be.
    pub given_up: Ids,
    /// Were on no disk but one that was destroyed.
    pub destroyed: Ids,
    /// Of a hundred ticks so many bring a commit.
    pub busy: u32,
    pub app_down: bool,
    /// The app comes up in so many ticks.
    pub app_starts_in: Option<u32>,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            next: 1,
            times: Vec::new(),
            acknowledged: Ids::default(),
            outside: Ids::default(),
            given_up: Ids::default(),
            destroyed: Ids::default(),
            busy: BUSY,
            app_down: false,
            app_starts_in: None,
        }
    }
}

impl Ledger {
    fn acknowledge(&mut self, id: u32) {
        self.acknowledged.insert(id);
        self.times.push((id, Instant::now()));
    }

    /// How many of these were acknowledged within the last `time`.
    pub fn acknowledged_since(&self, ids: &Ids, time: Duration) -> u32 {
        let recent = self.times.iter().rev().take_while(|(_, at)| at.elapsed() <= time);
        recent.filter(|(id, _)| ids.contains(*id)).count() as u32
    }
}

impl State {
    /// The clients of one node.
    pub fn serve_clients(&mut self, index: usize) {
        let wants = self.rng.u32(0..100) < self.ledger.busy;
        let node = &mut self.nodes[index];
        if !node.is_writable() {
            return;
        }
        let (Some(server), Some(data)) = (&mut node.server, &mut node.data) else { return };
        let standby = if server.in_force { server.row.map_or(0, |(flushed, _)| flushed) } else { usize::MAX };
        let (flushed, by_hand) = (data.flushed, server.by_hand);
        let done = server.waiting.iter().take_while(|(_, end)| *end <= flushed && *end <= standby).count();
        for (id, _) in server.waiting.drain(..done) {
            if by_hand { self.ledger.outside.insert(id) } else { self.ledger.acknowledge(id) }
        }
        if wants && !self.network.detached[index] && server.waiting.len() < CLIENTS {
            if node.disk_full {
                node.ends("exited with code 1: no space left on device");
                self.say(|| format!("node {index} cannot write its log and ends itself"));
                return;
            }
            data.push(self.ledger.next);
            server.waiting.push((self.ledger.next, data.end()));
            self.ledger.next += 1;
        }
    }

    fn app_is_ready(&self) -> bool {
        let Ok(record) = self.disk.load() else { return false };
        let index = self.index(&record.primary);
        let reached = !self.network.app_cut[index] && !self.network.detached[index];
        !self.ledger.app_down
            && self.ledger.app_starts_in.is_none()
            && reached
            && self.nodes[index].is_writable()
            && !self.nodes[index].refuses
    }
}

impl AppProbe for Hand {
    async fn ask(&self) -> AppView {
        let ready = self.call(None, |state| state.app_is_ready()).await;
        if !ready {
            // Either it says so or it says nothing; the second takes until the deadline.
            let silent = self.call(None, |state| state.rng.bool()).await;
            sleep(if silent { default_settings().probe_deadline } else { Duration::from_millis(1) }).await;
        }
        BrokenRule::app(self, ready);
        if ready {
            self.call(None, |state| {
                let index = state.index(&state.disk.record.primary);
                state.nodes[index].evidence.serves();
            })
            .await;
            AppView::Ready
        } else {
            AppView::NotReady("/ready says 503".to_owned())
        }
    }
}
