//! Why the app cannot start, and why it is not ready.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use deadpool_postgres::PoolError;
use deadpool_postgres::tokio_postgres::Error as ServerError;
use deadpool_postgres::tokio_postgres::error::SqlState;
use thiserror::Error;

/// The app does not start. Each variant is something that the person who starts it can change.
#[derive(Debug, Error)]
pub enum StartError {
    /// A flag that does not exist, or one without its value.
    #[error("{message}")]
    Usage {
        /// The first line of the parser's message, without its `error:`.
        message: String,
        /// The flag that was probably meant.
        meant: Option<String>,
    },
    /// A setting that has no default was given neither as a flag nor in the environment.
    #[error("a setting is missing: '--{flag}'")]
    SettingMissing {
        /// Name of the flag, without dashes.
        flag: &'static str,
        /// Name of the environment variable.
        variable: &'static str,
    },
    /// A setting was given, but its value means nothing.
    #[error("cannot use '--{flag}': '{value}': {why}")]
    SettingInvalid {
        /// Name of the flag, without dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
        /// A value that would do.
        example: &'static str,
    },
    /// The password file cannot be read.
    #[error("cannot read the password file: '{}': {source}", path.display())]
    PasswordFileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The password file has no password in it. PostgreSQL would refuse it later, with a less helpful message.
    #[error("the password file is empty: '{}'", path.display())]
    PasswordFileEmpty {
        /// The file.
        path: PathBuf,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on '{address}': {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime, the signal handlers or the server could not be set up, or the server failed.
    #[error("the server failed: {0}")]
    Server(#[from] io::Error),
}

impl StartError {
    /// What the person who starts the app can do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Usage { meant: Some(flag), .. } => Some(flag.clone()),
            Self::Usage { meant: None, .. } => Some("app --help".to_owned()),
            Self::SettingMissing { flag, variable } => Some(format!("--{flag} VALUE, or {variable} in the environment")),
            Self::SettingInvalid { flag, example, .. } => Some(format!("--{flag} {example}")),
            Self::PasswordFileUnreadable { .. } => {
                Some("--password-file with a file that the app's user may read, holding the database user's password".to_owned())
            }
            Self::PasswordFileEmpty { .. } => Some("write the database user's password into it".to_owned()),
            Self::Listen { .. } => Some("--listen with another address or port".to_owned()),
            Self::Server(_) => None,
        }
    }

    /// The exit code: 2 for wrong usage, 3 for settings that cannot be used, 1 for what nobody expected.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::SettingMissing { .. } => 2,
            Self::SettingInvalid { .. } | Self::PasswordFileUnreadable { .. } | Self::PasswordFileEmpty { .. } | Self::Listen { .. } => 3,
            Self::Server(_) => 1,
        }
    }
}

/// Why no write can be served now.
///
/// The words go to whoever asks `/ready`, which may be anyone: they name the node and the kind of fault, and never
/// repeat a message of the server, which may hold names of users, databases or addresses.
#[derive(Debug, Error)]
pub enum NotReady {
    /// SIGTERM was received: no new requests, please.
    #[error("shutting down")]
    ShuttingDown,
    /// No record has been read since the app started, so there is no node to ask.
    #[error("the primary is not known: {fault}")]
    PrimaryUnknown {
        /// Why the record could not be read.
        fault: String,
    },
    /// The whole check (waiting for a connection, connecting, asking) took longer than it may.
    #[error("the primary '{primary}' did not answer within {}", humantime::format_duration(*.deadline))]
    DeadlinePassed {
        /// The node that was asked.
        primary: String,
        /// `--ready-deadline`.
        deadline: Duration,
    },
    /// No connection, or it broke.
    #[error("the primary '{primary}' cannot be reached: {why}")]
    Unreachable {
        /// The node that was asked.
        primary: String,
        /// What the system said, such as `connection refused`.
        why: String,
    },
    /// The server runs, but does not accept connections yet, or any more (SQLSTATE 57P01 to 57P03).
    #[error("the primary '{primary}' is starting up or shutting down (SQLSTATE {sqlstate})")]
    StartingOrStopping {
        /// The node that was asked.
        primary: String,
        /// The server's code.
        sqlstate: String,
    },
    /// The server refused the password or the user. The password file was read again.
    #[error("the primary '{primary}' refused the app's user or password (SQLSTATE {sqlstate})")]
    PasswordRefused {
        /// The node that was asked.
        primary: String,
        /// The server's code.
        sqlstate: String,
    },
    /// `max_connections` is used up.
    #[error("the primary '{primary}' has too many connections (SQLSTATE {sqlstate})")]
    TooManyConnections {
        /// The node that was asked.
        primary: String,
        /// The server's code.
        sqlstate: String,
    },
    /// The app's database does not exist.
    #[error("the primary '{primary}' has no such database (SQLSTATE {sqlstate})")]
    DatabaseMissing {
        /// The node that was asked.
        primary: String,
        /// The server's code.
        sqlstate: String,
    },
    /// The server answered with an error that is none of the above.
    #[error("the primary '{primary}' answered with an error (SQLSTATE {sqlstate})")]
    ServerFault {
        /// The node that was asked.
        primary: String,
        /// The server's code.
        sqlstate: String,
    },
    /// The node that the record names replays WAL: it is a standby, or not promoted yet.
    #[error("'{primary}' is in recovery: it does not take writes yet")]
    InRecovery {
        /// The node that was asked.
        primary: String,
    },
    /// The primary's transactions are read-only by its settings.
    #[error("the primary '{primary}' is read-only")]
    ReadOnly {
        /// The node that was asked.
        primary: String,
    },
}

