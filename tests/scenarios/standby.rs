//! The standby goes and comes back, and what cannot be done without it.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{FAILOVER, HEALING, Scenario, Tuning};

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

#[test]
fn loss_accepted_by_a_person() {
    let scenario = Scenario::begin("loss_accepted_by_a_person");
    let (primary, standby) = scenario.roles();
    let _tuning = Tuning::new(&[&primary, &standby], &[("wal_sender_timeout", "2s")]);
    scenario.start_checker_with_thresholds(&[("standby_grace_seconds", 1.0)]);
    standby.pause();
    scenario.wait_for_event("dropped_to_async", HEALING);
    scenario.wait_for_writes(20);
    primary.pause();
    standby.try_unpause();
    scenario.wait_for_rule("R130", HEALING);
    scenario.expect_no_failover();

    let ordered = scenario.installation().failover_check(&["failover", "--accept-data-loss"]);

    assert!(ordered.status.success(), "the failover that was ordered failed: {ordered:?}");
    let begun = scenario.wait_for_event("failover_begun", FAILOVER);
    if !begun.reason().contains("bytes of the log are lost for certain") {
        scenario.fail(&format!("the reason does not say what is lost: {begun}"));
    }
    scenario.wait_healthy();
    // The rows that only the old primary had are kept for a person.
    let kept = fs::read_dir(primary.volume()).unwrap().flatten().map(|entry| entry.path());
    let kept: Vec<_> = kept.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("data.kept-"))).collect();
    assert!(!kept.is_empty(), "the data of {} are not kept", primary.name);
    for folder in kept {
        fs::remove_dir_all(folder).unwrap();
    }
    scenario.ends_with_a_loss_that_was_accepted(&standby);
}

#[test]
fn replay_paused_on_the_standby() {
    let scenario = Scenario::begin("replay_paused_on_the_standby");
    let (primary, standby) = scenario.roles();

    standby.sql(&["SELECT pg_wal_replay_pause()"]);

    let alert = scenario.wait_for_rule("R365", FAILOVER);
    if !alert.reason().contains("replay is paused") {
        scenario.fail(&format!("expected the alert to name the pause, found: {alert}"));
    }
    scenario.wait_for_writes(20);
    // A promotion would wait for ever.
    primary.kill_postmaster();
    scenario.wait_for_rule("R110", FAILOVER);
    scenario.wait_for_writes(20);
    scenario.expect_no_failover();

    standby.sql(&["SELECT pg_wal_replay_resume()"]);
    scenario.ends_healed(&primary);
}

/// What it has is worth nothing, and the record, which nobody could change meanwhile, still vouches for it.
#[test]
fn standby_killed_in_mid_copy() {
    let scenario = Scenario::begin("standby_killed_in_mid_copy");
    let (primary, standby) = scenario.roles();
    scenario.kill_checker();
    standby.kill();
    let volume = standby.volume();
    fs::remove_dir_all(volume.join("data")).unwrap();

    standby.start_by_hand();
    let copy = volume.join("data.incoming");
    let begun = Instant::now();
    while !copy.join("base").exists() {
        assert!(begun.elapsed() < FAILOVER, "no copy is made: {}", standby.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    standby.kill();
    assert!(!volume.join("data").exists(), "the copy was made before it could be broken off");
    primary.kill_postmaster();
    scenario.start_checker();

    scenario.wait_for_rule("R100", FAILOVER);
    scenario.wait_healthy();
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

/// A standby that stays away must not fill the primary's disk with the log that is kept for it.
#[test]
fn slot_growth_capped() {
    const CAP_BYTES: u64 = 256 * 1024 * 1024;
    let scenario = Scenario::begin("slot_growth_capped");
    let (primary, standby) = scenario.roles();
    let _tuning = Tuning::new(
        &[&primary, &standby],
        &[
            ("wal_sender_timeout", "2s"),
            ("max_slot_wal_keep_size", "32MB"),
            ("wal_keep_size", "0"),
            ("max_wal_size", "64MB"),
            ("min_wal_size", "32MB"),
        ],
    );
    scenario.start_checker_with_thresholds(&[("standby_grace_seconds", 1.0), ("standby_restart_grace_seconds", 2.0)]);

    standby.pause();
    scenario.wait_for_event("dropped_to_async", HEALING);
    let write = "INSERT INTO scenario_bulk SELECT id, repeat('x', 200) FROM generate_series(1, 600000) AS id";
    let table = "CREATE TABLE IF NOT EXISTS scenario_bulk (id bigint, filling text)";
    primary.sql(&[table, "TRUNCATE scenario_bulk", write, "TRUNCATE scenario_bulk", write, "CHECKPOINT", "CHECKPOINT"]);

    let slot = primary.sql(&["SELECT string_agg(wal_status, ',') FROM pg_replication_slots"]);
    let kept: u64 = primary.sql(&["SELECT sum(size)::bigint FROM pg_ls_waldir()"]).parse().unwrap();
    if slot != "lost" || kept > CAP_BYTES {
        scenario.fail(&format!("the slot's log is '{slot}', and {kept} bytes of log are kept"));
    }
    scenario.wait_for_writes(20);

    standby.try_unpause();
    scenario.wait_for_rule("R335", HEALING);
    scenario.wait_healthy();
    scenario.expect_no_failover();
    primary.sql(&["TRUNCATE scenario_bulk"]);
    scenario.ends_healed(&primary);
}
