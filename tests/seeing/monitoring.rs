//! Metrics, alerts and dashboard by Prometheus' own tool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::running_app::RunningApp;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn promtool(arguments: &[&str], input: Option<&Path>) -> Output {
    let program: PathBuf = root().join(".cache/tools/promtool");
    assert!(program.exists(), "'{}' is missing; try: scripts/fetch-test-tools", program.display());
    let input = input.map_or_else(Stdio::null, |path| fs::File::open(path).unwrap().into());
    Command::new(program).current_dir(root()).args(arguments).stdin(input).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let checked = promtool(&["check", "rules", "monitoring/alerts.yml"], None);
    assert!(checked.status.success(), "{}", said(&checked));
    let tested = promtool(&["test", "rules", "tests/seeing/monitoring/alerts_test.yml"], None);
    assert!(tested.status.success(), "{}", said(&tested));

    let (alerts, tests) = (
        fs::read_to_string(root().join("monitoring/alerts.yml")).unwrap(),
        fs::read_to_string(root().join("tests/seeing/monitoring/alerts_test.yml")).unwrap(),
    );
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.first(), Some(&"UnderstudyNobodyWatches"), "the dead man comes first");
    for name in &names {
        for case in ["fires", "does not fire"] {
            assert!(tests.contains(&format!("- name: {name} {case}\n")), "{name} has no test that it {case}");
        }
    }
    // Each names what to type.
    for alert in alerts.split("- alert: ").skip(1) {
        let description = alert.split_once("description: ").map(|(_, text)| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let description = description.unwrap_or_else(|| panic!("no description: {alert}"));
        assert!(description.contains("failover-check ") || description.contains("df -h"), "no command in: {description}");
    }
}

#[test]
fn the_rules_test_can_fail() {
    let folder = tempfile::tempdir().unwrap();
    let rules = fs::read_to_string(root().join("monitoring/alerts.yml"))
        .unwrap()
        .replace("understudy_writable_nodes == 0", "understudy_writable_nodes == 1");
    fs::write(folder.path().join("alerts.yml"), rules).unwrap();
    let tests = fs::read_to_string(root().join("tests/seeing/monitoring/alerts_test.yml")).unwrap().replace("../../../monitoring/", "");
    let file = folder.path().join("alerts_test.yml");
    fs::write(&file, tests).unwrap();
    let tested = promtool(&["test", "rules", file.to_str().unwrap()], None);
    assert!(!tested.status.success() && said(&tested).contains("UnderstudyNoWritableNode"), "{}", said(&tested));
}

#[test]
fn the_metrics_of_failover_check_are_in_the_collectors_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let settings = format!(
        "state_directory = \"{path}\"\ndocker_socket = \"{path}/docker.sock\"\napp_container = \"app\"\napp_url = \"http://127.0.0.1:9\"\n\
         database = \"postgres\"\nfailover_user = \"u\"\nfailover_password_file = \"{path}/password\"\nmetrics_file = \"{path}/understudy.prom\"\n\
         [nodes]\npg-a = \"a\"\npg-b = \"b\"\n[notify]\ncommand = [\"true\"]\n"
    );
    fs::write(folder.path().join("settings.toml"), settings).unwrap();
    fs::write(folder.path().join("password"), "secret").unwrap();
    let record = r#"{"version":1,"epoch":1,"primary":"pg-a","standby_eligible":false,"transition":null,"paused":{"since":"2026-11-21T08:00:00Z","by":"a","reason":"b"},"system_identifier":null,"failovers":[]}"#;
    fs::write(folder.path().join("cluster.json"), record).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_failover-check"))
        .arg("--settings")
        .arg(folder.path().join("settings.toml"))
        .arg("run")
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(5), "{run:?}");
    let file = folder.path().join("understudy.prom");
    let checked = promtool(&["check", "metrics"], Some(&file));
    assert!(checked.status.success(), "{}\n{}", said(&checked), fs::read_to_string(&file).unwrap());
}

#[tokio::test]
async fn the_metrics_of_the_app_tell_of_the_dead_man_too() {
    let app = RunningApp::start(1).await;
    app.name_primary("pg-a", 3);
    fs::write(app.folder().join("status.json"), r#"{"version":1,"at":"2026-11-21T08:00:00Z","status":null}"#).unwrap();
    assert_eq!(app.metric("understudy_status_timestamp_seconds").await, 1_795_248_000.0);
    assert_eq!(app.metric("understudy_record_paused").await, 0.0);
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(root().join("monitoring/dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        assert!(!panel["title"].as_str().unwrap().is_empty());
        for target in panel["targets"].as_array().unwrap() {
            // What a variable stands for is chosen in Grafana.
            let expression = target["expr"].as_str().unwrap().replace("$instance", ".*");
            let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
            let rule = serde_json::json!({ "groups": [{ "name": "x", "rules": [{ "record": "x", "expr": expression }] }] });
            fs::write(file.path(), rule.to_string()).unwrap();
            let checked = promtool(&["check", "rules", file.path().to_str().unwrap()], None);
            assert!(checked.status.success(), "{}: {}", panel["title"], said(&checked));
        }
    }
}
