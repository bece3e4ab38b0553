//! Some hundred failovers in one go, by chance: `make soak`, COUNT of them (default 200).
//!
//! Method: one accident after the other on a pair that is whole again, chosen by a generator with a seed; the same SEED
//! chooses the same accidents in the same order. What is measured is the time between the last row that the old primary
//! acknowledged and the first that the new one did, as the writer saw it, which writes every 5 ms and comes back after 5 ms.
//! One writer counts acknowledged rows and one poller counts writable nodes, from the first accident to the last. One time in
//! eight the checker is killed in the middle and comes back after up to three seconds; with cron it would be up to a minute.
//! Thresholds are the usual ones, but that of an isolated primary, 2 s instead of 30 s.

use std::fmt;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::support::network::cut_off;
use crate::support::{FAILOVER, Node, Scenario, Tuning};

/// One in so many failovers is also one in which the checker is killed.
const CHECKER_KILLED_ONE_IN: u64 = 8;

/// The average that a failover may take with all that belongs to it, until the pair is whole again.
const AVERAGE_LIMIT: Duration = Duration::from_secs(10);

/// What happens to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accident {
    ContainerKilled,
    PostmasterKilled,
    Stopped,
    Frozen,
    ProcessesStopped,
    PostmasterStopped,
    NetworkCut,
    Switchover,
}

const ACCIDENTS: [Accident; 8] = [
    Accident::ContainerKilled,
    Accident::PostmasterKilled,
    Accident::Stopped,
    Accident::Frozen,
    Accident::ProcessesStopped,
    Accident::PostmasterStopped,
    Accident::NetworkCut,
    Accident::Switchover,
];

impl Accident {
    /// The rule that has to decide it; none where a person does.
    fn rule(self) -> Option<&'static str> {
        match self {
            Self::ContainerKilled | Self::PostmasterKilled | Self::Stopped => Some("R80"),
            Self::Frozen | Self::ProcessesStopped | Self::PostmasterStopped => Some("R230"),
            Self::NetworkCut => Some("R210"),
            Self::Switchover => None,
        }
    }
}

impl fmt::Display for Accident {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ContainerKilled => "docker kill",
            Self::PostmasterKilled => "kill -9 of the postmaster",
            Self::Stopped => "docker stop",
            Self::Frozen => "docker pause",
            Self::ProcessesStopped => "SIGSTOP of every process",
            Self::PostmasterStopped => "SIGSTOP of the postmaster, the app gone",
            Self::NetworkCut => "network cut",
            Self::Switchover => "switchover",
        })
    }
}

/// Chooses by a seed, the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// The next accident, and when the checker is killed after it, if at all, and for how long it stays away.
    fn next(&mut self) -> (Accident, Option<(Duration, Duration)>) {
        let accident = ACCIDENTS[usize::try_from(self.below(ACCIDENTS.len() as u64)).unwrap()];
        let killed = self.below(CHECKER_KILLED_ONE_IN) == 0 && accident != Accident::Switchover;
        let (after, away) = (self.below(400), self.below(3000));
        (accident, killed.then_some((Duration::from_millis(after), Duration::from_millis(away))))
    }
}

#[test]
#[ignore = "half an hour: make soak"]
fn soak() {
    let count = variable("COUNT").unwrap_or(200);
    let seed = variable("SEED").unwrap_or_else(|| Timestamp::now().as_microsecond().unsigned_abs());
    eprintln!("soak: {count} failovers; to choose the same ones again: SEED={seed}");
    let mut chance = Chance(seed);
    let scenario = Scenario::begin_measurement("soak");
    let (mut lost, mut heir) = scenario.roles();
    let tuning = Tuning::new(&[&lost, &heir], &[("wal_receiver_timeout", "1s")]);
    let settings = [("isolation_grace_seconds", 2.0), ("flapping_limit", 1_000_000.0)];
    scenario.start_checker_with_thresholds(&settings);

    let begun = Instant::now();
    let mut outages: Vec<(Accident, f64)> = Vec::new();
    for number in 1..=count {
        let (accident, checker_killed) = chance.next();
        scenario.wait_healthy();
        scenario.wait_for_writes(5);
        let outage = fail_over(&scenario, accident, checker_killed, &settings, &lost, &heir);
        let also = if checker_killed.is_some() { ", and kill -9 of the checker" } else { "" };
        eprintln!("soak: {number}/{count} {} → {}: {accident}{also}: {outage:.3} s", lost.name, heir.name);
        outages.push((accident, outage));
        std::mem::swap(&mut lost, &mut heir);
    }
    scenario.wait_healthy();
    let took = begun.elapsed();
    drop(tuning);

    summarise(&outages, took);
    // After the swap, the last heir is called lost. It counts the rows and the writable nodes, and says so.
    scenario.ends_healed(&lost);
    assert!(
        count == 0 || took / u32::try_from(count).unwrap() < AVERAGE_LIMIT,
        "a failover took {:.1} s on the average",
        took.as_secs_f64() / count as f64
    );
}

