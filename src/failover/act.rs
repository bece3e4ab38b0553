//! Carries a decision out. Chooses nothing; checks everything again that it relies on.
//!
//! # The failover, step by step
//!
//! ```text
//!  record says        then                                        a crash here leaves
//!  intent             old primary: no restart policy, kill, verify  the old primary stopped or running; it cannot start any more (postgres-node refuses)
//!  fenced             wait until the standby has replayed           nobody writes; rolled back if the standby proves unfit
//!  replayed           look once more where a run was interrupted    as before
//!  promote_requested  pg_promote, wait until writable               nobody or the new one writes; only forward from here
//!  writable           epoch + 1, primary = new, ineligible, null    the new one writes; the next run writes the record
//! ```
//!
//! Every step is written (and flushed) before the effect that follows it, every effect can be repeated, and the fence is verified again by each run that
//! goes on with a transition. After the record names the new primary the old one is an ordinary standby that does not run: the rules R320 and R330 bring
//! it back (`postgres-node` rewinds or clones it again) and make commits wait for it.
//!
//! # When `standby_eligible` changes
//!
//! True only after the primary shows the standby as synchronous *and* [`Servers::settle`] has come back, so that no commit can be acknowledged any
//! more without the standby's flush, *and* the standby has flushed the log up to where it ended then, so that it also has what was acknowledged without it.
//! False *before* the setting is emptied, and with each change of primary.

#![deny(clippy::wildcard_enum_match_arm)]

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::clock::Clock;
use super::decision::{Action, Decision};
use super::journal::Journal;
use super::parts::Parts;
use super::runtime::{ContainerState, Runtime, RuntimeError};
use super::servers::Servers;
use super::settings::Settings;
use crate::postgres::connection::ServerError;
use crate::postgres::status::{RoleStatus, ServerStatus, StandbyLink};
use crate::record::{KEPT_FAILOVERS, NodeName, PastFailover, Record, RecordError, RecordStore, Step, Transition, TransitionKind};

/// After how long a container that still runs is told to end again: what was told may have met the one that ran before it.
const TELL_AGAIN: Duration = Duration::from_secs(2);
/// How long a killed container may take to be gone.
const FENCE_LIMIT: Duration = Duration::from_secs(15);
/// How long an old primary may take to shut down in good order for a switchover, before it is killed.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(60);
/// How long the standby's replay may stand still before a failover is called impossible.
const REPLAY_STALL: Duration = Duration::from_secs(10);
/// How long a standby that still calls itself connected to a stopped primary may go on reading, where what it has not read would be lost.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// How long a standby that is to be promoted may give no usable answer before the failover is called impossible.
const STANDBY_ANSWER: Duration = Duration::from_secs(5);
/// How long one run waits for the new primary to become writable; the next run waits again.
const PROMOTION_LIMIT: Duration = Duration::from_secs(30);
/// How long one run waits for the standby to be counted as synchronous.
const SYNC_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks while waiting.
const GLANCE: Duration = Duration::from_millis(10);

/// What acting needs.
pub struct Actor<'a, P: Parts> {
    /// Which containers are which nodes.
    pub settings: &'a Settings,
    /// The container runtime.
    pub runtime: &'a P::Runtime,
    /// The two servers.
    pub servers: &'a P::Servers,
    /// Where the record is kept.
    pub store: &'a P::Store,
    /// Where events go.
    pub journal: &'a P::Journal,
    /// What the record's times come from.
    pub clock: &'a P::Clock,
}

/// What acting has done, as far as the next pass has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to be done.
    Idle,
    /// It is done.
    Done,
    /// A node's container was started.
    Started(NodeName),
    /// The app was restarted.
    RestartedApp,
    /// There is a new primary.
    NewPrimary(NodeName),
    /// The transition proved impossible before promotion was asked for; the old primary is started again.
    RolledBack {
        /// The old primary, primary still.
        primary: NodeName,
        /// Why it was impossible.
        why: String,
    },
}

