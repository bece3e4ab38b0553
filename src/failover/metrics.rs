//! What a pass saw, as metrics for the textfile collector of Prometheus' `node_exporter`.
//!
//! The names follow Prometheus' conventions: one prefix, base units, 0 or 1 for each value of a state. What was not seen is not there, rather than zero or
//! old: each write replaces the whole file. Whether it is written at all is told by `understudy_last_run_timestamp_seconds`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::counters::Counters;
use super::decision::Action;
use super::notify::Delivery;
use super::observation::{AppView, ContainerView, InsideView, NodeView, RuntimeView, ServerView};
use super::pass::{Look, needs_a_person};
use crate::record::{NodeName, Step};

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// Everything that goes into the file.
pub struct Measured<'a> {
    /// What the pass saw; None where it could not look.
    pub look: Option<&'a Look>,
    /// It looked, and its acting did not fail.
    pub success: bool,
    /// When it ended.
    pub now: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// What is counted over passes.
    pub counters: &'a Counters,
    /// What became of notifications, where there are any.
    pub delivery: Option<&'a Delivery>,
    /// The folder of the record.
    pub state_directory: &'a Path,
}

/// Every action's name, so that each has its 0 or 1.
const ACTIONS: [&str; 14] = [
    "nothing",
    "wait",
    "alert",
    "refuse",
    "resume",
    "fence",
    "failover",
    "start_primary",
    "start_standby",
    "restart_standby",
    "mark_ineligible",
    "drop_to_async",
    "restore_sync",
    "restart_app",
];

/// Collects metrics under their names.
struct Collector {
    registry: Registry,
}

impl Collector {
    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_some() {
            let gauges = Gauges::default();
            for (labels, value) in values {
                gauges.get_or_create(&labels).set(value);
            }
            self.registry.register(name, help, gauges);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) {
        self.gauges(name, help, value.into().map(|value| (Labels::new(), value)));
    }

    fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let counters = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            counters.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, counters);
    }
}

/// The file's content.
#[must_use]
pub fn text(measured: &Measured<'_>) -> String {
    let mut collector = Collector { registry: Registry::with_prefix("understudy") };
    about_the_run(&mut collector, measured);
    if let Some(look) = measured.look {
        about_the_record(&mut collector, look);
        about_the_pair(&mut collector, look);
        about_the_decision(&mut collector, look);
    }
    let mut openmetrics = String::new();
    // Into a string nothing fails.
    let _ = text::encode(&mut openmetrics, &collector.registry);
    as_prometheus_text(&openmetrics)
}

fn about_the_run(collector: &mut Collector, measured: &Measured<'_>) {
    let Measured { counters, .. } = measured;
    collector.gauges(
        "build_info",
        "Version of failover-check",
        [(vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("program", "failover-check".to_owned())], 1.0)],
    );
    collector.gauge(
        "last_run_timestamp_seconds",
        "When the last pass ended, in seconds since 1970; without a new one for long nobody watches",
        measured.now.as_duration().as_secs_f64(),
    );
    collector.gauge("last_run_success", "1 when the last pass could look, and its acting did not fail", flag(measured.success));
    collector.gauge("run_duration_seconds", "How long the last pass took, acting included", measured.duration.as_secs_f64());
    collector.counters(
        "runs",
        "Passes by what came of them",
        ["idle", "acted", "failed", "blind"]
            .map(|outcome| (one("outcome", outcome), counters.passes.get(outcome).copied().unwrap_or_default())),
    );
    collector.gauges(
        "consecutive_failures",
        "Passes in a row in which the probe of this target failed",
        counters.failures.iter().map(|(target, failures)| (one("target", target), wide(*failures))),
    );
    collector.counters(
        "failovers",
        "Failovers by what came of them",
        [("finished", "failover_finished"), ("rolled_back", "rolled_back")]
            .map(|(result, event)| (one("result", result), counters.event(event))),
    );
    collector.counters("switchovers", "Switchovers that were finished", [(Labels::new(), counters.event("switchover_finished"))]);
    collector.counters("app_restarts", "Restarts of the app by the tool", [(Labels::new(), counters.event("app_restarted"))]);
    collector.counters(
        "events",
        "Events of the journal by their names",
        counters.events.iter().map(|(event, count)| (one("event", event), *count)),
    );
    if let Some(delivery) = measured.delivery {
        let results = delivery.results();
        collector.counters(
            "notifications",
            "Notifications by where they went and what became of them",
            results.into_iter().map(|(target, result, count)| (vec![("target", target.to_owned()), ("result", result.to_owned())], count)),
        );
        collector.counters(
            "notifications_dropped",
            "Notifications that were never tried, because too many waited",
            [(Labels::new(), delivery.dropped)],
        );
    }
    if let Ok(disk) = nix::sys::statvfs::statvfs(measured.state_directory) {
        let bytes = |blocks: u64| wide(blocks.saturating_mul(disk.fragment_size()));
        collector.gauge("state_disk_free_bytes", "Free space of the file system that the record lies on", bytes(disk.blocks_available()));
        collector.gauge("state_disk_size_bytes", "Size of the file system that the record lies on", bytes(disk.blocks()));
    }
}

