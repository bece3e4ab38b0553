//! The record and what the checker remembers: corrupt, missing, stale; and its clocks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::{FAILOVER, HEALING, Scenario, stop_all};

/// Replaces a file as a whole, as the program does.
fn replace(file: &Path, content: &[u8]) {
    let new = file.with_extension("scenario");
    fs::write(&new, content).unwrap();
    fs::rename(new, file).unwrap();
}

/// A record that was taken away or replaced; it comes back when this is dropped.
struct Record {
    file: PathBuf,
    saved: Vec<u8>,
}

impl Record {
    fn save(scenario: &Scenario) -> Self {
        let file = scenario.installation().state().join("cluster.json");
        let saved = fs::read(&file).unwrap();
        Self { file, saved }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        replace(&self.file, &self.saved);
    }
}

/// Without a record nothing is known, so nothing is done, and no node starts.
fn record_useless(scenario: Scenario, spoil: impl FnOnce(&Path), words: &str) {
    let (lost, heir) = scenario.roles();
    let record = Record::save(&scenario);
    spoil(&record.file);

    lost.kill_postmaster();

    let explained = scenario.installation().failover_check(&["explain"]);
    let complaint = String::from_utf8_lossy(&explained.stderr).into_owned();
    // Nothing of the scenario's own may look at the record meanwhile.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(500));
        lost.start_by_hand();
    }
    std::thread::sleep(Duration::from_secs(1));
    let (lost_runs, promoted) = (lost.runs(), heir.sql(&["SELECT NOT pg_is_in_recovery()"]) == "t");
    drop(record);
    assert!(!explained.status.success() && complaint.contains(words), "expected '{words}', found: {complaint}");
    assert!(!lost_runs && !promoted, "without a record {} runs: {lost_runs}, and {} was promoted: {promoted}", lost.name, heir.name);

    scenario.expect_failover("R80");
    scenario.ends_healed(&heir);
}

#[test]
fn record_corrupt() {
    let scenario = Scenario::begin("record_corrupt");
    record_useless(scenario, |record| replace(record, b"{\"version\": 1, \"epoch\""), "is corrupt");
}

#[test]
#[ignore = "what record_corrupt shows, once more: make scenarios-slow"]
fn record_missing() {
    let scenario = Scenario::begin("record_missing");
    record_useless(scenario, |record| fs::remove_file(record).unwrap(), "is missing");
}

/// As after the restore of an old backup of the host: the record names the old primary, and the nodes know better.
#[test]
#[ignore = "a failover and two restarts of both nodes: make scenarios-slow"]
fn record_from_before_the_last_failover() {
    let scenario = Scenario::begin("record_from_before_the_last_failover");
    let (lost, heir) = scenario.roles();
    let old = fs::read(scenario.installation().state().join("cluster.json")).unwrap();
    lost.kill_postmaster();
    scenario.expect_failover("R80");
    scenario.wait_healthy();

    scenario.kill_checker();
    stop_all(&[&lost, &heir]);
    let new = Record::save(&scenario);
    replace(&new.file, &old);
    scenario.start_checker();
    scenario.wait_for_rule("R100", FAILOVER);
    std::thread::sleep(Duration::from_secs(8));
    for node in [&lost, &heir] {
        assert!(!node.answers(), "{} serves by a record that is older than its data:\n{}", node.name, node.log());
    }
    assert!(lost.log().contains("the record is of epoch"), "{} does not say why it does not start:\n{}", lost.name, lost.log());

    scenario.kill_checker();
    drop(new);
    // The checker has used its attempts up.
    heir.start_by_hand();
    lost.start_by_hand();
    scenario.start_checker();
    scenario.ends_healed(&heir);
}

/// Were it believed, the frozen primary would have been silent since the beginning of time.
#[test]
fn memory_from_before_a_reboot_or_corrupt() {
    let scenario = Scenario::begin("memory_from_before_a_reboot_or_corrupt");
    let (primary, _) = scenario.roles();
    let file = scenario.installation().state().join("memory.json");
    let mut memory: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (field, value) in [("silent_since", 1), ("silent_passes", 1000), ("isolated_since", 1), ("link_lost_since", 1)] {
        assert!(memory[field].is_number() || memory[field].is_null(), "memory.json has no '{field}'");
        memory[field] = value.into();
    }
    memory["boot"] = "11111111-2222-3333-4444-555555555555".into();
    let from_before_a_reboot = serde_json::to_vec(&memory).unwrap();

    for content in [from_before_a_reboot.as_slice(), b"{\"boot\": \"".as_slice()] {
        scenario.kill_checker();
        replace(&file, content);
        primary.pause();
        scenario.start_checker();
        scenario.expect_no_failover_for(Duration::from_millis(1200));
        primary.try_unpause();
        scenario.wait_for_writes(20);
    }
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

/// The checker's clocks since boot, in a time namespace of its own.
#[test]
fn boot_clock_jumped() {
    const DAY: u32 = 86_400;
    let scenario = Scenario::begin("boot_clock_jumped");
    let (lost, heir) = scenario.roles();

    // Ahead by a day, in the middle of a suspicion: that has not lasted for a day.
    lost.pause();
    scenario.wait_for_rule("R220", FAILOVER);
    scenario.start_checker_ahead(DAY);
    scenario.expect_no_failover_for(Duration::from_millis(1200));
    lost.try_unpause();
    scenario.wait_for_writes(20);
    scenario.expect_no_failover_for(Duration::from_secs(2));

    // And back by a day: what has been remembered lies ahead, and must not keep it from acting.
    scenario.start_checker();
    lost.pause();
    scenario.expect_failover_within("R230", HEALING);
    lost.try_unpause();
    scenario.ends_healed(&heir);
}
