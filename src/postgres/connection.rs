//! A connection to one server, with one hard deadline around the whole of connecting.
//!
//! The driver's own `connect_timeout` covers the TCP connect only: a frozen server whose kernel still accepts connections, and which never
//! answers the start-up packet, would hold a caller for ever. So the deadline here lies around connect, handshake and authentication together.

use std::net::IpAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use crate::with_causes::with_causes;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address. Nothing is resolved.
    Address(IpAddr),
    /// A host name, resolved by the system at each connection.
    Name(String),
    /// The folder of a unix socket.
    Socket(PathBuf),
}

/// A server, and as whom to connect to it.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub host: Host,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// Role to log in as.
    pub user: String,
    /// Its password, where the server asks for one. Never logged.
    pub password: Option<String>,
    /// Database to open.
    pub database: String,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

/// An open connection; dropping it also ends the driver's task, whatever state the server is in.
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A frozen server never finishes the exchange that would end the task by itself.
        self.driver.abort();
    }
}

/// Why a server did not serve a connection or a query. The kinds differ in what they say about the server's life.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The server answered that it is starting, recovering from a crash or stopping (SQLSTATE 57P03): it is alive.
    #[error("it answers that it is not ready: {0}")]
    Starting(String),
    /// The server answered and will not have us (too many connections, wrong password, database missing …): it is alive.
    #[error("it answers and refuses: {0}")]
    Refusing(String),
    /// Nothing that listens there answered.
    #[error("{0}")]
    Unreachable(String),
    /// No answer within the deadline. It says nothing about the server's state.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl From<tokio_postgres::Error> for ServerError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) if *answer.code() == SqlState::CANNOT_CONNECT_NOW => Self::Starting(answer.message().to_owned()),
            // The postmaster is going down (57P01, 57P02): its word is no evidence of life for the next second.
            Some(answer) if matches!(*answer.code(), SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN) => {
                Self::Unreachable(answer.message().to_owned())
            }
            Some(answer) => Self::Refusing(format!("{} (SQLSTATE {})", answer.message(), answer.code().code())),
            None => Self::Unreachable(with_causes(&error)),
        }
    }
}

/// Runs `work` and gives it up after `deadline`.
///
/// # Errors
/// [`ServerError::TimedOut`], or what `work` says.
pub async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, ServerError>>) -> Result<T, ServerError> {
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(ServerError::TimedOut(deadline)))
}

/// Connects and authenticates within `deadline`. Statements of the session are ended by the server after the same time, so that an abandoned query
/// does not go on there for ever.
///
/// # Errors
/// See [`ServerError`].
pub async fn connect(target: &Target, deadline: Duration) -> Result<Session, ServerError> {
    let mut config = Config::new();
    config.port(target.port).user(&target.user).dbname(&target.database).application_name(&target.application_name);
    config.options(format!("-c statement_timeout={}", deadline.as_millis()));
    match &target.host {
        Host::Address(address) => config.host(address.to_string()).hostaddr(*address),
        Host::Name(name) => config.host(name),
        Host::Socket(folder) => config.host_path(folder),
    };
    if let Some(password) = &target.password {
        config.password(password);
    }
    within(deadline, async {
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("connection ended: {error}");
            }
        });
        Ok(Session { client, driver })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: u16) -> Target {
        Target {
            host: Host::Address([127, 0, 0, 1].into()),
            port,
            user: "u".to_owned(),
            password: None,
            database: "d".to_owned(),
            application_name: "test".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_never_answers_is_given_up_at_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let started = std::time::Instant::now();
        let error = connect(&target(listener.local_addr().unwrap().port()), Duration::from_millis(200)).await.err().unwrap();
        assert_eq!(error, ServerError::TimedOut(Duration::from_millis(200)));
        assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_at_once() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = connect(&target(port), Duration::from_secs(5)).await.err().unwrap();
        assert!(matches!(&error, ServerError::Unreachable(why) if why.contains("refused")), "{error:?}");
    }
}
