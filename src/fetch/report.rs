//! How each file went: rows, the table for people, JSON for programs, and the exit code.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::Error;
use super::exit_code::ExitCode;

/// How it went with one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was fetched, whole.
    Fetched,
    /// It was there already.
    Present,
    /// It would be fetched (`--dry-run`).
    Planned,
    /// It is not there.
    Failed(Error),
}

impl Outcome {
    /// In one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Present => "present",
            Self::Planned => "planned",
            Self::Failed(Error::Mismatch { .. }) => "mismatch",
            Self::Failed(Error::UnsupportedScheme { .. }) => "unsupported",
            Self::Failed(Error::Interrupted) => "interrupted",
            Self::Failed(_) => "failed",
        }
    }
}

/// One address, and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The address as it may be shown.
    pub shown: String,
    /// The name of the file, where there is one.
    pub name: Option<String>,
    /// The whole file, in bytes, where that is known.
    pub size: Option<u64>,
    /// Bytes that came in this run.
    pub received: u64,
    /// How long it took, waits included.
    pub took: Duration,
    /// How it went.
    pub outcome: Outcome,
    /// Bytes of it that lie in a part, to be resumed.
    pub kept: u64,
    /// What else there is to know.
    pub remark: Option<String>,
}

impl Row {
    /// A row of which nothing came.
    #[must_use]
    pub fn of(shown: &str, name: Option<&str>, size: Option<u64>, outcome: Outcome) -> Self {
        Self {
            shown: shown.to_owned(),
            name: name.map(str::to_owned),
            size,
            received: 0,
            took: Duration::ZERO,
            outcome,
            kept: 0,
            remark: None,
        }
    }

    /// Bytes a second, where that says anything.
    fn speed(&self) -> Option<f64> {
        (self.received > 0 && !self.took.is_zero()).then(|| self.received as f64 / self.took.as_secs_f64())
    }

    /// Why, for the last column and for the line of a failure.
    fn cause(&self) -> String {
        let kept = if self.kept > 0 { format!(" ({} kept)", amount(self.kept as f64)) } else { String::new() };
        match &self.outcome {
            Outcome::Failed(error) => format!("{error}{kept}"),
            _ => self.remark.clone().unwrap_or_default(),
        }
    }

    /// The one line of a failure, with what helps. None where all is well.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let Outcome::Failed(error) = &self.outcome else { return None };
        Some(format!("{}: {}; try: {}", self.shown, self.cause(), error.remedy()))
    }

    /// A line for whoever watches no terminal.
    #[must_use]
    pub fn line(&self) -> String {
        match self.complaint() {
            Some(complaint) => complaint,
            None => {
                let size = self.size.map_or_else(String::new, |size| format!(", {}", amount(size as f64)));
                let speed =
                    self.speed().map_or_else(String::new, |speed| format!(" in {:.1} s, {}/s", self.took.as_secs_f64(), amount(speed)));
                format!("{}: {}{size}{speed}", self.name.as_deref().unwrap_or(&self.shown), self.outcome.word())
            }
        }
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "url": self.shown,
            "file": self.name,
            "outcome": self.outcome.word(),
            "size": self.size,
            "received": self.received,
            "seconds": (self.took.as_secs_f64() * 1000.0).round() / 1000.0,
            "bytes_per_second": self.speed().map(f64::round),
            "remark": self.remark,
        });
        if let Outcome::Failed(error) = &self.outcome {
            row["error"] = json!(error.to_string());
            row["remedy"] = json!(error.remedy());
            row["kept"] = json!(self.kept);
        }
        row
    }
}

/// How a run ends: what a signal did comes before a wrong checksum, and that before any other failure.
#[must_use]
pub fn exit_code(rows: &[Row], interrupted: bool) -> ExitCode {
    let any = |is: fn(&Error) -> bool| rows.iter().any(|row| matches!(&row.outcome, Outcome::Failed(error) if is(error)));
    if interrupted {
        ExitCode::Interrupted
    } else if any(|error| matches!(error, Error::Mismatch { .. })) {
        ExitCode::Mismatch
    } else if any(|_| true) {
        ExitCode::Failed
    } else {
        ExitCode::Done
    }
}

/// One JSON object for the whole run.
#[must_use]
pub fn json(rows: &[Row], notes: &[String], took: Duration, exit_code: ExitCode) -> Value {
    let failed = rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).count();
    json!({
        "files": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "notes": notes,
        "well": rows.len() - failed,
        "failed": failed,
        "received": rows.iter().map(|row| row.received).sum::<u64>(),
        "seconds": (took.as_secs_f64() * 1000.0).round() / 1000.0,
        "exit_code": exit_code as u8,
    })
}

