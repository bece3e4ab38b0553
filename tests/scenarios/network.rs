//! Packets are lost or late, and cut in one direction.

use std::time::Duration;

use jiff::Timestamp;

use crate::support::network::{DOOR, cut_off, cut_one_way, cut_way_in, cut_way_out, lose_packets};
use crate::support::{FAILOVER, HEALING, Scenario, Tuning};

#[test]
fn packets_lost_between_checker_and_nodes() {
    let scenario = Scenario::begin("packets_lost_between_checker_and_nodes");
    let (primary, standby) = scenario.roles();
    let _doors = scenario.start_checker_behind_doors(&[]);

    let loss = [&primary, &standby].map(|node| lose_packets(node, DOOR, 3));

    scenario.wait_for_rule("R190", FAILOVER);
    scenario.expect_no_failover_for(Duration::from_secs(5));
    scenario.wait_for_writes(20);
    drop(loss);
    scenario.ends_healed(&primary);
}

#[test]
fn answers_late_between_checker_and_nodes() {
    let scenario = Scenario::begin("answers_late_between_checker_and_nodes");
    let (primary, _) = scenario.roles();
    let doors = scenario.start_checker_behind_doors(&[]);

    // A busy network: each probe takes a dozen times as long as usual, and is in time.
    doors.iter().for_each(|door| door.slow_down(Duration::from_millis(30)));
    scenario.expect_no_failover_for(Duration::from_secs(2));
    // Beyond every deadline.
    doors.iter().for_each(|door| door.slow_down(Duration::from_secs(1)));

    scenario.wait_for_rule("R190", FAILOVER);
    scenario.expect_no_failover_for(Duration::from_secs(4));
    scenario.wait_for_writes(20);
    scenario.ends_healed(&primary);
}

/// The clients are served all along: only the checker's way is cut, first there, then back.
#[test]
fn checker_cut_off_from_the_primary() {
    let scenario = Scenario::begin("checker_cut_off_from_the_primary");
    let (primary, _) = scenario.roles();
    scenario.wait_for_app(HEALING);
    let _doors = scenario.start_checker_behind_doors(&[("isolation_grace_seconds", 1.0)]);

    for cut in [cut_way_in, cut_way_out] {
        let mark = Timestamp::now();
        let cut = cut(&primary, DOOR);
        scenario.wait_until("a decision by rule R190", FAILOVER, || {
            scenario.history_since(mark).iter().any(|event| event.rule() == "R190").then_some(())
        });
        scenario.expect_no_failover_for(Duration::from_secs(3));
        scenario.wait_for_writes(20);
        drop(cut);
        scenario.wait_until("the checker to be content", FAILOVER, || {
            scenario.history_since(mark).iter().any(|event| event.rule() == "R400").then_some(())
        });
    }
    scenario.ends_healed(&primary);
}

/// What the primary sends arrives, what the standby sends does not; the checker reaches both.
#[test]
fn standby_cut_off_from_the_primary() {
    let scenario = Scenario::begin("standby_cut_off_from_the_primary");
    let (primary, standby) = scenario.roles();
    let _tuning = Tuning::new(&[&primary, &standby], &[("wal_sender_timeout", "2s"), ("wal_receiver_timeout", "2s")]);
    scenario.start_checker_with_thresholds(&[("standby_grace_seconds", 1.0)]);

    let cut = cut_one_way(&standby, &primary);

    let dropped = scenario.wait_for_event("dropped_to_async", HEALING);
    if dropped.rule() != "R310" {
        scenario.fail(&format!("expected rule R310, found: {dropped}"));
    }
    scenario.wait_for_writes(20);
    scenario.expect_no_failover();
    drop(cut);
    scenario.ends_healed(&primary);
}

/// It is alive inside its container, and of no use to anybody; nothing that it could acknowledge would arrive.
#[test]
fn primary_cut_off_from_everybody() {
    let scenario = Scenario::begin("primary_cut_off_from_everybody");
    let (lost, heir) = scenario.roles();
    let _tuning = Tuning::new(&[&lost, &heir], &[("wal_receiver_timeout", "1s")]);
    scenario.start_checker_with_thresholds(&[("isolation_grace_seconds", 2.0)]);

    let cut = cut_off(&lost);

    scenario.expect_failover("R210");
    drop(cut);
    scenario.ends_healed(&heir);
}
