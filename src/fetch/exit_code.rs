//! The exit codes of `fetch`, in one table. `--help` and the README quote it; a test holds the three together.

use std::process;

/// How `fetch` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Every file is there.
    Done = 0,
    /// A file failed, or its scheme is not supported.
    Failed = 1,
    /// The command line is wrong, or there is nothing to fetch.
    Usage = 2,
    /// A file is not what its checksum says.
    Mismatch = 3,
    /// Ended by a signal; what was received is kept.
    Interrupted = 130,
}

impl ExitCode {
    /// The table, as `--help` prints it.
    pub const TABLE: &'static str = "\
Exit codes:
  0  every file is there
  1  a file failed, or its scheme is not supported
  2  wrong command line, or nothing to fetch
  3  a file is not what its checksum says
  130  interrupted; parts that can be resumed are kept";
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
