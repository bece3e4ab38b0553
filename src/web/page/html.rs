//! Draws the page. Every text of a file goes through maud's escaping; nothing here writes markup by hand.
//!
//! The page is whole without its script. What the script replaces while it follows has the attribute `data-live` and an id.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::view::{Event, Level, Link, LinkState, Node, Transition, View, WatchState};

/// The steps of a transition in their order, with their words.
const STEPS: [(&str, &str); 5] = [
    ("intent", "decided"),
    ("fenced", "old primary stopped"),
    ("replayed", "standby caught up"),
    ("promote_requested", "promotion asked for"),
    ("writable", "takes writes"),
];

/// The page.
pub fn page(view: &View) -> Markup {
    let headline = &view.headline;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (sign(headline.level)) " " (headline.title) " · Understudy" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/page.css";
                script src="/page.js" defer {}
            }
            body data-now=(view.now) {
                a.skip href="#headline" { "To the state of the pair" }
                header.top {
                    p.name { (mark()) span { "Understudy" } }
                    (watch(view))
                }
                main {
                    p #lost .banner hidden { "The app does not answer any more. What you see is old." }
                    p #said .unseen role="status" {}
                    section #headline data-live class={ "headline " (word(headline.level)) } {
                        (glyph(headline.level))
                        div {
                            h1 { (headline.title) }
                            p { (headline.detail) }
                            @if let Some(command) = &headline.command { p.command { "try " code { (command) } } }
                        }
                    }
                    (pair(view))
                    section #transition data-live class="steps-place" {
                        @if let Some(transition) = &view.transition { (steps(transition)) }
                    }
                    div.columns {
                        (why(view))
                        (facts(view))
                    }
                    (events(view))
                }
                footer {
                    p {
                        "All times are UTC. The same for programs: "
                        a href="/status.json" { "/status.json" } ", " a href="/metrics" { "/metrics" } ", "
                        a href="/ready" { "/ready" } ", " a href="/health" { "/health" } "."
                    }
                    p { "More on the host: " code { "failover-check explain" } " and " code { "failover-check history" } "." }
                }
            }
        }
    }
}

fn watch(view: &View) -> Markup {
    let watch = &view.watch;
    let (class, words) = match watch.state {
        WatchState::Watching => ("good", "Watched"),
        WatchState::Failing => ("bad", "Cannot see"),
        WatchState::Late => ("warn", "No word"),
        WatchState::Unwatched | WatchState::Unknown => ("bad", "Unwatched"),
    };
    html! {
        div #watch data-live class={ "watch " (class) } {
            p.pulse { span.dot aria-hidden="true" {} strong { (words) } }
            p {
                @match watch.at {
                    Some(at) => { "last look " (age(view.now, at)) }
                    None => "never looked",
                }
            }
            p.snapshot { "a snapshot of " time datetime=(view.now) { (clock(view.now)) } " · " a href="/" { "reload" } }
        }
    }
}

fn pair(view: &View) -> Markup {
    let mut nodes = view.nodes.iter();
    let (left, right) = (nodes.next(), nodes.next());
    let towards = if left.is_some_and(|node| node.role == "primary") { "right" } else { "left" };
    html! {
        section #pair data-live aria-label="The pair" class={ "pair" @if !view.watch.state.is_fresh() { " old" } } {
            (node(left, view))
            (link(&view.link, towards, left, right))
            (node(right, view))
        }
    }
}

fn node(node: Option<&Node>, view: &View) -> Markup {
    let Some(node) = node else {
        return html! { article.node.standby { header { h2 { "the other node" } } p.state.warn { (glyph(Level::Warn)) span { "not known" } } } };
    };
    let part = view.transition.as_ref().and_then(|transition| {
        if transition.from == node.name {
            Some("gives the role away")
        } else if transition.to == node.name {
            Some("takes the role over")
        } else {
            None
        }
    });
    html! {
        article class={ "node " (node.role) } {
            header {
                h2 { (node.name) }
                p.role { (node.role) }
            }
            p class={ "state " (word(node.state.0)) } { (glyph(node.state.0)) span { (node.state.1) } }
            @if let Some(part) = part { p.part { (part) } }
            dl {
                (fact("container", node.container.as_deref(), node.container_detail.as_deref()))
                (fact("server", node.server.as_deref(), node.server_detail.as_deref()))
                (fact("timeline", node.timeline.map(|timeline| timeline.to_string()).as_deref(), None))
                (fact(if node.role == "primary" { "flushed" } else { "received" }, node.position.as_deref(), None))
            }
        }
    }
}

