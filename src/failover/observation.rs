//! What one pass has seen: plain values, with no way to do anything. [`super::observe`] makes them, [`super::decide`] reads them.

use std::time::Duration;

use crate::postgres::status::{PrimaryStatus, StandbyStatus};
use crate::record::NodeName;

/// Everything that a decision rests on, the clock and the thresholds included.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Did the container runtime answer? Where it did not, nothing can be fenced.
    pub runtime: RuntimeView,
    /// What the record says.
    pub record: RecordView,
    /// The node that the record names as primary.
    pub primary: NodeView,
    /// The other node.
    pub standby: NodeView,
    /// The app's word on the primary.
    pub app: AppView,
    /// For how long things have been as they are.
    pub elapsed: Elapsed,
    /// The limits in force.
    pub thresholds: Thresholds,
}

/// The container runtime as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeView {
    /// It answers.
    Answers,
    /// It does not; why.
    Silent(String),
}

/// What the record says, as far as a decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    /// `standby_eligible` of the record.
    pub standby_eligible: bool,
    /// A transition is unfinished.
    pub in_transition: bool,
    /// A person's pause, and what is left of it.
    pub pause: PauseView,
    /// PostgreSQL's identity of the cluster, once known.
    pub system_identifier: Option<String>,
}

/// A person's pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseView {
    /// There is none.
    None,
    /// Until a person resumes.
    Open,
    /// For so long yet; zero where its time is over.
    Left(Duration),
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// The node's name.
    pub name: NodeName,
    /// Its container, as the runtime says.
    pub container: ContainerView,
    /// Its server, asked from the host over the network.
    pub server: ServerView,
    /// Its server, asked over the unix socket inside the container: the second witness.
    pub inside: InsideView,
}

/// A node's container, as the runtime says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerView {
    /// It runs, or is paused: it may take writes now or in a moment.
    Running,
    /// The runtime itself says that no process of it exists; how it ended.
    Stopped(String),
    /// There is no such container.
    Missing,
    /// The runtime did not say.
    Unknown(String),
}

/// A node's server, asked from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerView {
    /// Not in recovery.
    Primary {
        /// What it says of itself.
        status: PrimaryStatus,
        /// PostgreSQL's identity of its cluster.
        system_identifier: String,
    },
    /// In recovery.
    Standby {
        /// What it says of itself.
        status: StandbyStatus,
        /// PostgreSQL's identity of its cluster.
        system_identifier: String,
    },
    /// Starting, or recovering from a crash: alive.
    Starting(String),
    /// It answers and will not have us (too many connections, wrong password, database missing): alive.
    Refusing(String),
    /// No answer, for whatever reason. Says nothing about its state.
    Silent(String),
    /// Not asked, since its container does not run or is unknown.
    NotAsked,
}

/// A node's server, asked inside its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsideView {
    /// It answers there.
    Alive,
    /// The node still makes its data directory ready and has not become postgres yet: alive; what it says.
    Preparing(String),
    /// The probe ran (or the runtime says that the container is paused) and got no answer.
    Dead(String),
    /// The probe could not be run. Says nothing.
    Unknown(String),
    /// Not asked, since the server answers from the host or its container does not run.
    NotAsked,
}

/// The app's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppView {
    /// `/ready` said 200: a writable primary answered it.
    Ready,
    /// `/ready` said something else, or nothing; what.
    NotReady(String),
}

