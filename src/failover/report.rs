//! What was seen and decided, for a person and as JSON.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::decide::{HEALTHY, RULES, promotable};
use super::gate::{Gate, gate};
use super::observation::{AppView, Observation, PauseView, RuntimeView, ServerView};
use super::pass::Look;
use super::settings::{Mode, Settings};
use super::words::{app_words, container_words, inside_words, node_state, node_words, server_words};
use crate::record::Record;

/// Without a pass for so long nobody watches: cron begins one a minute.
const UNWATCHED_AFTER: Duration = Duration::from_secs(90);

/// A text for a person and the same as JSON.
pub struct Report {
    /// For a person; ends without a newline.
    pub text: String,
    /// For a program.
    pub json: Value,
}

/// How things stand. `would_have`: what an observing pass would have done last.
#[must_use]
pub fn status(
    look: &Look,
    settings: &Settings,
    last_failover: Option<&Map<String, Value>>,
    would_have: Option<&Map<String, Value>>,
) -> Report {
    let Look { record, seen, decision, .. } = look;
    let link = seen.link();
    let mode = if record.standby_eligible { "sync" } else { "async" };
    let unwatched = match look.last_pass_ago {
        Some(ago) if ago <= UNWATCHED_AFTER => None,
        Some(ago) => Some(format!("nobody watches: the last pass was {:.0} s ago; is cron running?", ago.as_secs_f64())),
        None => Some("nobody watches: there was no pass since the machine has started; is cron running?".to_owned()),
    };
    let healthy = decision.rule == HEALTHY && unwatched.is_none();
    let because = unwatched.clone().unwrap_or_else(|| decision.reason.to_string());
    let state = if healthy { "healthy" } else { "not healthy" };
    // First of all: whoever reads on believes that somebody would help.
    let summary = match settings.mode {
        Mode::Act => format!("{state}: {because}"),
        Mode::Observe => format!("OBSERVING ONLY, nothing is mended by itself (mode = observe): {state}: {because}"),
    };
    let would_have = would_have.filter(|_| settings.mode == Mode::Observe);
    let mut text = format!(
        "{summary}\n\n  primary {} since epoch {}, mode {mode}{}\n",
        record.primary,
        record.epoch,
        match (record.standby_eligible, promotable(seen)) {
            (true, Ok(())) => ": the standby can take over without loss",
            (true, Err(_)) => ": the standby has every acknowledged commit, but cannot take over now",
            (false, _) => ": the standby must not take over by itself",
        }
    );
    for (role, node) in [("primary", &seen.primary), ("standby", &seen.standby)] {
        let _ = writeln!(text, "  {:<8} {role:<8} {}", node.name.as_str(), node_state(node));
    }
    if let Some(behind) = link.and_then(|link| link.behind) {
        let _ = writeln!(text, "  {:<17} {behind} bytes behind the primary", "");
    } else if let Some((bytes, age)) = seen.elapsed.behind {
        let _ = writeln!(text, "  {:<17} {bytes} bytes behind the primary's position of {:.0} s ago", "", age.as_secs_f64());
    }
    let _ = writeln!(text, "  {:<17} {}", "app", app_words(&seen.app));
    let watched = look
        .last_pass_ago
        .map_or("never since the machine has started".to_owned(), |ago| format!("last pass {:.1} s ago", ago.as_secs_f64()));
    let _ = writeln!(text, "  {:<17} {watched}", "watched");
    if let Some(transition) = &record.transition {
        let _ = writeln!(
            text,
            "  transition from {} to {}, step {}, since {}: {}",
            transition.from,
            transition.to,
            json!(transition.step).as_str().unwrap_or_default(),
            transition.since,
            transition.reason
        );
    }
    if let Some(pause) = &record.paused {
        let end = match seen.record.pause {
            PauseView::None | PauseView::Open => "until a person resumes".to_owned(),
            PauseView::Left(Duration::ZERO) => "over".to_owned(),
            PauseView::Left(left) => format!("for another {:.0} s", left.as_secs_f64()),
        };
        let _ = writeln!(text, "  paused by {} since {}, {end}: {}", pause.by, pause.since, pause.reason);
    }
    if settings.mode == Mode::Observe {
        let now = match decision.action.is_deed() {
            true => format!("would do {} now; to have it done run: failover-check run --act", decision.action.name()),
            false => "would do nothing now".to_owned(),
        };
        let _ = writeln!(text, "  observing only: {now}");
    }
    if let Some(event) = would_have {
        let _ = writeln!(text, "  would have acted last: {}", event_words(event));
    }
    if let Some(event) = last_failover {
        let _ = writeln!(text, "  last change of primary: {}", event_words(event));
    }
    let _ = write!(text, "\nrule {} {}: {}", decision.rule.id, decision.action.name(), decision.rule.sentence);
    let json = json!({
        "healthy": healthy,
        "summary": summary,
        "primary": record.primary,
        "standby": seen.standby.name,
        "epoch": record.epoch,
        "mode": mode,
        "acts": settings.mode == Mode::Act,
        "would_have": would_have,
        "standby_eligible": record.standby_eligible,
        "paused": record.paused,
        "transition": record.transition,
        "decision": decision_json(look),
        "last_pass_seconds_ago": look.last_pass_ago.map(|ago| ago.as_secs_f64()),
        "nodes": nodes_json(seen),
        "app": app_json(&seen.app),
        "last_change": last_failover,
    });
    Report { text, json }
}

