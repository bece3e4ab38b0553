//! The standby goes and comes back, and what cannot be done without it.

use std::time::{Duration, Instant};

use crate::support::{HEALING, Scenario};

#[test]
fn standby_killed_and_returned() {
    let scenario = Scenario::begin("standby_killed_and_returned");
    let (primary, standby) = scenario.roles();

    // The checker starts it again within a second, so it is killed until its absence is taken seriously.
    scenario.wait_until("commits to go on without the standby", HEALING, || {
        standby.kill();
        scenario.history().into_iter().find(|event| event.name() == "dropped_to_async" && event.rule() == "R310")
    });
    if scenario.installation().record().standby_eligible {
        scenario.fail("commits go on without the standby, and the record still vouches for it");
    }
    scenario.wait_for_writes(20);

    // Left alone, it comes back and is vouched for again.
    scenario.wait_for_event("sync_restored", HEALING);
    scenario.wait_until("the standby to be eligible again", HEALING, || scenario.installation().record().standby_eligible.then_some(()));
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

#[test]
fn failover_refused_when_standby_ineligible() {
    let scenario = Scenario::begin("failover_refused_when_standby_ineligible");
    let (primary, standby) = scenario.roles();
    standby.pause();
    scenario.wait_for_event("dropped_to_async", HEALING);
    scenario.wait_for_writes(20);

    // The standby is back and answers, but it lacks what was acknowledged meanwhile, and cannot get it any more.
    primary.pause();
    standby.try_unpause();

    let refused = scenario.wait_until("the refusal", Duration::from_secs(30), || {
        let explained = scenario.installation().failover_check(&["explain", "--json"]);
        let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
        explained.contains("R130").then_some(explained)
    });
    if !refused.contains("accept-data-loss") {
        scenario.fail(&format!("the refusal does not say how to accept the loss: {refused}"));
    }
    // A refusal is not only late.
    let refused_at = Instant::now();
    while refused_at.elapsed() < Duration::from_secs(5) {
        scenario.expect_no_failover();
        std::thread::sleep(Duration::from_millis(250));
    }
    primary.try_unpause();
    scenario.ends_healed(&primary);
}

#[test]
fn primary_killed_while_standby_ineligible_comes_back_in_place() {
    let scenario = Scenario::begin("primary_killed_while_standby_ineligible_comes_back_in_place");
    let (primary, standby) = scenario.roles();
    standby.pause();
    scenario.wait_for_event("dropped_to_async", HEALING);
    scenario.wait_for_writes(20);

    primary.kill_postmaster();

    let started = scenario.wait_until("the primary to be started in place", HEALING, || {
        scenario.history().into_iter().find(|event| event.name() == "node_started" && event.text("node") == primary.name)
    });
    if started.rule() != "R110" {
        scenario.fail(&format!("expected rule R110, found: {started}"));
    }
    scenario.expect_no_failover();
    scenario.wait_for_writes(20);
    standby.try_unpause();
    scenario.ends_healed(&primary);
}
