//! From the accident to the first acknowledged write through the new primary, and where the time goes.
//!
//! Method: the writer inserts a row every 5 ms and looks for a writable node every 5 ms once an insert has failed; what
//! is measured ends with the commit that the new primary has acknowledged to it, so it holds the writer's own way there.
//! Begin and end are read from this process's monotonic clock: the begin just before the signal (a dead container) or
//! just before `docker pause` is called (a frozen one, so the command's own time is counted in). The steps between come
//! from the history, whose times are the host's clock, and are set against that clock's reading at the same begin. One
//! trial after the other on a pair that is whole again, from each node in turn. The checker is an ordinary
//! `run --for`, with the thresholds of the installation. `make measure` runs it: TRIALS dead containers (default 10) and
//! FROZEN_TRIALS frozen ones (default 3).

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};

use crate::support::{HEALING, Node, Scenario};

/// The median that a dead container may cost.
const DEAD_LIMIT: Duration = Duration::from_millis(600);

/// The median that a frozen container may cost, with the default thresholds.
const FROZEN_LIMIT: Duration = Duration::from_secs(5);

/// The steps, as the history names them, with the words of the table.
const STEPS: [(&str, &str); 6] = [
    ("failover_begun", "decided"),
    ("fenced", "fenced"),
    ("replayed", "replayed"),
    ("promote_requested", "asked to promote"),
    ("writable", "seen writable"),
    ("recorded", "recorded"),
];

/// One accident.
struct Trial {
    /// Seconds from the accident to each step; missing where the history does not tell.
    steps: Vec<Option<f64>>,
    /// Seconds from the accident to the first acknowledged write through the new primary.
    first_write: f64,
    /// Seconds from the accident to an app that is ready again; missing where the history does not tell.
    app_ready: Option<f64>,
}

#[test]
#[ignore = "a measurement of some minutes: make measure"]
fn measure_failover() {
    let scenario = Scenario::begin_measurement("measure_failover");
    let dead: Vec<Trial> = (0..trials("TRIALS", 10))
        .map(|_| {
            let lost = primary_now(&scenario);
            let postmaster = lost.postmaster();
            trial(&scenario, &lost, || kill(postmaster, Signal::SIGKILL).unwrap(), "R80")
        })
        .collect();
    let frozen: Vec<Trial> = (0..trials("FROZEN_TRIALS", 3))
        .map(|_| {
            let lost = primary_now(&scenario);
            trial(&scenario, &lost, || lost.pause(), "R230")
        })
        .collect();

    let dead_median = print_table("dead container (kill -9)", &dead);
    let frozen_median = print_table("frozen container (docker pause)", &frozen);
    let primary = primary_now(&scenario);
    scenario.ends_healed(&primary);
    assert_within("dead", dead_median, DEAD_LIMIT);
    assert_within("frozen", frozen_median, FROZEN_LIMIT);
}

fn trials(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(number) => number.parse().unwrap_or_else(|_| panic!("{variable}='{number}' is not a number")),
        Err(_) => default,
    }
}

fn primary_now(scenario: &Scenario) -> Node {
    scenario.wait_healthy();
    let installation = scenario.installation();
    installation.node(&installation.record().primary)
}

fn trial(scenario: &Scenario, lost: &Node, accident: impl FnOnce(), rule: &str) -> Trial {
    let heir = scenario.installation().other_node(&lost.name);
    scenario.wait_for_writes(20);

    let begun_by_the_clock = Timestamp::now();
    let begun = Instant::now();
    accident();

    let first_write = scenario.first_write_by(&heir, begun);
    scenario.expect_failover_since(begun_by_the_clock, lost, &heir, rule);
    scenario.wait_for_app(HEALING);
    scenario.wait_healthy();

    let history = scenario.history_since(begun_by_the_clock);
    let seconds_to = |name: &str| {
        let event = history.iter().find(|event| event.name() == name)?;
        Some(event.at().duration_since(begun_by_the_clock).as_secs_f64())
    };
    Trial {
        steps: STEPS.iter().map(|(event, _)| seconds_to(event)).collect(),
        first_write: (first_write - begun).as_secs_f64(),
        app_ready: seconds_to("app_ready"),
    }
}

/// Prints the trials, and returns the median of the first write where there were any.
fn print_table(title: &str, trials: &[Trial]) -> Option<f64> {
    eprintln!("\n{title}: seconds from the accident, {} trials", trials.len());
    let columns = STEPS.iter().map(|(_, words)| *words).chain(["first write", "app ready"]);
    eprintln!("{:>8}{}", "", columns.map(|column| format!("{column:>18}")).collect::<String>());
    let rows: Vec<Vec<Option<f64>>> = trials
        .iter()
        .map(|trial| {
            let mut row = trial.steps.clone();
            row.extend([Some(trial.first_write), trial.app_ready]);
            row
        })
        .collect();
    for (number, row) in rows.iter().enumerate() {
        print_row(&format!("{}", number + 1), row);
    }
    let over_trials = |choose: fn(&[f64]) -> Option<f64>| -> Vec<Option<f64>> {
        (0..STEPS.len() + 2)
            .map(|column| {
                let mut values: Vec<f64> = rows.iter().filter_map(|row| row[column]).collect();
                values.sort_by(f64::total_cmp);
                choose(&values)
            })
            .collect()
    };
    let medians = over_trials(median);
    print_row("median", &medians);
    print_row("min", &over_trials(|sorted| sorted.first().copied()));
    print_row("max", &over_trials(|sorted| sorted.last().copied()));
    medians[STEPS.len()]
}

fn print_row(name: &str, row: &[Option<f64>]) {
    let cells: String = row
        .iter()
        .map(|cell| match cell {
            Some(seconds) => format!("{seconds:>18.3}"),
            None => format!("{:>18}", "-"),
        })
        .collect();
    eprintln!("{name:>8}{cells}");
}

/// Of sorted values: the middle one, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn assert_within(what: &str, median: Option<f64>, limit: Duration) {
    if let Some(median) = median {
        assert!(median <= limit.as_secs_f64(), "the median for a {what} container is {median:.3} s, over {limit:?}");
    }
}

#[test]
fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[1.0]), Some(1.0));
    assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
    assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
}
