//! From what was seen to what is to be done. Pure: no clock, no file, no socket, no container; the time and every threshold are inputs.
//!
//! The rules are ordered; the first that matches decides, and the last refuses whatever no other knows. Each has a stable number that logs and
//! documents quote. The whole table over the small space of inputs is a reviewed file: `tests/integration/snapshots/decision_table.snap`.
//!
//! A probe that failed can lead to waiting or refusing. It leads to a failover in three cases only, and in each the old primary is fenced and
//! verified stopped by [`super::act`] before anything is promoted: silent for the whole threshold with the witness inside dead too (R230),
//! alive and reached by nobody for the isolation grace (R210), "starting" beyond the startup grace (R170).

#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use super::decision::{Action, Decision, Reason, Rule, Unpromotable};
use super::observation::{AppView, ContainerView, InsideView, NodeView, Observation, PauseView, RuntimeView, ServerView};

/// The standby counts as caught up below this: it streams and will confirm its first synchronous commit at once. One WAL segment.
const CAUGHT_UP_BYTES: u64 = 16 * 1024 * 1024;

/// When the attempts to start a node are used up, it is tried again after this long: whatever kept it down (a full disk) may have been mended.
const START_AGAIN: Duration = Duration::from_secs(60);

/// From when on a standby that is on its way is a person's concern; a copy of a large database takes longer, and the pair is unprotected then too.
pub const UNPROTECTED_AFTER: Duration = Duration::from_secs(600);