fn about_the_record(collector: &mut Collector, look: &Look) {
    let Look { record, seen, .. } = look;
    let nodes = [&seen.primary.name, &seen.standby.name];
    let transition = record.transition.as_ref();
    let fenced = |name: &NodeName| transition.is_some_and(|transition| transition.from == *name && transition.step >= Step::Fenced);
    let since = |at: Option<Timestamp>| at.map(|at| at.as_duration().as_secs_f64());
    collector.gauge("epoch", "Epoch of the record; grows by one at each change of primary", wide(record.epoch));
    collector.gauges(
        "primary",
        "1 for the node that the record names as primary",
        nodes.map(|name| (one("node", name.as_str()), flag(*name == record.primary))),
    );
    collector.gauge(
        "standby_eligible",
        "1 while the record says that the standby may take over without loss",
        flag(record.standby_eligible),
    );
    collector.gauge("transition", "1 while a change of primary is under way", flag(transition.is_some()));
    collector.gauge(
        "transition_since_timestamp_seconds",
        "When the change of primary that is under way was decided, in seconds since 1970",
        since(transition.map(|transition| transition.since)),
    );
    collector.gauges(
        "fenced",
        "1 for a node that a change of primary has stopped and verified stopped",
        nodes.map(|name| (one("node", name.as_str()), flag(fenced(name)))),
    );
    collector.gauge("paused", "1 while a person has paused the tool", flag(record.paused.is_some()));
    collector.gauge(
        "paused_since_timestamp_seconds",
        "When the tool was paused, in seconds since 1970",
        since(record.paused.as_ref().map(|pause| pause.since)),
    );
    collector.gauge("recent_failovers", "Failovers within the window of the flapping guard", f64::from(seen.elapsed.recent_failovers));
    collector.gauge("flapping_limit", "So many of them are too many", f64::from(seen.thresholds.flapping_limit));
}

fn about_the_pair(collector: &mut Collector, look: &Look) {
    let seen = &look.seen;
    let nodes = [&seen.primary, &seen.standby];
    collector.gauges(
        "probe_success",
        "1 for a probe that found what it asked for alive",
        probes(look).into_iter().map(|(target, kind, success)| (vec![("target", target), ("kind", kind.to_owned())], flag(success))),
    );
    let writable = nodes.into_iter().filter(|node| takes_writes(node)).count();
    collector.gauge(
        "writable_nodes",
        "Nodes that were seen to take writes; anything but 1 is wrong",
        u32::try_from(writable).ok().map(f64::from),
    );
    collector.gauges(
        "timeline",
        "PostgreSQL's timeline of a node",
        nodes.into_iter().filter_map(|node| {
            let timeline = match &node.server {
                ServerView::Primary { status, .. } => status.timeline,
                ServerView::Standby { status, .. } => status.timeline,
                ServerView::Starting(_) | ServerView::Refusing(_) | ServerView::Silent(_) | ServerView::NotAsked => None,
            };
            Some((one("node", node.name.as_str()), f64::from(timeline?)))
        }),
    );
    let link = seen.link();
    let behind = link.and_then(|link| link.behind).map(|bytes| (bytes, Duration::ZERO)).or(seen.elapsed.behind);
    collector.gauge(
        "replication_lag_bytes",
        "Log that the standby lacks of the primary's last known position",
        behind.map(|(bytes, _)| wide(bytes)),
    );
    collector.gauge("primary_lsn_age_seconds", "Age of that position", behind.map(|(_, age)| age.as_secs_f64()));
    collector.gauge("standby_streaming", "1 while the primary says that the standby streams", link.map(|link| flag(link.streaming)));
    collector.gauge(
        "standby_synchronous",
        "1 while the primary says that commits wait for the standby",
        link.map(|link| flag(link.synchronous)),
    );
    let retained = match &seen.primary.server {
        ServerView::Primary { status, .. } => status.slot_retained,
        ServerView::Standby { .. } | ServerView::Starting(_) | ServerView::Refusing(_) | ServerView::Silent(_) | ServerView::NotAsked => {
            None
        }
    };
    collector.gauge(
        "slot_retained_bytes",
        "Log that the replication slot which holds back most holds back on the primary",
        retained.map(wide),
    );
    collector.gauge("app_ready", "1 when the app said that a writable primary answers it", flag(seen.app == AppView::Ready));
}

fn about_the_decision(collector: &mut Collector, look: &Look) {
    let decision = &look.decision;
    let name = decision.action.name();
    collector.gauges("decision", "1 for what the last pass decided", ACTIONS.map(|action| (one("action", action), flag(action == name))));
    collector.gauges("rule_info", "The rule that fired in the last pass", [(one("rule", decision.rule.id), 1.0)]);
    collector.gauge("needs_a_person", "1 while the tool alerts or refuses", flag(needs_a_person(decision)));
}

