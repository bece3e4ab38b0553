//! Somebody means well: starts the old primary, or promotes the standby. And how the old primary comes back.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{FAILOVER, Scenario};

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

/// The one story in which two nodes take writes: a person made it so, behind the checker's back. It also shows that the poller would see it.
#[test]
fn standby_promoted_by_hand() {
    let scenario = Scenario::begin("standby_promoted_by_hand");
    let (primary, standby) = scenario.roles();
    // What such a node acknowledges is lost, and nobody can help that.
    scenario.hold_writing();
    scenario.kill_checker();

    standby.promote_by_hand();
    scenario.wait_for_writable_nodes(2);
    scenario.start_checker();

    let fenced = scenario.wait_for_event("fenced_stray", FAILOVER);
    if fenced.rule() != "R30" || fenced.text("node") != standby.name {
        scenario.fail(&format!("expected {} to be fenced by rule R30, found: {fenced}", standby.name));
    }
    scenario.go_on_writing();
    scenario.expect_no_failover();
    scenario.ends_healed_after(&primary, 2);
}

/// The log from which it would be rewound is gone.
#[test]
fn rewind_impossible() {
    const COPIED: &str = "taking a fresh base backup";
    let scenario = Scenario::begin("rewind_impossible");
    let (lost, heir) = scenario.roles();
    let copied_before = lost.log().matches(COPIED).count();
    scenario.kill_checker();
    let log = lost.volume().join("data/pg_wal");
    lost.kill_postmaster();
    scenario.wait_until("the container to end", FAILOVER, || (!lost.runs()).then_some(()));
    for segment in fs::read_dir(log).unwrap().flatten() {
        // A segment's name is all digits.
        if segment.file_name().len() == 24 {
            fs::remove_file(segment.path()).unwrap();
        }
    }
    scenario.start_checker();

    scenario.expect_failover("R80");
    scenario.wait_healthy();
    assert!(lost.log().matches(COPIED).count() > copied_before, "{} was not copied afresh:\n{}", lost.name, lost.log());
    scenario.ends_healed(&heir);
}
