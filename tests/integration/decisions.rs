//! The whole small space of what a pass can see: its decisions as a reviewed table, and the invariants asserted over all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use understudy::failover::decide::{self, RULES, decide};
use understudy::failover::decision::{Action, Decision};
use understudy::failover::gate::{Gate, gate};
use understudy::failover::observation::*;
use understudy::postgres::status::{PrimaryStatus, StandbyLink, StandbyStatus};
use understudy::record::NodeName;

use crate::default_settings::default_settings;

const OURS: &str = "7000";
const STRANGERS: &str = "8000";

/// One way to see each thing; the names are the table's words.
const DIMENSIONS: &[(&str, &[&str])] = &[
    ("runtime", &["answers", "silent"]),
    ("transition", &["none", "unfinished"]),
    (
        "primary",
        &[
            "writable",
            "read-only",
            "in-recovery",
            "starting",
            "refusing",
            "stranger",
            "silent/alive-inside",
            "silent/dead-inside",
            "silent/unknown-inside",
            "silent/preparing-inside",
            "stopped",
            "missing",
            "unknown",
        ],
    ),
    (
        "standby",
        &["streams", "follows", "replay-paused", "writable", "starting", "refusing", "silent", "stranger", "stopped", "missing", "unknown"],
    ),
    ("paused", &["no", "yes"]),
    ("eligible", &["no", "yes"]),
    // The primary's word on the standby: do commits wait, and how far is it? Only a writable primary says.
    ("commits", &["wait/sync", "wait/async", "wait/lost", "free/caught-up", "free/behind", "free/lost", "weak/sync"]),
    ("app", &["ready", "not-ready"]),
    ("time", &["short", "long", "very-long"]),
    ("started", &["long-ago", "a-while-ago", "just-now"]),
    ("attempts", &["left", "used-up"]),
    ("failovers", &["few", "many"]),
];

/// One value a dimension, by index.
type Point = [usize; DIMENSIONS.len()];

fn word(point: &Point, dimension: &str) -> &'static str {
    let index = DIMENSIONS.iter().position(|(name, _)| *name == dimension).unwrap();
    DIMENSIONS[index].1[point[index]]
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn standby_status(streaming: bool, replay_paused: bool) -> StandbyStatus {
    let lsn = Some("0/3000000".parse().unwrap());
    StandbyStatus { streaming, replay_paused, received: lsn, replayed: lsn, drained: !streaming, timeline: Some(1) }
}

fn primary_status(read_only: bool, commits: &str) -> PrimaryStatus {
    let (waits, link) = commits.split_once('/').unwrap();
    let flushed = if link == "behind" { "0/1000000" } else { "0/3000000" };
    let row =
        StandbyLink { name: "pg-b".to_owned(), streaming: true, synchronous: link == "sync", flushed: Some(flushed.parse().unwrap()) };
    PrimaryStatus {
        read_only,
        flushed: "0/3000000".parse().unwrap(),
        synchronous_standby_names: if waits == "free" { String::new() } else { "\"pg-b\"".to_owned() },
        synchronous_commit: if waits == "weak" { "local" } else { "on" }.to_owned(),
        standbys: if link == "lost" { Vec::new() } else { vec![row] },
        timeline: Some(1),
        slot_retained: Some(0),
    }
}

