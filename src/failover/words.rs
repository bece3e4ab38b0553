//! What was seen, in words for a person.

use super::observation::{AppView, ContainerView, InsideView, NodeView, Observation, RuntimeView, ServerView};

/// All of a pass's observation in one line of the log.
#[must_use]
pub fn in_one_line(seen: &Observation) -> String {
    let runtime = match &seen.runtime {
        RuntimeView::Answers => String::new(),
        RuntimeView::Silent(why) => format!("runtime silent ({why}); "),
    };
    format!("{runtime}primary {}; standby {}; app {}", node_words(&seen.primary), node_words(&seen.standby), app_words(&seen.app))
}

/// The app in a few words.
#[must_use]
pub fn app_words(app: &AppView) -> String {
    match app {
        AppView::Ready => "ready".to_owned(),
        AppView::NotReady(why) => format!("not ready ({why})"),
    }
}

/// A container's state in a word, and its detail.
#[must_use]
pub fn container_words(container: &ContainerView) -> (&'static str, Option<&str>) {
    match container {
        ContainerView::Running => ("running", None),
        ContainerView::Stopped(how) => ("stopped", Some(how)),
        ContainerView::Missing => ("missing", None),
        ContainerView::Unknown(why) => ("unknown", Some(why)),
    }
}

/// A server's state in a word, and its detail.
#[must_use]
pub fn server_words(server: &ServerView) -> (&'static str, Option<&str>) {
    match server {
        ServerView::Primary { status, .. } if status.read_only => ("read-only", None),
        ServerView::Primary { .. } => ("primary", None),
        ServerView::Standby { status, .. } if status.streaming => ("standby", Some("streaming")),
        ServerView::Standby { .. } => ("standby", Some("not streaming")),
        ServerView::Starting(why) => ("starting", Some(why)),
        ServerView::Refusing(why) => ("refusing", Some(why)),
        ServerView::Silent(why) => ("silent", Some(why)),
        ServerView::NotAsked => ("not asked", None),
    }
}

/// The inner witness's word, and its detail.
#[must_use]
pub fn inside_words(inside: &InsideView) -> (&'static str, Option<&str>) {
    match inside {
        InsideView::Alive => ("alive", None),
        InsideView::Preparing(why) => ("preparing", Some(why)),
        InsideView::Dead(why) => ("dead", Some(why)),
        InsideView::Unknown(why) => ("unknown", Some(why)),
        InsideView::NotAsked => ("not asked", None),
    }
}

fn with_detail((word, detail): (&'static str, Option<&str>)) -> String {
    detail.filter(|detail| !detail.is_empty()).map_or(word.to_owned(), |detail| format!("{word} ({detail})"))
}

/// A node's container, server and inner witness.
#[must_use]
pub fn node_state(node: &NodeView) -> String {
    let container = format!("container {}", with_detail(container_words(&node.container)));
    let server = match &node.server {
        ServerView::NotAsked => String::new(),
        server => format!(", server {}", with_detail(server_words(server))),
    };
    let inside = match &node.inside {
        InsideView::NotAsked => String::new(),
        inside => format!(", inside {}", with_detail(inside_words(inside))),
    };
    format!("{container}{server}{inside}")
}

/// A node's name and state.
#[must_use]
pub fn node_words(node: &NodeView) -> String {
    format!("{} ({})", node.name, node_state(node))
}
