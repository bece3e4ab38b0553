//! A failover rehearsed on purpose, by the command that does it.

use serde_json::Value;

use crate::support::Scenario;

#[test]
fn drill_holds_its_limits_and_leaves_nothing_behind() {
    let scenario = Scenario::begin("drill_holds_its_limits_and_leaves_nothing_behind");
    let (primary, _) = scenario.roles();

    let output = scenario.installation().failover_check(&["drill", "--yes", "--json", "--switch-back"]);

    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if output.status.code() != Some(0) || report["held"] != true || report["rows_lost"] != 0 || report["most_writable"] != 1 {
        scenario.fail(&format!("the drill did not hold: {output:?}"));
    }
    eprintln!("drill: {} s without a row, {} s on the way back", report["write_outage_seconds"], report["switch_back_outage_seconds"]);
    let steps = report["steps"].as_array().unwrap();
    for event in ["drill_begun", "failover_begun", "fenced", "writable", "recorded", "standby_streaming", "sync_restored"] {
        if !steps.iter().any(|step| step["event"] == event) {
            scenario.fail(&format!("the drill's report has no '{event}': {report}"));
        }
    }
    let state = scenario.installation().state().join("drills");
    let saved: Vec<String> =
        std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(saved.iter().any(|name| name.ends_with(".json")) && saved.iter().any(|name| name.ends_with(".txt")), "{saved:?}");
    let left = primary.sql(&["\\c understudy", "SELECT count(*) FROM pg_namespace WHERE nspname = 'understudy_drill'"]);
    assert_eq!(left.trim(), "0", "the drill's schema is left");
    // There and back again.
    scenario.ends_healed(&primary);
}

#[test]
#[ignore = "it waits until nobody watches: make scenarios-slow"]
fn drill_refuses_a_pair_that_could_not_stand_it() {
    let scenario = Scenario::begin("drill_refuses_a_pair_that_could_not_stand_it");
    let (primary, _) = scenario.roles();
    let installation = scenario.installation();
    let refused = |arguments: &[&str], why: &str| {
        let output = installation.failover_check(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(6) || !words.contains(why) {
            scenario.fail(&format!("expected a refusal with '{why}', found: {output:?}"));
        }
    };

    refused(&["drill"], "there is no terminal to ask on; try: the same with --yes");
    assert!(installation.failover_check(&["pause", "--reason", "a scenario", "--for", "60s"]).status.success());
    refused(&["drill", "--yes"], "the tool is paused: nobody would fail over; try: failover-check resume");
    assert!(installation.failover_check(&["resume"]).status.success());
    scenario.kill_checker();
    std::thread::sleep(std::time::Duration::from_secs(6));
    refused(&["drill", "--yes"], "nobody watches, so nobody would fail over");
    scenario.start_checker();

    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}
