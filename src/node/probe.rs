//! The witness inside the container: does the server answer over its unix socket?

use std::path::Path;
use std::time::Duration;

use crate::postgres::connection::{Host, ServerError, Target, connect, within};

/// What the witness has seen.
pub struct Testimony {
    /// The server answered, if only to refuse.
    pub alive: bool,
    /// What it said.
    pub words: String,
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
        Err(error) => return Testimony { alive: false, words: format!("the probe cannot start: {error}") },
    };
    let asked = runtime.block_on(within(deadline, async {
        let session = connect(&target, deadline).await?;
        session.simple_query("SELECT 1").await?;
        Ok(())
    }));
    match asked {
        Ok(()) => Testimony { alive: true, words: "it answers".to_owned() },
        Err(error @ (ServerError::Starting(_) | ServerError::Refusing(_))) => Testimony { alive: true, words: error.to_string() },
        Err(error @ (ServerError::Unreachable(_) | ServerError::TimedOut(_))) => Testimony { alive: false, words: error.to_string() },
    }
}