fn observation(point: &Point) -> Observation {
    let why = || "why".to_owned();
    let primary_words = word(point, "primary");
    let as_primary = |read_only, identity: &str| ServerView::Primary {
        status: primary_status(read_only, word(point, "commits")),
        system_identifier: identity.to_owned(),
    };
    let as_standby = |streaming, paused, identity: &str| ServerView::Standby {
        status: standby_status(streaming, paused),
        system_identifier: identity.to_owned(),
    };
    let container = |words: &str| match words {
        "stopped" => ContainerView::Stopped(why()),
        "missing" => ContainerView::Missing,
        "unknown" => ContainerView::Unknown(why()),
        _ => ContainerView::Running,
    };
    let primary_server = match primary_words {
        "writable" => as_primary(false, OURS),
        "read-only" => as_primary(true, OURS),
        "in-recovery" => as_standby(false, false, OURS),
        "stranger" => as_primary(false, STRANGERS),
        "starting" => ServerView::Starting(why()),
        "refusing" => ServerView::Refusing(why()),
        words if words.starts_with("silent") => ServerView::Silent(why()),
        _ => ServerView::NotAsked,
    };
    let inside = match primary_words {
        "silent/alive-inside" => InsideView::Alive,
        "silent/dead-inside" => InsideView::Dead(why()),
        "silent/unknown-inside" => InsideView::Unknown(why()),
        "silent/preparing-inside" => InsideView::Preparing(why()),
        _ => InsideView::NotAsked,
    };
    let standby_server = match word(point, "standby") {
        "streams" => as_standby(true, false, OURS),
        "follows" => as_standby(false, false, OURS),
        "replay-paused" => as_standby(true, true, OURS),
        "stranger" => as_standby(false, false, STRANGERS),
        "writable" => as_primary(false, OURS),
        "starting" => ServerView::Starting(why()),
        "refusing" => ServerView::Refusing(why()),
        "silent" => ServerView::Silent(why()),
        _ => ServerView::NotAsked,
    };
    let long = word(point, "time") != "short";
    let time = |limit: Duration| if long { limit } else { Duration::ZERO };
    let started = match word(point, "started") {
        "just-now" => Some(Duration::from_secs(1)),
        "a-while-ago" => Some(Duration::from_secs(30)),
        _ => None,
    };
    let limits = default_settings().thresholds;
    Observation {
        runtime: if word(point, "runtime") == "silent" { RuntimeView::Silent(why()) } else { RuntimeView::Answers },
        record: RecordView {
            standby_eligible: word(point, "eligible") == "yes",
            in_transition: word(point, "transition") == "unfinished",
            pause: if word(point, "paused") == "yes" { PauseView::Open } else { PauseView::None },
            system_identifier: Some(OURS.to_owned()),
        },
        primary: NodeView { name: name("pg-a"), container: container(primary_words), server: primary_server, inside },
        standby: NodeView {
            name: name("pg-b"),
            container: container(word(point, "standby")),
            server: standby_server,
            inside: InsideView::NotAsked,
        },
        app: if word(point, "app") == "ready" { AppView::Ready } else { AppView::NotReady(why()) },
        elapsed: Elapsed {
            silent_passes: if long { limits.suspicion_passes } else { 1 },
            silent_for: time(limits.suspicion),
            isolated_for: time(limits.isolation_grace),
            starting_for: time(limits.startup_grace),
            app_unready_for: time(limits.app_grace),
            app_restarted_ago: started,
            link_lost_for: if word(point, "time") == "very-long" { Duration::from_secs(600) } else { time(limits.standby_restart_grace) },
            primary_started_ago: started,
            primary_start_attempts: if word(point, "attempts") == "used-up" { limits.start_attempts } else { 0 },
            standby_start_attempts: if word(point, "attempts") == "used-up" { limits.start_attempts } else { 0 },
            standby_started_ago: started,
            recent_failovers: if word(point, "failovers") == "many" { limits.flapping_limit } else { 0 },
            behind: None,
        },
        thresholds: limits,
    }
}

/// Which values of a dimension exist beside those chosen before it: only a writable primary tells about commits.
fn values(dimension: usize, point: &Point) -> usize {
    let (name, values) = DIMENSIONS[dimension];
    if name == "commits" && word(point, "primary") != "writable" { 1 } else { values.len() }
}

