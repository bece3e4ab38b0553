//! Promotions that are stuck.

use std::time::Duration;

use crate::support::{FAILOVER, Scenario};

/// The standby has replayed everything, was asked, and does not get on.
#[test]
fn promotion_hangs() {
    let scenario = Scenario::begin("promotion_hangs");
    let (lost, heir) = scenario.roles();
    scenario.hold_writing();
    // What was written is replayed by then; and that process is the one that would end the recovery.
    std::thread::sleep(Duration::from_millis(300));
    let frozen = heir.freeze(heir.server_process("startup"));
    let watch = scenario.watch();

    lost.kill_postmaster();
    scenario.wait_to_see(&watch, "promote_requested");
    std::thread::sleep(Duration::from_secs(2));
    let record = scenario.installation().record();
    if record.primary != lost.name || !record.in_transition {
        scenario.fail(&format!("the record ran ahead of the promotion: {record:?}"));
    }

    frozen.thaw();
    scenario.expect_failover("R80");
    scenario.go_on_writing();
    scenario.ends_healed(&heir);
}

/// A reader on the standby holds a lock that the replay of what was received waits for: there is a way back, and it is taken.
#[test]
#[ignore = "a replay that stands still is waited for for 10 s: make scenarios-slow"]
fn replay_stands_still() {
    let scenario = Scenario::begin("replay_stands_still");
    let (primary, standby) = scenario.roles();
    primary.sql(&["CREATE TABLE IF NOT EXISTS scenario_locked (id bigint)"]);
    let there = || standby.sql(&["SELECT to_regclass('scenario_locked') IS NOT NULL"]) == "t";
    scenario.wait_until("the table on the standby", FAILOVER, || there().then_some(()));
    let mut reader = standby.begin_sql(&["SELECT count(*) FROM scenario_locked; SELECT pg_sleep(60)"]);
    let locked = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'scenario_locked'::regclass AND mode = 'AccessShareLock'";
    scenario.wait_until("the reader's lock", FAILOVER, || (standby.sql(&[locked]) == "t").then_some(()));
    primary.sql(&["TRUNCATE scenario_locked"]);
    scenario.wait_for_writes(20);

    primary.kill_postmaster();

    let rolled_back = scenario.wait_for_event("rolled_back", FAILOVER);
    if !rolled_back.text("reason").contains("has stood still") {
        scenario.fail(&format!("expected the reason to name the replay, found: {rolled_back}"));
    }
    standby.sql(&["SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"]);
    // It ends with an error of its own.
    let _ = reader.wait();
    scenario.wait_for_writes(20);
    scenario.expect_no("failover_finished");
    scenario.ends_healed(&primary);
}
