//! The major version of a data directory, which decides where recovery settings live and what a server needs to notice them.

use std::fmt;
use std::path::{Path, PathBuf};

/// The first component of PostgreSQL's version: `10`, `15`, `17`; `9` for the whole 9.x line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MajorVersion(pub u16);

impl MajorVersion {
    /// Whether recovery settings are ordinary settings and `standby.signal` makes a standby; before 12 they live in `recovery.conf`.
    pub fn has_standby_signal(self) -> bool {
        self.0 >= 12
    }

    /// Reads the text of a `PG_VERSION` file: `15`, or `9.6` before 10.
    pub fn parse(text: &str) -> Option<Self> {
        let trimmed = text.trim();
        let major = trimmed.split('.').next()?;
        if trimmed.split('.').count() > 2 || !trimmed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        major.parse().ok().filter(|major| *major > 0).map(Self)
    }

    /// Reads `PG_VERSION` in a data directory.
    ///
    /// # Errors
    /// When the file cannot be read (then the directory is no data directory) or does not hold a version.
    pub fn of_data_directory(directory: &Path) -> Result<Self, VersionError> {
        let path = directory.join("PG_VERSION");
        let text = std::fs::read_to_string(&path).map_err(|source| VersionError::Unreadable { path: path.clone(), source })?;
        Self::parse(&text).ok_or_else(|| VersionError::Malformed { path, text: text.trim().to_owned() })
    }
}

impl fmt::Display for MajorVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why the version of a data directory is unknown.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// There is no `PG_VERSION`, or it may not be read.
    #[error("cannot read '{}'", path.display())]
    Unreadable {
        /// The `PG_VERSION` file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `PG_VERSION` holds something else.
    #[error("'{}' holds no PostgreSQL version but '{text}'", path.display())]
    Malformed {
        /// The `PG_VERSION` file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

impl VersionError {
    /// What a person can do about it.
    pub fn remedy(&self) -> Option<String> {
        Some("give the data directory of an initialised server, the one that holds 'PG_VERSION'".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::MajorVersion;

    #[test]
    fn version_files_of_every_era_are_read() {
        assert_eq!(MajorVersion::parse("17\n"), Some(MajorVersion(17)));
        assert_eq!(MajorVersion::parse("9.6\n"), Some(MajorVersion(9)));
        for text in ["", "\n", "seventeen", "17beta1", "0", "1.2.3", "-1"] {
            assert_eq!(MajorVersion::parse(text), None, "{text:?}");
        }
    }
}
