//! The passwords that a node needs.

use std::fs;
use std::path::Path;

use super::error::NodeError;

/// The passwords, read from files that only root and this container can read.
pub struct Secrets {
    /// Of the app's role.
    pub database: String,
    /// Of the role that streams.
    pub replication: String,
    /// Of failover-check's role.
    pub failover: String,
}

impl Secrets {
    /// Reads the files of `folder`; one newline at the end is not part of a password.
    ///
    /// # Errors
    /// When one cannot be read or is empty.
    pub fn read(folder: &Path) -> Result<Self, NodeError> {
        let read = |name: &str| {
            let path = folder.join(name);
            let text = fs::read_to_string(&path).map_err(NodeError::file(&path))?;
            let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
            if text.is_empty() { Err(NodeError::EmptySecret(path)) } else { Ok(text) }
        };
        Ok(Self { database: read("database_password")?, replication: read("replication_password")?, failover: read("failover_password")? })
    }
}