/// A dry run: what was seen, which rule fires, what would be done, and what stands in the way of a failover.
#[must_use]
pub fn explain(look: &Look, settings: &Settings) -> Report {
    let Look { record, seen, decision, .. } = look;
    let thresholds = &seen.thresholds;
    let elapsed = &seen.elapsed;
    let unfit = promotable(seen).err().map(|why| why.to_string());
    let mut text = String::from("observed\n");
    let runtime = match &seen.runtime {
        RuntimeView::Answers => "answers".to_owned(),
        RuntimeView::Silent(why) => format!("silent: {why}"),
    };
    let paused = match seen.record.pause {
        PauseView::None => String::new(),
        PauseView::Open => ", paused".to_owned(),
        PauseView::Left(Duration::ZERO) => ", a pause is over".to_owned(),
        PauseView::Left(left) => format!(", paused for another {:.0} s", left.as_secs_f64()),
    };
    let gate = match settings.mode {
        Mode::Observe if decision.action.is_deed() => Some(Gate::observing(decision)),
        Mode::Act | Mode::Observe => gate(decision, seen, &settings.nodes, &settings.app_container),
    };
    let lines = [
        ("runtime", runtime),
        (
            "record",
            format!("primary {}, epoch {}, standby eligible: {}{paused}", record.primary, record.epoch, yes_no(record.standby_eligible)),
        ),
        ("primary", node_words(&seen.primary)),
        ("standby", node_words(&seen.standby)),
        ("app", app_words(&seen.app)),
    ];
    for (what, words) in &lines {
        let _ = writeln!(text, "  {what:<9} {words}");
    }
    let _ = write!(
        text,
        "\ndecided\n  rule      {}: {}\n  would do  {}\n  because   {}",
        decision.rule.id,
        decision.rule.sentence,
        decision.action.name(),
        decision.reason
    );
    if let Some(gate) = &gate {
        text.push_str("\n\nwhat says no");
        for line in gate.lines() {
            let _ = write!(text, "\n  {line}");
        }
    }
    if settings.mode == Mode::Observe {
        text.push_str("\n\nmode = observe: only a person's commands do anything");
    }
    let gates = [
        format!("standby can take over without loss: {}", unfit.as_deref().map_or("yes".to_owned(), |why| format!("no: {why}"))),
        format!(
            "primary silent: {} of {} passes, {:.1} of {:.1} s",
            elapsed.silent_passes,
            thresholds.suspicion_passes,
            elapsed.silent_for.as_secs_f64(),
            thresholds.suspicion.as_secs_f64()
        ),
        format!("primary isolated: {:.1} of {:.1} s", elapsed.isolated_for.as_secs_f64(), thresholds.isolation_grace.as_secs_f64()),
        format!("primary starting: {:.1} of {:.1} s", elapsed.starting_for.as_secs_f64(), thresholds.startup_grace.as_secs_f64()),
        format!("failovers within the window: {} of {}", elapsed.recent_failovers, thresholds.flapping_limit),
    ];
    text.push_str("\n\nbefore a failover these are looked at");
    for gate in &gates {
        let _ = write!(text, "\n  {gate}");
    }
    let json = json!({
        "decision": decision_json(look),
        "record": record,
        "runtime": match &seen.runtime { RuntimeView::Answers => json!({"state": "answers"}), RuntimeView::Silent(why) => json!({"state": "silent", "why": why}) },
        "nodes": nodes_json(seen),
        "app": app_json(&seen.app),
        "says_no": gate.map(|gate| gate.json()),
        "acts": settings.mode == Mode::Act,
        "gates": gates,
        "standby_unpromotable": unfit,
    });
    Report { text, json }
}

