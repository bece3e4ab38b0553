//! `postgres-node`: from the start of a container to the moment when it becomes postgres.
//!
//! What it does is not made up here: it is what the program's own [`plan`] says, on the record as it is read then; and it reads the record again before it becomes
//! postgres, as `src/node/command.rs` does. Rewind and copy are simplified to a time after which the data are those of the primary; like the real ones they
//! need the primary, may be interrupted, and a rewind finds nothing to do between two servers on timelines of the same number.

use understudy::failover::runtime::RuntimeError;
use understudy::node::configuration::leading;
use understudy::node::plan::{DataDirectory, Noted, Plan, plan};
use understudy::record::{NodeName, Record, Transition};

use super::containers::{Kept, Run};
use super::disk::IDENTITY;
use super::postgres::{Data, Phase, Server};
use super::{State, name};
use crate::broken_rules::BrokenRule;

/// How long a node waits for its primary before it ends, in ticks.
const PRIMARY_LIMIT: u32 = 600;
/// How long a standby that can start without its primary looks for it, in ticks.
const SHORT_PATIENCE: u32 = 20;

/// What `postgres-node` compares before it becomes postgres.
type Basis = (u64, NodeName, Option<Transition>);

/// How far a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Preparation {
    /// The program has begun.
    Begun { ticks: u32 },
    /// It looks whether the primary keeps its log.
    Looking { basis: Basis, ticks: u32 },
    /// It takes the primary's data.
    Joining { basis: Basis, how: Join, ticks: u32, waited: u32 },
    /// The data directory is ready.
    Ready { basis: Basis, ticks: u32, leads: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    Rewind,
    Clone { keep: bool },
}

fn basis(record: &Record) -> Basis {
    (record.epoch, record.primary.clone(), record.transition.clone())
}

impl State {
    /// `docker start`.
    pub fn start(&mut self, index: usize) -> Result<(), RuntimeError> {
        let ticks = self.rng.u32(0..3);
        let node = &mut self.nodes[index];
        let refused = |why: &str| Err(RuntimeError::Refused { container: name(index).to_string(), doing: "start", why: why.to_owned() });
        match node.run {
            Run::Running => Ok(()),
            Run::Paused => refused("it is paused"),
            Run::Missing => refused("no such container"),
            Run::Stopped(_) => {
                node.run = Run::Running;
                node.server = Some(Server::new(Phase::Preparing(Preparation::Begun { ticks }), false, false));
                Ok(())
            }
        }
    }

    /// A tick of the program.
    pub fn prepare(&mut self, index: usize) {
        let Some(Server { phase: Phase::Preparing(preparation), .. }) = &self.nodes[index].server else { return };
        let next = match preparation.clone() {
            Preparation::Begun { ticks: 0 } => self.choose(index),
            Preparation::Begun { ticks } => Ok(Preparation::Begun { ticks: ticks - 1 }),
            Preparation::Looking { basis, ticks } => Ok(self.look(index, basis, ticks)),
            Preparation::Joining { basis, how, ticks, waited } => self.join(index, basis, how, ticks, waited),
            Preparation::Ready { basis, ticks: 0, leads } => {
                self.become_postgres(index, &basis, leads);
                return;
            }
            Preparation::Ready { basis, ticks, leads } => Ok(Preparation::Ready { basis, ticks: ticks - 1, leads }),
        };
        let node = &mut self.nodes[index];
        match (next, &mut node.server) {
            (Ok(next), Some(server)) => server.phase = Phase::Preparing(next),
            (Err(how), _) => {
                node.ends(how);
                self.say(|| format!("postgres-node {index}: {how}"));
            }
            (Ok(_), None) => {}
        }
    }

    fn primary_serves(&self, index: usize) -> bool {
        self.network.joins_the_pair() && self.nodes[1 - index].is_writable() && !self.nodes[1 - index].refuses
    }

