//! Promotions that are stuck.

use std::time::Duration;

use crate::support::{FAILOVER, HEALING, Scenario};

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

/// The standby does not replay what it has received: there is a way back, and it is taken.
#[test]
#[ignore = "a replay that stands still is waited for for 10 s: make scenarios-slow"]
fn replay_stands_still() {
    let scenario = Scenario::begin("replay_stands_still");
    let (primary, standby) = scenario.roles();
    let frozen = standby.freeze(standby.server_process("startup"));
    scenario.wait_for_writes(20);

    primary.kill_postmaster();

    let rolled_back = scenario.wait_for_event("rolled_back", FAILOVER);
    if !rolled_back.text("reason").contains("has stood still") {
        scenario.fail(&format!("expected the reason to name the replay, found: {rolled_back}"));
    }
    frozen.thaw();
    scenario.wait_for_writes(20);
    scenario.expect_no("failover_finished");
    scenario.wait_until("the pair to be whole", HEALING, || scenario.installation().record().standby_eligible.then_some(()));
    scenario.ends_healed(&primary);
}