fn fact(name: &str, value: Option<&str>, detail: Option<&str>) -> Markup {
    html! {
        div {
            dt { (name) }
            dd {
                span.value { (value.unwrap_or("unknown")) }
                @if let Some(detail) = detail { " " span.detail { (detail) } }
            }
        }
    }
}

fn link(link: &Link, towards: &str, left: Option<&Node>, right: Option<&Node>) -> Markup {
    let (class, title, words) = match link.state {
        LinkState::Sync => ("good", "sync", "commits wait for the standby"),
        LinkState::Async => ("warn", "async", "commits do not wait for the standby"),
        LinkState::Broken => ("bad", "no stream", "the standby gets nothing"),
        LinkState::Unknown => ("plain", "not known", "nobody can tell"),
    };
    let names = [left, right].map(|node| node.map_or("the other node", |node| node.name.as_str()));
    let (from, to) = if towards == "right" { (names[0], names[1]) } else { (names[1], names[0]) };
    html! {
        div class={ "link " (class) " to-" (towards) } {
            p.mode { (title) }
            svg viewBox="0 0 120 20" role="img" aria-label={ "log from " (from) " to " (to) ": " (title) } {
                path.wire d="M4 10H104" {}
                path.flow d="M4 10H104" {}
                @if link.state == LinkState::Broken { path.cut d="M48 3l14 14M62 3 48 17" {} }
                path.head d="M102 3.5 116 10 102 16.5z" {}
            }
            p.words {
                (words)
                @if let Some(bytes) = link.bytes_behind {
                    br;
                    span.value { (size(bytes)) } " behind"
                    @if let Some(age) = link.age_seconds.filter(|age| *age >= 1.0) { " the position of " (duration(age)) " ago" }
                }
            }
        }
    }
}

fn steps(transition: &Transition) -> Markup {
    let done = STEPS.iter().position(|(step, _)| *step == transition.step).unwrap_or_default();
    html! {
        h2.unseen { "Step by step" }
        ol.steps {
            @for (index, (_, words)) in STEPS.iter().enumerate() {
                @let (class, said) = if index <= done { ("done", "done") } else if index == done + 1 { ("now", "under way") } else { ("later", "to come") };
                li class=(class) aria-current=[(class == "now").then_some("step")] {
                    span.number aria-hidden="true" { @if index <= done { "✓" } @else { (index + 1) } }
                    span { (words) span.unseen { ": " (said) } }
                }
            }
        }
        @if let Some(since) = transition.since { p.since { "since " time datetime=(since) { (clock(since)) } } }
    }
}

fn why(view: &View) -> Markup {
    html! {
        section #why data-live class={ "panel" @if !view.watch.state.is_fresh() { " old" } } {
            h2 { "Why" @if !view.watch.state.is_fresh() { ", when it last looked" } }
            @match &view.decision {
                Some(decision) => {
                    p.rule { span.chip { (decision.rule) } " " strong { (action_words(&decision.action)) } }
                    p { (decision.because) }
                    p.sentence { "Rule " (decision.rule) ": " (decision.sentence) "." }
                }
                None => p { "Nothing is known of a decision." }
            }
            @if !view.gates.is_empty() {
                details {
                    summary { "What is looked at before a failover" }
                    ul { @for gate in &view.gates { li { (gate) } } }
                }
            }
        }
    }
}

fn facts(view: &View) -> Markup {
    let unknown = || "unknown".to_owned();
    let eligible = view.standby_eligible.map_or_else(unknown, |eligible| if eligible { "yes".to_owned() } else { "no".to_owned() });
    let app = view.app.as_ref().map_or_else(unknown, |app| if app.ready { "ready".to_owned() } else { "not ready".to_owned() });
    let failovers = view.failovers.map_or_else(unknown, |(recent, limit)| format!("{recent} of {limit} allowed"));
    html! {
        section #facts data-live class={ "panel" @if !view.watch.state.is_fresh() { " old" } } {
            h2 { "The pair" }
            dl {
                (fact("epoch", view.epoch.map(|epoch| epoch.to_string()).as_deref(), None))
                (fact("standby may take over", Some(eligible.as_str()), None))
                (fact("failovers lately", Some(failovers.as_str()), None))
                (fact("app", Some(app.as_str()), view.app.as_ref().and_then(|app| app.why.as_deref())))
                @if let Some(paused) = &view.paused {
                    div { dt { "paused" } dd { span.value { (paused.by) } " " span.detail { (paused.reason) } @if let Some(since) = paused.since { " " (age(view.now, since)) } } }
                }
                @if let Some(fault) = &view.watch.fault { (fact("failover-check", Some("no word"), Some(fault))) }
            }
        }
    }
}

