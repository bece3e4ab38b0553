//! The invariants of the design, each a function named after it. They judge the world's truth and the record, and know no rule of `decide`.
//!
//! | invariant | asserted | what would fire it |
//! | --- | --- | --- |
//! | I1 | at every tick and effect | two servers out of recovery that the tool let come up; a promotion while the other node is a primary, frozen or not, or that the record on the disk does not ask for |
//! | I2 | at every tick and effect, and at each change of primary | the record vouches for a standby that lacks an acknowledged commit on its disk; a new primary lacks one; a loss that a person accepted is larger than said |
//! | I3 | at each failover that nobody ordered | the primary answered a probe, or was silent to fewer or for a shorter time than the thresholds say |
//! | I4 | at each change of the record, and at the end | the record moves where it may not; the pair does not heal, or only a remedy that no message names would help |
//! | I5 | at every tick and effect, at each start and each removal | an acknowledged commit is in no data directory, or none has all of them although nobody gave one up; a node starts without a record; old data go while the new do not stream; a new cluster in the place of a lost one |
//! | I6 | at each failover that nobody ordered | nothing at all was wrong with the primary |
//!
//! Beside them what two settings of the tool promise:
//!
//! | promise | asserted | what would fire it |
//! | --- | --- | --- |
//! | `pause` | at each effect of a pass | a pass that has read of it does anything but fence a second primary and note the cluster's identity; an unfinished transition may go on |
//! | mode observe | at each effect and at each decision of a pass | a pass has any effect, or tells of a deed as if it were done |

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use understudy::record::{NodeName, Record, Step, TransitionKind};

use crate::default_settings::default_settings;
use crate::world::clients::Ids;
use crate::world::postgres::COMMIT_BYTES;
use crate::world::{A, B, Process, State, TICK};

/// A pass may act on what it saw so long ago: the runtime and the probes have their deadlines.
const STALE: Duration = Duration::from_secs(10);

impl State {
    /// What holds at every moment.
    pub fn check(&mut self) {
        self.note_what_is_fine();
        self.i1_one_node_at_most_takes_writes();
        self.i2_whoever_is_vouched_for_has_every_acknowledged_commit();
        self.i5_every_acknowledged_commit_is_in_a_data_directory();
        self.i5_no_data_directory_goes_before_its_replacement_streams();
    }

    fn note_what_is_fine(&mut self) {
        let network = &self.network;
        let reachable = network.loss == 0 && network.delay < Duration::from_millis(100);
        for index in [A, B] {
            let cut = network.checker_cut[index] || network.detached[index];
            let node = &mut self.nodes[index];
            let fine = reachable && !cut && node.is_writable() && !node.refuses && !node.disk_full && node.dies_in.is_none();
            let since = node.evidence.fine_since;
            node.evidence.fine_since = fine.then(|| since.unwrap_or_else(Instant::now));
        }
    }

    fn i1_one_node_at_most_takes_writes(&mut self) {
        // A frozen one counts: it may thaw. One that a person has promoted is that person's doing, until the record names it.
        let leads = self.nodes.iter().filter(|node| node.is(true) && node.server.as_ref().is_some_and(|server| !server.by_hand)).count();
        if leads > 1 {
            self.violate("I1: two nodes can acknowledge writes".to_owned());
        }
    }

    /// A server hears that it is to leave recovery.
    pub fn i1_is_promoted(&mut self, index: usize) {
        let other = &self.nodes[1 - index];
        if self.nodes[index].is(true) {
            return;
        }
        // A container that somebody has started holds a program that reads the record and ends; it is postgres that must not be there.
        if other.runs() && other.server.as_ref().is_some_and(|server| server.primary) {
            self.violate(format!("I1: node {index} is promoted while the other node takes writes, or may in a moment"));
        }
        let durable = self.disk.durable();
        let asked = durable.transition.as_ref().is_some_and(|transition| {
            transition.step >= Step::PromoteRequested && self.index(&transition.to) == index && self.index(&transition.from) != index
        });
        if !asked {
            self.violate(format!("I1: node {index} is promoted, and after a loss of power nothing would say so"));
        }
    }