/// Why acting failed. Every one leaves a state from which the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The runtime refused or is silent.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The record could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A server refused or is silent.
    #[error("{node}: cannot {doing}: {source}")]
    Server {
        /// The node.
        node: NodeName,
        /// What was to be done.
        doing: &'static str,
        /// Its answer.
        source: ServerError,
    },
    /// The old primary would not stop: nothing was promoted.
    #[error("{node} still runs {waited:?} after it was killed; nothing was promoted")]
    NotFenced {
        /// The node.
        node: NodeName,
        /// How long was waited.
        waited: Duration,
    },
    /// The new primary is not writable yet.
    #[error("{node} was told to become primary and is not writable after {waited:?}")]
    NotWritable {
        /// The node.
        node: NodeName,
        /// How long was waited.
        waited: Duration,
    },
    /// A node's container does not run or has no address.
    #[error("the container of {0} does not run or has no network")]
    NoAddress(NodeName),
    /// Commits do not wait for the standby yet.
    #[error("{standby} is not counted as synchronous, or has not caught up, after {waited:?}")]
    NotSynchronous {
        /// The standby.
        standby: NodeName,
        /// How long was waited.
        waited: Duration,
    },
    /// The settings do not know a node that the record names.
    #[error("the record names the node '{0}', which the settings do not know")]
    UnknownNode(NodeName),
}

