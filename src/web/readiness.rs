//! Can a write be served now? One check, always over within its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use jiff::Timestamp;
use serde::Serialize;

use super::error::NotReady;
use super::instruments::Instruments;
use super::primary::{Primary, Target};

/// Answers "in recovery?" and "would a transaction be read-only?" in one round trip.
const WRITABLE: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";

/// What one check found. This is the body of `/ready`, so it holds no credentials and no message of the server.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// `ready` or `not_ready`.
    pub status: &'static str,
    /// One stable word for programs (see [`NotReady::cause`]); null when all is well.
    pub cause: Option<&'static str>,
    /// A sentence for people. Also set while ready, when the record cannot be read.
    pub reason: Option<String>,
    /// The node that was asked.
    pub primary: Option<String>,
    /// The epoch of the record that named it.
    pub epoch: Option<u64>,
    /// What the server said of itself; null when it did not answer.
    pub in_recovery: Option<bool>,
    /// What the server said of a new transaction; null when it did not answer.
    pub read_only: Option<bool>,
    /// When the check ended. Nothing is cached: this is the time of this answer.
    pub checked_at: String,
    /// How long the check took.
    pub duration_seconds: f64,
}

impl Readiness {
    /// Whether a write can be served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

/// Runs checks, and remembers only what the metrics and the log need.
#[derive(Debug)]
pub struct Checker {
    primary: Arc<Primary>,
    instruments: Arc<Instruments>,
    deadline: Duration,
    shutting_down: AtomicBool,
    was_ready: AtomicBool,
}

/// What the server said of itself.
#[derive(Debug, Clone, Copy)]
struct Answer {
    in_recovery: bool,
    read_only: bool,
}

/// A borrowed connection that goes back to the pool only when it has proved itself. A check that is abandoned at its
/// deadline, or because the client hung up, drops it in the middle of a query: such a connection is thrown away, or
/// the next borrower would wait for the same frozen server.
struct Borrowed(Option<Object>);

impl Borrowed {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

impl Checker {
    /// A checker that asks `primary`, and takes at most `deadline` for it.
    #[must_use]
    pub fn new(primary: Arc<Primary>, instruments: Arc<Instruments>, deadline: Duration) -> Self {
        Self { primary, instruments, deadline, shutting_down: AtomicBool::new(false), was_ready: AtomicBool::new(false) }
    }

    /// From now on the answer is "shutting down", whatever the primary says.
    pub fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::SeqCst);
    }

    /// One check, begun now. Concurrent ones do not wait for each other, except for a connection.
    pub async fn check(&self) -> Readiness {
        let begun = Instant::now();
        let mut targets = self.primary.watch();
        let mut asked: Option<Arc<Target>> = None;
        let result = if self.shutting_down.load(Ordering::SeqCst) {
            Err(NotReady::ShuttingDown)
        } else {
            let asking = self.ask_current(&mut targets, &mut asked);
            match tokio::time::timeout(self.deadline, asking).await {
                Ok(result) => result,
                Err(_) => Err(self.give_up(asked.as_deref())),
            }
        };
        self.answer(begun, asked.as_deref(), result)
    }

    /// Asks the node that the record names, and begins again when the record names another one meanwhile: the answer
    /// of an old primary, or its silence, is of no interest any more.
    async fn ask_current(
        &self,
        targets: &mut tokio::sync::watch::Receiver<Option<Arc<Target>>>,
        asked: &mut Option<Arc<Target>>,
    ) -> Result<Answer, NotReady> {
        loop {
            let Some(target) = targets.borrow_and_update().clone() else {
                return Err(NotReady::PrimaryUnknown {
                    fault: self.primary.fault().unwrap_or_else(|| "the record has not been read yet".to_owned()),
                });
            };
            *asked = Some(Arc::clone(&target));
            let refused = tokio::select! {
                result = ask(&target) => match result {
                    Err(refused @ NotReady::PasswordRefused { .. }) => refused,
                    result => return result,
                },
                Ok(()) = targets.changed() => continue,
            };
            self.primary.read_password_again(&target).await;
            if !targets.has_changed().unwrap_or(false) {
                return Err(refused);
            }
        }
    }

