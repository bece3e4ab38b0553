//! What a pass decides: a rule, an action and a reason. The words that a person reads are the reasons' `Display`.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::record::NodeName;

/// A rule of [`super::decide`], by its number in the log. Spaced by ten so that a new one fits between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// `R10` …: stable, quoted in logs, history and documents.
    pub id: &'static str,
    /// What the rule is, in one sentence.
    pub sentence: &'static str,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// All is well.
    Nothing,
    /// Not well, and nothing to do but look again.
    Wait,
    /// Not well, nothing that this tool may mend, and a person should look; writes are not at stake by the tool's knowledge.
    Alert,
    /// Writes are or may be lost, and a person has to decide.
    Refuse,
    /// Go on with the transition that the record holds.
    Resume,
    /// Stop a node that takes writes and is not the recorded primary.
    Fence {
        /// The node to stop.
        node: NodeName,
    },
    /// Move the role of primary.
    Failover {
        /// The lost primary.
        from: NodeName,
        /// The standby to promote.
        to: NodeName,
    },
    /// Start the recorded primary's container.
    StartPrimary {
        /// The recorded primary.
        node: NodeName,
    },
    /// Start the standby's container.
    StartStandby {
        /// The standby.
        node: NodeName,
    },
    /// Stop and start the standby's container, so that its node looks at what keeps it from streaming.
    RestartStandby {
        /// The standby.
        node: NodeName,
    },
    /// Record that the standby may lack acknowledged commits.
    MarkIneligible,
    /// Let the primary acknowledge commits without its standby, after recording that the standby is ineligible.
    DropToAsync,
    /// Make commits wait for the standby again; then record that it is eligible.
    RestoreSync,
    /// Restart the app.
    RestartApp,
}

impl Action {
    /// Would carrying it out change anything?
    #[must_use]
    pub fn is_deed(&self) -> bool {
        match self {
            Self::Nothing | Self::Wait | Self::Alert | Self::Refuse => false,
            Self::Resume
            | Self::Fence { .. }
            | Self::Failover { .. }
            | Self::StartPrimary { .. }
            | Self::StartStandby { .. }
            | Self::RestartStandby { .. }
            | Self::MarkIneligible
            | Self::DropToAsync
            | Self::RestoreSync
            | Self::RestartApp => true,
        }
    }

    /// The action's name in the log: that of its JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Wait => "wait",
            Self::Alert => "alert",
            Self::Refuse => "refuse",
            Self::Resume => "resume",
            Self::Fence { .. } => "fence",
            Self::Failover { .. } => "failover",
            Self::StartPrimary { .. } => "start_primary",
            Self::StartStandby { .. } => "start_standby",
            Self::RestartStandby { .. } => "restart_standby",
            Self::MarkIneligible => "mark_ineligible",
            Self::DropToAsync => "drop_to_async",
            Self::RestoreSync => "restore_sync",
            Self::RestartApp => "restart_app",
        }
    }
}

/// A rule that fired, what it asks for and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The rule.
    pub rule: Rule,
    /// What it asks for.
    pub action: Action,
    /// Why, with the values it rests on.
    pub reason: Reason,
}

/// Why a standby may not be promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpromotable {
    /// The record does not vouch for it: it may lack acknowledged commits.
    Ineligible {
        /// Bytes behind the primary's last known position, and the age of that position.
        behind: Option<(u64, Duration)>,
    },
    /// Its container does not run; how it ended.
    NotRunning(String),
    /// It gave no usable answer; what was seen.
    NoAnswer(String),
    /// It is not in recovery.
    NotInRecovery,
    /// Somebody paused replay: a promotion would wait for ever.
    ReplayPaused,
    /// It belongs to another cluster.
    Stranger {
        /// The identity in the record.
        recorded: String,
        /// The identity it has.
        found: String,
    },
}

impl fmt::Display for Unpromotable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ineligible { behind: Some((bytes, age)) } => write!(
                f,
                "the standby is not eligible: commits were acknowledged without it; it was {bytes} bytes behind the primary's position of {} ago, which would be lost",
                seconds(*age)
            ),
            Self::Ineligible { behind: None } => {
                f.write_str("the standby is not eligible: commits were acknowledged without it; how much would be lost is unknown")
            }
            Self::NotRunning(why) => write!(f, "the standby's container does not run ({why})"),
            Self::NoAnswer(why) => write!(f, "the standby gives no usable answer ({why})"),
            Self::NotInRecovery => f.write_str("the standby is not in recovery"),
            Self::ReplayPaused => f.write_str("replay is paused on the standby; run pg_wal_replay_resume() there"),
            Self::Stranger { recorded, found } => {
                write!(f, "the standby belongs to another cluster (system identifier {found}, recorded {recorded})")
            }
        }
    }
}