fn for_every_point(mut visit: impl FnMut(&Point, &Observation, &Decision)) {
    fn descend(dimension: usize, point: &mut Point, visit: &mut impl FnMut(&Point, &Observation, &Decision)) {
        if dimension == DIMENSIONS.len() {
            let seen = observation(point);
            visit(point, &seen, &decide(&seen));
            return;
        }
        for value in 0..values(dimension, point) {
            point[dimension] = value;
            descend(dimension + 1, point, visit);
        }
        point[dimension] = 0;
    }
    descend(0, &mut [0; DIMENSIONS.len()], &mut visit);
}

/// The table of a part of the space: values that lead to the same part below are put together, `*` stands for all of them.
fn table(dimension: usize, point: &mut Point) -> Vec<String> {
    if dimension == DIMENSIONS.len() {
        let decision = decide(&observation(point));
        return vec![format!("{} {}", decision.rule.id, decision.action.name())];
    }
    let mut groups: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    let count = values(dimension, point);
    for value in 0..count {
        point[dimension] = value;
        let rows = table(dimension + 1, point);
        let word = DIMENSIONS[dimension].1[value];
        match groups.iter_mut().find(|(_, known)| *known == rows) {
            Some((words, _)) => words.push(word),
            None => groups.push((vec![word], rows)),
        }
    }
    point[dimension] = 0;
    let mut lines = Vec::new();
    for (words, rows) in groups {
        let words = if words.len() == count { "*".to_owned() } else { words.join(",") };
        lines.extend(rows.into_iter().map(|row| format!("{words}|{row}")));
    }
    lines
}

#[test]
fn the_table_of_decisions_is_as_reviewed() {
    let header = DIMENSIONS.iter().map(|(name, _)| *name).chain(["rule and action"]).collect::<Vec<_>>().join("|");
    let rows: Vec<Vec<String>> = std::iter::once(header)
        .chain(table(0, &mut [0; DIMENSIONS.len()]))
        .map(|line| line.split('|').map(str::to_owned).collect())
        .collect();
    let widths: Vec<usize> = (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap()).collect();
    let aligned = rows.iter().map(|row| {
        row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    let rules = RULES.iter().map(|rule| format!("{:<5} {}", rule.id, rule.sentence)).collect::<Vec<_>>().join("\n");
    let text = format!("{rules}\n\n{}", aligned.collect::<Vec<_>>().join("\n"));
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, { insta::assert_snapshot!("decision_table", text) });
}

#[test]
fn the_space_is_covered_every_rule_fires_and_none_is_missing() {
    let mut fired = BTreeSet::new();
    let mut points = 0;
    for_every_point(|point, _, decision| {
        points += 1;
        assert_ne!(decision.rule, decide::NO_RULE, "{point:?}");
        fired.insert(decision.rule.id);
    });
    let silent: Vec<&str> = RULES.iter().map(|rule| rule.id).filter(|id| *id != decide::NO_RULE.id && !fired.contains(id)).collect();
    assert!(silent.is_empty(), "these rules never fire: {silent:?}");
    assert!(points > 90_000, "{points} points");
}

/// What no rule knows is refused: the one view that `observe` never makes.
#[test]
fn what_no_rule_knows_is_refused() {
    let mut seen = observation(&[0; DIMENSIONS.len()]);
    seen.primary.server = ServerView::NotAsked;
    let decision = decide(&seen);
    assert_eq!((decision.rule, decision.action), (decide::NO_RULE, Action::Refuse));
}

fn gate_of(seen: &Observation, decision: &Decision) -> Option<Gate> {
    let containers = ["pg-a", "pg-b"].map(|node| (name(node), format!("understudy-{node}")));
    gate(decision, seen, &BTreeMap::from(containers), "understudy-app")
}

/// Whoever reads a refusal at night reads what it rests on, and what overrules it or why nothing may.
#[test]
fn every_decision_that_does_nothing_names_its_gate_its_operands_and_what_overrules_it() {
    // The words of each rule and reason, as they are met first.
    let mut words: BTreeMap<(usize, &str, Option<String>), String> = BTreeMap::new();
    let mut judge = |seen: &Observation, decision: &Decision| {
        let gate = gate_of(seen, decision);
        let does_nothing = matches!(decision.action, Action::Wait | Action::Alert | Action::Refuse);
        assert_eq!(gate.is_some(), does_nothing, "{decision:?}");
        if let Some(gate) = gate {
            assert!(!gate.operands.is_empty() && gate.operands.iter().all(|operand| !operand.value.is_empty()), "{decision:?}");
            assert!(!gate.otherwise.is_empty() && gate.overruled_by.as_ref().is_none_or(|command| !command.is_empty()), "{decision:?}");
            let position = RULES.iter().position(|rule| *rule == decision.rule).unwrap();
            let key = (position, gate.question, gate.overruled_by.clone());
            words.entry(key).or_insert_with(|| {
                let head = format!("{} {}: {}", decision.rule.id, decision.action.name(), decision.reason);
                format!("{head}\n    {}", gate.lines().join("\n    "))
            });
        }
    };
    for_every_point(|_, seen, decision| judge(seen, decision));
    // The one view that `observe` never makes.
    let mut odd = observation(&[0; DIMENSIONS.len()]);
    odd.primary.server = ServerView::NotAsked;
    judge(&odd, &decide(&odd));
    // What the table leaves out, since it changes no decision: how far the standby was behind.
    let mut behind = observation(&[0; DIMENSIONS.len()]);
    behind.primary.container = ContainerView::Missing;
    behind.primary.server = ServerView::NotAsked;
    behind.record.standby_eligible = false;
    behind.elapsed.behind = Some((312, Duration::from_secs(7)));
    assert!(gate_of(&behind, &decide(&behind)).unwrap().operands.iter().any(|operand| operand.value == "312 bytes, 7.0 s ago"));

    let text = words.into_values().collect::<Vec<_>>().join("\n");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, { insta::assert_snapshot!("gates", text) });
}