    fn i2_whoever_is_vouched_for_has_every_acknowledged_commit(&mut self) {
        let record = &self.disk.record;
        if !record.standby_eligible {
            return;
        }
        let standby = 1 - self.index(&record.primary);
        let ledger = &self.ledger;
        // A volume that was destroyed is seen to be empty by whoever starts the node.
        let Some(data) = &self.nodes[standby].data else { return };
        let missing = ledger.acknowledged.missing_in(&[&data.flushed_ids, &ledger.given_up, &ledger.destroyed]);
        if missing > 0 || data.rewinding {
            self.violate(format!("I2: the record vouches for node {standby}, which lacks {missing} acknowledged commits"));
        }
    }

    /// The record names a new primary.
    fn i2_the_new_primary_has_every_acknowledged_commit(&mut self, after: &Record) {
        let primary = self.index(&after.primary);
        let nothing = Ids::default();
        let held = self.nodes[primary].data.as_ref().map_or(&nothing, |data| &data.flushed_ids);
        let ledger = &self.ledger;
        let lost = ledger.acknowledged.without(&[held, &ledger.given_up, &ledger.destroyed]);
        if let Some(server) = &mut self.nodes[primary].server {
            server.by_hand = false;
        }
        if lost.is_empty() {
            return;
        }
        let Some(transition) = self.disk.record.transition.clone().filter(|transition| transition.lossy) else {
            self.violate(format!(
                "I2: {} acknowledged commits are lost with a change of primary that nobody accepted a loss for",
                lost.len()
            ));
            return;
        };
        if let Some((bytes, age)) = printed_bound(&transition.reason).filter(|_| !self.promoted_by_hand) {
            self.tally.count("bound of a loss checked");
            // What was acknowledged after the last look at the primary cannot be in the bound.
            let known =
                lost.len() - self.ledger.acknowledged_since(&lost, self.accepted_at.map_or(Duration::ZERO, |at| at.elapsed()) + age);
            if u64::from(known) * COMMIT_BYTES > bytes {
                self.violate(format!("I2: a loss of {bytes} bytes was accepted, and {known} commits of {COMMIT_BYTES} bytes are lost"));
            }
        }
        self.ledger.given_up.add(&lost);
    }

    /// The record is about to be replaced.
    pub fn record_changes(&mut self, before: &Record, after: &Record, process: &Process) {
        self.i4_the_record_moves_as_it_may(before, after);
        if process.is_crons() && process.read_a_pause.get() {
            self.pause_keeps_the_record(before, after);
        }
        if let (None, Some(transition)) = (&before.transition, &after.transition) {
            self.accepted_at = Some(Instant::now());
            // A rule's number comes first where no person has ordered it.
            let is_automatic = transition.kind == TransitionKind::Failover && transition.reason.starts_with('R');
            if is_automatic {
                self.tally.count("failover by a rule");
                self.i3_unknown_is_never_safe(&transition.from);
                self.i6_a_primary_that_is_fine_stays(&transition.from);
            }
        }
        if before.epoch != after.epoch {
            self.i2_the_new_primary_has_every_acknowledged_commit(after);
        }
    }

    fn i3_unknown_is_never_safe(&mut self, from: &NodeName) {
        let from = self.index(from);
        let evidence = &self.nodes[from].evidence;
        let within = |moment: Instant, time: Duration| moment.elapsed() <= time;
        if !self.nodes[from].runs() || within(evidence.stopped, STALE) {
            return;
        }
        let served = evidence.served.elapsed();
        let silent_for = evidence.silent_since.map_or(Duration::ZERO, |since| since.elapsed());
        // The defaults, whatever a broken rule has made of the settings. A tick less: the world's time goes by in ticks.
        let limits = &default_settings().thresholds;
        let suspicion = limits.suspicion - TICK;
        let needed = if within(evidence.started, suspicion) {
            limits.startup_grace - TICK
        } else if within(evidence.inside, suspicion) {
            limits.isolation_grace - TICK
        } else if self.engine.kept_waiting.is_some_and(|until| within(until, STALE)) {
            // A pass counts from its beginning what it sees for the first time. Where the runtime kept it waiting before it asked the server, what is left for
            // certain are the probes themselves.
            default_settings().probe_deadline * limits.suspicion_passes
        } else {
            suspicion
        };
        // The tool goes by the clock of the boot, which counts the time that the host sleeps.
        let needed = needed.saturating_sub(self.slept());
        let silent = evidence.silent;
        if served < needed || (needed <= suspicion && (silent < limits.suspicion_passes || silent_for < needed)) {
            self.violate(format!(
                "I3: node {from} runs and is failed over: it served {served:?} ago, was silent to {silent} probes over {silent_for:?}; {needed:?} are needed"
            ));
        }
    }

