//! What the last pass saw, for whoever may not ask for himself: `status.json` beside the record. The app's page shows it.
//!
//! It holds what `failover-check status --json` and the gates of `explain` say, with the time. It is written after acting, about once a second and without
//! waiting for the disk; whoever reads it has to look at its age first, since nobody is there to take it back when the passes end.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::Error;
use super::pass::Look;
use super::report;
use super::settings::{Mode, Settings};
use crate::replace_file;

/// Passes may follow each other twenty times a second; what has not changed is not written more often than this.
const LEAST_INTERVAL: Duration = Duration::from_millis(900);

/// The file.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    last: RefCell<Last>,
}

#[derive(Debug, Default)]
struct Last {
    written: Option<Instant>,
    /// What it was about: where that changes, it is written at once.
    about: String,
    /// A fault is said once, not each second.
    fault: String,
}

impl StatusFile {
    /// The file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), last: RefCell::default() }
    }

    /// Shows what a pass saw and decided.
    pub fn show(&self, look: &Look, settings: &Settings) {
        let step = look.record.transition.as_ref().map(|transition| transition.step);
        self.write(format!("{} {} {step:?}", look.decision.rule.id, look.record.epoch), || of_look(look, settings));
    }

    /// Shows that a pass could not look.
    pub fn show_error(&self, error: &Error) {
        self.write(error.to_string(), || of_error(error));
    }

    fn write(&self, about: String, content: impl FnOnce() -> Value) {
        let mut last = self.last.borrow_mut();
        if last.about == about && last.written.is_some_and(|written| written.elapsed() < LEAST_INTERVAL) {
            return;
        }
        let fault = replace_file::write_unflushed(&self.path, content().to_string().as_bytes()).err();
        let fault = fault.map(|error| error.to_string()).unwrap_or_default();
        if fault != last.fault && !fault.is_empty() {
            log::warn!("cannot write '{}', so the app's page shows an old state: {fault}", self.path.display());
        }
        *last = Last { written: Some(Instant::now()), about, fault };
    }
}

/// The file's content after a pass that looked.
fn of_look(look: &Look, settings: &Settings) -> Value {
    let seen = &look.seen;
    let explained = report::explain(look, settings).json;
    let behind = seen.link().and_then(|link| link.behind).map(|bytes| (bytes, Duration::ZERO)).or(seen.elapsed.behind);
    json!({
        "version": 1,
        "at": Timestamp::now().to_string(),
        "error": null,
        "remedy": null,
        "status": report::status(look, settings, None, None).json,
        "acts": settings.mode == Mode::Act,
        "says_no": explained.get("says_no"),
        "gates": explained.get("gates"),
        "standby_behind": behind.map(|(bytes, age)| json!({ "bytes": bytes, "age_seconds": age.as_secs_f64() })),
        "recent_failovers": seen.elapsed.recent_failovers,
        "flapping_limit": seen.thresholds.flapping_limit,
    })
}

fn of_error(error: &Error) -> Value {
    json!({ "version": 1, "at": Timestamp::now().to_string(), "error": error.to_string(), "remedy": error.remedy(), "status": null })
}