    fn choose(&mut self, index: usize) -> Result<Preparation, &'static str> {
        let record = match self.disk.load() {
            Ok(record) => record,
            Err(_) if self.broken == Some(BrokenRule::NodeStartsWithoutRecord) => self.disk.record.clone(),
            Err(_) => {
                self.tally.count("node refused: no record");
                return Err("exited with code 1: no record");
            }
        };
        let node = &self.nodes[index];
        let volume = node.data.as_ref().map_or(DataDirectory::Empty, |data| DataDirectory::Present {
            system_identifier: IDENTITY.to_owned(),
            standby_signal: data.standby_signal,
            unpromoted: data.unpromoted,
            rewinding: data.rewinding,
        });
        let plan = plan(&name(index), &record, &volume, node.noted);
        let plan = BrokenRule::plan(self.broken, if node.copy_ordered { plan.by_copy(&record) } else { plan });
        self.say(|| format!("postgres-node {index}: {plan:?}"));
        let (basis, ticks) = (basis(&record), self.rng.u32(0..3));
        let joining = |how, ticks| Ok(Preparation::Joining { basis: basis.clone(), how, ticks, waited: 0 });
        let long = self.rng.u32(5..40);
        let node = &mut self.nodes[index];
        match plan {
            Plan::Refuse(_) => {
                self.tally.count("node refused: plan");
                Err("exited with code 1: refused")
            }
            Plan::Initialise => {
                self.i5_is_initialised(index);
                self.nodes[index].data = Some(Data::of_a_new_cluster());
                Ok(Preparation::Ready { basis, ticks, leads: true })
            }
            Plan::Lead { synchronous } => {
                let data = node.data.as_mut().unwrap();
                // What the real configuration makes of it, where it does not leave the setting as it is.
                if let Some(names) = leading(&name(1 - index), synchronous).extra.get("synchronous_standby_names") {
                    data.synchronous = names.as_ref().is_some_and(|names| !names.is_empty());
                }
                data.standby_signal = false;
                Ok(Preparation::Ready { basis, ticks, leads: true })
            }
            Plan::Follow => Ok(Preparation::Looking { basis, ticks: 0 }),
            Plan::Rewind => joining(Join::Rewind, long),
            Plan::Clone { keep } => {
                if self.broken == Some(BrokenRule::OldDataDiscardedFirst) {
                    node.data = None;
                }
                joining(Join::Clone { keep }, long)
            }
        }
    }

    /// Does the primary still keep the log that this standby needs? It starts without an answer too.
    fn look(&mut self, index: usize, basis: Basis, ticks: u32) -> Preparation {
        let serves = self.primary_serves(index);
        let node = &mut self.nodes[index];
        if serves && node.slot_lost {
            self.tally.count("copied: slot lost");
            return Preparation::Joining { basis, how: Join::Clone { keep: false }, ticks: 20, waited: 0 };
        }
        if !serves && ticks < SHORT_PATIENCE {
            return Preparation::Looking { basis, ticks: ticks + 1 };
        }
        if let Some(data) = &mut node.data {
            (data.standby_signal, data.synchronous) = (true, false);
        }
        Preparation::Ready { basis, ticks: 0, leads: false }
    }

    fn join(&mut self, index: usize, basis: Basis, how: Join, ticks: u32, waited: u32) -> Result<Preparation, &'static str> {
        if !self.primary_serves(index) {
            // A rewind that loses its source has failed, and a copy that does begins again.
            let begun = self.nodes[index].data.as_ref().is_some_and(|data| data.rewinding);
            let how = if begun { Join::Clone { keep: false } } else { how };
            return if waited < PRIMARY_LIMIT {
                Ok(Preparation::Joining { basis, how, ticks: ticks.max(5), waited: waited + 1 })
            } else {
                Err("exited with code 1: the primary is not there")
            };
        }
        let (left, right) = self.nodes.split_at_mut(1);
        let (node, peer) = if index == super::A { (&mut left[0], &right[0]) } else { (&mut right[0], &left[0]) };
        let (Some(source), data) = (&peer.data, &mut node.data) else { return Err("exited with code 1: no source") };
        if let (Join::Rewind, Some(target)) = (how, data.as_mut()) {
            if target.timeline() == source.timeline() {
                target.standby_signal = true;
                return Ok(Preparation::Ready { basis, ticks: 1, leads: false });
            }
            target.rewinding = true;
            if node.rewind_fails && ticks < 5 {
                self.tally.count("rewind failed");
                return Ok(Preparation::Joining { basis, how: Join::Clone { keep: false }, ticks: 20, waited: 0 });
            }
        }
        if ticks > 0 {
            return Ok(Preparation::Joining { basis, how, ticks: ticks - 1, waited: 0 });
        }
        let copy = Data::copy_of(source);
        let replaced = data.replace(copy);
        if let (Join::Clone { keep }, Some(replaced)) = (how, replaced.filter(|replaced| !replaced.rewinding)) {
            node.kept.push(Kept { data: replaced, forever: keep });
        }
        (node.slot_lost, node.copy_ordered) = (false, false);
        self.tally.count(if how == Join::Rewind { "rewound" } else { "copied" });
        Ok(Preparation::Ready { basis, ticks: 1, leads: false })
    }

    fn become_postgres(&mut self, index: usize, basis_then: &Basis, leads: bool) {
        let now = match self.disk.load() {
            Ok(record) => record,
            Err(_) if self.broken == Some(BrokenRule::NodeStartsWithoutRecord) => self.disk.record.clone(),
            Err(_) => {
                self.nodes[index].ends("exited with code 1: no record");
                return;
            }
        };
        if basis(&now) != *basis_then {
            self.nodes[index].ends("exited with code 1: the record changed");
            return;
        }
        self.i5_is_started(index);
        let slow = self.nodes[index].starts_slowly;
        let ticks = if slow { self.rng.u32(200..1_500) } else { self.rng.u32(1..8) };
        let node = &mut self.nodes[index];
        node.noted = Some(Noted { epoch: now.epoch, leading: leads });
        let synchronous = leads && node.data.as_ref().is_some_and(|data| data.synchronous);
        let mut server = Server::new(Phase::Starting { ticks }, leads, synchronous);
        server.replayed = node.data.as_ref().map_or(0, |data| data.flushed / 2);
        node.server = Some(server);
        self.say(|| format!("node {index} becomes postgres, {}", if leads { "primary" } else { "standby" }));
    }
}
