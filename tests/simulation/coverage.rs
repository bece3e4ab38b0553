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

/// In so many worlds of a long run each has to have been reached: what is met once has been met by luck.
const OFTEN: u64 = 20;

/// Events that programs append to the journal, and that a world can lead to.
const EVENTS: &[&str] = &[
    "app_ready",
    "app_restarted",
    "decision",
    "dropped_to_async",
    "failover_begun",
    "failover_finished",
    "fenced",
    "fenced_stray",
    "identity_recorded",
    "loss_accepted",
    "node_started",
    "pause_ended",
    "paused",
    "promote_requested",
    "recorded",
    "rejoin_begun",
    "rejoined",
    "replayed",
    "resumed",
    "rolled_back",
    "standby_streaming",
    "switchover_begun",
    "switchover_finished",
    "sync_restored",
    "would_have",
    "writable",
];

/// What else has to have happened.
const OTHERS: &[&str] = &[
    "bound of a loss checked",
    "commits given up by a person",
    "observed only, then armed",
    "old data discarded",
    "order carried out late",
    "promoted behind the tool's back",
    "rewind failed",
];

/// The effects at which a program has to have died, before and after.
pub const EFFECTS: &[&str] = &[
    "record",
    "kill",
    "forbid restarts",
    "stop",
    "start",
    "restart",
    "order a copy",
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
    /// In how many worlds each was there at all.
    worlds: BTreeMap<String, u64>,
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

    /// Adds what was counted in one world.
    pub fn merge_world(&mut self, mut world: Self) {
        world.worlds = world.spots().into_iter().map(|spot| (spot, 1)).collect();
        self.merge(world);
    }

    /// All that was reached, each in the words of [`Tally::blind_spots`].
    fn spots(&self) -> Vec<String> {
        let mut spots = Vec::new();
        spots.extend(self.faults.keys().map(|kind| format!("fault {kind}")));
        spots.extend(self.rules.keys().map(|rule| format!("rule {rule}")));
        spots.extend(self.crashes.keys().map(|(kind, after)| format!("crash {} {kind}", when(*after))));
        spots.extend(self.events.keys().map(|event| format!("event {event}")));
        spots.extend(self.others.iter().filter(|(_, count)| **count > 0).map(|(what, _)| (*what).to_owned()));
        spots
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
        add(&mut self.worlds, other.worlds);
    }

    /// What a long run has to have reached often and has not, each with the number of worlds that did.
    pub fn blind_spots(&self) -> Vec<String> {
        let out_of_reach = |rule: &str| OUT_OF_REACH.iter().any(|(id, _)| *id == rule);
        let mut needed: Vec<String> = Vec::new();
        needed.extend(ALL_KINDS.iter().map(|kind| format!("fault {kind}")));
        needed.extend(RULES.iter().filter(|rule| !out_of_reach(rule.id)).map(|rule| format!("rule {}", rule.id)));
        needed.extend([false, true].iter().flat_map(|after| EFFECTS.iter().map(|kind| format!("crash {} {kind}", when(*after)))));
        needed.extend(EVENTS.iter().map(|event| format!("event {event}")));
        needed.extend(OTHERS.iter().map(|what| (*what).to_owned()));
        let worlds = |spot: &String| self.worlds.get(spot).copied().unwrap_or(0);
        let mut spots: Vec<String> =
            needed.iter().filter(|spot| worlds(spot) < OFTEN).map(|spot| format!("{spot} ({} worlds)", worlds(spot))).collect();
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
        let mut rare: Vec<(&String, &u64)> = self.worlds.iter().collect();
        rare.sort_by_key(|(_, worlds)| **worlds);
        line("in the fewest worlds", rare.iter().take(25).map(|(spot, worlds)| format!("{spot} {worlds}")).collect());
        line("besides", self.others.iter().map(|(what, count)| format!("{what} {count}")).collect());
        text
    }
}

fn when(after: bool) -> &'static str {
    if after { "after" } else { "before" }
}