    fn i6_a_primary_that_is_fine_stays(&mut self, from: &NodeName) {
        let from = self.index(from);
        if let Some(since) = self.nodes[from].evidence.fine_since.filter(|since| since.elapsed() > STALE) {
            let time = since.elapsed();
            self.violate(format!("I6: node {from} is failed over, and nothing has been wrong with it for {time:?}"));
        }
    }

    /// A pause is in force, by the wall clock.
    pub fn is_paused(&self) -> bool {
        let pause = self.disk.record.paused.as_ref();
        pause.is_some_and(|pause| pause.until.is_none_or(|until| until > self.wall()))
    }

    /// It ends by itself, unless somebody sets the clock back meanwhile.
    pub fn pause_ends_within(&self, time: Duration) -> bool {
        let until = self.disk.record.paused.as_ref().and_then(|pause| pause.until);
        until.is_some_and(|until| until <= self.wall() + time)
    }

    /// A program has an effect.
    pub fn a_deed_is_done(&mut self, kind: &'static str, process: &Process) {
        if !process.is_crons() {
            return;
        }
        if process.observes {
            self.violate(format!("observe: {kind} by passes that were told to observe only"));
        }
        // What it writes is judged when it is written.
        let is_left_on = matches!(kind, "record" | "kill" | "forbid restarts");
        if process.read_a_pause.get() && !is_left_on {
            self.violate(format!("pause: {kind} while the pair is paused"));
        }
        if let (None, Some(rule)) = (&self.first_deed, &self.told_deed) {
            self.first_deed = Some((self.time(), rule.clone()));
        }
    }

    fn pause_keeps_the_record(&mut self, before: &Record, after: &Record) {
        let kept = Record { system_identifier: after.system_identifier.clone(), ..before.clone() };
        if kept != *after {
            self.violate("pause: a pass changes the record while the pair is paused".to_owned());
        }
    }

    /// A pass says what it has decided.
    pub fn a_decision_is_told(&mut self, event: &str, details: &Value, process: &Process) {
        let word = |key: &str| details.get(key).and_then(Value::as_str).unwrap_or_default();
        let is_deed = !matches!(word("action"), "nothing" | "wait" | "alert" | "refuse");
        match event {
            "decision" if process.observes && is_deed => {
                self.violate(format!("observe: {} is told as a decision, and nothing was done", word("rule")));
            }
            "would_have" if !process.observes || !is_deed => {
                self.violate(format!("observe: {} is told as what would have been done", word("rule")));
            }
            "decision" => self.told_deed = is_deed.then(|| word("rule").to_owned()),
            "would_have" => {
                let time = self.time();
                self.first_deed.get_or_insert_with(|| (time, word("rule").to_owned()));
            }
            _ => {}
        }
    }

