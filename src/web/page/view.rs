//! What the page shows, made of three files that `failover-check` writes: the record, `status.json` and the end of `events.jsonl`.
//!
//! All of it is untrusted text of whatever length, and any of it may be missing, old or of another version: what is not understood is not there, and what is
//! not there is said to be unknown. Judged here, drawn in [`super::html`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

/// From this age on the page says that it has no word from `failover-check`, which makes a pass each second.
const LATE_SECONDS: f64 = 15.0;
/// From this age on nobody watches: cron begins a run each minute. `failover-check status` says so at the same age.
const UNWATCHED_SECONDS: f64 = 90.0;
/// How much of the record and of `status.json` is read: both are a few KB.
const LONGEST_FILE: u64 = 256 * 1024;
/// How much of the end of `events.jsonl` is read; that file grows for ever.
const EVENTS_TAIL: u64 = 64 * 1024;
/// How many of the latest events are shown.
const EVENTS_SHOWN: usize = 40;
/// Characters of a text that are shown; a reason has at most a few hundred.
const LONGEST_TEXT: usize = 700;

/// Everything that the page shows; also the body of `/status.json`.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    /// When the files were read.
    pub now: Timestamp,
    /// How things stand, in a few words.
    pub headline: Headline,
    /// What is known of `failover-check` itself.
    pub watch: Watch,
    /// The record's epoch.
    pub epoch: Option<u64>,
    /// Does the record say that the standby may take over without loss?
    pub standby_eligible: Option<bool>,
    /// Both nodes by name, as far as their names are known. Their places never change; their roles do.
    pub nodes: Vec<Node>,
    /// What runs between them.
    pub link: Link,
    /// The change of primary under way.
    pub transition: Option<Transition>,
    /// A person's order to leave the pair alone.
    pub paused: Option<Paused>,
    /// What the last pass decided.
    pub decision: Option<Decision>,
    /// What is looked at before a failover, in words.
    pub gates: Vec<String>,
    /// The app, as the last pass saw it.
    pub app: Option<App>,
    /// Failovers within the window, and how many are too many.
    pub failovers: Option<(u64, u64)>,
    /// The latest events, newest first.
    pub events: Vec<Event>,
    /// Why there are none, where the file cannot be read.
    pub events_fault: Option<String>,
}

/// How things stand.
#[derive(Debug, Clone, Serialize)]
pub struct Headline {
    /// How bad it is.
    pub level: Level,
    /// In a few words.
    pub title: String,
    /// In a sentence.
    pub detail: String,
    /// What a person may type.
    pub command: Option<String>,
}

/// How bad it is. Never told by colour alone: each has a sign and a word of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    Good,
    /// The tool is at work.
    Busy,
    /// Somebody should look.
    Warn,
    /// Somebody has to look.
    Bad,
}

/// What is known of `failover-check` itself.
#[derive(Debug, Clone, Serialize)]
pub struct Watch {
    /// Whether it is at work.
    pub state: WatchState,
    /// When it last looked.
    pub at: Option<Timestamp>,
    /// How long ago that was.
    pub age_seconds: Option<f64>,
    /// Why `status.json` tells nothing, or what keeps the passes from looking.
    pub fault: Option<String>,
}

/// Whether `failover-check` is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchState {
    /// It looked a moment ago.
    Watching,
    /// It looked a moment ago and could not see.
    Failing,
    /// It should have looked by now; a long step of a pass takes that long, too.
    Late,
    /// It does not run.
    Unwatched,
    /// It has never run here, or what it wrote cannot be read.
    Unknown,
}

impl WatchState {
    /// Is what it saw still worth showing as the present?
    #[must_use]
    pub fn is_fresh(self) -> bool {
        self == Self::Watching
    }
}

/// One node.
#[derive(Debug, Clone, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `primary` or `standby`, as the record says.
    pub role: &'static str,
    /// Its container in a word.
    pub container: Option<String>,
    /// More on that.
    pub container_detail: Option<String>,
    /// Its server in a word.
    pub server: Option<String>,
    /// More on that.
    pub server_detail: Option<String>,
    /// Its timeline.
    pub timeline: Option<u64>,
    /// The end of its log: flushed on the primary, received on the standby.
    pub position: Option<String>,
    /// What it does in words, with how good that is.
    pub state: (Level, String),
}

