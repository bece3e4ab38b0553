//! A planned change of primary: what it costs, and when it is refused.

use std::time::{Duration, Instant};

use crate::support::{HEALING, Scenario};

/// The median without an acknowledged row that a switchover may cost. The aim is 0.3 s on a machine with nothing else to do.
const LIMIT: Duration = Duration::from_millis(300);

#[test]
#[ignore = "a measurement: make measure"]
fn measure_switchover() {
    let scenario = Scenario::begin_measurement("measure_switchover");
    let mut gaps = Vec::new();
    for _ in 0..10 {
        scenario.wait_healthy();
        scenario.wait_for_writes(50);
        let primary = scenario.installation().record().primary;
        let heir = scenario.installation().other_node(&primary);
        let begun = Instant::now();
        let output = scenario.installation().failover_check(&["switchover", "--json"]);
        if !output.status.success() {
            scenario.fail(&format!("the switchover failed: {output:?}"));
        }
        let first = scenario.first_write_by(&heir, begun);
        gaps.push(scenario.gap_before(first).as_secs_f64());
    }
    gaps.sort_by(f64::total_cmp);
    eprintln!("\nswitchover: seconds without an acknowledged row, sorted: {gaps:.3?}");
    let median = f64::midpoint(gaps[4], gaps[5]);
    let primary = scenario.installation().record().primary;
    let primary = scenario.installation().node(&primary);
    scenario.ends_healed(&primary);
    assert!(median <= LIMIT.as_secs_f64(), "the median is {median:.3} s, over {LIMIT:?}");
}

#[test]
fn switchover_that_would_take_too_long_is_refused() {
    let scenario = Scenario::begin("switchover_that_would_take_too_long_is_refused");
    let (primary, standby) = scenario.roles();
    let refused = |arguments: &[&str], why: &str| {
        let output = scenario.installation().failover_check(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(6) || !words.contains(why) {
            scenario.fail(&format!("expected a refusal with '{why}', found: {output:?}"));
        }
    };

    refused(&["switchover", "--within", "0s"], "writes would have to stop for longer than 0ns");
    standby.sql(&["SELECT pg_wal_replay_pause()"]);
    refused(&["switchover"], "replay is paused on the standby");
    standby.sql(&["SELECT pg_wal_replay_resume()"]);

    scenario.expect_no("switchover_begun");
    scenario.expect_no_failover();
    scenario.wait_until("the pair to be healthy", HEALING, || {
        scenario.installation().failover_check(&["status"]).status.success().then_some(())
    });
    scenario.ends_healed(&primary);
}
