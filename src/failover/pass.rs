//! One pass: observe, decide, act; and what has to be remembered and told of it.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::act::{ActError, Actor, Outcome};
use super::clock::{Clock, HostClock};
use super::decide::decide;
use super::decision::{Action, Decision};
use super::docker::Engine;
use super::error::Error;
use super::http_app::HttpApp;
use super::journal::{Journal, JournalFile};
use super::lock::{Lock, LockFiles, Purpose};
use super::memory::{Memory, MemoryFile, MemoryStore};
use super::observation::{AppView, Observation, PauseView, ServerView};
use super::observe::observe;
use super::outward::Outward;
use super::parts::{Host, Parts};
use super::runtime::Runtime;
use super::servers::PairServers;
use super::settings::{Mode, Settings};
use super::words::in_one_line;
use crate::postgres::lsn::Lsn;
use crate::record::{Record, RecordFile, RecordStore};
use futures_util::StreamExt;

/// Between the beginnings of two passes while all is quiet.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between the beginnings of two passes while the primary is silent: each runs a program inside its container.
const SUSPICIOUS_INTERVAL: Duration = Duration::from_millis(400);
/// Between two passes when something was just done.
const SHORT_INTERVAL: Duration = Duration::from_millis(50);
/// So long after the threshold the pass ends that is to find it reached: a timer may be a little early.
const JUST_AFTER: Duration = Duration::from_millis(30);
/// How often a loop looks whether somebody waits for the lock.
const QUEUE_LOOK: Duration = Duration::from_millis(100);
/// How long a loop that has let a person's command go first waits for the lock again.
const COMMAND_PATIENCE: Duration = Duration::from_secs(600);

/// The right to act, as the parts have it.
pub type TurnOf<P> = <<P as Parts>::Lock as Lock>::Turn;

/// The parts that a pass works with.
pub struct Checker<P: Parts = Host> {
    /// The settings.
    pub settings: Settings,
    /// The container runtime.
    pub runtime: P::Runtime,
    /// The two servers.
    pub servers: P::Servers,
    /// The record.
    pub store: P::Store,
    /// The events.
    pub journal: P::Journal,
    /// The app.
    pub app: P::App,
    /// Both clocks.
    pub clock: P::Clock,
    /// What a pass leaves for the next.
    pub memories: P::Memories,
    /// Who may act.
    pub lock: P::Lock,
    /// Those who look on; None where nobody does, as in a simulation.
    pub outward: Option<Outward>,
}

/// What a look without acting gives.
pub struct Look {
    /// The record that was read.
    pub record: Record,
    /// What was seen.
    pub seen: Observation,
    /// What it leads to.
    pub decision: Decision,
    /// How long ago a pass that acts looked, as far as known: None before the first one of this boot.
    pub last_pass_ago: Option<Duration>,
    memory: Memory,
}

impl Look {
    /// Where the primary's log ended when it was last seen, and how long ago that was.
    #[must_use]
    pub fn primary_position(&self) -> Option<(Lsn, Duration)> {
        self.memory.primary_position()
    }
}

/// A whole pass.
pub struct Pass {
    /// What was seen and decided.
    pub look: Look,
    /// What came of acting.
    pub outcome: Result<Outcome, ActError>,
}

impl Checker {
    /// Puts the parts together. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::AppProbe`].
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let state = &settings.state_directory;
        Ok(Self {
            runtime: Engine::new(&settings.docker_socket),
            servers: PairServers::new(settings.login.clone(), settings.probe_deadline),
            store: RecordFile::new(settings.record_path()),
            journal: JournalFile::new(state.join("events.jsonl")),
            app: HttpApp::new(&settings.app_url, settings.probe_deadline),
            clock: HostClock,
            memories: MemoryFile::new(state.join("memory.json")),
            lock: LockFiles::new(state),
            outward: Some(Outward::new(&settings)),
            settings,
        })
    }
}

