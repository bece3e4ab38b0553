//! The primary's container ends, and the runtime says so: authoritative, fail over now.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};

use crate::support::{FAILOVER, HEALING, Installation, Scenario, SmallDisk};

#[test]
fn postmaster_killed() {
    let scenario = Scenario::begin("postmaster_killed");
    let (lost, heir) = scenario.roles();

    lost.kill_postmaster();

    scenario.expect_failover("R80");
    // The Engine would say how it ended, a tenth of a second later.
    let begun = scenario.wait_for_event("failover_begun", FAILOVER);
    if !begun.reason().contains("all its processes ended") {
        scenario.fail(&format!("the kernel's word was not heard before the Engine's: {begun}"));
    }
    scenario.ends_healed(&heir);
}

/// The standby is left with a part of a record, so that what it has received stays ahead of what it can replay.
#[test]
fn postmaster_killed_in_mid_bulk_write() {
    let scenario = Scenario::begin("postmaster_killed_in_mid_bulk_write");
    let (lost, heir) = scenario.roles();

    let mut bulk = lost.begin_bulk_write();
    std::thread::sleep(Duration::from_millis(1500));
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

/// The server breaks down and gets up again in its container.
#[test]
fn backend_killed_and_recovered_in_place() {
    let scenario = Scenario::begin("backend_killed_and_recovered_in_place");
    let (primary, _) = scenario.roles();
    let timeline = || primary.sql(&["SELECT timeline_id FROM pg_control_checkpoint()"]);
    let before = timeline();

    kill(primary.server_process("checkpointer"), Signal::SIGKILL).unwrap();

    scenario.wait_for_writes(50);
    scenario.expect_no_failover_for(Duration::from_secs(2));
    assert_eq!(timeline(), before, "the timeline has changed");
    scenario.ends_healed(&primary);
}

#[test]
fn data_directory_destroyed() {
    let scenario = Scenario::begin("data_directory_destroyed");
    let (lost, heir) = scenario.roles();
    // Both at once: the checker must not start what is being destroyed.
    scenario.kill_checker();
    let volume = lost.volume();
    lost.kill_postmaster();
    scenario.wait_until("the container to end", FAILOVER, || (!lost.runs()).then_some(()));
    fs::remove_dir_all(volume.join("data")).unwrap();
    scenario.start_checker();

    scenario.expect_failover("R80");
    scenario.ends_healed(&heir);
}

#[test]
fn data_directory_corrupt() {
    let scenario = Scenario::begin("data_directory_corrupt");
    let (lost, heir) = scenario.roles();
    scenario.kill_checker();
    let volume = lost.volume();
    lost.kill_postmaster();
    scenario.wait_until("the container to end", FAILOVER, || (!lost.runs()).then_some(()));
    fs::write(volume.join("data/global/pg_control"), [0; 8192]).unwrap();
    scenario.start_checker_with_thresholds(&[("start_attempts", 1.0), ("node_start_cooldown_seconds", 1.0)]);

    scenario.expect_failover("R80");
    // What cannot be read is not deleted: somebody may still want it.
    scenario.wait_for_rule("R325", HEALING);
    assert!(volume.join("data/base").exists(), "the corrupt data directory is gone");

    let moved = volume.join("data.moved-by-the-test");
    fs::rename(volume.join("data"), &moved).unwrap();
    lost.start_by_hand();
    scenario.wait_healthy();
    fs::remove_dir_all(moved).unwrap();
    scenario.ends_healed(&heir);
}

/// The server answers, if only to refuse, until it notices by itself, which it looks for once a minute, and ends.
#[test]
#[ignore = "up to a minute and a half: make scenarios-slow"]
fn data_directory_removed_under_the_running_server() {
    let scenario = Scenario::begin("data_directory_removed_under_the_running_server");
    let (lost, heir) = scenario.roles();

    let data = lost.volume().join("data");
    // The server goes on making files meanwhile.
    scenario.wait_until("the data directory to be gone", FAILOVER, || fs::remove_dir_all(&data).is_ok().then_some(()));

    scenario.expect_failover_within("R80", Duration::from_secs(90));
    scenario.ends_healed(&heir);
}

/// The log of one node is on a disk of its own, with room for a few segments; that node is made primary, and written to.
#[test]
fn wal_disk_full() {
    let scenario = Scenario::begin("wal_disk_full");
    let (heir, lost) = scenario.roles();
    scenario.kill_checker();
    lost.stop();
    let disk = SmallDisk::below(&lost.volume().join("data/pg_wal"), 64 * 1024 * 1024);
    scenario.start_checker();
    scenario.wait_healthy();
    let switched = scenario.installation().failover_check(&["switchover"]);
    assert!(switched.status.success(), "the switchover failed: {switched:?}");
    scenario.wait_healthy();
    // Without checkpoints, which would free what was written.
    lost.sql(&["ALTER SYSTEM SET max_wal_size = '20GB'", "SELECT pg_reload_conf()"]);
    let mark = Timestamp::now();

    disk.fill();
    scenario.wait_until("the primary to end on a full disk", HEALING, || {
        // It ends with the server.
        let _ = lost.begin_bulk_write().wait();
        scenario.history_since(mark).iter().any(|event| event.name() == "failover_begun").then_some(())
    });

    scenario.expect_failover_since(mark, &lost, &heir, "R80");
    let log = lost.log();
    assert!(log.contains("No space left on device"), "the server did not end for want of space:\n{log}");
    scenario.wait_healthy();
    drop(disk);
    scenario.ends_healed(&heir);
}
