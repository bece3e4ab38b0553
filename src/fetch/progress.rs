//! What is seen while files come: bars on a terminal, a line for each file elsewhere.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::{Outcome, Row};

/// Bars more than this are not drawn: a terminal has so many lines.
const BARS: u64 = 16;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Bars, where standard error is a terminal.
    Bars,
    /// A line for each file.
    Lines,
    /// Only what failed.
    Failures,
}

/// The progress of a run.
#[derive(Debug)]
pub struct Progress {
    telling: Telling,
    bars: MultiProgress,
    total: ProgressBar,
    drawn: AtomicU64,
}

/// The progress of one file.
#[derive(Debug)]
pub struct Meter {
    received: AtomicU64,
    expected: AtomicU64,
    bar: Option<ProgressBar>,
    total: ProgressBar,
}

impl Progress {
    /// Of so many files.
    #[must_use]
    pub fn new(telling: Telling, files: usize) -> Self {
        let bars = MultiProgress::with_draw_target(if telling == Telling::Bars {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let total = if telling == Telling::Bars { bars.add(ProgressBar::new(0)) } else { ProgressBar::hidden() };
        total.set_style(style("{msg:30!} {bytes:>11} of {total_bytes:<11} {bytes_per_sec:>13}  {elapsed_precise}"));
        let progress = Self { telling, bars, total, drawn: AtomicU64::new(0) };
        progress.total.set_message(format!("{files} files in all"));
        progress
    }

    /// A file is begun.
    #[must_use]
    pub fn begin(&self, name: &str) -> Meter {
        let is_drawn = self.telling == Telling::Bars && self.drawn.fetch_add(1, Ordering::Relaxed) < BARS;
        let bar = is_drawn.then(|| {
            let bar = self.bars.insert_before(&self.total, ProgressBar::no_length());
            bar.set_style(style("{msg:30!} {bytes:>11} of {total_bytes:<11} {bytes_per_sec:>13}  {wide_bar} {eta:>4}"));
            bar.set_message(name.to_owned());
            bar
        });
        Meter { received: AtomicU64::new(0), expected: AtomicU64::new(0), bar, total: self.total.clone() }
    }

    /// It has ended.
    pub fn end(&self, meter: &Meter) {
        if let Some(bar) = &meter.bar {
            bar.finish_and_clear();
            self.bars.remove(bar);
        }
        if self.telling == Telling::Bars {
            self.drawn.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Tells how it went.
    pub fn tell(&self, row: &Row) {
        let worth_a_line = match self.telling {
            Telling::Lines => true,
            Telling::Bars | Telling::Failures => matches!(row.outcome, Outcome::Failed(_)),
        };
        if worth_a_line {
            self.say(&row.line());
        }
    }

    /// Says a line on standard error, above the bars.
    pub fn say(&self, words: &str) {
        // Who closed it does not want to hear it.
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr(), "fetch: {words}");
        });
    }

    /// Takes the bars away.
    pub fn clear(&self) {
        self.total.finish_and_clear();
        let _ = self.bars.clear();
    }
}

impl Meter {
    /// The size is known; so much of it is there from before.
    pub fn expect(&self, size: u64, before: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(size);
            bar.set_position(before);
            bar.reset_eta();
        }
        let expected = size - before;
        // What is begun afresh is not expected twice.
        self.total.dec_length(self.expected.swap(expected, Ordering::Relaxed));
        self.total.inc_length(expected);
    }

    /// So many bytes came.
    pub fn add(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
        self.total.inc(bytes);
    }

    /// How many bytes came.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_whether_they_are_drawn_or_not() {
        let progress = Progress::new(Telling::Failures, 1);
        let meter = progress.begin("a");
        meter.expect(10, 3);
        meter.add(4);
        meter.add(3);
        progress.end(&meter);
        assert_eq!(meter.received(), 7);
    }
}
