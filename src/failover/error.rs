//! What can keep `failover-check` from doing its work, with its exit code and a remedy.

use std::io;

use super::act::ActError;
use super::lock::LockError;
use super::runtime::RuntimeError;
use super::settings::SettingsError;
use crate::exit_code::ExitCode;
use crate::record::{NodeName, RecordError};

/// What can keep `failover-check` from doing its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not run as root.
    #[error("not run as root (user id {0})")]
    NotRoot(u32),
    /// The settings are missing or wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The record could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record and the settings do not fit.
    #[error("the record names the node '{0}', which the settings do not know")]
    UnknownNode(NodeName),
    /// The right to act was not to be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The container runtime does not answer.
    #[error("{0}")]
    Runtime(String),
    /// An action failed.
    #[error(transparent)]
    Act(ActError),
    /// A person's order cannot be carried out safely.
    #[error("refused: {why}")]
    Refused {
        /// Why.
        why: String,
        /// What the person can do instead.
        remedy: String,
    },
    /// The journal could not be read.
    #[error("cannot read the events: {0}")]
    Journal(io::Error),
    /// The asynchronous runtime could not be made.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

impl From<ActError> for Error {
    fn from(error: ActError) -> Self {
        match error {
            ActError::Record(error) => Self::Record(error),
            ActError::Runtime(RuntimeError::Silent(why)) => Self::Runtime(format!("the container runtime does not answer: {why}")),
            ActError::UnknownNode(node) => Self::UnknownNode(node),
            other => Self::Act(other),
        }
    }
}

impl Error {
    /// How the program ends with it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotRoot(_) => ExitCode::NotRoot,
            Self::Settings(_) | Self::UnknownNode(_) => ExitCode::Settings,
            Self::Record(_) => ExitCode::Record,
            Self::Lock(LockError::Busy { .. }) => ExitCode::Busy,
            Self::Runtime(_) => ExitCode::Runtime,
            Self::Act(_) => ExitCode::ActionFailed,
            Self::Refused { .. } => ExitCode::Refused,
            Self::Lock(LockError::Unusable { .. }) | Self::Journal(_) | Self::Start(_) => ExitCode::Unexpected,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NotRoot(_) => "sudo failover-check …".to_owned(),
            Self::Settings(error) => error.remedy(),
            Self::Record(error) => error.remedy(),
            Self::UnknownNode(_) => "compare the section [nodes] of the settings with the record".to_owned(),
            Self::Lock(LockError::Busy { .. }) => "wait for it, or look at what it does: failover-check status".to_owned(),
            Self::Lock(LockError::Unusable { .. }) | Self::Journal(_) => "check the state directory's mount, space and mode".to_owned(),
            Self::Runtime(_) => {
                "start the Docker Engine (systemctl start docker) and check docker_socket in the settings; nothing was changed".to_owned()
            }
            Self::Act(_) => "nothing to do: the next run goes on from the recorded step; see failover-check explain".to_owned(),
            Self::Refused { remedy, .. } => remedy.clone(),
            Self::Start(_) => "please report it with the whole line".to_owned(),
        }
    }
}
