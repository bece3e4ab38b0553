//! What a pass tells to those who look on: the file behind the app's page, metrics, notifications. Best effort, and after acting: no fault of it makes a
//! pass fail or moves a primary (I6).
//!
//! What is written is a few KB about once a second, without waiting for the disk. What leaves the host does so from a process of its own ([`super::notify`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::counters::Counters;
use super::error::Error;
use super::journal::JournalFile;
use super::metrics::{self, Measured};
use super::notify::Notifier;
use super::pass::Look;
use super::settings::Settings;
use super::status_file::StatusFile;
use crate::replace_file;

/// Passes may follow each other twenty times a second; they are counted all, and told this often.
const LEAST_INTERVAL: Duration = Duration::from_millis(900);

/// Where it is told.
#[derive(Debug)]
pub struct Outward {
    status: StatusFile,
    metrics_file: Option<PathBuf>,
    notifier: Option<Notifier>,
    journal: JournalFile,
    state_directory: PathBuf,
    pending: RefCell<Pending>,
}

/// What has been seen since it was last told.
#[derive(Debug, Default)]
struct Pending {
    told: Option<Instant>,
    passes: BTreeMap<&'static str, u64>,
    /// A fault is said once, not each second.
    fault: String,
}

impl Outward {
    /// As the settings say.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let state = &settings.state_directory;
        Self {
            status: StatusFile::new(state.join("status.json")),
            metrics_file: settings.metrics_file.clone(),
            notifier: settings.notify.clone().map(|notify| Notifier::new(notify, state)),
            journal: JournalFile::new(state.join("events.jsonl")),
            state_directory: state.clone(),
            pending: RefCell::default(),
        }
    }

    /// After a pass, whatever came of its acting.
    pub fn tell(&self, look: &Look, settings: &Settings, failed: bool, duration: Duration) {
        self.status.show(look, settings);
        self.measure(Some(look), metrics::outcome(&look.decision.action, failed), !failed, duration);
    }

    /// After a pass that could not look.
    pub fn tell_error(&self, error: &Error, duration: Duration) {
        self.status.show_error(error);
        self.measure(None, "blind", false, duration);
    }

    fn measure(&self, look: Option<&Look>, outcome: &'static str, success: bool, duration: Duration) {
        if self.metrics_file.is_none() && self.notifier.is_none() {
            return;
        }
        let mut pending = self.pending.borrow_mut();
        *pending.passes.entry(outcome).or_default() += 1;
        if pending.told.is_some_and(|told| told.elapsed() < LEAST_INTERVAL) {
            return;
        }
        pending.told = Some(Instant::now());
        let passes = std::mem::take(&mut pending.passes);
        let fault = self.count_and_write(look, passes, success, duration).err().map(|error| error.to_string()).unwrap_or_default();
        if fault != pending.fault && !fault.is_empty() {
            log::warn!("cannot tell of this pass in metrics and notifications: {fault}");
        }
        pending.fault = fault;
    }

    fn count_and_write(
        &self,
        look: Option<&Look>,
        passes: BTreeMap<&'static str, u64>,
        success: bool,
        duration: Duration,
    ) -> std::io::Result<()> {
        let path = self.state_directory.join("counters.json");
        // Read each time: a person's command makes passes too, in a process of its own.
        let mut counters = Counters::load(&path);
        passes.into_iter().for_each(|(outcome, count)| counters.add_passes(outcome, count));
        look.map(metrics::targets).unwrap_or_default().into_iter().for_each(|(target, success)| counters.probed(&target, success));
        counters.follow(&self.journal)?;
        let delivery = self.notifier.as_ref().map(|notifier| notifier.wake(&self.journal, &mut counters)).transpose()?;
        counters.save(&path)?;
        let Some(file) = &self.metrics_file else { return Ok(()) };
        let text = metrics::text(&Measured {
            look,
            success,
            now: Timestamp::now(),
            duration,
            counters: &counters,
            delivery: delivery.as_ref(),
            state_directory: &self.state_directory,
        });
        replace_file::write_unflushed(file, text.as_bytes())
            .map_err(|error| std::io::Error::new(error.kind(), format!("'{}': {error}", file.display())))
    }
}
