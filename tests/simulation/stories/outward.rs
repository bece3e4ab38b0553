//! What a pass tells those who look on: the metrics and the status file, and that whoever watches them watches what there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use understudy::failover::outward::Outward;

use crate::faults::Fault;
use crate::world::{A, World};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A pass over a world, as it is told outward: the metrics and the status file.
async fn told(world: &World, folder: &Path) -> (String, Value) {
    let passed = world.order(async |mut checker| {
        checker.settings.state_directory = folder.to_owned();
        checker.settings.metrics_file = Some(folder.join("understudy.prom"));
        checker.outward = Some(Outward::new(&checker.settings));
        checker.run_once(Duration::ZERO).await.map(drop)
    });
    passed.await.unwrap().unwrap();
    let metrics = fs::read_to_string(folder.join("understudy.prom")).unwrap();
    (metrics, serde_json::from_slice(&fs::read(folder.join("status.json")).unwrap()).unwrap())
}

fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(start_paused = true)]
async fn a_healthy_pair_and_a_lost_primary_in_metrics() {
    let (world, folder) = (World::of_a_pair(), tempfile::tempdir().unwrap());
    world.pass().await;
    let (metrics, status) = told(&world, folder.path()).await;
    for (series, expected) in [
        ("understudy_writable_nodes", 1.0),
        ("understudy_standby_eligible", 1.0),
        ("understudy_standby_streaming", 1.0),
        ("understudy_paused", 0.0),
        ("understudy_primary{node=\"pg-a\"}", 1.0),
        ("understudy_primary{node=\"pg-b\"}", 0.0),
        ("understudy_timeline{node=\"pg-b\"}", 1.0),
        ("understudy_decision{action=\"nothing\"}", 1.0),
        ("understudy_decision{action=\"failover\"}", 0.0),
        ("understudy_probe_success{target=\"app\",kind=\"ready\"}", 1.0),
        ("understudy_rule_info{rule=\"R400\"}", 1.0),
        ("understudy_runs_total{outcome=\"idle\"}", 1.0),
        ("understudy_last_run_success", 1.0),
    ] {
        assert_eq!(value(&metrics, series), Some(expected), "{series} in\n{metrics}");
    }
    assert_eq!((&status["status"]["healthy"], &status["status"]["decision"]["rule"]), (&Value::Bool(true), &Value::from("R400")));

    world.befall(Fault::Kill(A));
    let (metrics, _) = told(&world, folder.path()).await;
    assert_eq!(value(&metrics, "understudy_decision{action=\"failover\"}"), Some(1.0), "{metrics}");
    assert_eq!(value(&metrics, "understudy_runs_total{outcome=\"acted\"}"), Some(1.0), "{metrics}");
    assert_eq!(value(&metrics, "understudy_consecutive_failures{target=\"pg-a\"}"), Some(1.0), "{metrics}");
    assert_eq!(value(&metrics, "understudy_timeline{node=\"pg-a\"}"), None, "what was not seen is not there:\n{metrics}");
}

#[tokio::test(start_paused = true)]
async fn alerts_and_dashboard_name_only_metrics_that_the_programs_have() {
    let (world, folder) = (World::of_a_pair(), tempfile::tempdir().unwrap());
    world.pass().await;
    let (metrics, _) = told(&world, folder.path()).await;
    let app = understudy::web::instruments::Instruments::new().encode().unwrap();
    let series = |text: &str| -> BTreeSet<String> {
        let names = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let mut known: BTreeSet<String> = &series(&metrics) | &series(&app);
    // These are there only while there is something to tell.
    known.extend(["understudy_transition_since_timestamp_seconds", "understudy_paused_since_timestamp_seconds"].map(str::to_owned));
    known.extend(["understudy_notifications_total", "understudy_notifications_dropped_total"].map(str::to_owned));
    known.extend(["understudy_failovers_total", "understudy_switchovers_total", "understudy_events_total"].map(str::to_owned));
    for file in ["monitoring/alerts.yml", "monitoring/dashboard.json"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let named: BTreeSet<&str> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("understudy_") && *word != "understudy_metrics_file")
            .collect();
        assert!(named.len() > 10, "{file}: {named:?}");
        for name in named {
            assert!(known.contains(name), "{file} names {name}, which no program has; there are {known:?}");
        }
    }
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(root().join("monitoring/dashboard.json")).unwrap()).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 10);
}