/// Each probe of a pass that was made: its target, its kind, and whether it found it alive.
fn probes(look: &Look) -> Vec<(String, &'static str, bool)> {
    let seen = &look.seen;
    let mut probes = vec![
        ("runtime".to_owned(), "engine", seen.runtime == RuntimeView::Answers),
        ("app".to_owned(), "ready", seen.app == AppView::Ready),
    ];
    for node in [&seen.primary, &seen.standby] {
        let name = || node.name.to_string();
        probes.push((name(), "container", node.container == ContainerView::Running));
        match node.server {
            ServerView::Primary { .. } | ServerView::Standby { .. } => probes.push((name(), "server", true)),
            ServerView::Starting(_) | ServerView::Refusing(_) | ServerView::Silent(_) => probes.push((name(), "server", false)),
            ServerView::NotAsked => {}
        }
        match node.inside {
            InsideView::Alive => probes.push((name(), "inside", true)),
            InsideView::Preparing(_) | InsideView::Dead(_) | InsideView::Unknown(_) => probes.push((name(), "inside", false)),
            InsideView::NotAsked => {}
        }
    }
    probes
}

/// The targets of a pass, and whether each of their probes found them alive.
#[must_use]
pub fn targets(look: &Look) -> Vec<(String, bool)> {
    let probes = probes(look);
    let names: BTreeSet<&String> = probes.iter().map(|(target, _, _)| target).collect();
    // The witness inside is asked because the server failed: it excuses nothing.
    names
        .into_iter()
        .map(|name| (name.clone(), probes.iter().filter(|(target, _, _)| target == name).all(|(_, _, success)| *success)))
        .collect()
}

/// What came of a pass, as a label.
#[must_use]
pub fn outcome(action: &Action, failed: bool) -> &'static str {
    match action {
        _ if failed => "failed",
        Action::Nothing | Action::Wait | Action::Alert | Action::Refuse => "idle",
        Action::Resume
        | Action::Fence { .. }
        | Action::Failover { .. }
        | Action::StartPrimary { .. }
        | Action::StartStandby { .. }
        | Action::RestartStandby { .. }
        | Action::MarkIneligible
        | Action::DropToAsync
        | Action::RestoreSync
        | Action::RestartApp => "acted",
    }
}

fn takes_writes(node: &NodeView) -> bool {
    matches!(&node.server, ServerView::Primary { status, .. } if !status.read_only)
}

fn one(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Exact up to 2^53, which is eight million gigabytes.
#[allow(clippy::cast_precision_loss)]
fn wide(value: u64) -> f64 {
    value as f64
}

/// The crate writes OpenMetrics; the collector reads Prometheus' older text, in which a counter is declared under its whole name, and which has neither
/// units nor a mark of the end.
fn as_prometheus_text(openmetrics: &str) -> String {
    let counters: BTreeSet<&str> = openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(openmetrics.len());
    let mut samples: Vec<&str> = Vec::new();
    for line in openmetrics.lines().filter(|line| !line.starts_with("# UNIT ")) {
        if !line.starts_with('#') {
            samples.push(line);
            continue;
        }
        // The crate keeps them in no order.
        samples.sort_unstable();
        for sample in samples.drain(..) {
            let _ = writeln!(text, "{}", sample.replacen("{} ", " ", 1));
        }
        if line == "# EOF" {
            break;
        }
        let declared = ["# HELP ", "# TYPE "].into_iter().find_map(|kind| {
            let (name, rest) = line.strip_prefix(kind)?.split_once(' ')?;
            counters.contains(name).then_some((kind, name, rest))
        });
        let _ = match declared {
            Some((kind, name, rest)) => writeln!(text, "{kind}{name}_total {rest}"),
            None => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_become_the_text_that_the_collector_reads() {
        let mut collector = Collector { registry: Registry::with_prefix("understudy") };
        collector.counters("runs", "Passes", ["idle", "acted"].map(|outcome| (one("outcome", outcome), 3)));
        collector.gauge("paused", "Paused", 0.0);
        collector.gauge("unseen", "Not seen", None);
        let mut openmetrics = String::new();
        text::encode(&mut openmetrics, &collector.registry).unwrap();
        assert_eq!(
            as_prometheus_text(&openmetrics),
            "# HELP understudy_runs_total Passes.\n# TYPE understudy_runs_total counter\nunderstudy_runs_total{outcome=\"acted\"} 3\n\
             understudy_runs_total{outcome=\"idle\"} 3\n\
             # HELP understudy_paused Paused.\n# TYPE understudy_paused gauge\nunderstudy_paused 0.0\n"
        );
    }

    #[test]
    fn a_pass_that_could_not_look_tells_only_of_itself() {
        let counters = Counters::default();
        let measured = Measured {
            look: None,
            success: false,
            now: "2026-11-21T08:00:00Z".parse().unwrap(),
            duration: Duration::from_millis(20),
            counters: &counters,
            delivery: None,
            state_directory: Path::new("/"),
        };
        let text = text(&measured);
        for line in [
            "understudy_last_run_timestamp_seconds 1795248000.0",
            "understudy_last_run_success 0.0",
            "understudy_run_duration_seconds 0.02",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("understudy_writable_nodes") && !text.contains("info\n"), "{text}");
    }
}