fn events(view: &View) -> Markup {
    html! {
        section #events data-live class="panel" {
            h2 { "What happened" }
            @if let Some(fault) = &view.events_fault { p.state.bad { (glyph(Level::Bad)) span { (fault) } } }
            @else if view.events.is_empty() { p { "Nothing has happened yet." } }
            ol.events reversed { @for event in &view.events { (one_event(event, view.now)) } }
        }
    }
}

fn one_event(event: &Event, now: Timestamp) -> Markup {
    let level = event.level.map_or("plain", word);
    html! {
        li class={ "event " (level) @if event.event == "decision" { " decision" } } data-id=[event.id.as_deref()] {
            span.bead aria-hidden="true" { (event.level.map_or("·", sign)) }
            div {
                h3 {
                    (event.title)
                    @if let Some(rule) = &event.rule { " " span.chip { (rule) } }
                    @if let Some(seconds) = event.seconds { " " span.seconds { "+" (format!("{seconds:.3}")) " s" } }
                }
                @if let Some(reason) = &event.reason { p { (reason) } }
            }
            p.when {
                @if let Some(at) = event.at { (age(now, at)) br; time datetime=(at) { (clock(at)) } }
            }
        }
    }
}

/// How long ago, as of the page's making; the script counts on.
fn age(now: Timestamp, at: Timestamp) -> Markup {
    html! { span.age data-at=(at) { (duration(now.duration_since(at).as_secs_f64())) " ago" } }
}

fn action_words(action: &str) -> String {
    if action == "nothing" { "nothing to do".to_owned() } else { action.replace('_', " ") }
}

fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// As the script words it.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    match seconds {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        _ if seconds < 120.0 => format!("{:.0} s", seconds.floor()),
        _ if seconds < 7_200.0 => format!("{:.0} min", (seconds / 60.0).floor()),
        _ if seconds < 172_800.0 => format!("{:.0} h", (seconds / 3_600.0).floor()),
        _ => format!("{:.0} days", (seconds / 86_400.0).floor()),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Good => "good",
        Level::Busy => "busy",
        Level::Warn => "warn",
        Level::Bad => "bad",
    }
}

fn sign(level: Level) -> &'static str {
    match level {
        Level::Good => "✓",
        Level::Busy => "→",
        Level::Warn => "!",
        Level::Bad => "✕",
    }
}

/// A sign of its own shape for each level.
fn glyph(level: Level) -> Markup {
    let (name, outline, inner) = match level {
        Level::Good => ("well", "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20z", "m7.5 12.4 3.1 3.1 6-6.6"),
        Level::Busy => ("at work", "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20z", "M7 12h9.5M12.8 8.2l3.9 3.8-3.9 3.8"),
        Level::Warn => ("attention", "M12 2.6 22.4 21H1.6z", "M12 9.2v5.2M12 17.4v.2"),
        Level::Bad => ("trouble", "M8 2h8l6 6v8l-6 6H8l-6-6V8z", "m8.6 8.6 6.8 6.8M15.4 8.6l-6.8 6.8"),
    };
    html! {
        svg.glyph viewBox="0 0 24 24" role="img" aria-label=(name) {
            path.outline d=(outline) {}
            path.inner d=(inner) {}
        }
    }
}

/// The sign of the project: one in the light, one ready beside it.
fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 32 32" aria-hidden="true" {
            circle.lead cx="11.5" cy="16" r="9" {}
            circle.understudy cx="21" cy="16" r="8.6" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_for_people() {
        let words: Vec<String> = [0.44, 9.99, 10.0, 119.9, 120.0, 7_199.0, 7_200.0, 172_800.0].into_iter().map(duration).collect();
        assert_eq!(words, ["0.4 s", "10.0 s", "10 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
        assert_eq!(duration(-3.0), "0.0 s");
        assert_eq!([312, 48_000, 16_777_216].map(size), ["312 bytes", "48 kB", "16 MB"]);
    }
}