/// What runs between the nodes.
#[derive(Debug, Clone, Serialize)]
pub struct Link {
    /// Whether commits wait for the standby.
    pub state: LinkState,
    /// How far the standby is behind.
    pub bytes_behind: Option<u64>,
    /// Of what age the position is that this counts from, where the primary does not answer now.
    pub age_seconds: Option<f64>,
}

/// Whether commits wait for the standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// It streams, and commits wait for it.
    Sync,
    /// It streams, and commits do not wait for it.
    Async,
    /// It does not stream.
    Broken,
    /// Nobody can tell.
    Unknown,
}

/// A change of primary that is under way.
#[derive(Debug, Clone, Serialize)]
pub struct Transition {
    /// `failover` or `switchover`.
    pub kind: String,
    /// The old primary.
    pub from: String,
    /// The new one.
    pub to: String,
    /// The last step that is done.
    pub step: String,
    /// When it was decided.
    pub since: Option<Timestamp>,
    /// Why.
    pub reason: String,
}

/// A person's order to leave the pair alone.
#[derive(Debug, Clone, Serialize)]
pub struct Paused {
    /// Who gave it.
    pub by: String,
    /// When.
    pub since: Option<Timestamp>,
    /// Until when; without it until a person resumes.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
}

/// What a pass decided.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The rule's number.
    pub rule: String,
    /// The rule in a sentence.
    pub sentence: String,
    /// What it asks for.
    pub action: String,
    /// Why.
    pub because: String,
    /// The command that a person may overrule it with.
    pub overruled_by: Option<String>,
    /// Passes only observe: what it asks for is not done.
    pub only_observes: bool,
}

/// The app, as the last pass saw it.
#[derive(Debug, Clone, Serialize)]
pub struct App {
    /// Ready?
    pub ready: bool,
    /// Why not.
    pub why: Option<String>,
}

/// One event of the journal.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Its id; events of before there were ids have none.
    pub id: Option<String>,
    /// When.
    pub at: Option<Timestamp>,
    /// Its name in the journal.
    pub event: String,
    /// How it is to be shown.
    pub level: Option<Level>,
    /// In words.
    pub title: String,
    /// Why.
    pub reason: Option<String>,
    /// The rule that led to it.
    pub rule: Option<String>,
    /// The epoch in which it happened.
    pub epoch: Option<u64>,
    /// Seconds since the decision.
    pub seconds: Option<f64>,
}

impl View {
    /// Reads the files beside `record` and judges them as of now. Blocks.
    #[must_use]
    pub fn read(record: &Path) -> Self {
        let beside = |name: &str| record.with_file_name(name);
        let (events, events_fault) = match tail(&beside("events.jsonl")) {
            Ok(events) => (events, None),
            Err(fault) => (Vec::new(), Some(fault)),
        };
        Self { events_fault, ..Self::of(Timestamp::now(), object(record), object(&beside("status.json")), &events) }
    }

