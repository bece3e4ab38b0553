//! The primary's container runs, accepts connections and answers nothing.

use std::time::Duration;

use crate::support::Scenario;

#[test]
fn primary_frozen_and_resumed() {
    let scenario = Scenario::begin("primary_frozen_and_resumed");
    let (lost, heir) = scenario.roles();

    lost.pause();

    scenario.expect_failover("R230");
    // Were it only abandoned and not fenced, it would go on here with the connections it had.
    lost.try_unpause();
    scenario.wait_for_writes(50);
    scenario.ends_healed(&heir);
}

#[test]
fn primary_resumed_while_it_is_being_replaced() {
    let scenario = Scenario::begin("primary_resumed_while_it_is_being_replaced");
    let (lost, heir) = scenario.roles();

    lost.pause();
    scenario.wait_for_transition();
    lost.try_unpause();

    scenario.expect_failover("R230");
    scenario.ends_healed(&heir);
}

#[test]
fn primary_processes_frozen() {
    let scenario = Scenario::begin("primary_processes_frozen");
    let (lost, heir) = scenario.roles();

    let frozen = lost.freeze_processes();

    scenario.expect_failover("R230");
    frozen.thaw();
    scenario.wait_for_writes(50);
    scenario.ends_healed(&heir);
}

#[test]
fn primary_frozen_briefly() {
    let scenario = Scenario::begin("primary_frozen_briefly");
    let (primary, _) = scenario.roles();

    primary.pause();
    std::thread::sleep(Duration::from_secs(1));
    primary.try_unpause();

    // Longer than the threshold: a suspicion that was not forgotten would show.
    std::thread::sleep(Duration::from_secs(5));
    scenario.wait_for_writes(20);
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}
