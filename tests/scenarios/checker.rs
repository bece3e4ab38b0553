//! What happens to the pair when something happens to the checker.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::support::{Cron, HEALING, Scenario};

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
    let settings = std::fs::read_to_string(&installation.settings_file).unwrap();
    let mut settings: toml::Table = settings.parse().unwrap();
    settings.insert("failover_password_file".to_owned(), wrong_password.to_str().unwrap().into());
    let wrong_settings = folder.path().join("failover-check.toml");
    std::fs::write(&wrong_settings, settings.to_string()).unwrap();

    scenario.start_checker_with(&wrong_settings);

    // Well over every threshold of silence.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        scenario.expect_no_failover();
        std::thread::sleep(Duration::from_millis(250));
    }
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