    /// Judges what was read.
    fn of(now: Timestamp, record: Result<Value, String>, status: Result<Value, String>, events: &[Map<String, Value>]) -> Self {
        let (record, record_fault) = match record {
            Ok(record) => (record, None),
            Err(fault) => (Value::Null, Some(fault)),
        };
        let watch = watch(now, &status);
        // Of a state that is not of this moment only the names are taken for granted.
        let status = status.unwrap_or_default();
        let said = status.get("status").unwrap_or(&Value::Null);
        let transition = transition(&record);
        let paused = record.get("paused").filter(|paused| paused.is_object()).map(|paused| Paused {
            by: text(paused, "by").unwrap_or_default(),
            since: time(paused, "since"),
            until: time(paused, "until"),
            reason: text(paused, "reason").unwrap_or_default(),
        });
        let decision = said.get("decision").filter(|decision| decision.is_object()).map(|decision| Decision {
            rule: text(decision, "rule").unwrap_or_default(),
            sentence: text(decision, "sentence").unwrap_or_default(),
            action: text(decision, "action").unwrap_or_default(),
            because: text(decision, "because").unwrap_or_default(),
            overruled_by: status.get("says_no").and_then(|gate| text(gate, "overruled_by")),
            only_observes: status.get("acts").and_then(Value::as_bool) == Some(false),
        });
        let primary = text(&record, "primary");
        let nodes = nodes(&record, said, primary.as_deref(), watch.state);
        let link = link(&status, said, primary.as_deref(), watch.state);
        let app = said.get("app").filter(|app| app.is_object());
        let app = app.map(|app| App { ready: text(app, "state").as_deref() == Some("ready"), why: text(app, "why") });
        let gates = status.get("gates").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let epoch = record.get("epoch").and_then(Value::as_u64);
        let standby = nodes.iter().find(|node| node.role == "standby").map(|node| node.name.as_str());
        let headline = headline(record_fault, &watch, transition.as_ref(), paused.as_ref(), decision.as_ref(), primary.as_deref(), standby);
        Self {
            now,
            headline,
            watch,
            epoch,
            standby_eligible: record.get("standby_eligible").and_then(Value::as_bool),
            nodes,
            link,
            transition,
            paused,
            decision,
            gates: gates.iter().filter_map(Value::as_str).map(short).collect(),
            app,
            failovers: count(&status, "recent_failovers").zip(count(&status, "flapping_limit")),
            events: events.iter().rev().take(EVENTS_SHOWN).map(event).collect(),
            events_fault: None,
        }
    }
}

fn watch(now: Timestamp, status: &Result<Value, String>) -> Watch {
    let unknown = |fault: String| Watch { state: WatchState::Unknown, at: None, age_seconds: None, fault: Some(fault) };
    let status = match status {
        Ok(status) => status,
        Err(fault) => return unknown(fault.clone()),
    };
    let Some(at) = time(status, "at") else { return unknown("status.json holds no time".to_owned()) };
    let age = now.duration_since(at).as_secs_f64();
    let fault = text(status, "error").map(|error| match text(status, "remedy") {
        Some(remedy) => format!("{error}; try: {remedy}"),
        None => error,
    });
    let state = if age >= UNWATCHED_SECONDS {
        WatchState::Unwatched
    } else if age.abs() >= LATE_SECONDS {
        // From the future: the clock was set back, and nobody has looked since.
        WatchState::Late
    } else if fault.is_some() {
        WatchState::Failing
    } else {
        WatchState::Watching
    };
    Watch { state, at: Some(at), age_seconds: Some(age), fault }
}

fn headline(
    record_fault: Option<String>,
    watch: &Watch,
    transition: Option<&Transition>,
    paused: Option<&Paused>,
    decision: Option<&Decision>,
    primary: Option<&str>,
    standby: Option<&str>,
) -> Headline {
    let say = |level, title: &str, detail: String, command: Option<&str>| Headline {
        level,
        title: title.to_owned(),
        detail,
        command: command.map(str::to_owned),
    };
    let status = Some("failover-check status");
    if let Some(fault) = record_fault {
        let detail = format!("{fault}. Nothing is started or promoted without the record; what runs goes on running.");
        return say(Level::Bad, "The record cannot be read", detail, status);
    }
    match watch.state {
        WatchState::Unknown => {
            let fault = watch.fault.as_deref().unwrap_or_default();
            let detail = format!("failover-check has left no word here ({fault}). What is not seen is not known to be well.");
            return say(Level::Bad, "Nobody watches", detail, status);
        }
        WatchState::Unwatched => {
            let detail = "failover-check has not looked since. A lost primary stays lost until it runs again: is cron running?";
            return say(Level::Bad, "Nobody watches", detail.to_owned(), Some("failover-check run --for 60s"));
        }
        WatchState::Failing => {
            return say(Level::Bad, "failover-check cannot see", watch.fault.clone().unwrap_or_default(), status);
        }
        WatchState::Late | WatchState::Watching => {}
    }
    if let Some(transition) = transition {
        let doing = if transition.kind == "switchover" { "Switching over" } else { "Failing over" };
        return say(Level::Busy, &format!("{doing}: {} to {}", transition.from, transition.to), transition.reason.clone(), None);
    }
    if watch.state == WatchState::Late {
        let detail = "failover-check looks each second, and has not for a while. A long step of its work takes that long, too.";
        return say(Level::Warn, "No word from failover-check", detail.to_owned(), status);
    }
    let Some(decision) = decision else {
        return say(Level::Bad, "Nothing is known", "status.json tells of no decision.".to_owned(), status);
    };
    let because = decision.because.clone();
    if decision.only_observes && decision.action != "nothing" {
        let detail =
            format!("Nothing is mended by itself (mode = observe). Now it would: {}: {because}", decision.action.replace('_', " "));
        return say(Level::Bad, "Observing only", detail, Some("failover-check explain"));
    }
    let overrule = decision.overruled_by.as_deref().unwrap_or("failover-check explain");
    match (decision.action.as_str(), paused) {
        ("refuse", _) => say(Level::Bad, "A person has to decide", because, Some(overrule)),
        (_, Some(paused)) => {
            let until = paused.until.map(|until| format!(" until {}", until.strftime("%H:%M:%S"))).unwrap_or_default();
            let detail = format!("By {}{until}: {}. A lost primary stays lost meanwhile.", paused.by, paused.reason);
            say(Level::Warn, "Paused", detail, Some("failover-check resume"))
        }
        ("alert", None) => say(Level::Warn, "A person should look", because, Some("failover-check explain")),
        ("nothing", None) => {
            let (primary, standby) = (primary.unwrap_or("the primary"), standby.unwrap_or("the standby"));
            let observed = if decision.only_observes { " But passes only observe: nothing is mended by itself." } else { "" };
            let detail = format!("{primary} takes writes, {standby} can step in without losing a commit.{observed}");
            say(if decision.only_observes { Level::Warn } else { Level::Good }, "All is well", detail, None)
        }
        ("wait", None) => say(Level::Warn, "Waiting", because, None),
        (action, None) => say(Level::Busy, &format!("At work: {}", action.replace('_', " ")), because, None),
    }
}

