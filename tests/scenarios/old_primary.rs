//! Somebody means well and starts the old primary.

use std::time::{Duration, Instant};

use crate::support::Scenario;

#[test]
fn old_primary_started_by_hand() {
    let scenario = Scenario::begin("old_primary_started_by_hand");
    let (lost, heir) = scenario.roles();

    lost.kill_postmaster();
    scenario.wait_for_transition();
    // Again and again, through every step of the failover and for a while after it.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        lost.start_by_hand();
        std::thread::sleep(Duration::from_millis(20));
    }

    scenario.expect_failover("R80");
    scenario.ends_healed(&heir);
}
