//! Both nodes at once, several failovers in a row, a pause, and a planned one.

use std::time::Duration;

use jiff::Timestamp;

use crate::support::{FAILOVER, HEALING, Scenario, stop_all};

#[test]
fn both_stopped() {
    let scenario = Scenario::begin("both_stopped");
    let (primary, standby) = scenario.roles();

    // As the shutdown of the host does it: the checker goes too, and comes back with cron's @reboot.
    scenario.kill_checker();
    stop_all(&[&primary, &standby]);
    scenario.start_checker();

    let started = scenario.wait_for_event("node_started", HEALING);
    if started.text("node") != primary.name || started.rule() != "R100" {
        scenario.fail(&format!("expected {} to be started by rule R100, found: {started}", primary.name));
    }
    scenario.wait_healthy();
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

#[test]
fn there_and_back_again() {
    let scenario = Scenario::begin("there_and_back_again");
    let (mut lost, mut heir) = scenario.roles();

    for _ in 0..3 {
        let mark = Timestamp::now();
        lost.kill_postmaster();
        scenario.expect_failover_since(mark, &lost, &heir, "R80");
        scenario.wait_healthy();
        std::mem::swap(&mut lost, &mut heir);
    }
    // After the swap, the last heir is called lost.
    scenario.ends_healed(&lost);
}

#[test]
fn switchover_under_load() {
    let scenario = Scenario::begin("switchover_under_load");
    let (_, heir) = scenario.roles();

    let output = scenario.installation().failover_check(&["switchover"]);

    if !output.status.success() {
        scenario.fail(&format!("the switchover failed: {output:?}"));
    }
    scenario.wait_for_event("switchover_begun", HEALING);
    scenario.wait_for_event("switchover_finished", HEALING);
    scenario.expect_no("failover_begun");
    scenario.ends_healed(&heir);
}

/// It has every acknowledged row, and the record says so: it does not have to wait for the other one.
#[test]
fn both_stopped_and_the_standby_comes_first() {
    let scenario = Scenario::begin("both_stopped_and_the_standby_comes_first");
    let (lost, heir) = scenario.roles();

    scenario.kill_checker();
    stop_all(&[&lost, &heir]);
    heir.start_by_hand();
    scenario.wait_until("the standby to answer", FAILOVER, || heir.answers().then_some(()));
    scenario.start_checker();

    scenario.expect_failover("R80");
    scenario.ends_healed(&heir);
}

#[test]
fn both_stopped_and_the_primary_comes_first() {
    let scenario = Scenario::begin("both_stopped_and_the_primary_comes_first");
    let (primary, standby) = scenario.roles();

    scenario.kill_checker();
    stop_all(&[&primary, &standby]);
    primary.start_by_hand();
    scenario.wait_until("the primary to answer", FAILOVER, || primary.answers().then_some(()));
    scenario.start_checker();

    let started = scenario.wait_for_event("node_started", HEALING);
    if started.text("node") != standby.name || started.rule() != "R320" {
        scenario.fail(&format!("expected {} to be started by rule R320, found: {started}", standby.name));
    }
    scenario.wait_healthy();
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

#[test]
fn paused_for_maintenance() {
    let scenario = Scenario::begin("paused_for_maintenance");
    let (lost, heir) = scenario.roles();
    scenario.installation().failover_check(&["pause", "--reason", "a scenario"]);
    scenario.wait_for_rule("R50", FAILOVER);

    lost.kill_postmaster();

    scenario.expect_no_failover_for(Duration::from_secs(3));
    assert!(!lost.runs(), "{} was started during the pause", lost.name);
    scenario.installation().failover_check(&["resume"]);
    scenario.expect_failover("R80");
    scenario.ends_healed(&heir);
}
