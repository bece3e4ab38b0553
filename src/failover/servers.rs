//! What the rest of `failover-check` may ask of and do to a node's PostgreSQL server. The flow tests put a fake in its place.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::settings::Login;
use crate::postgres::connection::{ServerError, Session, connect, within};
use crate::postgres::promote;
use crate::postgres::status::{self, ServerStatus};
use crate::postgres::timeline::Timelines;
use crate::record::NodeName;

/// Longest wait for a forced checkpoint. On a busy server with much memory it takes tens of seconds.
const CHECKPOINT: Duration = Duration::from_secs(120);

/// Longest wait for a setting to be written and reloaded.
const SETTING: Duration = Duration::from_secs(3);

/// How often a loop of passes logs in anew. A log-in by SCRAM is 16,384 rounds of SHA-256, four fifths of what a quiet pass costs; but only a log-in shows that
/// others can still come in (connection slots, `pg_hba.conf`, a postmaster that is stopped alone), and what `ALTER ROLE` and `ALTER DATABASE` have set since.
pub const LOG_IN_EVERY: Duration = Duration::from_secs(5);

/// What can be asked of and done to a server, by its address. Every call comes back within a bounded time.
// The program runs on one thread and spawns none of these futures, so they need not be `Send`.
#[allow(async_fn_in_trait)]
pub trait Servers {
    /// What it says of itself, within the probe deadline. By a log-in, unless one succeeded within [`LOG_IN_EVERY`] and its session still answers.
    ///
    /// # Errors
    /// See [`ServerError`].
    async fn ask(&self, at: IpAddr) -> Result<ServerStatus, ServerError>;

    /// What it says of itself, perhaps over the connection of the last question to it: for a server that was found alive a moment ago, where another log-in
    /// would only cost time.
    ///
    /// # Errors
    /// See [`ServerError`].
    async fn ask_again(&self, at: IpAddr) -> Result<ServerStatus, ServerError> {
        self.ask(at).await
    }

    /// Asks it to leave recovery, and waits for that for about the probe deadline.
    ///
    /// # Errors
    /// See [`ServerError`]; the request may have been heard even so.
    async fn promote(&self, at: IpAddr) -> Result<(), ServerError>;

    /// Takes back what [`Servers::promote`] did to be noticed at once.
    ///
    /// # Errors
    /// See [`ServerError`].
    async fn relax(&self, at: IpAddr) -> Result<(), ServerError>;

    /// Over a fresh connection: does it take writes?
    ///
    /// # Errors
    /// See [`ServerError`].
    async fn is_writable(&self, at: IpAddr) -> Result<bool, ServerError>;

    /// Sets which standby commits wait for; none: they wait for nobody. The server may go on acknowledging by the old setting until [`Servers::settle`].
    ///
    /// # Errors
    /// See [`ServerError`].
    async fn set_synchronous_standby(&self, at: IpAddr, standby: Option<&NodeName>) -> Result<(), ServerError>;

    /// Comes back when no commit is acknowledged any more by a setting older than the last reload.
    ///
    /// # Errors
    /// See [`ServerError`].
    async fn settle(&self, at: IpAddr) -> Result<(), ServerError>;

    /// The timelines that lead to its current one; only a primary knows.
    ///
    /// # Errors
    /// See [`ServerError`].
    async fn timelines(&self, at: IpAddr) -> Result<Timelines, ServerError>;

    /// Has it make a checkpoint, and waits for that at most `limit`.
    ///
    /// # Errors
    /// See [`ServerError`].
    async fn checkpoint(&self, at: IpAddr, limit: Duration) -> Result<(), ServerError>;
}

/// The servers of the pair, over TCP.
pub struct PairServers {
    login: Login,
    deadline: Duration,
    /// For each server the session of the last question that it answered. A failover goes on with the standby's: each log-in costs some ten milliseconds in which
    /// nobody can write.
    kept: RefCell<HashMap<IpAddr, Kept>>,
}

struct Kept {
    session: Session,
    logged_in: Instant,
}

impl PairServers {
    /// How to log in, and the one hard deadline around each whole probe. Connects to nothing yet.
    #[must_use]
    pub fn new(login: Login, deadline: Duration) -> Self {
        Self { login, deadline, kept: RefCell::default() }
    }

    /// Taken out: only an answer brings it back, so that whatever goes wrong leads to a log-in.
    fn take_kept(&self, at: IpAddr) -> Option<Kept> {
        // One that has ended since is no answer of the server.
        self.kept.borrow_mut().remove(&at).filter(|kept| !kept.session.is_closed())
    }