fn transition(record: &Value) -> Option<Transition> {
    let transition = record.get("transition").filter(|transition| transition.is_object())?;
    let word = |key: &str| text(transition, key).unwrap_or_default();
    Some(Transition {
        kind: word("kind"),
        from: word("from"),
        to: word("to"),
        step: word("step"),
        since: time(transition, "since"),
        reason: word("reason"),
    })
}

/// By name. The record says which one is primary; of the other the record may not even know the name.
fn nodes(record: &Value, said: &Value, primary: Option<&str>, watch: WatchState) -> Vec<Node> {
    let seen = said.get("nodes").and_then(Value::as_object);
    let mut names: Vec<String> = seen.map(|nodes| nodes.keys().map(|name| short(name)).collect()).unwrap_or_default();
    names.extend(primary.map(str::to_owned));
    let past = record.get("failovers").and_then(Value::as_array).and_then(|past| past.last());
    for place in [record.get("transition"), past].into_iter().flatten() {
        names.extend(["from", "to"].iter().filter_map(|key| text(place, key)));
    }
    names.sort();
    names.dedup();
    names.truncate(2);
    names
        .into_iter()
        .map(|name| {
            let node = seen.and_then(|nodes| nodes.get(&name)).unwrap_or(&Value::Null);
            let role = if primary == Some(name.as_str()) { "primary" } else { "standby" };
            let (container, server) = (text(node, "container"), text(node, "server"));
            let state = node_state(role, container.as_deref(), server.as_deref(), node, watch);
            Node {
                role,
                container,
                container_detail: text(node, "container_detail"),
                server,
                server_detail: text(node, "server_detail"),
                timeline: count(node, "timeline"),
                position: text(node, "flushed").or_else(|| text(node, "received")),
                state,
                name,
            }
        })
        .collect()
}

fn node_state(role: &str, container: Option<&str>, server: Option<&str>, node: &Value, watch: WatchState) -> (Level, String) {
    if !watch.is_fresh() {
        return (Level::Warn, "not known now".to_owned());
    }
    let streams = node.get("streaming").and_then(Value::as_bool) == Some(true);
    match (container, server, role) {
        (Some("running"), Some("primary"), "primary") => (Level::Good, "takes writes".to_owned()),
        (Some("running"), Some("primary"), _) => (Level::Bad, "takes writes, and should not".to_owned()),
        (Some("running"), Some("standby"), "standby") if streams => (Level::Good, "streams".to_owned()),
        (Some("running"), Some("standby"), "standby") => (Level::Warn, "does not stream".to_owned()),
        (Some("running"), Some("standby"), _) => (Level::Bad, "in recovery, and should not be".to_owned()),
        (Some("running"), Some("starting"), _) => (Level::Busy, "starting".to_owned()),
        (Some("running"), Some(server), _) => (Level::Bad, server.replace('_', " ")),
        (Some(container), _, "primary") => (Level::Bad, container.to_owned()),
        (Some(container), _, _) => (Level::Warn, container.to_owned()),
        (None, _, _) => (Level::Warn, "not seen".to_owned()),
    }
}

