//! The container runtime refuses, hangs, lies, is silent, is restarted.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{FAILOVER, HEALING, Node, Scenario, Treatment, others_that_run};

/// The request that fences a frozen primary.
const FENCE: &str = "/kill?";

fn expect_not_promoted(scenario: &Scenario, from: &Node, to: &Node) {
    let record = scenario.installation().record();
    let promoted = to.sql(&["SELECT NOT pg_is_in_recovery()"]) == "t";
    if record.primary != from.name || promoted {
        scenario.fail(&format!("{} was promoted ({promoted}) although {} was not fenced; the record: {record:?}", to.name, from.name));
    }
}

#[test]
fn fence_refused() {
    let scenario = Scenario::begin("fence_refused");
    let (lost, heir) = scenario.roles();
    let door = scenario.start_checker_behind_a_door();
    door.treat(FENCE, Treatment::Refuse);

    lost.pause();
    scenario.wait_for_transition();
    scenario.wait_until("a second attempt to fence", FAILOVER, || (door.met() > 1).then_some(()));
    expect_not_promoted(&scenario, &lost, &heir);
    // It was told to stop, and did not: it serves again.
    lost.try_unpause();
    scenario.wait_for_writes(20);
    expect_not_promoted(&scenario, &lost, &heir);

    door.let_go();
    scenario.expect_failover("R230");
    scenario.ends_healed(&heir);
}

#[test]
fn fence_hangs() {
    let scenario = Scenario::begin("fence_hangs");
    let (lost, heir) = scenario.roles();
    let door = scenario.start_checker_behind_a_door();
    door.treat(FENCE, Treatment::Hold);

    lost.pause();
    scenario.wait_until("the fence to be tried", FAILOVER, || (door.met() > 0).then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    expect_not_promoted(&scenario, &lost, &heir);

    door.let_go();
    scenario.expect_failover("R230");
    scenario.ends_healed(&heir);
}

/// The Engine says that it is done, and it is not.
#[test]
#[ignore = "a fence is waited for for 15 s: make scenarios-slow"]
fn fence_only_pretended() {
    let scenario = Scenario::begin("fence_only_pretended");
    let (lost, heir) = scenario.roles();
    let door = scenario.start_checker_behind_a_door();
    door.treat(FENCE, Treatment::Pretend);

    lost.pause();
    scenario.wait_until("a second attempt to fence", HEALING, || (door.met() > 1).then_some(()));
    expect_not_promoted(&scenario, &lost, &heir);

    door.let_go();
    scenario.expect_failover_within("R230", HEALING);
    scenario.ends_healed(&heir);
}

#[test]
fn engine_silent() {
    let scenario = Scenario::begin("engine_silent");
    let (lost, heir) = scenario.roles();
    let door = scenario.start_checker_behind_a_door();
    scenario.wait_until("the checker to be at work", FAILOVER, || (door.passed_on() > 10).then_some(()));
    // Every request.
    door.treat(" HTTP/1.1", Treatment::Hold);

    scenario.wait_for_rule("R10", FAILOVER);
    lost.kill_postmaster();
    scenario.expect_no_failover_for(Duration::from_secs(3));

    door.let_go();
    scenario.expect_failover("R80");
    scenario.ends_healed(&heir);
}

/// What runs ends with the Engine, and what it would start again by itself is not the nodes.
#[test]
#[ignore = "it takes every container of this machine down: make scenarios-slow"]
fn docker_engine_restarted() {
    let Some(scenario) = Scenario::begin_unless("docker_engine_restarted", |installation| {
        let others = others_that_run(installation.prefix());
        (!others.is_empty()).then(|| format!("other containers run on this Engine: {}", others.join(", ")))
    }) else {
        return;
    };
    let (primary, _) = scenario.roles();

    restart_engine();

    let started = scenario.wait_for_event("node_started", HEALING);
    if started.text("node") != primary.name || started.rule() != "R100" {
        scenario.fail(&format!("expected {} to be started by rule R100, found: {started}", primary.name));
    }
    scenario.wait_healthy();
    scenario.wait_for_app(HEALING);
    scenario.expect_no_failover();
    scenario.ends_healed(&primary);
}

/// With the service manager where there is one, else as the role `docker_engine` starts it.
fn restart_engine() {
    let restart = if Path::new("/run/systemd/system").exists() {
        "systemctl restart docker"
    } else {
        "engine=$(cat /var/run/docker.pid); kill \"$engine\"; tail --pid=\"$engine\" -f /dev/null; \
         setsid nohup dockerd </dev/null >>/var/log/docker.log 2>&1 &"
    };
    let status = Command::new("bash").args(["-c", restart]).status().unwrap();
    assert!(status.success(), "'{restart}' ended with {status}");
}
