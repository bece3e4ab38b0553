//! What a decision that does nothing rests on: the gate that said no, its operands, and who or what may overrule it. Pure.
//!
//! Every reason to wait, to alert or to refuse has one; a test goes through all that can be seen and finds none without. The words for all of them
//! are a reviewed file: `tests/integration/snapshots/gates.snap`.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::decide::{UNPROTECTED_AFTER, promotable};
use super::decision::{Action, Decision, Reason, Unpromotable};
use super::observation::{NodeView, Observation};
use crate::record::NodeName;

/// Takes the lead from a primary that is not seen to take writes. Where the standby is eligible it loses nothing, whatever its name says.
const FAILOVER: &str = "failover-check failover --accept-data-loss";

/// A gate that said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// What is asked before anything is done.
    pub question: &'static str,
    /// What the answer rests on.
    pub operands: Vec<Operand>,
    /// The command that a person may overrule it with; none where none may.
    pub overruled_by: Option<String>,
    /// What opens it without that; or why nothing may overrule it, and what mends it.
    pub otherwise: String,
}

/// One value that a gate compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operand {
    /// What it is.
    pub what: &'static str,
    /// What was seen.
    pub value: String,
    /// What is needed, where that is not in the question.
    pub needed: Option<String>,
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.value)?;
        self.needed.as_ref().map_or(Ok(()), |needed| write!(f, " (needed: {needed})"))
    }
}

impl Gate {
    fn new(question: &'static str) -> Self {
        Self { question, operands: Vec::new(), overruled_by: None, otherwise: String::new() }
    }

    /// The gate of every deed while passes only observe.
    #[must_use]
    pub fn observing(decision: &Decision) -> Self {
        Self::new("may passes act?")
            .compared("mode", "observe", "act")
            .operand("would do", decision.action.name())
            .overruled("failover-check run --act")
            .otherwise("set understudy_mode: act in variables/target.yml, and run playbooks/run_containers.yml")
    }

    fn operand(mut self, what: &'static str, value: impl ToString) -> Self {
        self.operands.push(Operand { what, value: value.to_string(), needed: None });
        self
    }

    fn compared(mut self, what: &'static str, value: impl ToString, needed: impl ToString) -> Self {
        self.operands.push(Operand { what, value: value.to_string(), needed: Some(needed.to_string()) });
        self
    }

    fn overruled(mut self, command: impl Into<String>) -> Self {
        self.overruled_by = Some(command.into());
        self
    }

    fn otherwise(mut self, words: impl Into<String>) -> Self {
        self.otherwise = words.into();
        self
    }

    /// Only a person may take the lead from this primary, by a failover, where the standby can be promoted at all. `otherwise`: what else helps.
    fn failover(self, seen: &Observation, standby: &str, otherwise: &str) -> Self {
        match promotable(seen) {
            Ok(()) => self.overruled(FAILOVER).otherwise(otherwise),
            Err(why) => self.unpromotable(&why, standby, otherwise),
        }
    }

    /// What a standby that may not be promoted lacks. `otherwise`: what else helps.
    fn unpromotable(self, why: &Unpromotable, standby: &str, otherwise: &str) -> Self {
        match why {
            Unpromotable::Ineligible { behind } => {
                let behind = behind.map_or("unknown".to_owned(), |(bytes, age)| format!("{bytes} bytes, {} ago", seconds(age)));
                self.compared("standby_eligible", "no", "yes")
                    .operand("behind the primary's last known position", behind)
                    .overruled(FAILOVER)
                    .otherwise(otherwise)
            }
            Unpromotable::NotRunning(how) => self
                .operand("the standby's container:", how)
                .overruled(format!("docker start {standby}; what it is able to do decides then"))
                .otherwise(otherwise),
            Unpromotable::NoAnswer(why) => self
                .operand("the standby:", why)
                .otherwise(format!("nothing is promoted unseen (I3); see docker logs {standby}; {otherwise}")),
            Unpromotable::NotInRecovery => self
                .compared("the standby", "not in recovery", "in recovery")
                .overruled(format!("{FAILOVER}, which adopts it where the primary is stopped"))
                .otherwise(otherwise),
            Unpromotable::ReplayPaused => self
                .compared("replay on the standby", "paused", "running")
                .overruled(format!("docker exec {standby} psql -h /run/postgresql -U postgres -c 'SELECT pg_wal_replay_resume()'"))
                .otherwise(otherwise),
            Unpromotable::Stranger { recorded, found } => self.compared("the standby's system identifier", found, recorded).otherwise(
                format!("another cluster's data are never promoted; move its data directory away, and it is copied anew; {otherwise}"),
            ),
        }
    }

