//! What happened in a run: the proof that the faults were real, and that the generator has not gone blind.

use std::collections::BTreeMap;
use std::fmt::Write;

use understudy::failover::decide::RULES;

use crate::faults::ALL_KINDS;

/// Rules that no seed reaches, and why.
const OUT_OF_REACH: &[(&str, &str)] = &[
    ("R240", "somebody would have to put standby.signal into the primary's data directory"),
    ("R250", "default_transaction_read_only is not modelled"),
    ("R260", "a stranger's data directory is not modelled"),
    ("R300", "somebody would have to empty synchronous_standby_names by hand"),
    ("R328", "synchronous_commit is not modelled"),
    ("R362", "it takes ten minutes without a stream"),
    ("R990", "it has to be impossible"),
];

/// The effects at which a program has to have died, before and after, somewhere in a long run.
const EFFECTS: &[&str] = &[
    "record",
    "kill",
    "stop",
    "start",
    "promote",
    "relax",
    "note lead",
    "set sync",
    "settle",
    "set async",
    "discard old data",
    "restart app",
];

/// Counters.
#[derive(Debug, Default)]
pub struct Tally {
    faults: BTreeMap<&'static str, u64>,
    rules: BTreeMap<String, u64>,
    effects: BTreeMap<&'static str, u64>,
    crashes: BTreeMap<(&'static str, bool), u64>,
    events: BTreeMap<String, u64>,
    others: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub fn add(&mut self, what: &'static str, count: u32) {
        *self.others.entry(what).or_default() += u64::from(count);
    }

    pub fn count_fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub fn count_effect(&mut self, kind: &'static str) {
        *self.effects.entry(kind).or_default() += 1;
    }

    pub fn count_crash(&mut self, kind: &'static str, after: bool) {
        *self.crashes.entry((kind, after)).or_default() += 1;
    }

    /// A rule, once for each pass that fired it.
    pub fn count_rule(&mut self, rule: &str) {
        match self.rules.get_mut(rule) {
            Some(count) => *count += 1,
            None => drop(self.rules.insert(rule.to_owned(), 1)),
        }
    }

    pub fn count_event(&mut self, event: &str) {
        *self.events.entry(event.to_owned()).or_default() += 1;
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: Self) {
        fn add<K: Ord>(to: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
            for (key, count) in from {
                *to.entry(key).or_default() += count;
            }
        }
        add(&mut self.faults, other.faults);
        add(&mut self.rules, other.rules);
        add(&mut self.effects, other.effects);
        add(&mut self.crashes, other.crashes);
        add(&mut self.events, other.events);
        add(&mut self.others, other.others);
    }

    /// What a long run has to have reached and has not.
    pub fn blind_spots(&self) -> Vec<String> {
        let mut spots = Vec::new();
        spots.extend(ALL_KINDS.iter().filter(|kind| !self.faults.contains_key(*kind)).map(|kind| format!("fault {kind}")));
        let reachable = RULES.iter().filter(|rule| OUT_OF_REACH.iter().all(|(id, _)| *id != rule.id));
        spots.extend(reachable.filter(|rule| !self.rules.contains_key(rule.id)).map(|rule| format!("rule {}", rule.id)));
        for effect in EFFECTS {
            for after in [false, true] {
                if !self.crashes.contains_key(&(effect, after)) {
                    spots.push(format!("a crash {} {effect}", when(after)));
                }
            }
        }
        for event in ["rolled_back", "failover_finished", "switchover_finished", "fenced_stray", "sync_restored"] {
            if !self.events.contains_key(event) {
                spots.push(format!("event {event}"));
            }
        }
        spots.extend(
            OUT_OF_REACH.iter().filter(|(id, _)| self.rules.contains_key(*id)).map(|(id, why)| format!("{id} fired, and yet {why}")),
        );
        spots
    }

    /// All of it.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut line = |title: &str, counts: Vec<String>| {
            let _ = writeln!(text, "{title}: {}", counts.join(", "));
        };
        line("faults", self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect());
        line("passes by rule", self.rules.iter().map(|(rule, count)| format!("{rule} {count}")).collect());
        line("effects", self.effects.iter().map(|(kind, count)| format!("{kind} {count}")).collect());
        line("crashes", self.crashes.iter().map(|((kind, after), count)| format!("{} {kind} {count}", when(*after))).collect());
        line("events", self.events.iter().map(|(event, count)| format!("{event} {count}")).collect());
        line("besides", self.others.iter().map(|(what, count)| format!("{what} {count}")).collect());
        text
    }
}

fn when(after: bool) -> &'static str {
    if after { "after" } else { "before" }
}
