//! What can keep a node from starting.

use std::io;
use std::path::{Path, PathBuf};

use super::plan::Refusal;
use crate::postgres::conninfo::ConninfoError;
use crate::postgres::recovery_conf::RecoveryConfError;
use crate::record::RecordError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The record could not be read.
    #[error("{0}; try: {remedy}", remedy = .0.remedy())]
    Record(#[from] RecordError),
    /// By the record and the volume it must not.
    #[error("not starting: {0}")]
    Refused(Refusal),
    /// A file of the volume, or a secret, could not be used.
    #[error("cannot use '{}': {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A secret is empty.
    #[error("the secret '{}' is empty; try: lay the installation down again with playbooks/run_containers.yml", .0.display())]
    EmptySecret(PathBuf),
    /// A program of PostgreSQL failed; its own words stand above in the log.
    #[error("{program} failed: {how}")]
    Program {
        /// The program.
        program: &'static str,
        /// How.
        how: String,
    },
    /// The new cluster's server refused a statement.
    #[error("cannot make the roles and the database: {0}")]
    Database(String),
    /// The primary could not be asked.
    #[error("cannot ask the primary: {0}")]
    Primary(String),
    /// There is no room for a copy of the primary's data.
    #[error(
        "no room for a copy of the primary's data: {needed} bytes are needed and {free} are free; try: make room on the disk of this volume"
    )]
    NoRoom {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// A connection string could not be made.
    #[error(transparent)]
    Conninfo(#[from] ConninfoError),
    /// The recovery settings could not be written.
    #[error(transparent)]
    RecoveryConf(#[from] RecoveryConfError),
    /// The signals that end a container could not be listened to.
    #[error("cannot listen to signals: {0}")]
    Signals(io::Error),
}

impl NodeError {
    /// For `map_err` on what was done to `path`.
    pub fn file(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path: path.clone(), source }
    }
}
