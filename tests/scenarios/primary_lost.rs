//! The primary's container ends, and the runtime says so: authoritative, fail over now.

use crate::support::{Installation, Scenario};

#[test]
fn postmaster_killed() {
    let scenario = Scenario::begin("postmaster_killed");
    let (lost, heir) = scenario.roles();

    lost.kill_postmaster();

    scenario.expect_failover("R80");
    scenario.ends_healed(&heir);
}

/// The standby is left with a part of a record, so that what it has received stays ahead of what it can replay.
#[test]
fn postmaster_killed_in_mid_bulk_write() {
    let scenario = Scenario::begin("postmaster_killed_in_mid_bulk_write");
    let (lost, heir) = scenario.roles();

    let mut bulk = lost.begin_bulk_write();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(bulk.try_wait().unwrap().is_none(), "the bulk write is over already");
    lost.kill_postmaster();
    bulk.wait().unwrap();

    scenario.expect_failover("R80");
    scenario.expect_no("rolled_back");
    scenario.ends_healed(&heir);
}

#[test]
fn primary_stopped() {
    let scenario = Scenario::begin("primary_stopped");
    let (lost, heir) = scenario.roles();

    lost.stop();

    scenario.expect_failover("R80");
    scenario.ends_healed(&heir);
}

#[test]
fn primary_container_removed() {
    // Said now, not after the container is gone.
    Installation::lay_down_command();
    let scenario = Scenario::begin("primary_container_removed");
    let (lost, heir) = scenario.roles();

    lost.remove();

    scenario.expect_failover("R80");
    scenario.wait_for_writes(20);
    scenario.lay_down();
    scenario.ends_healed(&heir);
}
