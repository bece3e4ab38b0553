//! A fault of the app, or of its network, never moves the primary.

use std::time::Duration;

use crate::support::{HEALING, Scenario};

#[test]
fn app_killed() {
    let scenario = Scenario::begin("app_killed");
    let (primary, _) = scenario.roles();
    scenario.wait_for_app(HEALING);

    scenario.app().kill();

    let restarted = scenario.wait_for_event("app_restarted", HEALING);
    if restarted.rule() != "R340" {
        scenario.fail(&format!("expected rule R340, found: {restarted}"));
    }
    scenario.wait_for_app(HEALING);
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

#[test]
fn app_network_cut() {
    let scenario = Scenario::begin("app_network_cut");
    let (primary, _) = scenario.roles();
    scenario.wait_for_app(HEALING);

    scenario.app().cut_network();

    // Over the app's grace, and some passes more.
    std::thread::sleep(Duration::from_secs(15));
    scenario.expect_no_failover();
    scenario.wait_for_writes(20);
    scenario.app().reconnect();
    scenario.wait_for_app(HEALING);
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}
