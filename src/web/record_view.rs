//! The two facts that the app takes from the cluster record: who is primary, and since which epoch.
//!
//! The app reads; only `failover-check` writes. Fields that the app does not use may change without it.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// The newest version of the record that this program understands.
const NEWEST_VERSION: u32 = 1;

/// What the app takes from the record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Record {
    version: u32,
    /// Grows by one at each change of primary.
    pub epoch: u64,
    /// The primary's name, which is also its host name on the containers' network.
    pub primary: String,
}

/// Why the record tells nothing now.
#[derive(Debug, Error)]
pub enum RecordFault {
    /// There is no such file, or it may not be read.
    #[error("cannot read the record '{}': {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not JSON, or a field is missing.
    #[error("the record '{}' is not valid: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer Understudy wrote it. Its fields may mean something else, so nothing is taken from it.
    #[error("the record '{}' has version '{version}', newer than '{NEWEST_VERSION}'", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version that was found.
        version: u32,
    },
}

impl Record {
    /// Reads the record.
    ///
    /// # Errors
    /// The file is missing, not valid, or of a newer version.
    pub fn read(path: &Path) -> Result<Self, RecordFault> {
        let bytes = std::fs::read(path).map_err(|source| RecordFault::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &bytes)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RecordFault> {
        let invalid = |why: String| RecordFault::Invalid { path: path.to_owned(), why };
        // The version is looked at first: a newer record may lack the other fields.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if version > NEWEST_VERSION {
            return Err(RecordFault::Newer { path: path.to_owned(), version });
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if record.primary.is_empty() {
            return Err(invalid("the primary has no name".to_owned()));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Record, String> {
        Record::parse(Path::new("cluster.json"), text.as_bytes()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_first_record_is_understood() {
        let record = parse(
            r#"{"version":1,"epoch":1,"primary":"pg-a","standby_eligible":false,"transition":null,
                "paused":null,"system_identifier":null,"failovers":[]}"#,
        )
        .unwrap();

        assert_eq!(record.primary, "pg-a");
        assert_eq!(record.epoch, 1);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_its_reason() {
        assert_eq!(parse(r#"{"version":2,"leader":"x"}"#).unwrap_err(), "the record 'cluster.json' has version '2', newer than '1'");
        assert_eq!(parse("").unwrap_err(), "the record 'cluster.json' is not valid: EOF while parsing a value at line 1 column 0");
        assert_eq!(
            parse(r#"{"version":1,"epoch":1,"primary":""}"#).unwrap_err(),
            "the record 'cluster.json' is not valid: the primary has no name"
        );
    }
}
