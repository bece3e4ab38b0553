//! The page at `/`: what `failover-check` sees and does, for people.
//!
//! ```text
//!   cluster.json ─┐
//!   status.json ──┼─► view (judged) ─► html ─► /             the page, whole without JavaScript
//!   events.jsonl ─┘        └────────────────► /status.json  the same for programs
//! ```
//!
//! The page follows by asking for itself once a second and putting in place what has changed. Nothing is kept open for a viewer, and the files are read at
//! most four times a second however many look on, so that viewers cost the app next to nothing. No server is asked: `/ready` does that.

mod html;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

pub use view::View;

/// The page's style sheet.
pub const STYLE: &str = include_str!("page.css");
/// What makes it follow.
pub const SCRIPT: &str = include_str!("page.js");
/// Its sign in a browser's tab.
pub const ICON: &str = include_str!("icon.svg");

/// For so long an answer serves everybody who asks.
const KEPT: Duration = Duration::from_millis(250);
/// How long the files may take to be read; a disk that hangs must not keep viewers waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes the page, at most once per [`KEPT`].
#[derive(Debug)]
pub struct Page {
    record: PathBuf,
    made: Mutex<Option<(Instant, Arc<Made>)>>,
}

/// The page as of a moment.
#[derive(Debug)]
pub struct Made {
    /// For people.
    pub html: String,
    /// For programs.
    pub json: String,
    /// What both were made of.
    pub view: View,
}

impl Page {
    /// The page on the installation whose record this is.
    #[must_use]
    pub fn new(record: PathBuf) -> Self {
        Self { record, made: Mutex::new(None) }
    }

    /// The page as of now. None where the files are not to be read in time.
    pub async fn make(&self) -> Option<Arc<Made>> {
        let mut kept = self.made.lock().await;
        if let Some((at, made)) = kept.as_ref()
            && at.elapsed() < KEPT
        {
            return Some(Arc::clone(made));
        }
        let record = self.record.clone();
        let making = tokio::task::spawn_blocking(move || {
            let view = View::read(&record);
            Made { html: html::page(&view).into_string(), json: serde_json::to_string(&view).unwrap_or_default(), view }
        });
        let made = Arc::new(tokio::time::timeout(PATIENCE, making).await.ok()?.ok()?);
        *kept = Some((Instant::now(), Arc::clone(&made)));
        Some(made)
    }
}