    /// One deadline around all of it: a server that is silent to the kept session is not asked twice.
    async fn status(&self, at: IpAddr, kept: Option<Kept>) -> Result<ServerStatus, ServerError> {
        within(self.deadline, async {
            let again = match kept {
                Some(kept) => status::status(&kept.session).await.ok().map(|status| (status, kept)),
                None => None,
            };
            let (status, kept) = match again {
                Some(answer) => answer,
                None => {
                    let session = connect(&self.login.at(at), self.deadline).await?;
                    (status::status(&session).await?, Kept { session, logged_in: Instant::now() })
                }
            };
            self.kept.borrow_mut().insert(at, kept);
            Ok(status)
        })
        .await
    }
}

impl Servers for PairServers {
    async fn ask(&self, at: IpAddr) -> Result<ServerStatus, ServerError> {
        self.status(at, self.take_kept(at).filter(|kept| kept.logged_in.elapsed() < LOG_IN_EVERY)).await
    }

    async fn ask_again(&self, at: IpAddr) -> Result<ServerStatus, ServerError> {
        self.status(at, self.take_kept(at)).await
    }

    async fn promote(&self, at: IpAddr) -> Result<(), ServerError> {
        within(self.deadline, async {
            let session = match self.take_kept(at) {
                Some(kept) => kept.session,
                None => connect(&self.login.at(at), self.deadline).await?,
            };
            promote::promote(&session).await
        })
        .await
    }

    async fn relax(&self, at: IpAddr) -> Result<(), ServerError> {
        promote::relax(&self.login.at(at), SETTING).await
    }

    async fn is_writable(&self, at: IpAddr) -> Result<bool, ServerError> {
        promote::is_writable(&self.login.at(at), self.deadline).await
    }

    async fn set_synchronous_standby(&self, at: IpAddr, standby: Option<&NodeName>) -> Result<(), ServerError> {
        // The node's name holds a hyphen, so the list needs quotes; NodeName allows nothing that would need escaping.
        let value = standby.map(|name| format!("\"{name}\"")).unwrap_or_default();
        within(SETTING, async {
            let session = connect(&self.login.at(at), SETTING).await?;
            session.simple_query(&format!("ALTER SYSTEM SET synchronous_standby_names = '{value}'")).await?;
            session.simple_query("SELECT pg_catalog.pg_reload_conf()").await?;
            Ok(())
        })
        .await
    }

    /// Whether a commit waits is decided by a flag in shared memory (`WalSndCtl`) that only the checkpointer sets, when it has noticed the reload
    /// (`SyncRepUpdateSyncStandbysDefined` in PostgreSQL's `syncrep.c`). The walsender that shows `sync` notices by itself, so `sync` can be shown while
    /// commits are still acknowledged without waiting: for tens of seconds, if the checkpointer is in the middle of syncing files. A checkpoint that
    /// was asked for after the reload reached the server's processes proves that the checkpointer has been through its main loop. A fresh connection
    /// comes first, since the postmaster accepts one only after it has passed the reload on to all; and two checkpoints, since the first request
    /// may meet a checkpointer that has looked at its signals and not yet at its requests.
    async fn settle(&self, at: IpAddr) -> Result<(), ServerError> {
        within(CHECKPOINT, async {
            let session = connect(&self.login.at(at), CHECKPOINT).await?;
            session.simple_query("CHECKPOINT").await?;
            session.simple_query("CHECKPOINT").await?;
            Ok(())
        })
        .await
    }

    async fn timelines(&self, at: IpAddr) -> Result<Timelines, ServerError> {
        let odd = |why: String| ServerError::Refusing(format!("an odd answer about its timelines: {why}"));
        within(SETTING, async {
            let session = connect(&self.login.at(at), SETTING).await?;
            // By the log and not by the control file, which tells of a promotion only at the next checkpoint.
            let name = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())";
            let name: String = session.query_one(name, &[]).await?.try_get(0)?;
            let digits = name.get(..8).unwrap_or_default();
            let current = u32::from_str_radix(digits, 16).map_err(|error| odd(error.to_string()))?;
            if current == 1 {
                return Ok(Timelines { ended: Vec::new(), current });
            }
            let history = "SELECT pg_catalog.pg_read_binary_file($1)";
            let history: Vec<u8> = session.query_one(history, &[&format!("pg_wal/{digits}.history")]).await?.try_get(0)?;
            Timelines::from_history(&String::from_utf8_lossy(&history), current).map_err(|error| odd(error.to_string()))
        })
        .await
    }

    async fn checkpoint(&self, at: IpAddr, limit: Duration) -> Result<(), ServerError> {
        within(limit, async {
            let session = connect(&self.login.at(at), limit).await?;
            session.simple_query("CHECKPOINT").await?;
            Ok(())
        })
        .await
    }
}