    /// What waits in the pool was made while the node still answered, and would only use up the next deadlines.
    fn give_up(&self, asked: Option<&Target>) -> NotReady {
        match asked {
            Some(target) => {
                target.pool.retain(|_, _| false);
                NotReady::DeadlinePassed { primary: target.primary.clone(), deadline: self.deadline }
            }
            None => NotReady::PrimaryUnknown { fault: "the record has not been read yet".to_owned() },
        }
    }

    fn answer(&self, begun: Instant, asked: Option<&Target>, result: Result<Answer, NotReady>) -> Readiness {
        let said = result.as_ref().ok().copied();
        let not_ready = match result {
            Ok(_) if self.shutting_down.load(Ordering::SeqCst) => Some(NotReady::ShuttingDown),
            Ok(answer) => answer.refusal(asked),
            Err(not_ready) => Some(not_ready),
        };
        let duration = begun.elapsed();
        let now = Timestamp::now();
        let ready = not_ready.is_none();
        self.note(ready, not_ready.as_ref(), duration, now);
        Readiness {
            status: if ready { "ready" } else { "not_ready" },
            cause: not_ready.as_ref().map(NotReady::cause),
            reason: self.reason(not_ready.as_ref()),
            primary: asked.map(|target| target.primary.clone()),
            epoch: asked.map(|target| target.epoch),
            in_recovery: said.map(|answer| answer.in_recovery),
            read_only: said.map(|answer| answer.read_only),
            checked_at: format!("{now:.6}"),
            duration_seconds: duration.as_secs_f64(),
        }
    }

    fn reason(&self, not_ready: Option<&NotReady>) -> Option<String> {
        let kept = self.primary.fault().map(|fault| format!("{fault}; the last known primary is kept"));
        match (not_ready, kept) {
            (Some(unknown @ NotReady::PrimaryUnknown { .. }), _) => Some(unknown.to_string()),
            (Some(not_ready), Some(kept)) => Some(format!("{not_ready}; {kept}")),
            (Some(not_ready), None) => Some(not_ready.to_string()),
            (None, kept) => kept,
        }
    }

    fn note(&self, ready: bool, not_ready: Option<&NotReady>, duration: Duration, now: Timestamp) {
        self.instruments.ready.set(i64::from(ready));
        self.instruments.ready_checked.set(now.as_duration().as_secs_f64());
        self.instruments.ready_check_duration.observe(duration.as_secs_f64());
        // Only changes are logged: probes come every second.
        if self.was_ready.swap(ready, Ordering::SeqCst) != ready {
            match not_ready {
                None => log::info!("ready"),
                Some(why) => log::warn!("not ready: {why}"),
            }
        }
    }

    /// Refreshes the gauges of the pool, which change without a check.
    pub fn note_pool(&self) {
        let target = self.primary.watch().borrow().clone();
        let (connections, size) = target.map_or((0, 0), |target| {
            let status = target.pool.status();
            (status.size, status.max_size)
        });
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.instruments.pool_connections.set(gauge(connections));
        self.instruments.pool_size.set(gauge(size));
    }
}

impl Answer {
    fn refusal(self, asked: Option<&Target>) -> Option<NotReady> {
        let primary = asked.map_or_else(String::new, |target| target.primary.clone());
        if self.in_recovery {
            Some(NotReady::InRecovery { primary })
        } else if self.read_only {
            Some(NotReady::ReadOnly { primary })
        } else {
            None
        }
    }
}

/// Borrows a connection and asks. Has no deadline of its own.
async fn ask(target: &Target) -> Result<Answer, NotReady> {
    let connection = target.pool.get().await.map_err(|error| NotReady::from_pool(&target.primary, &error))?;
    let borrowed = Borrowed(Some(connection));
    let Some(connection) = &borrowed.0 else {
        unreachable!("it was put there one line above");
    };
    let server = |error| NotReady::from_server(&target.primary, &error);
    let row = connection.query_typed_one(WRITABLE, &[]).await.map_err(server)?;
    let answer = Answer { in_recovery: row.try_get(0).map_err(server)?, read_only: row.try_get::<_, &str>(1).map_err(server)? == "on" };
    borrowed.give_back();
    Ok(answer)
}