impl<P: Parts> Checker<P> {
    /// The part that acts.
    #[must_use]
    pub fn actor(&self) -> Actor<'_, P> {
        Actor {
            settings: &self.settings,
            runtime: &self.runtime,
            servers: &self.servers,
            store: &self.store,
            journal: &self.journal,
            clock: &self.clock,
        }
    }

    /// Observes and decides. Changes nothing, needs no lock.
    ///
    /// # Errors
    /// When the record cannot be read, or names a node that the settings do not know.
    pub async fn look(&self) -> Result<Look, Error> {
        let began = self.clock.moment();
        let record = self.store.load()?;
        if self.settings.other(&record.primary).is_none() {
            return Err(Error::UnknownNode(record.primary.clone()));
        }
        let memory = self.memories.load();
        let last_pass_ago = memory.age(&began);
        let mut seen =
            observe(&self.settings, &record, &self.runtime, &self.servers, &self.app, memory.is_suspicious(), self.clock.wall()).await;
        let memory = memory.after(&seen, record.epoch, &began, &self.clock.moment());
        seen.elapsed = memory.elapsed(&seen, record.failovers_within(self.settings.flapping_window, self.clock.wall()));
        let decision = decide(&seen);
        Ok(Look { record, seen, decision, last_pass_ago, memory })
    }

    /// Observes, decides and acts. The caller holds the turn.
    ///
    /// # Errors
    /// As [`Checker::look`]. That acting failed is part of the [`Pass`].
    pub async fn pass(&self, _turn: &TurnOf<P>) -> Result<Pass, Error> {
        let began = Instant::now();
        let looked = self.look().await;
        if let (Some(outward), Err(error)) = (&self.outward, &looked) {
            outward.tell_error(error, began.elapsed());
        }
        let mut look = looked?;
        self.tell(&mut look);
        let outcome = match self.settings.mode {
            Mode::Act => {
                self.adopt_identity(&mut look)?;
                self.end_pause(&mut look)?;
                self.actor().act(&look.decision, &look.record).await
            }
            // Not even the record is written: whoever turns this on is promised that nothing is touched.
            Mode::Observe => Ok(Outcome::Idle),
        };
        let now = self.clock.moment();
        match &outcome {
            Ok(Outcome::Started(node)) => look.memory.started(node, &now),
            Ok(Outcome::RolledBack { primary, why }) => {
                log::warn!("acted: rolled back to {primary}: {why}");
                look.memory.started(primary, &now);
            }
            Ok(Outcome::RestartedApp) => look.memory.restarted_app(&now),
            Ok(Outcome::NewPrimary(node)) => {
                log::warn!("acted: {node} is primary");
                look.memory.awaiting_app = true;
                look.memory.awaiting_standby = true;
            }
            Ok(Outcome::Done) => log::info!("acted: {} done", look.decision.action.name()),
            Ok(Outcome::Idle) => {}
            Err(error) => log::error!("acted: {error}"),
        }
        if let Err(error) = self.memories.save(&look.memory) {
            log::error!("cannot keep the memory of this pass, so the next one knows nothing of it: {error}");
        }
        // This pass is the last one now.
        look.last_pass_ago = Some(Duration::ZERO);
        if let Some(outward) = &self.outward {
            outward.tell(&look, &self.settings, outcome.is_err(), began.elapsed());
        }
        Ok(Pass { look, outcome })
    }

    /// Says what is new since the last pass, in the log and in the journal.
    fn tell(&self, look: &mut Look) {
        let Look { record, seen, decision, memory, .. } = look;
        if memory.awaiting_app && seen.app == AppView::Ready && !record_in_transition(record) {
            memory.awaiting_app = false;
            self.journal.append("app_ready", json!({ "epoch": record.epoch }));
        }
        if memory.awaiting_standby && seen.link().is_some_and(|link| link.streaming) {
            memory.awaiting_standby = false;
            self.journal.append("standby_streaming", json!({ "epoch": record.epoch, "node": seen.standby.name }));
        }
        if memory.last_rule.as_deref() == Some(decision.rule.id) {
            return;
        }
        memory.last_rule = Some(decision.rule.id.to_owned());
        let words = format!("decided: {} {}: {}", decision.rule.id, decision.action.name(), decision.reason);
        log::info!("observed: {}", in_one_line(seen));
        if needs_a_person(decision) {
            log::warn!("{words}")
        } else {
            log::info!("{words}")
        }
        let only_observes = self.settings.mode == Mode::Observe && decision.action.is_deed();
        if only_observes {
            log::warn!("observing only: would have done {}", decision.action.name());
        }
        self.journal.append(
            if only_observes { "would_have" } else { "decision" },
            json!({ "epoch": record.epoch, "rule": decision.rule.id, "action": decision.action.name(), "reason": decision.reason.to_string() }),
        );
    }

    /// Notes PostgreSQL's identity of the cluster when a primary is first seen: from then on an empty data directory is a lost one, not a new one.
    fn adopt_identity(&self, look: &mut Look) -> Result<(), Error> {
        if let ServerView::Primary { system_identifier, .. } = &look.seen.primary.server
            && look.record.system_identifier.is_none()
        {
            look.record.system_identifier = Some(system_identifier.clone());
            self.store.save(&look.record)?;
            self.journal.append("identity_recorded", json!({ "epoch": look.record.epoch, "system_identifier": system_identifier }));
        }
        Ok(())
    }

    /// Takes a pause whose time is over out of the record. The decision did not count it any more.
    fn end_pause(&self, look: &mut Look) -> Result<(), Error> {
        if look.seen.record.pause == PauseView::Left(Duration::ZERO)
            && let Some(pause) = look.record.paused.take()
        {
            self.store.save(&look.record)?;
            self.journal.append("pause_ended", json!({ "epoch": look.record.epoch, "by": pause.by, "reason": pause.reason }));
            log::info!("the pause by {} is over: {}", pause.by, pause.reason);
        }
        Ok(())
    }

    /// One pass, with the lock.
    ///
    /// # Errors
    /// As [`Checker::pass`], and when the lock was not to be had within `patience`.
    pub async fn run_once(&self, patience: Duration) -> Result<Pass, Error> {
        let turn = self.lock.take(Purpose::Command, patience).await?;
        self.pass(&turn).await
    }

    /// Passes once a second, and at once when a container ends, for `total` or until another loop takes over.
    ///
    /// # Errors
    /// As [`Checker::pass`], for the last pass only: a loop goes on through errors.
    pub async fn run_for(&self, total: Duration) -> Result<Pass, Error> {
        let deadline = Instant::now() + total;
        let mut turn = self.lock.take(Purpose::Loop, total).await?;
        let containers: Vec<String> = self.settings.nodes.values().cloned().collect();
        let mut endings = None;
        let mut last_error = String::new();
        loop {
            if endings.is_none() {
                endings = self.runtime.endings(&containers).await.map(Box::pin);
            }
            let began = Instant::now();
            let passed = self.pass(&turn).await;
            match &passed {
                Ok(_) => last_error.clear(),
                Err(error) if last_error != error.to_string() => {
                    last_error = error.to_string();
                    log::error!("{error}; try: {}", error.remedy());
                }
                Err(_) => {}
            }
            let wake = match &passed {
                Ok(pass) if matches!(&pass.outcome, Ok(outcome) if *outcome != Outcome::Idle) => Instant::now() + SHORT_INTERVAL,
                Ok(pass) if pass.look.memory.is_suspicious() => {
                    Instant::now() + wait_beside_silence(&pass.look.seen, began.elapsed(), self.settings.probe_deadline)
                }
                _ => (began + INTERVAL).max(Instant::now() + SHORT_INTERVAL),
            };
            loop {
                if Instant::now() >= deadline {
                    return passed;
                }
                // Before each wait too: passes that follow each other at once, as beside a silent primary, leave no time for the look below.
                match self.lock.waiting() {
                    None => {}
                    Some(Purpose::Loop) => return passed,
                    Some(Purpose::Command) => {
                        drop(turn);
                        turn = self.lock.take(Purpose::Loop, COMMAND_PATIENCE).await?;
                        break;
                    }
                }
                tokio::select! {
                    // In this order, so that the same things happening make the same passes: the simulation replays them.
                    biased;
                    () = sleep_until(wake.min(deadline)) => break,
                    ending = next_ending(&mut endings) => match ending {
                        Some(()) => break,
                        // The runtime has gone away: it is asked again with the next pass, which comes in its time.
                        None => endings = None,
                    },
                    () = sleep(QUEUE_LOOK) => {}
                }
            }
        }
    }
}

