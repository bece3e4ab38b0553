//! The exit codes of `failover-check`, in one table. `--help` and the README quote it; a test holds the three together.

use std::process;

/// How `failover-check` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done, or nothing to do, or waiting.
    Done = 0,
    /// Something that no other code names.
    Unexpected = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The settings are missing or wrong.
    Settings = 3,
    /// The cluster record is missing, corrupt or of another version.
    Record = 4,
    /// The container runtime does not answer.
    Runtime = 5,
    /// Refused: a person is needed.
    Refused = 6,
    /// Another failover-check is acting.
    Busy = 7,
    /// An action failed; the next run tries again.
    ActionFailed = 8,
    /// Not run as root.
    NotRoot = 9,
    /// A drill did not hold its limits.
    NotHeld = 10,
}

impl ExitCode {
    /// The table, as `--help` prints it.
    pub const TABLE: &'static str = "\
Exit codes:
  0  done, nothing to do, or waiting
  1  unexpected error
  2  wrong command line
  3  settings missing or malformed
  4  cluster record missing, corrupt or of another version
  5  container runtime does not answer
  6  refused or alerting: a person is needed
  7  another failover-check is acting
  8  an action failed; the next run tries again
  9  not run as root
  10  a drill did not hold its limits";
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