/// The table for people, and a line that sums it up.
#[must_use]
pub fn table(rows: &[Row], took: Duration) -> String {
    const HEAD: [&str; 6] = ["file", "size", "time", "speed", "outcome", "cause"];
    let mut cells: Vec<[String; 6]> = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            row.name.clone().unwrap_or_else(|| row.shown.clone()),
            row.size.map_or_else(|| "-".to_owned(), |size| amount(size as f64)),
            if row.took.is_zero() { "-".to_owned() } else { format!("{:.1} s", row.took.as_secs_f64()) },
            row.speed().map_or_else(|| "-".to_owned(), |speed| format!("{}/s", amount(speed))),
            row.outcome.word().to_owned(),
            row.cause(),
        ]
    }));
    let mut widths = [0; 6];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for [file, size, time, speed, outcome, cause] in &cells {
        let line = format!(
            "{file:<0$}  {size:>1$}  {time:>2$}  {speed:>3$}  {outcome:<4$}  {cause}",
            widths[0], widths[1], widths[2], widths[3], widths[4]
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let failed = rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).count();
    let received: u64 = rows.iter().map(|row| row.received).sum();
    let files = if rows.len() == 1 { "1 file".to_owned() } else { format!("{} files", rows.len()) };
    let _ = write!(text, "{files}, {failed} failed, {} in {:.1} s", amount(received as f64), took.as_secs_f64());
    text
}

/// Bytes, as a person reads them.
#[must_use]
pub fn amount(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::verify::Algorithm;

    fn rows() -> Vec<Row> {
        let fetched = Row {
            received: 20 << 20,
            took: Duration::from_millis(400),
            ..Row::of("http://h/a.tar", Some("a.tar"), Some(20 << 20), Outcome::Fetched)
        };
        let failed = Row {
            kept: 5 << 20,
            took: Duration::from_secs(8),
            ..Row::of("http://h/b", Some("b"), Some(9 << 20), Outcome::Failed(Error::Short { received: 1, expected: 2 }))
        };
        let unsupported = Row::of("ftp://h/c", None, None, Outcome::Failed(Error::UnsupportedScheme { scheme: "ftp".to_owned() }));
        vec![fetched, failed, unsupported]
    }

    #[test]
    fn the_table_says_how_each_went_and_why() {
        assert_eq!(
            table(&rows(), Duration::from_secs(8)),
            "\
file           size   time       speed  outcome      cause
a.tar      20.0 MiB  0.4 s  50.0 MiB/s  fetched
b           9.0 MiB  8.0 s           -  failed       the body ended after 1 of 2 bytes (5.0 MiB kept)
ftp://h/c         -      -           -  unsupported  the scheme 'ftp' is not supported
3 files, 2 failed, 20.0 MiB in 8.0 s"
        );
    }

    #[test]
    fn a_failure_is_one_line_with_cause_and_remedy() {
        assert_eq!(rows()[1].complaint().unwrap(), "http://h/b: the body ended after 1 of 2 bytes (5.0 MiB kept); try: run it again");
        assert_eq!(rows()[0].complaint(), None);
        assert_eq!(rows()[0].line(), "a.tar: fetched, 20.0 MiB in 0.4 s, 50.0 MiB/s");
    }

    #[test]
    fn a_program_reads_the_same_in_json() {
        let json = json(&rows(), &["note".to_owned()], Duration::from_secs(8), ExitCode::Failed);
        assert_eq!(json["files"][0]["outcome"], "fetched");
        assert_eq!(json["files"][1]["kept"], 5 << 20);
        assert_eq!(json["files"][2]["remedy"], "an address with http, https or s3");
        assert_eq!(
            (&json["well"], &json["failed"], &json["exit_code"], &json["notes"][0]),
            (&1.into(), &2.into(), &1.into(), &"note".into())
        );
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst() {
        let mismatch = Row::of(
            "http://h/a",
            None,
            None,
            Outcome::Failed(Error::Mismatch { algorithm: Algorithm::Sha256, expected: String::new(), found: String::new() }),
        );
        assert_eq!(exit_code(&rows()[..1], false), ExitCode::Done);
        assert_eq!(exit_code(&rows(), false), ExitCode::Failed);
        assert_eq!(exit_code(&[rows(), vec![mismatch]].concat(), false), ExitCode::Mismatch);
        assert_eq!(exit_code(&rows(), true), ExitCode::Interrupted);
    }
}