/// One accident, and all that follows: the seconds without an acknowledged row.
fn fail_over(
    scenario: &Scenario,
    accident: Accident,
    checker_killed: Option<(Duration, Duration)>,
    settings: &[(&str, f64)],
    lost: &Node,
    heir: &Node,
) -> f64 {
    let (mark, begun) = (Timestamp::now(), Instant::now());
    // What was frozen or cut is let go only when it has been replaced.
    let mut frozen = None;
    let mut cut = None;
    match accident {
        Accident::ContainerKilled => lost.kill(),
        Accident::PostmasterKilled => lost.kill_postmaster(),
        Accident::Stopped => lost.stop(),
        Accident::Frozen => lost.pause(),
        Accident::ProcessesStopped => frozen = Some(lost.freeze_processes()),
        Accident::PostmasterStopped => {
            scenario.app().kill();
            frozen = Some(lost.freeze(lost.postmaster()));
        }
        Accident::NetworkCut => cut = Some(cut_off(lost)),
        Accident::Switchover => {
            let output = scenario.installation().failover_check(&["switchover"]);
            if !output.status.success() {
                scenario.fail(&format!("the switchover failed: {output:?}"));
            }
        }
    }
    if let Some((after, away)) = checker_killed {
        std::thread::sleep(after);
        scenario.kill_checker();
        std::thread::sleep(away);
        scenario.start_checker_with_thresholds(settings);
    }
    let outage = scenario.wait_until(&format!("a row acknowledged by {}", heir.name), FAILOVER, || scenario.outage_until(heir, begun));
    if let Some(rule) = accident.rule() {
        scenario.expect_failover_since(mark, lost, heir, rule);
    }
    drop((frozen, cut));
    if accident == Accident::PostmasterStopped {
        scenario.app().start();
    }
    outage.as_secs_f64()
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}='{text}' is not a number")))
}

fn summarise(outages: &[(Accident, f64)], took: Duration) {
    eprintln!("\n{:>42}{:>8}{:>10}{:>10}{:>10}   seconds without an acknowledged row", "", "count", "median", "p95", "max");
    for accident in ACCIDENTS {
        line(&accident.to_string(), outages.iter().filter(|(of, _)| *of == accident).map(|(_, outage)| *outage).collect());
    }
    line("all", outages.iter().map(|(_, outage)| *outage).collect());
    let average = took.as_secs_f64() / outages.len().max(1) as f64;
    eprintln!("{} failovers in {:.0} s, {average:.1} s each until the pair was whole again\n", outages.len(), took.as_secs_f64());
}

fn line(name: &str, mut outages: Vec<f64>) {
    outages.sort_by(f64::total_cmp);
    let at = |share: usize| outages.get((outages.len() * share / 100).min(outages.len().saturating_sub(1)));
    if let (Some(median), Some(high), Some(most)) = (at(50), at(95), outages.last()) {
        eprintln!("{name:>42}{:>8}{median:>10.3}{high:>10.3}{most:>10.3}", outages.len());
    }
}

#[test]
fn the_same_seed_chooses_the_same_accidents_and_in_time_each_of_them() {
    let choose = |seed| {
        let mut chance = Chance(seed);
        (0..200).map(|_| chance.next()).collect::<Vec<_>>()
    };
    assert_eq!(choose(7), choose(7));
    assert_ne!(choose(7), choose(8));
    let chosen = choose(7);
    assert!(ACCIDENTS.iter().all(|accident| chosen.iter().any(|(found, _)| found == accident)));
    let killed = chosen.iter().filter(|(_, killed)| killed.is_some()).count();
    assert!((10..50).contains(&killed), "{killed} of 200");
}