fn link(status: &Value, said: &Value, primary: Option<&str>, watch: WatchState) -> Link {
    let behind = status.get("standby_behind").filter(|behind| behind.is_object());
    let word = |key: &str| {
        let primary = said.get("nodes")?.get(primary?)?;
        primary.get(key).and_then(Value::as_bool)
    };
    let eligible = said.get("standby_eligible").and_then(Value::as_bool) == Some(true);
    let state = match (watch.is_fresh(), word("standby_streams"), word("standby_synchronous")) {
        (true, Some(true), Some(true)) if eligible => LinkState::Sync,
        (true, Some(true), _) => LinkState::Async,
        (true, Some(false), _) => LinkState::Broken,
        _ => LinkState::Unknown,
    };
    Link {
        state,
        bytes_behind: behind.and_then(|behind| count(behind, "bytes")),
        age_seconds: behind.and_then(|behind| behind.get("age_seconds")).and_then(Value::as_f64),
    }
}

fn event(event: &Map<String, Value>) -> Event {
    let word = |key: &str| event.get(key).and_then(Value::as_str).map(short);
    let node = || word("node").unwrap_or_else(|| "a node".to_owned());
    let to = || word("to").unwrap_or_else(|| "the standby".to_owned());
    let from_to = || format!("{} to {}", word("from").unwrap_or_else(|| "the primary".to_owned()), to());
    let by = || word("by").unwrap_or_else(|| "somebody".to_owned());
    let name = word("event").unwrap_or_default();
    let (level, title) = match name.as_str() {
        "decision" => {
            let action = word("action").unwrap_or_default();
            let level = match action.as_str() {
                "nothing" => Some(Level::Good),
                "refuse" => Some(Level::Bad),
                "alert" => Some(Level::Warn),
                "failover" | "fence" => Some(Level::Busy),
                _ => None,
            };
            (level, format!("Decided: {}", if action == "nothing" { "all is well".to_owned() } else { action.replace('_', " ") }))
        }
        "failover_begun" => (Some(Level::Busy), format!("Failover begun: {}", from_to())),
        "switchover_begun" => (Some(Level::Busy), format!("Switchover begun: {}", from_to())),
        "intent" => (None, "Intent recorded".to_owned()),
        "fenced" => (None, format!("{} is fenced: verified stopped", node())),
        "replayed" => (None, format!("{} has replayed all it received", node())),
        "promote_requested" => (None, format!("{} is asked to become primary", node())),
        "writable" => (None, format!("{} takes writes", node())),
        "recorded" => {
            let epoch = event.get("epoch").and_then(Value::as_u64).map(|epoch| format!(", epoch {epoch}")).unwrap_or_default();
            (None, format!("The record names {}{epoch}", to()))
        }
        "failover_finished" => (Some(Level::Good), format!("Failover finished: {} is primary", to())),
        "switchover_finished" => (Some(Level::Good), format!("Switchover finished: {} is primary", to())),
        "rolled_back" => (Some(Level::Warn), format!("Rolled back: {} stays primary", node())),
        "app_ready" => (Some(Level::Good), "The app is ready again".to_owned()),
        "app_restarted" => (Some(Level::Warn), "The app was restarted".to_owned()),
        "standby_streaming" => (Some(Level::Good), format!("{} streams again", node())),
        "node_started" => (None, format!("{} was started", node())),
        "fenced_stray" => (Some(Level::Bad), format!("{} took writes and was fenced", node())),
        "marked_ineligible" => (Some(Level::Warn), "The standby may not take over".to_owned()),
        "dropped_to_async" => (Some(Level::Warn), "Commits go on without the standby".to_owned()),
        "sync_restored" => (Some(Level::Good), "Commits wait for the standby again".to_owned()),
        "paused" => (Some(Level::Warn), format!("Paused by {}", by())),
        "pause_ended" => (Some(Level::Good), "The pause is over".to_owned()),
        "loss_accepted" => (Some(Level::Bad), "A person accepted the loss of commits".to_owned()),
        "would_have" => {
            (Some(Level::Warn), format!("Observing only: would have done {}", word("action").unwrap_or_default().replace('_', " ")))
        }
        "resumed" => (Some(Level::Good), format!("Resumed by {}", by())),
        "identity_recorded" => (None, "The cluster's identity was recorded".to_owned()),
        other => (None, other.replace('_', " ")),
    };
    Event {
        id: word("id"),
        at: word("at").and_then(|at| at.parse().ok()),
        event: name,
        level,
        title,
        reason: word("reason"),
        rule: word("rule"),
        epoch: event.get("epoch").and_then(Value::as_u64),
        seconds: event.get("seconds").and_then(Value::as_f64),
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(short)
}

fn count(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}

fn time(value: &Value, key: &str) -> Option<Timestamp> {
    value.get(key).and_then(Value::as_str).and_then(|at| at.parse().ok())
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A JSON object in a file of a few KB.
fn object(path: &Path) -> Result<Value, String> {
    let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut content));
    read.map_err(|error| format!("{} cannot be read: {error}", name()))?;
    let value: Value = serde_json::from_slice(&content).map_err(|error| format!("{} is not valid: {error}", name()))?;
    match value.get("version").and_then(Value::as_u64) {
        Some(1) => Ok(value),
        Some(version) => Err(format!("{} has version {version}, which this app does not know", name())),
        None => Err(format!("{} is not valid: it has no version", name())),
    }
}