/// For how long things have been as they are, this pass included. Zero where they are not so now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Elapsed {
    /// Consecutive passes in which a running primary was silent from the host and dead to the witness inside.
    pub silent_passes: u32,
    /// Since the first of them.
    pub silent_for: Duration,
    /// Alive inside its container, and reached by neither the host nor the app nor the standby, without a break.
    pub isolated_for: Duration,
    /// The primary says without a break that it is starting.
    pub starting_for: Duration,
    /// The primary is writable and the app is not ready, without a break.
    pub app_unready_for: Duration,
    /// Since the app was last restarted by the tool.
    pub app_restarted_ago: Option<Duration>,
    /// The primary is writable and its standby does not stream, without a break.
    pub link_lost_for: Duration,
    /// Since the primary's container was last started by the tool.
    pub primary_started_ago: Option<Duration>,
    /// How many times in a row the primary's container was started and was found stopped again.
    pub primary_start_attempts: u32,
    /// Since the standby's container was last started by the tool.
    pub standby_started_ago: Option<Duration>,
    /// How many times in a row the standby's container was started without streaming since.
    pub standby_start_attempts: u32,
    /// Failovers by the tool itself within the flapping window.
    pub recent_failovers: u32,
    /// How far the standby was behind the primary's last known position: bytes, and the age of that position. None where the position or the standby's is unknown.
    pub behind: Option<(u64, Duration)>,
}

/// The limits in force; [`super::settings`] has the defaults and their reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Consecutive silent passes before an unresponsive primary is failed over …
    pub suspicion_passes: u32,
    /// … and the time that they must span.
    pub suspicion: Duration,
    /// How long a primary may be alive inside its container and unreachable for everybody else.
    pub isolation_grace: Duration,
    /// How long a primary may say that it is starting.
    pub startup_grace: Duration,
    /// How long the app may be not ready beside a writable primary.
    pub app_grace: Duration,
    /// Least time between two restarts of the app.
    pub app_restart_cooldown: Duration,
    /// How long commits may hang for a lost standby before the pair drops to async.
    pub standby_grace: Duration,
    /// How long a standby may run without streaming before it is restarted, and the least time between two such restarts.
    pub standby_restart_grace: Duration,
    /// Least time between two starts of one node.
    pub node_start_cooldown: Duration,
    /// Attempts to start a node's container before it counts as gone; then it is tried once a minute.
    pub start_attempts: u32,
    /// Failovers by the tool itself within the window, from which on it refuses.
    pub flapping_limit: u32,
}

impl NodeView {
    /// Its container neither runs nor can have a process that takes writes, by the runtime's own word.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self.container, ContainerView::Stopped(_) | ContainerView::Missing)
    }

    /// It was seen out of recovery.
    #[must_use]
    pub fn is_seen_as_primary(&self) -> bool {
        matches!(self.server, ServerView::Primary { .. })
    }
}

impl Observation {
    /// Somebody else than this host reaches the primary: the app is ready, or the standby's walreceiver is connected.
    #[must_use]
    pub fn others_reach_the_primary(&self) -> bool {
        let receives = matches!(&self.standby.server, ServerView::Standby { status, .. } if status.streaming);
        receives || self.app == AppView::Ready
    }

    /// The primary's word on its standby: (the setting names it, it streams, it counts as synchronous). None where the primary does not say.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        let ServerView::Primary { status, .. } = &self.primary.server else { return None };
        let row = status.standbys.iter().find(|link| link.name == self.standby.name.as_str());
        Some(Link {
            enforced: !status.synchronous_standby_names.is_empty() && waits_for_the_disk(&status.synchronous_commit),
            can_be_enforced: waits_for_the_disk(&status.synchronous_commit),
            streaming: row.is_some_and(|row| row.streaming),
            synchronous: row.is_some_and(|row| row.streaming && row.synchronous),
            behind: row.and_then(|row| row.flushed).map(|flushed| status.flushed.bytes_since(flushed)),
        })
    }
}

/// The standby as its primary sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// `synchronous_standby_names` is not empty and `synchronous_commit` is `on` or stricter: commits wait for the standby.
    pub enforced: bool,
    /// Commits would wait for the standby if `synchronous_standby_names` named it.
    pub can_be_enforced: bool,
    /// The standby streams.
    pub streaming: bool,
    /// It streams and counts as synchronous.
    pub synchronous: bool,
    /// Bytes of write-ahead log that it has not flushed yet.
    pub behind: Option<u64>,
}

/// `remote_write` waits for the standby's memory only, `local` and `off` not even for that.
fn waits_for_the_disk(synchronous_commit: &str) -> bool {
    matches!(synchronous_commit, "on" | "remote_apply")
}