fn fails_over(decision: &Decision) -> bool {
    matches!(decision.action, Action::Failover { .. })
}

#[test]
fn i1_the_recorded_primary_is_never_the_one_that_is_fenced_as_a_stray() {
    for_every_point(|point, seen, decision| {
        if let Action::Fence { node } = &decision.action {
            assert_eq!(node, &seen.standby.name);
            assert_eq!(word(point, "standby"), "writable");
            assert!(
                !["stopped", "missing", "in-recovery"].contains(&word(point, "primary")),
                "the last writable node is never fenced: {point:?}"
            );
        }
        let two = word(point, "primary") == "writable" && word(point, "standby") == "writable";
        if two && word(point, "runtime") == "answers" && word(point, "transition") == "none" {
            assert!(matches!(decision.action, Action::Fence { .. }), "{point:?}");
        }
    });
}

#[test]
fn i1_nothing_is_promoted_while_the_primary_answers_anybody() {
    for_every_point(|point, _, decision| {
        if !fails_over(decision) {
            return;
        }
        let long = word(point, "time") != "short";
        match word(point, "primary") {
            "stopped" | "missing" => {}
            "starting" | "silent/preparing-inside" => assert!(long),
            "silent/dead-inside" => assert_eq!((long, word(point, "app")), (true, "not-ready")),
            "silent/alive-inside" => assert_eq!((long, word(point, "app"), word(point, "standby")), (true, "not-ready", "follows")),
            other => panic!("failover while the primary is {other}: {point:?}"),
        }
    });
}

#[test]
fn i2_only_an_eligible_standby_that_answers_in_recovery_is_promoted() {
    for_every_point(|point, _, decision| {
        if fails_over(decision) {
            assert_eq!(word(point, "eligible"), "yes", "{point:?}");
            assert!(["streams", "follows"].contains(&word(point, "standby")), "{point:?}");
        }
    });
}