impl<P: Parts> Actor<'_, P> {
    /// Carries out `decision`, made on `record`.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn act(&self, decision: &Decision, record: &Record) -> Result<Outcome, ActError> {
        let because = format!("{}: {}", decision.rule.id, decision.reason);
        match &decision.action {
            Action::Nothing | Action::Wait | Action::Alert | Action::Refuse => Ok(Outcome::Idle),
            Action::Resume => self.advance(record.clone()).await,
            Action::Fence { node } => {
                self.fence(node, None).await?;
                self.journal.append(
                    "fenced_stray",
                    json!({ "node": node, "epoch": record.epoch, "rule": decision.rule.id, "reason": decision.reason.to_string() }),
                );
                Ok(Outcome::Done)
            }
            Action::Failover { to, .. } => self.begin(record.clone(), TransitionKind::Failover, to, false, because).await,
            Action::StartPrimary { node } | Action::StartStandby { node } => self.start(node, record, &because).await,
            Action::RestartStandby { node } => {
                self.runtime.restart(self.container(node)?).await?;
                self.journal.append("node_started", json!({ "node": node, "epoch": record.epoch, "reason": because }));
                Ok(Outcome::Started(node.clone()))
            }
            Action::MarkIneligible => {
                self.mark_ineligible(record)?;
                self.journal.append(
                    "marked_ineligible",
                    json!({ "epoch": record.epoch, "rule": decision.rule.id, "reason": decision.reason.to_string() }),
                );
                Ok(Outcome::Done)
            }
            Action::DropToAsync => {
                self.drop_to_async(record, json!({ "rule": decision.rule.id, "reason": decision.reason.to_string() })).await?;
                Ok(Outcome::Done)
            }
            Action::RestoreSync => self.restore_sync(record).await,
            Action::RestartApp => {
                self.runtime.restart(&self.settings.app_container).await?;
                self.journal.append(
                    "app_restarted",
                    json!({ "epoch": record.epoch, "rule": decision.rule.id, "reason": decision.reason.to_string() }),
                );
                Ok(Outcome::RestartedApp)
            }
        }
    }

    /// Writes the intent and goes on from there. `lossy`: a person has accepted that acknowledged commits are lost, so the old primary's data are kept.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn begin(
        &self,
        mut record: Record,
        kind: TransitionKind,
        to: &NodeName,
        lossy: bool,
        reason: String,
    ) -> Result<Outcome, ActError> {
        let from = record.primary.clone();
        record.transition = Some(Transition {
            kind,
            from: from.clone(),
            to: to.clone(),
            step: Step::Intent,
            since: self.clock.wall(),
            lossy,
            reason: reason.clone(),
        });
        self.store.save(&record)?;
        self.journal.append(
            match kind {
                TransitionKind::Failover => "failover_begun",
                TransitionKind::Switchover => "switchover_begun",
            },
            json!({ "epoch": record.epoch, "from": from, "to": to, "reason": reason }),
        );
        self.advance(record).await
    }

    /// Goes on with the record's transition until it is finished, rolled back, or something fails.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn advance(&self, mut record: Record) -> Result<Outcome, ActError> {
        let Some(mut transition) = record.transition.clone() else { return Ok(Outcome::Idle) };
        let begun = Instant::now();
        let (from, to) = (transition.from.clone(), transition.to.clone());
        // By each run anew, whatever the step: time has passed since another run verified it.
        let grace = match transition.kind {
            TransitionKind::Failover => None,
            TransitionKind::Switchover => Some(SHUTDOWN_GRACE),
        };
        self.fence(&from, grace).await?;
        loop {
            match transition.step {
                Step::Intent => self.reach(&mut record, &mut transition, Step::Fenced, begun)?,
                // Replayed as well: whoever finds it does not know what has become of the standby since, and until promotion is asked for there is a way back.
                Step::Fenced | Step::Replayed => {
                    if let Err(why) = self.wait_for_replay(&to, transition.lossy).await? {
                        return self.roll_back(record, &from, why).await;
                    }
                    if transition.step == Step::Fenced {
                        self.reach(&mut record, &mut transition, Step::Replayed, begun)?;
                    }
                    self.reach(&mut record, &mut transition, Step::PromoteRequested, begun)?;
                }
                Step::PromoteRequested => {
                    self.promote(&to).await?;
                    self.reach(&mut record, &mut transition, Step::Writable, begun)?;
                }
                Step::Writable => return self.finish(record, &transition, begun).await,
            }
        }
    }

    /// Writes that a step is done.
    fn reach(&self, record: &mut Record, transition: &mut Transition, step: Step, begun: Instant) -> Result<(), ActError> {
        transition.step = step;
        record.transition = Some(transition.clone());
        self.store.save(record)?;
        let event = match step {
            Step::Intent => "intent",
            Step::Fenced => "fenced",
            Step::Replayed => "replayed",
            Step::PromoteRequested => "promote_requested",
            Step::Writable => "writable",
        };
        let node = if step == Step::Fenced { &transition.from } else { &transition.to };
        self.journal.append(event, json!({ "epoch": record.epoch, "node": node, "seconds": seconds_since(begun) }));
        Ok(())
    }

    /// Stops a node and verifies it. With `grace` in good order first. A container that does not run is verified all the same.
    ///
    /// # Errors
    /// [`ActError::NotFenced`] when it will not stop; an error of the runtime is no proof either.
    async fn fence(&self, node: &NodeName, grace: Option<Duration>) -> Result<(), ActError> {
        let container = self.container(node)?;
        let (mut forbidden, mut told) = (false, None::<Instant>);
        let mut until = Instant::now() + FENCE_LIMIT;
        loop {
            match self.runtime.inspect(container).await? {
                ContainerState::Missing => return Ok(()),
                ContainerState::Stopped { restarts: false, .. } => return Ok(()),
                ContainerState::Stopped { restarts: true, .. } | ContainerState::Running { restarts: true, .. } if !forbidden => {
                    forbidden = true;
                    self.runtime.forbid_restart(container).await?;
                }
                ContainerState::Running { .. } | ContainerState::Stopped { .. } if Instant::now() >= until => {
                    return Err(ActError::NotFenced { node: node.clone(), waited: FENCE_LIMIT });
                }
                ContainerState::Running { .. } if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) => {
                    match grace {
                        Some(grace) if told.is_none() => {
                            self.runtime.stop(container, grace).await?;
                            until = Instant::now() + FENCE_LIMIT;
                        }
                        Some(_) | None => self.runtime.kill(container).await?,
                    }
                    told = Some(Instant::now());
                }
                ContainerState::Running { .. } | ContainerState::Stopped { .. } => sleep(GLANCE).await,
            }
        }
    }

    /// Waits until the standby has replayed all that it has received. The inner error: it is unfit, and why. `lossy`: commits were acknowledged that it may still
    /// have to read from its connection to the primary.
    async fn wait_for_replay(&self, node: &NodeName, lossy: bool) -> Result<Result<(), String>, ActError> {
        let begun = Instant::now();
        let mut progress = (None, begun);
        let mut answered = begun;
        loop {
            let at = match self.runtime.inspect(self.container(node)?).await? {
                ContainerState::Running { address: Some(at), paused: false, .. } => at,
                ContainerState::Running { .. } => return Ok(Err(format!("{node} is paused or has no network"))),
                ContainerState::Stopped { how, .. } => return Ok(Err(format!("{node} does not run any more ({how})"))),
                ContainerState::Missing => return Ok(Err(format!("the container of {node} is gone"))),
            };
            match self.servers.ask_again(at).await {
                Ok(ServerStatus { role: RoleStatus::Standby(status), .. }) => {
                    answered = Instant::now();
                    if status.replay_paused {
                        return Ok(Err(format!("replay is paused on {node}")));
                    }
                    // The old primary is gone, so nothing more is received; equal means all. Ahead of that can only be the part of a record that it had sent when it died,
                    // which nobody was told is committed.
                    let may_still_receive = lossy && status.streaming && begun.elapsed() < LAST_BYTES;
                    if !may_still_receive && (status.replayed == status.received || status.drained) {
                        return Ok(Ok(()));
                    }
                    if progress.0 != status.replayed {
                        progress = (status.replayed, Instant::now());
                    }
                    if progress.1.elapsed() > REPLAY_STALL {
                        return Ok(Err(format!("replay on {node} has stood still for {REPLAY_STALL:?}")));
                    }
                }
                // Somebody promoted it between the decision and now: the rest of the way is the same.
                Ok(ServerStatus { role: RoleStatus::Primary(_), .. }) => return Ok(Ok(())),
                Err(error) if answered.elapsed() > STANDBY_ANSWER => return Ok(Err(format!("{node} gives no usable answer: {error}"))),
                Err(error) => log::debug!("{node}: {error}"),
            }
            sleep(GLANCE).await;
        }
    }

    /// Promotes the node and comes back when it has been seen writable. Starts its container where it does not run: from here on it only goes forward.
    async fn promote(&self, node: &NodeName) -> Result<(), ActError> {
        let until = Instant::now() + PROMOTION_LIMIT;
        let mut next_request = Instant::now();
        let mut next_start = Instant::now();
        let mut last = None;
        while Instant::now() < until {
            match self.runtime.inspect(self.container(node)?).await? {
                ContainerState::Running { address: Some(at), paused: false, .. } => {
                    if Instant::now() >= next_request {
                        // Its answer does not matter: what counts is whether the node becomes writable. Asked again, since a node that was still starting has not heard it.
                        last = self.servers.promote(at).await.err();
                        next_request = Instant::now() + Duration::from_secs(1);
                    }
                    match self.servers.is_writable(at).await {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(error) => last = Some(error),
                    }
                }
                ContainerState::Running { .. } => {}
                ContainerState::Stopped { .. } if Instant::now() < next_start => {}
                ContainerState::Stopped { .. } => {
                    self.runtime.start(self.container(node)?).await?;
                    next_request = Instant::now();
                    next_start = Instant::now() + Duration::from_secs(5);
                }
                ContainerState::Missing => return Err(ActError::NoAddress(node.clone())),
            }
            sleep(GLANCE).await;
        }
        match last {
            Some(source) => Err(ActError::Server { node: node.clone(), doing: "promote", source }),
            None => Err(ActError::NotWritable { node: node.clone(), waited: PROMOTION_LIMIT }),
        }
    }

    /// The record names the new primary.
    async fn finish(&self, mut record: Record, transition: &Transition, begun: Instant) -> Result<Outcome, ActError> {
        let (from, to) = (&transition.from, &transition.to);
        record.epoch += 1;
        record.primary = to.clone();
        record.standby_eligible = false;
        record.transition = None;
        if transition.kind == TransitionKind::Failover {
            let lossy = transition.lossy;
            record.failovers.push(PastFailover { at: self.clock.wall(), from: from.clone(), to: to.clone(), epoch: record.epoch, lossy });
            let surplus = record.failovers.len().saturating_sub(KEPT_FAILOVERS);
            record.failovers.drain(..surplus);
        }
        self.store.save(&record)?;
        self.journal.append(
            "recorded",
            json!({ "epoch": record.epoch, "from": from, "to": to, "seconds": seconds_since(begun), "reason": transition.reason }),
        );
        // Best effort: without it this node's own guard against an old record is one epoch behind until its next start.
        if let Err(error) = self.runtime.note_lead(self.container(to)?, record.epoch).await {
            log::warn!("{to} has not noted that it leads epoch {}: {error}", record.epoch);
        }
        // Best effort: a node that misses it only retries faster, and postgres-node takes the setting back at its next start.
        match self.address(to).await {
            Ok(at) => {
                if let Err(error) = self.servers.relax(at).await {
                    log::warn!("{to}: wal_retrieve_retry_interval stays short until its next start: {error}");
                }
            }
            Err(error) => log::warn!("{error}"),
        }
        let event = match transition.kind {
            TransitionKind::Failover => "failover_finished",
            TransitionKind::Switchover => "switchover_finished",
        };
        self.journal.append(event, json!({ "epoch": record.epoch, "from": from, "to": to, "reason": transition.reason }));
        Ok(Outcome::NewPrimary(to.clone()))
    }

    /// Gives a transition up before promotion was asked for. The record first: while it holds the transition the old primary refuses to start. Its data is
    /// complete and nobody else took writes, so starting it loses nothing.
    async fn roll_back(&self, mut record: Record, from: &NodeName, why: String) -> Result<Outcome, ActError> {
        record.transition = None;
        self.store.save(&record)?;
        self.journal.append("rolled_back", json!({ "epoch": record.epoch, "node": from, "reason": why }));
        self.runtime.start(self.container(from)?).await?;
        Ok(Outcome::RolledBack { primary: from.clone(), why })
    }

    async fn start(&self, node: &NodeName, record: &Record, because: &str) -> Result<Outcome, ActError> {
        self.runtime.start(self.container(node)?).await?;
        self.journal.append("node_started", json!({ "node": node, "epoch": record.epoch, "reason": because }));
        Ok(Outcome::Started(node.clone()))
    }

    fn mark_ineligible(&self, record: &Record) -> Result<(), ActError> {
        if record.standby_eligible {
            self.store.save(&Record { standby_eligible: false, ..record.clone() })?;
        }
        Ok(())
    }

    /// The record first: were the setting emptied first, a crash in between would leave a standby that lacks commits and is called eligible.
    /// `why` goes into the journal.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn drop_to_async(&self, record: &Record, why: Value) -> Result<(), ActError> {
        self.mark_ineligible(record)?;
        let at = self.address(&record.primary).await?;
        let set = self.servers.set_synchronous_standby(at, None).await;
        set.map_err(|source| ActError::Server { node: record.primary.clone(), doing: "let commits go on without the standby", source })?;
        let mut details = json!({ "epoch": record.epoch });
        if let (Value::Object(details), Value::Object(why)) = (&mut details, why) {
            details.extend(why);
        }
        self.journal.append("dropped_to_async", details);
        Ok(())
    }

    /// The record last: see the module's text.
    async fn restore_sync(&self, record: &Record) -> Result<Outcome, ActError> {
        let begun = Instant::now();
        let primary = &record.primary;
        let standby = self.settings.other(primary).ok_or_else(|| ActError::UnknownNode(primary.clone()))?;
        let at = self.address(primary).await?;
        let failed = |doing: &'static str| move |source| ActError::Server { node: primary.clone(), doing, source };
        self.servers.set_synchronous_standby(at, Some(standby)).await.map_err(failed("make commits wait for the standby"))?;
        self.wait_for_sync(primary, at, standby).await?;
        self.servers.settle(at).await.map_err(failed("see the setting in force"))?;
        // Once more: only what this finds at the end of the log, and what comes after it, is all that was ever acknowledged.
        self.wait_for_sync(primary, at, standby).await?;
        self.store.save(&Record { standby_eligible: true, ..record.clone() })?;
        self.journal.append("sync_restored", json!({ "epoch": record.epoch, "node": standby, "seconds": seconds_since(begun) }));
        // Only now, when the replacement streams and commits wait for it (I5).
        match self.runtime.discard_old_data(self.container(standby)?).await {
            Ok(words) => log::debug!("{standby}: {words}"),
            Err(error) => log::warn!("{standby} keeps a replaced data directory: {error}"),
        }
        Ok(Outcome::Done)
    }

    /// Waits until the standby is counted as synchronous and has flushed all that was in the primary's log at the time of the call. To be shown as `sync` it
    /// need not: it may lag behind, or have frozen a moment ago.
    async fn wait_for_sync(&self, primary: &NodeName, at: IpAddr, standby: &NodeName) -> Result<(), ActError> {
        let until = Instant::now() + SYNC_LIMIT;
        let mut end = None;
        loop {
            let answer = self.servers.ask(at).await;
            let status = answer.map_err(|source| ActError::Server { node: primary.clone(), doing: "see its standby", source })?;
            if let RoleStatus::Primary(status) = status.role {
                let end = *end.get_or_insert(status.flushed);
                let has_all = |link: &StandbyLink| link.streaming && link.synchronous && link.flushed.is_some_and(|flushed| flushed >= end);
                if !status.synchronous_standby_names.is_empty()
                    && status.standbys.iter().any(|link| link.name == standby.as_str() && has_all(link))
                {
                    return Ok(());
                }
            }
            if Instant::now() >= until {
                return Err(ActError::NotSynchronous { standby: standby.clone(), waited: SYNC_LIMIT });
            }
            sleep(GLANCE).await;
        }
    }

    fn container(&self, node: &NodeName) -> Result<&str, ActError> {
        self.settings.container(node).ok_or_else(|| ActError::UnknownNode(node.clone()))
    }

    /// The address of a node's container.
    ///
    /// # Errors
    /// [`ActError::NoAddress`] where it does not run or has no network, or an error of the runtime.
    pub async fn address(&self, node: &NodeName) -> Result<IpAddr, ActError> {
        match self.runtime.inspect(self.container(node)?).await? {
            ContainerState::Running { address: Some(address), .. } => Ok(address),
            ContainerState::Running { address: None, .. } | ContainerState::Stopped { .. } | ContainerState::Missing => {
                Err(ActError::NoAddress(node.clone()))
            }
        }
    }
}

/// Seconds since `begun` to the millisecond, for the journal.
fn seconds_since(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0
}
