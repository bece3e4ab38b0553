//! The primary's container runs, accepts connections and answers nothing.

use std::time::Duration;

use crate::support::{FAILOVER, HEALING, Scenario};

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

    // What a snapshot of a virtual machine or a stalled disk takes.
    primary.pause();
    std::thread::sleep(Duration::from_secs(2));
    primary.try_unpause();

    scenario.wait_for_rule("R220", FAILOVER);
    // Longer than the threshold: a suspicion that was not forgotten would show.
    scenario.expect_no_failover_for(Duration::from_secs(4));
    scenario.wait_for_writes(20);
    scenario.ends_healed(&primary);
}

/// It makes no new sessions, but those that it has go on, and the app's is one of them: a failover would break them off.
#[test]
fn postmaster_stopped_while_its_sessions_go_on() {
    let scenario = Scenario::begin("postmaster_stopped_while_its_sessions_go_on");
    let (primary, _) = scenario.roles();
    scenario.wait_for_app(HEALING);

    let frozen = primary.freeze(primary.postmaster());

    scenario.wait_for_rule("R220", FAILOVER);
    scenario.expect_no_failover_for(Duration::from_secs(4));
    scenario.wait_for_writes(20);
    frozen.thaw();
    scenario.ends_healed(&primary);
}

/// The postmaster alone is stopped and nobody new is served, so that a failover is due; but one client is served all along.
#[test]
fn client_holds_its_connection_through_the_fence() {
    let scenario = Scenario::begin("client_holds_its_connection_through_the_fence");
    let (lost, heir) = scenario.roles();
    scenario.wait_for_app(HEALING);
    let client = scenario.hold_a_connection();

    // The app's own connection would speak for the primary.
    scenario.app().kill();
    let frozen = lost.freeze(lost.postmaster());
    let served_before = client.acknowledged();
    scenario.wait_until("the held connection to serve beside a stopped postmaster", FAILOVER, || {
        (client.acknowledged() > served_before + 20).then_some(())
    });

    scenario.expect_failover("R230");
    let (last, how) = client.ended();
    let fenced = scenario.wait_for_event("fenced", FAILOVER);
    if last > fenced.at() {
        scenario.fail(&format!("a row was acknowledged at {last} over the held connection, after the fence: {fenced}"));
    }
    eprintln!("the held connection ended with: {how}");
    frozen.thaw();
    scenario.app().start();
    scenario.ends_healed(&heir);
}