#[test]
fn i2_commits_are_let_go_only_for_a_standby_that_does_not_stream() {
    for_every_point(|point, _, decision| match decision.action {
        Action::DropToAsync => assert_eq!((word(point, "commits"), word(point, "time") == "short"), ("wait/lost", false), "{point:?}"),
        Action::RestoreSync => assert!(["wait/sync", "wait/async", "free/caught-up"].contains(&word(point, "commits")), "{point:?}"),
        _ => {}
    });
}

#[test]
fn i3_unknown_is_never_safe() {
    for_every_point(|point, _, decision| {
        let unknown = word(point, "runtime") == "silent"
            || ["unknown", "silent/unknown-inside"].contains(&word(point, "primary"))
            || ["unknown", "silent", "starting", "refusing"].contains(&word(point, "standby"));
        assert!(!(unknown && fails_over(decision)), "{point:?}");
        if word(point, "runtime") == "silent" {
            assert_eq!(decision.action, Action::Refuse, "nothing can be fenced: {point:?}");
        }
    });
}

#[test]
fn i4_an_unfinished_transition_comes_before_everything_but_a_silent_runtime() {
    for_every_point(|point, _, decision| {
        let resumes = decision.action == Action::Resume;
        assert_eq!(resumes, word(point, "transition") == "unfinished" && word(point, "runtime") == "answers", "{point:?}");
    });
}

#[test]
fn i6_the_app_never_moves_a_primary_that_is_up() {
    for_every_point(|point, _, decision| {
        let up = ["writable", "read-only", "in-recovery", "refusing", "stranger"].contains(&word(point, "primary"));
        assert!(!(up && fails_over(decision)), "{point:?}");
        if decision.action == Action::RestartApp {
            assert_eq!(
                (word(point, "primary"), word(point, "app"), word(point, "time") == "short"),
                ("writable", "not-ready", false),
                "{point:?}"
            );
        }
    });
    // And a ready app only ever holds a failover back.
    for_every_point(|point, seen, decision| {
        if seen.app == AppView::Ready && fails_over(decision) {
            let without = Observation { app: AppView::NotReady(String::new()), ..seen.clone() };
            assert!(fails_over(&decide(&without)), "{point:?}");
        }
    });
}

#[test]
fn a_pause_leaves_only_what_safety_asks_for() {
    for_every_point(|point, _, decision| {
        if word(point, "paused") == "yes" {
            assert!(
                matches!(decision.action, Action::Wait | Action::Alert | Action::Refuse | Action::Resume | Action::Fence { .. }),
                "{point:?} {decision:?}"
            );
        }
    });
}

#[test]
fn a_pause_holds_as_long_as_a_part_of_it_is_left_and_is_as_none_then() {
    let mut again = observation(&[0; DIMENSIONS.len()]);
    for_every_point(|point, seen, decision| {
        again.clone_from(seen);
        again.record.pause = match seen.record.pause {
            PauseView::None => PauseView::Left(Duration::ZERO),
            PauseView::Open | PauseView::Left(_) => PauseView::Left(Duration::from_millis(1)),
        };
        let (now, before) = (decide(&again), decision);
        assert_eq!((now.rule, now.action), (before.rule, before.action.clone()), "{point:?}");
    });
}

/// "Healthy" promises that the pair survives the loss of its primary without losing a commit.
#[test]
fn i2_healthy_means_that_a_failover_would_be_possible() {
    for_every_point(|point, seen, decision| {
        if decision.rule == decide::HEALTHY {
            assert!(decide::promotable(seen).is_ok() && seen.link().is_some_and(|link| link.enforced && link.synchronous), "{point:?}");
        }
    });
}

#[test]
fn too_many_failovers_are_refused() {
    for_every_point(|point, _, decision| assert!(!(word(point, "failovers") == "many" && fails_over(decision)), "{point:?}"));
}

#[test]
fn deciding_leaves_no_trace() {
    for_every_point(|_, seen, decision| assert_eq!(decide(&seen.clone()), *decision));
}