/// The latest events, oldest first. A line that is no event is passed over, and so is the first one, of which only the end was read.
fn tail(path: &Path) -> Result<Vec<Map<String, Value>>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut content = Vec::new();
        if length > EVENTS_TAIL {
            file.seek(SeekFrom::Start(length - EVENTS_TAIL))?;
        }
        file.take(EVENTS_TAIL).read_to_end(&mut content)?;
        if length > EVENTS_TAIL {
            let whole = content.iter().position(|byte| *byte == b'\n').map_or(content.len(), |end| end + 1);
            content.drain(..whole);
        }
        Ok(content)
    };
    match read() {
        Ok(content) => Ok(content.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("events.jsonl cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Value {
        json!({ "version": 1, "epoch": 3, "primary": "pg-b", "standby_eligible": true, "transition": null, "paused": null, "failovers": [] })
    }

    fn status(at: &str, action: &str) -> Value {
        json!({
            "version": 1, "at": at, "error": null, "remedy": null,
            "status": {
                "standby_eligible": true,
                "decision": { "rule": "R400", "sentence": "all is well", "action": action, "because": "why it is so" },
                "nodes": {
                    "pg-b": { "container": "running", "server": "primary", "flushed": "0/30", "timeline": 3, "standby_streams": true, "standby_synchronous": true },
                    "pg-a": { "container": "running", "server": "standby", "received": "0/30", "timeline": 3, "streaming": true },
                },
                "app": { "state": "ready" },
            },
            "gates": ["a gate"], "standby_behind": { "bytes": 0, "age_seconds": 0.0 }, "recent_failovers": 1, "flapping_limit": 3,
        })
    }

    const NOW: &str = "2026-11-21T08:00:00Z";

    fn view(record: Result<Value, String>, status: Result<Value, String>) -> View {
        View::of(NOW.parse().unwrap(), record, status, &[])
    }

    #[test]
    fn a_healthy_pair_is_shown_by_name_with_its_roles() {
        let view = view(Ok(record()), Ok(status("2026-11-21T07:59:59.5Z", "nothing")));
        assert_eq!((view.headline.level, view.headline.title.as_str()), (Level::Good, "All is well"));
        assert_eq!(view.headline.detail, "pg-b takes writes, pg-a can step in without losing a commit.");
        let nodes: Vec<(&str, &str, &str)> = view.nodes.iter().map(|node| (node.name.as_str(), node.role, node.state.1.as_str())).collect();
        assert_eq!(nodes, [("pg-a", "standby", "streams"), ("pg-b", "primary", "takes writes")]);
        assert_eq!((view.link.state, view.link.bytes_behind, view.watch.state), (LinkState::Sync, Some(0), WatchState::Watching));
    }

    #[test]
    fn what_was_seen_too_long_ago_is_never_shown_as_the_present() {
        for (at, state, level, title) in [
            ("2026-11-21T07:59:44Z", WatchState::Late, Level::Warn, "No word from failover-check"),
            ("2026-11-21T08:00:16Z", WatchState::Late, Level::Warn, "No word from failover-check"),
            ("2026-11-21T07:58:30Z", WatchState::Unwatched, Level::Bad, "Nobody watches"),
        ] {
            let view = view(Ok(record()), Ok(status(at, "nothing")));
            assert_eq!((view.watch.state, view.headline.level, view.headline.title.as_str()), (state, level, title), "{at}");
            assert!(view.nodes.iter().all(|node| node.state.1 == "not known now"), "{at}: {:?}", view.nodes);
            assert_eq!(view.link.state, LinkState::Unknown, "{at}");
        }
    }

    #[test]
    fn what_is_missing_is_unknown_and_never_well() {
        let absent = || Err("status.json cannot be read: gone".to_owned());
        let view = |record, status| view(record, status).headline;
        assert_eq!(
            view(Err("cluster.json cannot be read: gone".to_owned()), Ok(status(NOW, "nothing"))).title,
            "The record cannot be read"
        );
        assert_eq!(view(Ok(record()), absent()).title, "Nobody watches");
        assert_eq!(view(Ok(record()), Ok(json!({ "version": 1, "at": NOW }))).title, "Nothing is known");
        assert_eq!(view(Ok(record()), Ok(json!({ "version": 1 }))).title, "Nobody watches");
        let failing = view(Ok(record()), Ok(json!({ "version": 1, "at": NOW, "error": "no settings", "remedy": "write them" })));
        assert_eq!((failing.level, failing.detail.as_str()), (Level::Bad, "no settings; try: write them"));
    }

    #[test]
    fn each_decision_has_its_headline_and_a_change_of_primary_comes_first() {
        let headline = |record: Value, action: &str| view(Ok(record), Ok(status(NOW, action))).headline;
        assert_eq!(headline(record(), "refuse").title, "A person has to decide");
        assert_eq!(headline(record(), "alert").title, "A person should look");
        assert_eq!((headline(record(), "wait").level, headline(record(), "start_standby").level), (Level::Warn, Level::Busy));
        let mut paused = record();
        paused["paused"] = json!({ "since": NOW, "by": "ada", "reason": "the disk" });
        assert_eq!(headline(paused.clone(), "wait").detail, "By ada: the disk. A lost primary stays lost meanwhile.");
        assert_eq!(headline(paused, "refuse").title, "A person has to decide");
        let mut moving = record();
        moving["transition"] = json!({ "kind": "failover", "from": "pg-b", "to": "pg-a", "step": "fenced", "since": NOW, "lossy": false, "reason": "R80: gone" });
        let seen = headline(moving, "resume");
        assert_eq!((seen.level, seen.title.as_str(), seen.detail.as_str()), (Level::Busy, "Failing over: pg-b to pg-a", "R80: gone"));
    }

    #[test]
    fn only_the_end_of_a_long_journal_is_read_and_a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        assert_eq!(tail(&path), Ok(vec![]));
        let line = |number: usize| format!("{{\"event\":\"decision\",\"number\":{number}}}\n");
        let mut content: String = (0..5_000).map(line).collect();
        content.push_str("{\"event\":\"torn");
        std::fs::write(&path, &content).unwrap();
        let events = tail(&path).unwrap();
        assert!(events.len() < 2_000 && events.len() > 1_000, "{}", events.len());
        assert_eq!(events.last().unwrap()["number"], 4_999);
    }

    #[test]
    fn a_text_without_end_is_cut() {
        assert_eq!(short("short"), "short");
        assert_eq!(short(&"ä".repeat(5_000)).chars().count(), LONGEST_TEXT + 1);
    }
}