/// Why, with the values it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The runtime is silent.
    RuntimeSilent(String),
    /// The record holds an unfinished transition.
    Unfinished,
    /// Both nodes take writes, or may.
    TwoPrimaries {
        /// What is known of the recorded primary.
        recorded: String,
    },
    /// The primary is gone, and the standby was promoted by somebody else.
    PromotedOutside,
    /// A person has paused the tool.
    Paused {
        /// What is seen of the primary.
        primary: String,
        /// When the pause ends by itself; none: only by `resume`.
        left: Option<Duration>,
    },
    /// The runtime did not say whether the primary's container runs.
    ContainerUnknown(String),
    /// The primary's container is not running.
    PrimaryDown(String),
    /// The primary's container is down and the standby cannot take over, but the primary can be started where it is.
    StartInPlace {
        /// How the primary ended.
        primary: String,
        /// Why the standby is no help.
        standby: Unpromotable,
    },
    /// Neither container runs: a reboot, or a restart of the runtime.
    BothDown,
    /// The primary's container did not stay up; the standby is started to see whether it can take over.
    PrimaryDoesNotStart(u32),
    /// A start was tried a moment ago.
    StartedJustNow(Duration),
    /// The primary is lost and the standby cannot take over.
    Lost {
        /// What happened to the primary.
        primary: String,
        /// Why the standby is no help.
        standby: Unpromotable,
    },
    /// Too many failovers.
    Flapping {
        /// How many within the window.
        failovers: u32,
        /// What happened to the primary this time.
        primary: String,
    },
    /// The primary says it is starting.
    Starting(Duration),
    /// The primary answers and refuses us.
    Refusing(String),
    /// The recorded primary is in recovery.
    PrimaryInRecovery,
    /// The primary takes no writes by its own configuration.
    PrimaryReadOnly,
    /// The primary's server belongs to another cluster, of this system identifier.
    PrimaryStranger(String),
    /// The primary serves others and not the host.
    OnlyHostCannotReach(String),
    /// The primary is alive inside its container, and nobody reaches it.
    Isolated(Duration),
    /// The second witness could not be heard.
    WitnessUnknown(String),
    /// The app says that a writable primary answers it.
    AppStillReady,
    /// The primary is silent, not yet long enough.
    Suspicion {
        /// Consecutive silent passes.
        passes: u32,
        /// The time they span.
        time: Duration,
        /// What the host's probe saw.
        seen: String,
    },
    /// The record vouches for a standby that commits do not wait for.
    EligibleWithoutSync,
    /// The operator's own `synchronous_commit` keeps commits from waiting for the standby's disk.
    WeakCommits(String),
    /// Commits wait for a standby that does not stream.
    StandbyLost(Duration),
    /// The standby has not streamed for so long that a person should look.
    Unprotected {
        /// For how long.
        time: Duration,
        /// What is seen of the standby.
        seen: String,
    },
    /// The standby was started so often and did not stay up.
    StandbyDoesNotStart {
        /// How often.
        attempts: u32,
        /// How it ended.
        how: String,
    },
    /// The standby's container does not run.
    StandbyDown(String),
    /// The standby runs in recovery and does not stream.
    StandbyStuck(Duration),
    /// The standby's container does not exist.
    StandbyMissing,
    /// The standby is on its way.
    StandbyCatchingUp(String),
    /// The standby could not take over although commits wait for it.
    StandbyUnfit(Unpromotable),
    /// The standby has caught up.
    StandbyCaughtUp,
    /// The app is not ready beside a writable primary.
    AppUnready {
        /// For how long.
        time: Duration,
        /// What it says.
        seen: String,
    },
    /// All is well.
    Healthy,
    /// No rule knows this.
    NoRuleMatches,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuntimeSilent(why) => write!(f, "the container runtime does not answer, so nothing can be fenced: {why}"),
            Self::Unfinished => f.write_str("the record holds an unfinished transition"),
            Self::TwoPrimaries { recorded } => write!(f, "a node that the record does not name takes writes, and the recorded primary may too ({recorded})"),
            Self::PromotedOutside => f.write_str(
                "the recorded primary takes no writes and the other node, which the record does not name, does: somebody promoted it, or the record is old; \
                 to adopt it stop the recorded primary and run: failover-check failover --accept-data-loss",
            ),
            Self::Paused { primary, left: None } => write!(f, "paused by a person; the primary: {primary}; to go on run: failover-check resume"),
            Self::Paused { primary, left: Some(left) } => {
                write!(f, "paused by a person for another {}; the primary: {primary}; to go on now run: failover-check resume", seconds(*left))
            }
            Self::ContainerUnknown(why) => write!(f, "the container runtime does not say whether the primary runs: {why}"),
            Self::PrimaryDown(why) => write!(f, "the container runtime says that the primary does not run ({why})"),
            Self::StartInPlace { primary, standby } => write!(f, "the primary does not run ({primary}) and {standby}; so it is started where it is"),
            Self::BothDown => f.write_str("neither container runs, as after a reboot: the recorded primary comes back first"),
            Self::PrimaryDoesNotStart(attempts) => write!(f, "the primary did not stay up in {attempts} attempts; the standby is started to see whether it can take over"),
            Self::StartedJustNow(ago) => write!(f, "a container was started {} ago; looking again first", seconds(*ago)),
            Self::Lost { primary, standby: standby @ Unpromotable::Ineligible { .. } } => {
                write!(f, "the primary is lost ({primary}) and {standby}; to accept that run: failover-check failover --accept-data-loss")
            }
            Self::Lost { primary, standby } => {
                write!(f, "the primary is lost ({primary}) and {standby}; mend either: docker ps -a and docker logs, or playbooks/run_containers.yml where a container is gone")
            }
            Self::Flapping { failovers, primary } => {
                write!(f, "{failovers} failovers within the window and the primary is lost again ({primary}); find out why, then run: failover-check resume")
            }
            Self::Starting(time) => write!(f, "the primary says it is starting, for {} now: alive", seconds(*time)),
            Self::Refusing(why) => write!(f, "the primary answers and refuses the checker, so it is alive: {why}"),
            Self::PrimaryInRecovery => f.write_str("the recorded primary is in recovery; somebody changed its data directory or the record"),
            Self::PrimaryReadOnly => f.write_str("the primary is up and read-only by its own configuration (default_transaction_read_only)"),
            Self::PrimaryStranger(found) => write!(f, "the recorded primary serves another cluster's data (system identifier {found}); somebody replaced its data directory"),
            Self::OnlyHostCannotReach(seen) => write!(f, "the primary serves others, and only this host's probe does not reach it ({seen})"),
            Self::Isolated(time) => write!(f, "the primary is alive inside its container and reached by nobody, for {} now", seconds(*time)),
            Self::WitnessUnknown(why) => write!(f, "the primary is silent, and the probe inside its container could not be run: {why}"),
            Self::AppStillReady => f.write_str("the primary is silent to the host, but the app says that a writable primary answers it"),
            Self::Suspicion { passes, time, seen } => write!(f, "the primary is silent on {passes} pass{} over {} ({seen}), and inside its container too", if *passes == 1 { "" } else { "es" }, seconds(*time)),
            Self::EligibleWithoutSync => f.write_str("the record calls the standby eligible, but commits do not wait for it"),
            Self::WeakCommits(setting) => {
                write!(f, "synchronous_commit = {setting} on the primary lets commits go before the standby has them on its disk; remove that setting to have a standby that can take over")
            }
            Self::Unprotected { time, seen } => write!(f, "the pair has been without a standby that streams for {} ({seen}); see the log of its container", seconds(*time)),
            Self::StandbyDoesNotStart { attempts, how } => {
                write!(f, "the standby did not stay up in {attempts} attempts ({how}); see the log of its container; it is tried again each minute")
            }
            Self::StandbyLost(time) => write!(f, "commits wait for a standby that has not streamed for {}", seconds(*time)),
            Self::StandbyDown(why) => write!(f, "the standby's container does not run ({why})"),
            Self::StandbyStuck(time) => write!(f, "the standby runs and has not streamed for {}: its node looks at its start whether it needs a new copy", seconds(*time)),
            Self::StandbyMissing => f.write_str("the standby's container does not exist; to make it again run: playbooks/run_containers.yml"),
            Self::StandbyCatchingUp(seen) => write!(f, "the standby is on its way ({seen})"),
            Self::StandbyUnfit(why) => write!(f, "the primary is writable, but a failover would not be possible now: {why}"),
            Self::StandbyCaughtUp => f.write_str("the standby streams and has caught up"),
            Self::AppUnready { time, seen } => write!(f, "the primary is writable and the app is not ready for {} ({seen}): the app's own fault", seconds(*time)),
            Self::Healthy => f.write_str("the primary is writable, the standby streams and commits wait for it, the app is ready"),
            Self::NoRuleMatches => f.write_str("no rule knows what was seen; please report it with the output of: failover-check explain --json"),
        }
    }
}

/// A duration for a person, to a tenth of a second.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