    /// As lines for a person.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let operands = self.operands.iter().map(Operand::to_string).collect::<Vec<_>>().join("; ");
        let (overruled, otherwise) = match &self.overruled_by {
            Some(command) => (command.as_str(), "otherwise"),
            None => ("nothing", "because"),
        };
        let lines = [("gate", self.question), ("operands", &operands), ("overruled by", overruled), (otherwise, &self.otherwise)];
        lines.map(|(head, words)| format!("{head:<13} {words}")).to_vec()
    }

    /// For a program.
    #[must_use]
    pub fn json(&self) -> Value {
        let operands: Vec<Value> =
            self.operands.iter().map(|operand| json!({ "what": operand.what, "value": operand.value, "needed": operand.needed })).collect();
        json!({ "question": self.question, "operands": operands, "overruled_by": self.overruled_by, "otherwise": self.otherwise })
    }
}

/// The gate behind a decision that does nothing although all is not well; none for the others.
#[must_use]
pub fn gate(decision: &Decision, seen: &Observation, containers: &BTreeMap<NodeName, String>, app: &str) -> Option<Gate> {
    if decision.action.is_deed() || decision.action == Action::Nothing {
        return None;
    }
    let limits = &seen.thresholds;
    let elapsed = &seen.elapsed;
    let container = |node: &NodeView| containers.get(&node.name).cloned().unwrap_or_else(|| node.name.to_string());
    let (primary, standby) = (container(&seen.primary), container(&seen.standby));
    let by_itself = |when: &str| format!("it opens by itself {when}");
    Some(match &decision.reason {
        Reason::RuntimeSilent(why) => Gate::new("does the container runtime answer, so that a node can be fenced?")
            .operand("its answer:", why)
            .otherwise("what cannot be stopped for certain is never replaced (I1); start the Engine: systemctl start docker"),
        Reason::PromotedOutside => Gate::new("is the only node that takes writes the one that the record names?")
            .operand("the record names", &seen.primary.name)
            .operand("writes are taken by", &seen.standby.name)
            .overruled(format!("docker stop {primary}, then {FAILOVER}, which adopts {}", seen.standby.name))
            .otherwise(format!("stop {standby}, and the recorded primary is started again")),
        Reason::Paused { left, .. } => {
            let until = left.map_or("a person resumes".to_owned(), |left| format!("{} have gone by", seconds(left)));
            Gate::new("has no person paused the tool?").operand("paused until", until).overruled("failover-check resume").otherwise(
                match left {
                    Some(_) => by_itself("when that time is over"),
                    None => "it has no end of its own".to_owned(),
                },
            )
        }
        Reason::ContainerUnknown(why) => {
            Gate::new("does the runtime say whether the primary's container runs?").operand("its answer:", why).otherwise(format!(
                "what may still run cannot be called fenced (I3); see docker inspect {primary}, and where that hangs restart the Engine"
            ))
        }
        Reason::StartedJustNow(ago) => Gate::new("has a node that was started had time to come up?")
            .compared("started ago", seconds(*ago), seconds(limits.node_start_cooldown))
            .failover(seen, &standby, &by_itself("after that time")),
        Reason::Lost { primary: how, standby: why } => Gate::new("can the standby take over without losing an acknowledged commit?")
            .operand("the primary:", how)
            .unpromotable(why, &standby, &format!("bring the primary back: docker logs {primary}")),
        Reason::Flapping { failovers, .. } => Gate::new("were there few enough failovers within the window?")
            .compared("failovers", failovers, format!("fewer than {}", limits.flapping_limit))
            .overruled("failover-check resume")
            .otherwise("find out why first: failover-check history; it opens by itself when the window has passed over them"),
        Reason::Starting(time) => Gate::new("has the primary been starting for longer than the grace?")
            .compared("starting for", seconds(*time), seconds(limits.startup_grace))
            .failover(seen, &standby, &by_itself("when it is up; with a standby that can take over also when the grace is over")),
        Reason::Refusing(why) => Gate::new("is the primary dead, and not only closed to the checker?")
            .operand("the primary answers:", why)
            .failover(seen, &standby, "mend what it says: a failover would not help against a wrong password or too many connections"),
        Reason::PrimaryInRecovery => Gate::new("is the recorded primary out of recovery?")
            .operand("in recovery:", &seen.primary.name)
            .failover(seen, &standby, "compare the record with the last 'recorded' line of events.jsonl, and repair it"),
        Reason::PrimaryReadOnly => Gate::new("does the primary take writes?")
            .compared("default_transaction_read_only", "on", "off")
            .otherwise("the primary is alive and does what it is told, so nothing is replaced; take the setting back"),
        Reason::PrimaryStranger(found) => Gate::new("does the primary serve this cluster's data?")
            .compared("system identifier", found, seen.record.system_identifier.as_deref().unwrap_or("unknown"))
            .overruled(format!("docker stop {primary}; an eligible standby then takes over by itself"))
            .otherwise("bring back the data directory that belongs there"),
        Reason::OnlyHostCannotReach(why) => Gate::new("is the primary out of everybody's reach, and not only of this host's?")
            .operand("this host:", why)
            .operand("others:", "the standby or the app reach it")
            .failover(seen, &standby, "mend this host's way to the containers' network"),
        Reason::Isolated(time) => Gate::new("has the primary been out of reach for longer than the grace?")
            .compared("isolated for", seconds(*time), seconds(limits.isolation_grace))
            .failover(seen, &standby, &by_itself("when the grace is over")),
        Reason::WitnessUnknown(why) => {
            Gate::new("does the witness inside the primary's container say that it is dead?").operand("the witness:", why).failover(
                seen,
                &standby,
                &format!("a witness that was not heard proves nothing (I3); see docker exec {primary} postgres-node probe"),
            )
        }
        Reason::AppStillReady => Gate::new("does the app find no writable primary either?")
            .compared("the app", "ready", "not ready")
            .failover(seen, &standby, "mend this host's way to the containers' network"),
        Reason::Suspicion { passes, time, .. } => Gate::new("has the primary been silent often and long enough?")
            .compared("silent passes", passes, limits.suspicion_passes)
            .compared("silent for", seconds(*time), seconds(limits.suspicion))
            .failover(seen, &standby, &by_itself("when both are reached, or when the primary answers")),
        Reason::WeakCommits(setting) => Gate::new("do commits wait for the standby's disk?")
            .compared("synchronous_commit", setting, "on or remote_apply")
            .otherwise("no command makes up for commits that nobody waited for; take the setting out of postgresql.conf of your own"),
        Reason::Unprotected { time, seen: words } => Gate::new("does the standby stream?")
            .operand("the standby:", words)
            .compared("away for", seconds(*time), format!("less than {}", seconds(UNPROTECTED_AFTER)))
            .overruled(format!("failover-check rejoin {}, with --from-copy where it has tried in vain", seen.standby.name))
            .otherwise(format!("docker logs {standby} says why")),
        Reason::StandbyDoesNotStart { attempts, how } => Gate::new("does the standby stay up?")
            .operand("its container:", how)
            .compared("attempts", attempts, format!("fewer than {}", limits.start_attempts))
            .overruled(format!("failover-check rejoin {}, with --from-copy where it has tried in vain", seen.standby.name))
            .otherwise(format!("docker logs {standby} says why; it is tried again each minute")),
        Reason::StandbyMissing => Gate::new("is there a container for the standby?")
            .operand("missing:", &standby)
            .otherwise("only a playbook knows how it is made: playbooks/run_containers.yml"),
        Reason::StandbyCatchingUp(words) => Gate::new("does the standby stream, and do commits wait for it?")
            .operand("the standby:", words)
            .compared("away for", seconds(elapsed.link_lost_for), format!("less than {}, then it is an alert", seconds(UNPROTECTED_AFTER)))
            .overruled(format!("failover-check rejoin {} --from-copy, where it does not get further", seen.standby.name))
            .otherwise(by_itself("when it has caught up")),
        Reason::StandbyUnfit(why) => {
            Gate::new("could the standby take over now?").unpromotable(why, &standby, "the primary works on meanwhile")
        }
        Reason::AppUnready { time, seen: words } => {
            let gate = Gate::new("has the app been not ready for long enough, and not been restarted lately?")
                .operand("the app:", words)
                .compared("not ready for", seconds(*time), seconds(limits.app_grace));
            let gate = match elapsed.app_restarted_ago {
                Some(ago) => gate.compared("restarted ago", seconds(ago), seconds(limits.app_restart_cooldown)),
                None => gate,
            };
            gate.overruled(format!("docker restart {app}")).otherwise(by_itself("when both are reached, or when the app is ready"))
        }
        Reason::NoRuleMatches => Gate::new("does a rule know what was seen?")
            .operand("the rule:", "none")
            .otherwise("what nobody has thought of is not acted on; please report it with the output of: failover-check explain --json"),
        // The others lead to a deed, or all is well.
        Reason::Unfinished
        | Reason::TwoPrimaries { .. }
        | Reason::PrimaryDown(_)
        | Reason::StartInPlace { .. }
        | Reason::BothDown
        | Reason::PrimaryDoesNotStart(_)
        | Reason::EligibleWithoutSync
        | Reason::StandbyLost(_)
        | Reason::StandbyDown(_)
        | Reason::StandbyStuck(_)
        | Reason::StandbyCaughtUp
        | Reason::Healthy => return None,
    })
}

/// A duration for a person, to a tenth of a second.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