macro_rules! rules {
    ($($name:ident = $id:literal, $sentence:literal;)*) => {
        $(#[doc = $sentence] pub const $name: Rule = Rule { id: $id, sentence: $sentence };)*
        /// Every rule, in the order of their numbers.
        pub const RULES: &[Rule] = &[$($name),*];
    };
}

rules! {
    RUNTIME_SILENT = "R10", "the container runtime does not answer: nothing can be fenced, so nothing is done";
    UNFINISHED = "R20", "an unfinished transition is brought to its end first, forward or back";
    TWO_PRIMARIES = "R30", "a node that the record does not name takes writes: it is fenced, also while paused";
    PROMOTED_OUTSIDE = "R40", "the primary is down or in recovery and the other node takes writes: a person decides";
    PAUSED = "R50", "a person has paused the tool: wait, or alert where the primary does not take writes";
    CONTAINER_UNKNOWN = "R60", "the runtime does not say whether the primary runs: alert, never fail over";
    FLAPPING = "R70", "too many failovers within the window: a person decides";
    PRIMARY_DOWN = "R80", "the runtime says that the primary does not run, and the standby can take over without loss: fail over now";
    STARTED_JUST_NOW = "R90", "the primary is down and something was started a moment ago: look again first";
    BOTH_DOWN = "R100", "neither runs: the recorded primary is started in place";
    START_IN_PLACE = "R110", "the primary is down, the standby cannot take over: the recorded primary is started in place";
    START_STANDBY_ALONE = "R120", "neither runs and the primary does not stay up: the standby is started, to see whether it can take over";
    LOST = "R130", "the primary is gone and the standby cannot take over: a person decides";
    STARTING = "R160", "the primary is starting or recovering from a crash: alive, wait";
    STARTING_TOO_LONG = "R170", "the primary has been starting for longer than the grace: fail over";
    REFUSING = "R180", "the primary answers and refuses the checker: alive, alert, never fail over";
    ONLY_HOST_CANNOT_REACH = "R190", "the primary is alive and serves others, only this host does not reach it: alert, never fail over";
    ISOLATED = "R200", "the primary is alive inside its container and reached by nobody: wait for the isolation grace";
    ISOLATED_TOO_LONG = "R210", "the primary has been isolated for longer than the grace: fail over";
    WITNESS_UNKNOWN = "R215", "the primary is silent, and the witness inside could not be heard: alert, never fail over";
    SUSPICION = "R220", "the primary is silent, not yet often and long enough, or the app disagrees: wait";
    SILENT_TOO_LONG = "R230", "the primary is silent for the whole threshold, and dead to the witness inside: fail over";
    PRIMARY_IN_RECOVERY = "R240", "the recorded primary is in recovery: a person decides";
    PRIMARY_READ_ONLY = "R250", "the primary is read-only by its own configuration: alert";
    PRIMARY_STRANGER = "R260", "the recorded primary's server belongs to another cluster: a person decides";
    ELIGIBLE_WITHOUT_SYNC = "R300", "the record vouches for a standby that commits do not wait for: take that back at once";
    STANDBY_LOST = "R310", "commits have waited long enough for a lost standby: record it ineligible, then go on without it";
    STANDBY_DOWN = "R320", "the standby's container does not run: start it";
    STANDBY_DOES_NOT_START = "R325", "the standby does not stay up: alert, and try again each minute";
    WEAK_COMMITS = "R328", "the operator's synchronous_commit keeps commits from waiting for the standby's disk: alert";
    STANDBY_CAUGHT_UP = "R330", "the standby has caught up: make commits wait for it again, then record it eligible";
    STANDBY_STUCK = "R335", "the standby runs in recovery and does not stream for long: restart it, so that its node looks whether it needs a new copy";
    APP_UNREADY = "R340", "the primary is writable and the app is not ready: restart the app, at most once per cooldown";
    STANDBY_MISSING = "R350", "the standby's container does not exist: alert";
    STANDBY_COMING = "R360", "the standby is on its way: wait";
    UNPROTECTED = "R362", "the standby has been on its way for long: alert";
    STANDBY_UNFIT = "R365", "commits wait for the standby, but it could not take over: alert";
    APP_WAIT = "R370", "the app is not ready, not yet long enough, or was restarted a moment ago: wait";
    HEALTHY = "R400", "all is well";
    NO_RULE = "R990", "what no rule knows is refused";
}

/// Decides. The first rule that matches.
#[must_use]
pub fn decide(seen: &Observation) -> Decision {
    if let RuntimeView::Silent(why) = &seen.runtime {
        return say(RUNTIME_SILENT, Action::Refuse, Reason::RuntimeSilent(why.clone()));
    }
    if seen.record.in_transition {
        return say(UNFINISHED, Action::Resume, Reason::Unfinished);
    }
    if seen.standby.is_seen_as_primary() {
        return stray_primary(seen);
    }
    if let Some(left) = pause_in_force(seen.record.pause) {
        let action = if seen.primary.is_seen_as_primary() { Action::Wait } else { Action::Alert };
        return say(PAUSED, action, Reason::Paused { primary: in_short(&seen.primary), left });
    }
    match &seen.primary.container {
        ContainerView::Unknown(why) => say(CONTAINER_UNKNOWN, Action::Alert, Reason::ContainerUnknown(why.clone())),
        ContainerView::Stopped(how) => primary_down(seen, how, true),
        ContainerView::Missing => primary_down(seen, "its container does not exist", false),
        ContainerView::Running => primary_runs(seen),
    }
}

/// What is left of a pause that is in force; one whose time is over is as none. The inner none: it has no end.
fn pause_in_force(pause: PauseView) -> Option<Option<Duration>> {
    match pause {
        PauseView::None | PauseView::Left(Duration::ZERO) => None,
        PauseView::Open => Some(None),
        PauseView::Left(left) => Some(Some(left)),
    }
}

fn say(rule: Rule, action: Action, reason: Reason) -> Decision {
    Decision { rule, action, reason }
}

/// The other node takes writes. I1 is at stake unless the recorded primary is known to take none; then fencing would stop the last writable node.
fn stray_primary(seen: &Observation) -> Decision {
    let recorded_takes_none = seen.primary.is_down() || matches!(seen.primary.server, ServerView::Standby { .. });
    if recorded_takes_none {
        return say(PROMOTED_OUTSIDE, Action::Refuse, Reason::PromotedOutside);
    }
    let reason = Reason::TwoPrimaries { recorded: in_short(&seen.primary) };
    say(TWO_PRIMARIES, Action::Fence { node: seen.standby.name.clone() }, reason)
}

/// The runtime says that the primary does not run.
fn primary_down(seen: &Observation, how: &str, can_be_started: bool) -> Decision {
    let standby = match promotable(seen) {
        Ok(()) => return fail_over(seen, PRIMARY_DOWN, Reason::PrimaryDown(how.to_owned())),
        Err(standby) => standby,
    };
    let elapsed = &seen.elapsed;
    let started = [elapsed.primary_started_ago, elapsed.standby_started_ago].into_iter().flatten().min();
    if let Some(ago) = started.filter(|ago| *ago < seen.thresholds.node_start_cooldown) {
        return say(STARTED_JUST_NOW, Action::Wait, Reason::StartedJustNow(ago));
    }
    let attempts_are_left = elapsed.primary_start_attempts < seen.thresholds.start_attempts;
    let tried_lately = elapsed.primary_started_ago.is_some_and(|ago| ago < START_AGAIN);
    if can_be_started && (attempts_are_left || !tried_lately) {
        let node = seen.primary.name.clone();
        return if seen.standby.is_down() {
            say(BOTH_DOWN, Action::StartPrimary { node }, Reason::BothDown)
        } else {
            say(START_IN_PLACE, Action::StartPrimary { node }, Reason::StartInPlace { primary: how.to_owned(), standby })
        };
    }
    // Only an eligible standby can help; starting another would change nothing and hide the refusal.
    if matches!(seen.standby.container, ContainerView::Stopped(_)) && seen.record.standby_eligible {
        let action = Action::StartStandby { node: seen.standby.name.clone() };
        return say(START_STANDBY_ALONE, action, Reason::PrimaryDoesNotStart(elapsed.primary_start_attempts));
    }
    say(LOST, Action::Refuse, Reason::Lost { primary: how.to_owned(), standby })
}

/// The primary's container runs.
fn primary_runs(seen: &Observation) -> Decision {
    match &seen.primary.server {
        ServerView::Primary { system_identifier: found, .. } | ServerView::Standby { system_identifier: found, .. }
            if seen.record.system_identifier.as_ref().is_some_and(|recorded| recorded != found) =>
        {
            say(PRIMARY_STRANGER, Action::Refuse, Reason::PrimaryStranger(found.clone()))
        }
        ServerView::Primary { status, .. } if status.read_only => say(PRIMARY_READ_ONLY, Action::Alert, Reason::PrimaryReadOnly),
        ServerView::Primary { .. } => primary_writable(seen),
        ServerView::Standby { .. } => say(PRIMARY_IN_RECOVERY, Action::Refuse, Reason::PrimaryInRecovery),
        ServerView::Refusing(why) => say(REFUSING, Action::Alert, Reason::Refusing(why.clone())),
        ServerView::Starting(_) => primary_starting(seen),
        ServerView::Silent(why) => primary_silent(seen, why),
        ServerView::NotAsked => say(NO_RULE, Action::Refuse, Reason::NoRuleMatches),
    }
}

fn primary_starting(seen: &Observation) -> Decision {
    let time = seen.elapsed.starting_for;
    // Without a standby that can take over, waiting for crash recovery is all there is, however long it takes.
    if time < seen.thresholds.startup_grace || promotable(seen).is_err() {
        return say(STARTING, Action::Wait, Reason::Starting(time));
    }
    fail_over(seen, STARTING_TOO_LONG, Reason::Starting(time))
}

/// The container runs, and the server does not answer the host.
fn primary_silent(seen: &Observation, why: &str) -> Decision {
    let elapsed = &seen.elapsed;
    match &seen.primary.inside {
        InsideView::Alive => {
            if seen.others_reach_the_primary() {
                return say(ONLY_HOST_CANNOT_REACH, Action::Alert, Reason::OnlyHostCannotReach(why.to_owned()));
            }
            let reason = Reason::Isolated(elapsed.isolated_for);
            if elapsed.isolated_for < seen.thresholds.isolation_grace {
                return say(ISOLATED, Action::Wait, reason);
            }
            fail_over_or_refuse(seen, ISOLATED_TOO_LONG, reason)
        }
        InsideView::Preparing(_) => primary_starting(seen),
        InsideView::Unknown(witness) => say(WITNESS_UNKNOWN, Action::Alert, Reason::WitnessUnknown(witness.clone())),
        InsideView::NotAsked => say(WITNESS_UNKNOWN, Action::Alert, Reason::WitnessUnknown("it was not asked".to_owned())),
        InsideView::Dead(_) if seen.app == AppView::Ready => say(SUSPICION, Action::Wait, Reason::AppStillReady),
        InsideView::Dead(_) => {
            let reason = Reason::Suspicion { passes: elapsed.silent_passes, time: elapsed.silent_for, seen: why.to_owned() };
            if elapsed.silent_passes < seen.thresholds.suspicion_passes || elapsed.silent_for < seen.thresholds.suspicion {
                return say(SUSPICION, Action::Wait, reason);
            }
            fail_over_or_refuse(seen, SILENT_TOO_LONG, reason)
        }
    }
}

/// The primary takes writes; what of the standby and the app?
fn primary_writable(seen: &Observation) -> Decision {
    let Some(link) = seen.link() else { return say(NO_RULE, Action::Refuse, Reason::NoRuleMatches) };
    let elapsed = &seen.elapsed;
    let thresholds = &seen.thresholds;
    if seen.record.standby_eligible && !link.enforced {
        return say(ELIGIBLE_WITHOUT_SYNC, Action::MarkIneligible, Reason::EligibleWithoutSync);
    }
    if link.enforced && !link.streaming && elapsed.link_lost_for >= thresholds.standby_grace {
        return say(STANDBY_LOST, Action::DropToAsync, Reason::StandbyLost(elapsed.link_lost_for));
    }
    if let ContainerView::Stopped(how) = &seen.standby.container {
        let attempts = elapsed.standby_start_attempts;
        let attempts_are_left = attempts < thresholds.start_attempts;
        let pause = if attempts_are_left { thresholds.node_start_cooldown } else { START_AGAIN };
        if elapsed.standby_started_ago.is_none_or(|ago| ago >= pause) {
            return say(STANDBY_DOWN, Action::StartStandby { node: seen.standby.name.clone() }, Reason::StandbyDown(how.clone()));
        }
        if !attempts_are_left {
            return say(STANDBY_DOES_NOT_START, Action::Alert, Reason::StandbyDoesNotStart { attempts, how: how.clone() });
        }
    }
    if let (ServerView::Primary { status, .. }, false) = (&seen.primary.server, link.can_be_enforced) {
        return say(WEAK_COMMITS, Action::Alert, Reason::WeakCommits(status.synchronous_commit.clone()));
    }
    let settled = seen.record.standby_eligible && link.synchronous;
    if !settled && link.streaming && link.behind.is_some_and(|behind| behind <= CAUGHT_UP_BYTES) {
        return say(STANDBY_CAUGHT_UP, Action::RestoreSync, Reason::StandbyCaughtUp);
    }
    if matches!(seen.standby.server, ServerView::Standby { .. })
        && !link.streaming
        && elapsed.link_lost_for >= thresholds.standby_restart_grace
        && elapsed.standby_started_ago.is_none_or(|ago| ago >= thresholds.standby_restart_grace)
    {
        let node = seen.standby.name.clone();
        return say(STANDBY_STUCK, Action::RestartStandby { node }, Reason::StandbyStuck(elapsed.link_lost_for));
    }
    let app_reason = match &seen.app {
        AppView::Ready => None,
        AppView::NotReady(why) => Some(Reason::AppUnready { time: elapsed.app_unready_for, seen: why.clone() }),
    };
    if let Some(reason) = &app_reason
        && elapsed.app_unready_for >= thresholds.app_grace
        && elapsed.app_restarted_ago.is_none_or(|ago| ago >= thresholds.app_restart_cooldown)
    {
        return say(APP_UNREADY, Action::RestartApp, reason.clone());
    }
    if seen.standby.container == ContainerView::Missing {
        return say(STANDBY_MISSING, Action::Alert, Reason::StandbyMissing);
    }
    if !settled && elapsed.link_lost_for >= UNPROTECTED_AFTER {
        return say(UNPROTECTED, Action::Alert, Reason::Unprotected { time: elapsed.link_lost_for, seen: in_short(&seen.standby) });
    }
    if !settled {
        return say(STANDBY_COMING, Action::Wait, Reason::StandbyCatchingUp(in_short(&seen.standby)));
    }
    if let Err(why) = promotable(seen) {
        return say(STANDBY_UNFIT, Action::Alert, Reason::StandbyUnfit(why));
    }
    match app_reason {
        Some(reason) => say(APP_WAIT, Action::Wait, reason),
        None => say(HEALTHY, Action::Nothing, Reason::Healthy),
    }
}

fn fail_over_or_refuse(seen: &Observation, rule: Rule, reason: Reason) -> Decision {
    match promotable(seen) {
        Ok(()) => fail_over(seen, rule, reason),
        Err(standby) => say(LOST, Action::Refuse, Reason::Lost { primary: reason.to_string(), standby }),
    }
}

/// The standby is promotable; only the flapping guard stands between.
fn fail_over(seen: &Observation, rule: Rule, reason: Reason) -> Decision {
    let failovers = seen.elapsed.recent_failovers;
    if failovers >= seen.thresholds.flapping_limit {
        return say(FLAPPING, Action::Refuse, Reason::Flapping { failovers, primary: reason.to_string() });
    }
    say(rule, Action::Failover { from: seen.primary.name.clone(), to: seen.standby.name.clone() }, reason)
}

/// May the standby be promoted without losing an acknowledged commit? Whatever is not known to be well is a reason against.
///
/// # Errors
/// The first reason against.
pub fn promotable(seen: &Observation) -> Result<(), Unpromotable> {
    match &seen.standby.container {
        ContainerView::Running => {}
        ContainerView::Stopped(how) => return Err(Unpromotable::NotRunning(how.clone())),
        ContainerView::Missing => return Err(Unpromotable::NotRunning("it does not exist".to_owned())),
        ContainerView::Unknown(why) => return Err(Unpromotable::NoAnswer(why.clone())),
    }
    match &seen.standby.server {
        ServerView::Standby { status, system_identifier } => {
            if let Some(recorded) = &seen.record.system_identifier
                && recorded != system_identifier
            {
                return Err(Unpromotable::Stranger { recorded: recorded.clone(), found: system_identifier.clone() });
            }
            if status.replay_paused {
                return Err(Unpromotable::ReplayPaused);
            }
        }
        ServerView::Primary { .. } => return Err(Unpromotable::NotInRecovery),
        ServerView::Starting(why) | ServerView::Refusing(why) | ServerView::Silent(why) => return Err(Unpromotable::NoAnswer(why.clone())),
        ServerView::NotAsked => return Err(Unpromotable::NoAnswer("it was not asked".to_owned())),
    }
    if seen.record.standby_eligible { Ok(()) } else { Err(Unpromotable::Ineligible { behind: seen.elapsed.behind }) }
}

/// A node in a few words.
fn in_short(node: &NodeView) -> String {
    let server = match &node.server {
        ServerView::Primary { .. } => "takes writes".to_owned(),
        ServerView::Standby { status, .. } if status.streaming => "streams".to_owned(),
        ServerView::Standby { .. } => "in recovery, does not stream".to_owned(),
        ServerView::Starting(why) | ServerView::Refusing(why) | ServerView::Silent(why) => why.clone(),
        ServerView::NotAsked => "not asked".to_owned(),
    };
    match &node.container {
        ContainerView::Running => server,
        ContainerView::Stopped(how) => format!("its container does not run: {how}"),
        ContainerView::Missing => "its container does not exist".to_owned(),
        ContainerView::Unknown(why) => why.clone(),
    }
}
