//! The witness inside the container: does the server answer over its unix socket?

use std::path::Path;
use std::time::Duration;

use crate::postgres::connection::{Host, ServerError, Target, connect, within};

/// What the witness has seen.
pub struct Testimony {
    /// How the server is.
    pub life: Life,
    /// What it said, or what kept it from saying anything.
    pub words: String,
}

/// How the server is; the numbers are the probe's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It answered, if only to refuse.
    Alive = 0,
    /// It did not.
    Dead = 1,
    /// There is none yet: process 1 of the container is still this program, which makes the data directory ready.
    Preparing = 3,
}

/// Connects as the superuser, whom `peer` lets in and for whom connections are reserved, and asks the least there is to ask.
#[must_use]
pub fn probe(socket_directory: &Path, deadline: Duration) -> Testimony {
    let target = Target {
        host: Host::Socket(socket_directory.to_owned()),
        port: 5432,
        user: "postgres".to_owned(),
        password: None,
        database: "postgres".to_owned(),
        application_name: "postgres-node probe".to_owned(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Testimony { life: Life::Dead, words: format!("the probe cannot start: {error}") },
    };
    let asked = runtime.block_on(within(deadline, async {
        let session = connect(&target, deadline).await?;
        session.simple_query("SELECT 1").await?;
        Ok(())
    }));
    match asked {
        Ok(()) => Testimony { life: Life::Alive, words: "it answers".to_owned() },
        Err(error @ (ServerError::Starting(_) | ServerError::Refusing(_))) => Testimony { life: Life::Alive, words: error.to_string() },
        Err(ServerError::Unreachable(_)) if is_preparing() => {
            Testimony { life: Life::Preparing, words: "postgres-node makes the data directory ready".to_owned() }
        }
        Err(error @ (ServerError::Unreachable(_) | ServerError::TimedOut(_))) => Testimony { life: Life::Dead, words: error.to_string() },
    }
}

/// Is process 1 still this program? Becoming postgres changes its name.
fn is_preparing() -> bool {
    std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "postgres-node")
}
