//! What the options mean.

use std::path::PathBuf;
use std::time::Duration;

/// What to do about a file that exists under a final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the address fails; unless it has the checksum that was asked for.
    Refuse,
    /// It is replaced, when the new one is whole.
    Overwrite,
    /// It stays, and that is well; unless it has another checksum than was asked for.
    Skip,
}

/// The settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the files go.
    pub directory: PathBuf,
    /// Files at a time.
    pub jobs: usize,
    /// Files of one host at a time.
    pub per_host: usize,
    /// Ranges of one large file at a time.
    pub connections: usize,
    /// Attempts after the first one, of one file.
    pub retries: u32,
    /// How long no byte may come.
    pub timeout: Duration,
    /// How long the whole run may last.
    pub deadline: Option<Duration>,
    /// What to do about files that exist.
    pub existing: Existing,
    /// Authorities beside those of this machine, in PEM.
    pub cacert: Option<PathBuf>,
    /// Where S3 is, if not at AWS.
    pub endpoint_url: Option<String>,
    /// The profile of `aws configure`.
    pub profile: Option<String>,
    /// Whether requests to S3 are signed.
    pub sign: bool,
}