impl NotReady {
    /// One stable word, for programs; the `Display` is for people and may change.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting_down",
            Self::PrimaryUnknown { .. } => "primary_unknown",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::Unreachable { .. } => "unreachable",
            Self::StartingOrStopping { .. } => "starting_or_stopping",
            Self::PasswordRefused { .. } => "password_refused",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::DatabaseMissing { .. } => "database_missing",
            Self::ServerFault { .. } => "server_fault",
            Self::InRecovery { .. } => "in_recovery",
            Self::ReadOnly { .. } => "read_only",
        }
    }

    /// What a failed attempt to get a connection means.
    #[must_use]
    pub fn from_pool(primary: &str, error: &PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::from_server(primary, error),
            PoolError::Closed => Self::Unreachable { primary: primary.to_owned(), why: "its connections are being closed".to_owned() },
            PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::Unreachable { primary: primary.to_owned(), why: "no connection could be made".to_owned() }
            }
        }
    }

    /// What an error of the driver means: a SQLSTATE where the server answered, else what the system said.
    #[must_use]
    pub fn from_server(primary: &str, error: &ServerError) -> Self {
        match error.code() {
            Some(code) => Self::from_sqlstate(primary, code),
            None => Self::Unreachable { primary: primary.to_owned(), why: system_cause(error) },
        }
    }

    fn from_sqlstate(primary: &str, code: &SqlState) -> Self {
        let primary = primary.to_owned();
        let sqlstate = code.code().to_owned();
        if [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(code) {
            Self::StartingOrStopping { primary, sqlstate }
        } else if [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION].contains(code) {
            Self::PasswordRefused { primary, sqlstate }
        } else if *code == SqlState::TOO_MANY_CONNECTIONS {
            Self::TooManyConnections { primary, sqlstate }
        } else if *code == SqlState::INVALID_CATALOG_NAME {
            Self::DatabaseMissing { primary, sqlstate }
        } else {
            Self::ServerFault { primary, sqlstate }
        }
    }
}

/// The innermost cause that the system reported, in lower case and without its error number.
fn system_cause(error: &ServerError) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(system) = inner.downcast_ref::<io::Error>() {
            let words = system.to_string();
            let words = words.split(" (os error").next().unwrap_or(&words);
            return words.to_lowercase();
        }
        cause = inner.source();
    }
    "the connection broke".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_that_an_operator_meets_has_its_own_cause() {
        let cause = |code: SqlState| NotReady::from_sqlstate("pg-a", &code).cause();

        assert_eq!(cause(SqlState::CANNOT_CONNECT_NOW), "starting_or_stopping");
        assert_eq!(cause(SqlState::ADMIN_SHUTDOWN), "starting_or_stopping");
        assert_eq!(cause(SqlState::INVALID_PASSWORD), "password_refused");
        assert_eq!(cause(SqlState::INVALID_AUTHORIZATION_SPECIFICATION), "password_refused");
        assert_eq!(cause(SqlState::TOO_MANY_CONNECTIONS), "too_many_connections");
        assert_eq!(cause(SqlState::INVALID_CATALOG_NAME), "database_missing");
        assert_eq!(cause(SqlState::DISK_FULL), "server_fault");
    }

    #[test]
    fn words_that_are_read_at_night() {
        let words = |error: StartError| format!("app: {error}; try: {}", error.remedy().unwrap_or_default());

        assert_eq!(
            words(StartError::SettingMissing { flag: "database", variable: "UNDERSTUDY_DATABASE" }),
            "app: a setting is missing: '--database'; try: --database VALUE, or UNDERSTUDY_DATABASE in the environment"
        );
        assert_eq!(
            words(StartError::PasswordFileEmpty { path: "/run/secrets/understudy/database_password".into() }),
            "app: the password file is empty: '/run/secrets/understudy/database_password'; \
             try: write the database user's password into it"
        );
        assert_eq!(
            NotReady::DeadlinePassed { primary: "pg-a".to_owned(), deadline: Duration::from_secs(1) }.to_string(),
            "the primary 'pg-a' did not answer within 1s"
        );
    }
}