/// How long to wait after a pass that took `took` and found the primary silent. The pass that can decide is made to end when the silence has just been long
/// enough: each waits for answers that do not come, so that the usual pace would often have one end a little too early and the next most of a second later.
fn wait_beside_silence(seen: &Observation, took: Duration, probe_deadline: Duration) -> Duration {
    let (elapsed, limits) = (&seen.elapsed, &seen.thresholds);
    let usual = SUSPICIOUS_INTERVAL.saturating_sub(took).max(SHORT_INTERVAL);
    // The first one asked the witness only when the host's probe had failed; from then on both are asked at once.
    let next_takes = took.min(probe_deadline);
    let silence_left = limits.suspicion.saturating_sub(elapsed.silent_for);
    let one_more_is_enough = elapsed.silent_passes.saturating_add(1) >= limits.suspicion_passes;
    let two_more_are_too_late = 2 * (usual + next_takes) > silence_left;
    if silence_left.is_zero() || !one_more_is_enough || !two_more_are_too_late {
        return usual;
    }
    (silence_left + JUST_AFTER).saturating_sub(next_takes).max(SHORT_INTERVAL)
}

/// The next container that ends; never, where there is no stream.
async fn next_ending(endings: &mut Option<impl StreamExt<Item = ()> + Unpin>) -> Option<()> {
    match endings {
        Some(endings) => endings.next().await,
        None => std::future::pending().await,
    }
}

fn record_in_transition(record: &Record) -> bool {
    record.transition.is_some()
}

/// Does this decision ask for a person?
#[must_use]
pub fn needs_a_person(decision: &Decision) -> bool {
    matches!(decision.action, Action::Alert | Action::Refuse)
}