    fn i4_the_record_moves_as_it_may(&mut self, before: &Record, after: &Record) {
        let step = |record: &Record| record.transition.as_ref().map(|transition| transition.step);
        let same_way = match (&before.transition, &after.transition) {
            (Some(before), Some(after)) => before.from == after.from && before.to == after.to,
            _ => true,
        };
        let same_lead = before.epoch == after.epoch && before.primary == after.primary;
        let may = match (step(before), step(after)) {
            (None, None) => same_lead,
            (None, Some(step)) => same_lead && step == Step::Intent,
            (Some(then), Some(now)) => same_lead && same_way && now >= then,
            // Back, before promotion was asked for; or done.
            (Some(then), None) if same_lead => then < Step::PromoteRequested,
            (Some(then), None) => {
                then == Step::Writable
                    && after.epoch == before.epoch + 1
                    && before.transition.as_ref().is_some_and(|transition| transition.to == after.primary)
                    && !after.standby_eligible
            }
        };
        if !may {
            self.violate(format!(
                "I4: the record moves from {} epoch {} {:?} to {} epoch {} {:?}",
                before.primary,
                before.epoch,
                step(before),
                after.primary,
                after.epoch,
                step(after)
            ));
        }
    }

    /// Every commit in some data directory.
    pub fn copies(&self) -> Ids {
        let mut all = Ids::default();
        self.nodes.iter().flat_map(|node| node.directories()).for_each(|data| all.add(&data.ids));
        all
    }

    fn i5_every_acknowledged_commit_is_in_a_data_directory(&mut self) {
        let ledger = &self.ledger;
        let directories = || self.nodes.iter().flat_map(|node| node.directories());
        // Most of the time one of them has it all.
        let whole = ledger.acknowledged.is_empty() || directories().any(|data| ledger.acknowledged.missing_in(&[&data.ids]) == 0);
        if whole && ledger.outside.is_empty() {
            return;
        }
        // Each part may be somewhere, and yet nobody could go on with all of it. What a person accepts to lose is given up when the lead has moved.
        let nothing_is_given_up =
            ledger.given_up.is_empty() && self.disk.record.transition.as_ref().is_none_or(|transition| !transition.lossy);
        if !whole && nothing_is_given_up && ledger.outside.is_empty() && ledger.destroyed.is_empty() {
            self.violate("I5: no data directory has every acknowledged commit any more".to_owned());
            return;
        }
        let copies = self.copies();
        let missing =
            ledger.acknowledged.missing_in(&[&copies, &ledger.destroyed]) + ledger.outside.missing_in(&[&copies, &ledger.destroyed]);
        if missing > 0 {
            self.violate(format!("I5: {missing} acknowledged commits are in no data directory any more"));
        }
    }

    fn i5_no_data_directory_goes_before_its_replacement_streams(&mut self) {
        for index in [A, B] {
            let vouched_for = self.disk.record.standby_eligible;
            let node = &mut self.nodes[index];
            let there = node.kept.len() + usize::from(node.data.is_some());
            let before = std::mem::replace(&mut node.directories_seen, there);
            // It may have lost its primary a moment ago; then it has been vouched for.
            if there < before && !vouched_for && !node.server.as_ref().is_some_and(|server| server.streams()) {
                self.violate(format!("I5: data of node {index} are removed before the new ones stream"));
            }
        }
    }

    pub fn i5_is_initialised(&mut self, index: usize) {
        if self.ledger.acknowledged != Ids::default() {
            self.violate(format!("I5: node {index} makes a new cluster where there was one with data"));
        }
    }

    pub fn i5_is_started(&mut self, index: usize) {
        if self.disk.load().is_err() {
            self.violate(format!("I5: node {index} becomes postgres without a readable record"));
        }
        if self.nodes[index].data.as_ref().is_some_and(|data| data.rewinding) {
            self.violate(format!("I5: node {index} becomes postgres on a mixture that a rewind has left"));
        }
    }
}

/// The bound that `failover --accept-data-loss` has named: bytes, and the age of the position that it counts from.
fn printed_bound(reason: &str) -> Option<(u64, Duration)> {
    let (_, rest) = reason.split_once("data loss accepted: ")?;
    let (bytes, rest) = rest.split_once(" bytes of the log are lost for certain")?;
    let (_, rest) = rest.split_once("when it was last seen, ")?;
    let (age, _) = rest.split_once(" s ago")?;
    // Printed to a tenth of a second, and a commit's acknowledgement takes a tick or two.
    Some((bytes.parse().ok()?, Duration::from_secs_f64(age.parse::<f64>().ok()? + 0.3)))
}
