//! A simulation: the programs that run in production, in a world in memory, under a seed.
//!
//! What runs is the code itself: `Checker::run_for` as cron starts it, the person's orders as the command line calls them, `postgres-node`'s plan. What is
//! simulated is everything below: the clocks, the container runtime, two PostgreSQL servers with their logs and timelines, clients that remember what was
//! acknowledged, the networks, the disk, and a person who does what the messages ask for. Everything is drawn from one number, so a seed that fails fails again.
//!
//! ```text
//! make simulate SEEDS=1000000 FIRST=1     a night
//! make simulate SEEDS=1 FIRST=1234        one seed, with everything that happened in it
//! ```
//!
//! | where | what |
//! | --- | --- |
//! | `run` | one seed from its beginning to its end |
//! | `world/` | the world's parts; each says what it simplifies |
//! | `faults`, `people` | what goes wrong, and who gives orders and follows advice |
//! | `invariants` | I1 to I6, one function each |
//! | `broken_rules` | rules broken on purpose: the test of the test |
//! | `coverage` | what has to have happened in a long run |
//! | `stories` | what must not be left to luck: told on purpose, at each effect in turn, by `make check` |
//!
//! # A fault
//! A variant of `Fault` with its name and whether it lasts; the compiler shows what is missing. Give it a number in `draw` and its name to `ALL_KINDS`: a long
//! run fails until it happens. It changes the world and says nothing to the program.
//!
//! # An invariant
//! A function in `invariants`, named after it, that judges the world's truth and calls `violate` with words that say what was seen. Call it where what it
//! forbids would come about. Then break a rule that it is to catch.
//!
//! # A broken rule
//! A variant of `BrokenRule`, in `ALL`, with the invariant that has to catch it, and the lie that breaks it, at the border between the program and the world. No
//! line of `src/` may know of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // In a test a panic is the report, in its helpers too.

mod broken_rules;
mod coverage;
#[path = "../default_settings.rs"]
mod default_settings;
mod faults;
mod invariants;
mod people;
mod run;
mod stories;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use broken_rules::BrokenRule;
use coverage::Tally;
use run::{live_through, live_through_in};
use understudy::failover::settings::Mode;

/// Below this many seeds a run is not asked whether it has reached everything.
const LONG_RUN: u64 = 10_000;
/// Within this many seeds each broken rule has to be caught.
const CAUGHT_WITHIN: u64 = 2_000;
/// So many seeds live one life that acts and one that only observes.
const TWINS: u64 = 100;
/// So many failing seeds are enough.
const ENOUGH: usize = 5;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How a seed is told of.
fn replay(seed: u64) -> String {
    format!("make simulate SEEDS=1 FIRST={seed}")
}

#[test]
fn i1_to_i6_hold_in_every_world() {
    let (first, seeds) = (number("FIRST", 1), number("SEEDS", LONG_RUN));
    let begun = Instant::now();
    if seeds == 1 {
        let outcome = live_through(first, None, true);
        println!("{}", outcome.trace.join("\n"));
        println!("{}", outcome.tally.summary());
        assert_eq!(outcome.violation, None, "seed {first}");
        return;
    }
    let next = AtomicU64::new(first);
    let tally = Mutex::new(Tally::default());
    let failures = Mutex::new(Vec::new());
    let lived = AtomicU64::new(0);
    let work = || {
        let mut own = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || failures.lock().unwrap().len() >= ENOUGH {
                break;
            }
            let outcome = live_through(seed, None, false);
            lived.fetch_add(outcome.lived.as_secs(), Ordering::Relaxed);
            own.merge_world(outcome.tally);
            if let Some(violation) = outcome.violation {
                failures.lock().unwrap().push((seed, violation));
            }
            let done = seed - first + 1;
            if done.is_multiple_of(1_000) {
                println!("{done} of {seeds} seeds after {:.0} s", begun.elapsed().as_secs_f64());
            }
        }
        tally.lock().unwrap().merge(own);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(work);
        }
    });
    let tally = tally.into_inner().unwrap();
    let hours = lived.load(Ordering::Relaxed) / 3_600;
    println!("{}{seeds} seeds from {first}, {hours} hours of their own time, in {:.1} s", tally.summary(), begun.elapsed().as_secs_f64());
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    let words: Vec<String> = failures.iter().map(|(seed, violation)| format!("seed {seed}: {violation}\n  {}", replay(*seed))).collect();
    assert!(words.is_empty(), "{}", words.join("\n"));
    if seeds >= LONG_RUN {
        assert_eq!(tally.blind_spots(), Vec::<String>::new(), "reached too rarely in {seeds} seeds");
    }
}

#[test]
fn a_seed_lives_the_same_life_twice() {
    let mut told = 0;
    for seed in 1..=40 {
        let lives = [(); 2].map(|()| live_through(seed, None, true).trace);
        told += lives[0].len();
        assert_eq!(lives[0], lives[1], "seed {seed}");
    }
    assert!(told > 1_000, "too little happened for this to mean anything");
}

/// Up to the first deed both lives are the same: the observing passes have to say then what the others do, by the same rule.
#[test]
fn passes_that_only_observe_say_what_the_others_do() {
    let mut said = 0;
    for seed in 1..=TWINS {
        let [acted, observed] = [Mode::Act, Mode::Observe].map(|mode| live_through_in(Some(mode), seed, None, false));
        assert_eq!((acted.violation, observed.violation), (None, None), "seed {seed}");
        let Some((time, rule)) = acted.first_deed else { continue };
        let (said_at, said_rule) = observed.first_deed.unwrap_or_else(|| panic!("seed {seed}: {rule} after {time:?}, and nothing is said"));
        assert!(said_rule == rule && said_at <= time, "seed {seed}: {rule} after {time:?}, and {said_rule} is said after {said_at:?}");
        said += 1;
    }
    assert!(said > TWINS / 2, "too little was done for this to mean anything: {said}");
}

#[test]
fn every_broken_rule_is_caught() {
    let left = Mutex::new(BrokenRule::ALL.to_vec());
    let results = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(rule) = left.lock().unwrap().pop() else { break };
            let caught = (1..=CAUGHT_WITHIN).find_map(|seed| {
                let violation = live_through(seed, Some(rule), false).violation?;
                rule.caught_by().iter().any(|invariant| violation.starts_with(invariant)).then_some((seed, violation))
            });
            results.lock().unwrap().push((rule, caught));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(work);
        }
    });
    let mut escaped = Vec::new();
    for (rule, caught) in results.into_inner().unwrap() {
        match caught {
            Some((seed, violation)) => println!("{rule:?}: caught by seed {seed}: {violation}"),
            None => escaped.push(rule),
        }
    }
    assert!(escaped.is_empty(), "not caught within {CAUGHT_WITHIN} seeds: {escaped:?}");
}
