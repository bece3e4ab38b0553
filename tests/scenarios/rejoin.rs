//! A node that a person brings back.

use serde_json::Value;

use crate::support::Scenario;

fn answer(scenario: &Scenario, arguments: &[&str]) -> Value {
    let output = scenario.installation().failover_check(arguments);
    if !output.status.success() {
        scenario.fail(&format!("{arguments:?} failed: {output:?}"));
    }
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| scenario.fail(&format!("{error}: {output:?}")))
}

#[test]
fn rejoin_from_a_copy_under_load() {
    let scenario = Scenario::begin("rejoin_from_a_copy_under_load");
    let (primary, standby) = scenario.roles();

    let nothing = answer(&scenario, &["rejoin", &standby.name, "--yes", "--json"]);
    assert_eq!(nothing["changed"], false, "it follows already");
    let refused = scenario.installation().failover_check(&["rejoin", &primary.name, "--yes"]);
    assert_eq!(refused.status.code(), Some(6), "the primary is never rejoined: {refused:?}");
    let before = standby.sql(&["SELECT pg_postmaster_start_time()"]);

    let copied = answer(&scenario, &["rejoin", &standby.name, "--from-copy", "--yes", "--json"]);

    assert_eq!((&copied["changed"], &copied["from_copy"]), (&true.into(), &true.into()));
    assert_ne!(standby.sql(&["SELECT pg_postmaster_start_time()"]), before);
    let log = standby.log();
    assert!(log.contains("Clone"), "it was not copied: {log}");
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

/// The old primary has commits that nobody else has, and stays away until a person brings it back. What only it has is told before.
#[test]
#[ignore = "the pair goes on alone for 25 s first: make scenarios-slow"]
fn rejoin_tells_what_only_the_old_primary_has() {
    let scenario = Scenario::begin("rejoin_tells_what_only_the_old_primary_has");
    let (old, new) = scenario.roles();
    // It goes on alone, in mode async, for a while; then it is lost, and its commits are given up.
    scenario.hold_writing();
    scenario.kill_checker();
    let installation = scenario.installation();
    new.pause();
    assert!(installation.failover_check(&["run", "--for", "25s"]).status.success());
    old.sql(&["CREATE TABLE only_here (id int)"]);
    old.sql(&["INSERT INTO only_here SELECT generate_series(1, 1000)"]);
    old.kill_postmaster();
    new.try_unpause();
    let lost = installation.failover_check(&["failover", "--accept-data-loss", "--json"]);
    let report: Value = serde_json::from_slice(&lost.stdout).unwrap_or_default();
    if report["loss"]["known_missing_bytes"].as_u64().is_none() {
        scenario.fail(&format!("the loss was not told: {lost:?}"));
    }
    scenario.start_checker();
    scenario.wait_healthy();

    let output = installation.failover_check(&["rejoin", &old.name, "--from-copy", "--yes"]);

    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() || !words.contains("Only in data.kept-") || !words.contains("transactions, committed from") {
        scenario.fail(&format!("expected to be told what only the old primary has: {output:?}"));
    }
    scenario.go_on_writing();
    scenario.ends_healed(&new);
}