/// What happened, oldest first.
#[must_use]
pub fn history(events: &[Map<String, Value>]) -> Report {
    let lines: Vec<String> = events.iter().map(event_words).collect();
    let text = if lines.is_empty() { "nothing has happened yet".to_owned() } else { lines.join("\n") };
    Report { text, json: json!({ "events": events }) }
}

/// The table of rules, for `explain --rules`.
#[must_use]
pub fn rules() -> Report {
    let lines: Vec<String> = RULES.iter().map(|rule| format!("{:<5} {}", rule.id, rule.sentence)).collect();
    let json = RULES.iter().map(|rule| json!({ "rule": rule.id, "sentence": rule.sentence })).collect();
    Report { text: lines.join("\n"), json: Value::Array(json) }
}

/// The record's part of the answer to `pause` and `resume`.
#[must_use]
pub fn record(record: &Record, text: String) -> Report {
    Report { text, json: json!(record) }
}

fn event_words(event: &Map<String, Value>) -> String {
    let word = |key: &str| event.get(key).and_then(Value::as_str);
    let at = word("at").unwrap_or("?");
    let at = at.parse::<Timestamp>().map_or(at.to_owned(), |at| format!("{at:.3}"));
    let mut words = format!("{at}  {}", word("event").unwrap_or("?"));
    for key in ["rule", "action", "node", "from", "to", "epoch", "seconds", "by"] {
        match event.get(key) {
            None => {}
            Some(Value::String(value)) => {
                let _ = write!(words, "  {key} {value}");
            }
            Some(value) => {
                let _ = write!(words, "  {key} {value}");
            }
        }
    }
    if let Some(reason) = word("reason") {
        let _ = write!(words, "  {reason}");
    }
    words
}

fn decision_json(look: &Look) -> Value {
    let decision = &look.decision;
    json!({
        "rule": decision.rule.id,
        "sentence": decision.rule.sentence,
        "action": decision.action.name(),
        "details": decision.action,
        "because": decision.reason.to_string(),
    })
}

fn nodes_json(seen: &Observation) -> Value {
    let mut nodes = Map::new();
    for (role, node) in [("primary", &seen.primary), ("standby", &seen.standby)] {
        let (container, container_why) = container_words(&node.container);
        let (server, server_why) = server_words(&node.server);
        let (inside, inside_why) = inside_words(&node.inside);
        let mut value = json!({ "role": role, "container": container, "container_detail": container_why, "server": server, "server_detail": server_why, "inside": inside, "inside_detail": inside_why });
        if let (ServerView::Standby { status, .. }, Some(value)) = (&node.server, value.as_object_mut()) {
            value.insert("streaming".to_owned(), json!(status.streaming));
            value.insert("received".to_owned(), json!(status.received));
            value.insert("replayed".to_owned(), json!(status.replayed));
            value.insert("timeline".to_owned(), json!(status.timeline));
        }
        if let (ServerView::Primary { status, .. }, Some(value)) = (&node.server, value.as_object_mut()) {
            value.insert("flushed".to_owned(), json!(status.flushed));
            value.insert("synchronous_standby_names".to_owned(), json!(status.synchronous_standby_names));
            value.insert("standby_behind_bytes".to_owned(), json!(seen.link().and_then(|link| link.behind)));
            value.insert("standby_streams".to_owned(), json!(seen.link().is_some_and(|link| link.streaming)));
            value.insert("standby_synchronous".to_owned(), json!(seen.link().is_some_and(|link| link.synchronous)));
            value.insert("timeline".to_owned(), json!(status.timeline));
            value.insert("slot_retained_bytes".to_owned(), json!(status.slot_retained));
        }
        nodes.insert(node.name.to_string(), value);
    }
    Value::Object(nodes)
}

fn app_json(app: &AppView) -> Value {
    match app {
        AppView::Ready => json!({ "state": "ready" }),
        AppView::NotReady(why) => json!({ "state": "not_ready", "why": why }),
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}
