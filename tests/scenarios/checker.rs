//! What happens to the pair when something happens to the checker.

use std::time::Duration;

use jiff::Timestamp;

use crate::support::{Cron, Crowd, FAILOVER, HEALING, Scenario};

#[test]
fn checker_killed_in_mid_failover() {
    let scenario = Scenario::begin("checker_killed_in_mid_failover");
    let (mut lost, mut heir) = scenario.roles();

    // At the first step, and somewhat later each time, so that different steps are left unfinished.
    for delay in [0, 40, 120].map(Duration::from_millis) {
        let mark = Timestamp::now();
        lost.kill_postmaster();
        scenario.wait_for_transition();
        std::thread::sleep(delay);
        scenario.kill_checker();

        scenario.start_checker();

        scenario.expect_failover_since(mark, &lost, &heir, "R80");
        scenario.wait_healthy();
        std::mem::swap(&mut lost, &mut heir);
    }
    // After the swap, the last heir is called lost.
    scenario.ends_healed(&lost);
}

#[test]
fn wrong_password_in_the_checker() {
    let scenario = Scenario::begin("wrong_password_in_the_checker");
    let (primary, _) = scenario.roles();
    let installation = scenario.installation();
    let folder = tempfile::tempdir().unwrap();
    let wrong_password = folder.path().join("password");
    std::fs::write(&wrong_password, "certainly-not-this-one").unwrap();
    let wrong_settings = scenario.settings_with(|settings| {
        settings.insert("failover_password_file".to_owned(), wrong_password.to_str().unwrap().into());
    });

    scenario.start_checker_with(&wrong_settings);

    // Well over every threshold of silence.
    scenario.expect_no_failover_for(Duration::from_secs(6));
    let explained = installation.program_with(&wrong_settings).args(["explain", "--json"]).output().unwrap();
    let explained = String::from_utf8_lossy(&explained.stdout);
    if !explained.contains("R180") || !explained.contains("password") {
        scenario.fail(&format!("expected rule R180 to name the password, found: {explained}"));
    }
    scenario.wait_for_writes(20);

    scenario.start_checker();
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

#[test]
fn cron_heals() {
    let Some(scenario) = Scenario::begin_with_cron("cron_heals") else {
        return;
    };
    assert!(Cron::is_running(), "cron's file is there, but cron does not run; try: service cron start");
    let (lost, heir) = scenario.roles();

    lost.kill_postmaster();

    scenario.expect_failover_within("R80", Duration::from_secs(75));
    scenario.wait_for_writes(20);
    scenario.wait_for_app(HEALING);
    scenario.ends_healed(&heir);
}

/// At each step at which something is left behind, as the history tells them.
#[test]
#[ignore = "seven failovers, half a minute: make scenarios-slow"]
fn checker_killed_after_each_step() {
    const STEPS: [&str; 7] = ["failover_begun", "fenced", "replayed", "promote_requested", "writable", "recorded", "failover_finished"];
    let scenario = Scenario::begin("checker_killed_after_each_step");
    let (mut lost, mut heir) = scenario.roles();

    for step in STEPS {
        let (mark, watch) = (Timestamp::now(), scenario.watch());
        lost.kill_postmaster();
        scenario.wait_to_see(&watch, step);
        scenario.kill_checker();

        scenario.start_checker();

        scenario.expect_failover_since(mark, &lost, &heir, "R80");
        scenario.wait_healthy();
        std::mem::swap(&mut lost, &mut heir);
    }
    // After the swap, the last heir is called lost.
    scenario.ends_healed(&lost);
}

#[test]
fn checkers_overlap() {
    let scenario = Scenario::begin("checkers_overlap");
    let (lost, heir) = scenario.roles();

    let _second = scenario.start_another_checker();
    lost.kill_postmaster();
    let _third = scenario.start_another_checker();

    scenario.expect_failover("R80");
    scenario.wait_healthy();
    let begun = scenario.history().iter().filter(|event| event.name() == "failover_begun").count();
    if begun != 1 {
        scenario.fail(&format!("expected one failover, found {begun}"));
    }
    scenario.ends_healed(&heir);
}

#[test]
fn connection_slots_exhausted() {
    let scenario = Scenario::begin("connection_slots_exhausted");
    let (primary, _) = scenario.roles();

    // Clients take all that clients can take. The connections that are kept for the checker are not among them.
    let crowd = Crowd::at(&scenario.installation().login(), &primary);
    scenario.expect_no_failover_for(Duration::from_secs(3));
    if let Some(alert) = scenario.history().into_iter().find(|event| event.rule() == "R180") {
        scenario.fail(&format!("the checker did not get in: {alert}"));
    }
    drop(crowd);

    // And where it is refused itself.
    primary.sql(&["ALTER ROLE understudy_failover CONNECTION LIMIT 0"]);
    let refused = scenario.wait_for_rule("R180", FAILOVER);
    scenario.expect_no_failover_for(Duration::from_secs(4));
    scenario.wait_for_writes(20);
    primary.sql(&["ALTER ROLE understudy_failover CONNECTION LIMIT -1"]);
    if !refused.reason().contains("53300") {
        scenario.fail(&format!("expected the alert to name the refusal, found: {refused}"));
    }
    scenario.ends_healed(&primary);
}
