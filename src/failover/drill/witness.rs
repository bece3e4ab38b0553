//! What a drill sees from outside: a client that writes and remembers what was acknowledged, and a poller that counts the nodes that take writes.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::failover::pass::Checker;
use crate::failover::runtime::{ContainerState, Runtime};
use crate::failover::settings::Login;
use crate::postgres::connection::{ServerError, Session, connect, within};
use crate::record::{NodeName, RecordStore};

/// Between two rows, and between two attempts to reach the primary: what the client itself adds to an outage is a few milliseconds.
const PACE: Duration = Duration::from_millis(5);
/// Between two looks at both nodes.
const POLL: Duration = Duration::from_millis(25);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_millis(300);
/// How long a row may wait for its acknowledgement before the client looks for the primary again.
const ACKNOWLEDGE: Duration = Duration::from_secs(1);
/// How long making, counting and removing the table may take.
const TABLE: Duration = Duration::from_secs(10);

/// A row whose commit was acknowledged.
#[derive(Debug, Clone)]
pub struct Row {
    /// Never used twice: what became of a row without an acknowledgement is not known, and not counted.
    pub id: i64,
    /// When the acknowledgement came.
    pub at: Instant,
    /// From whom.
    pub node: NodeName,
}

/// Both.
pub struct Witness<'a> {
    checker: &'a Checker,
    client: Login,
    rows: RefCell<Vec<Row>>,
    most_writable: Cell<usize>,
    ended: Cell<bool>,
}

impl<'a> Witness<'a> {
    /// A client that logs in as `client`. Does nothing yet.
    #[must_use]
    pub fn new(checker: &'a Checker, client: Login) -> Self {
        Self { checker, client, rows: RefCell::new(Vec::new()), most_writable: Cell::new(0), ended: Cell::new(false) }
    }

    /// Writes and polls until [`Witness::end`].
    pub async fn look(&self) {
        tokio::join!(self.write(), self.poll());
    }

    /// No more rows.
    pub fn end(&self) {
        self.ended.set(true);
    }

    /// The acknowledged rows so far.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.rows.borrow().clone()
    }

    /// How many there are.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.rows.borrow().len()
    }

    /// How many nodes were seen to take writes at once, at most.
    #[must_use]
    pub fn most_writable(&self) -> usize {
        self.most_writable.get()
    }

    /// Makes the table, in a schema of its own, instead of what a drill has left that was ended before its end.
    ///
    /// # Errors
    /// The server's answer.
    pub async fn make_table(&self) -> Result<(), String> {
        self.on_the_primary(async |session| {
            let make = "DROP SCHEMA IF EXISTS understudy_drill CASCADE; CREATE SCHEMA understudy_drill; \
                 CREATE TABLE understudy_drill.rows (id bigint PRIMARY KEY)";
            session.batch_execute(make).await.map_err(ServerError::from)
        })
        .await
    }

    /// Which of the acknowledged rows are gone.
    ///
    /// # Errors
    /// The server's answer.
    pub async fn lost(&self) -> Result<Vec<i64>, String> {
        let there: HashSet<i64> = self
            .on_the_primary(async |session| {
                let found = session.query("SELECT id FROM understudy_drill.rows", &[]).await?;
                found.iter().map(|row| row.try_get(0).map_err(ServerError::from)).collect()
            })
            .await?;
        Ok(self.rows.borrow().iter().map(|row| row.id).filter(|id| !there.contains(id)).collect())
    }

    /// Takes the table and its schema away.
    ///
    /// # Errors
    /// The server's answer.
    pub async fn remove_table(&self) -> Result<(), String> {
        self.on_the_primary(async |session| {
            session.batch_execute("DROP SCHEMA IF EXISTS understudy_drill CASCADE").await.map_err(ServerError::from)
        })
        .await
    }

    async fn on_the_primary<T>(&self, work: impl AsyncFnOnce(&Session) -> Result<T, ServerError>) -> Result<T, String> {
        let done = within(TABLE, async {
            let (_, session) = self.connect(TABLE).await?;
            work(&session).await
        });
        done.await.map_err(|error| error.to_string())
    }

    /// Connects to the node that the record names, as the app does.
    async fn connect(&self, deadline: Duration) -> Result<(NodeName, Session), ServerError> {
        let unknown = |why: String| ServerError::Unreachable(why);
        let node = self.checker.store.load().map_err(|error| unknown(error.to_string()))?.primary;
        let at = self.checker.actor().address(&node).await.map_err(|error| unknown(error.to_string()))?;
        Ok((node, connect(&self.client.at(at), deadline).await?))
    }

    async fn write(&self) {
        let mut id = Timestamp::now().as_microsecond();
        while !self.ended.get() {
            if let Ok((node, session)) = self.connect(CONNECT).await {
                while !self.ended.get() {
                    id += 1;
                    let insert =
                        within(ACKNOWLEDGE, async { Ok(session.execute("INSERT INTO understudy_drill.rows VALUES ($1)", &[&id]).await?) });
                    if insert.await.is_err() {
                        break;
                    }
                    self.rows.borrow_mut().push(Row { id, at: Instant::now(), node: node.clone() });
                    sleep(PACE).await;
                }
            }
            sleep(PACE).await;
        }
    }

    async fn poll(&self) {
        let nodes: Vec<&String> = self.checker.settings.nodes.values().collect();
        while !self.ended.get() {
            let looks = nodes.iter().map(|container| self.takes_writes(container));
            let writable = futures_util::future::join_all(looks).await.into_iter().filter(|takes| *takes).count();
            self.most_writable.set(self.most_writable.get().max(writable));
            sleep(POLL).await;
        }
    }

    /// Whether a node was seen out of recovery. One that gives no answer was not.
    async fn takes_writes(&self, container: &str) -> bool {
        let Ok(ContainerState::Running { address: Some(at), paused: false, .. }) = self.checker.runtime.inspect(container).await else {
            return false;
        };
        let asked = within(CONNECT, async {
            let session = connect(&self.checker.settings.login.at(at), CONNECT).await?;
            Ok(session.query_one("SELECT NOT pg_catalog.pg_is_in_recovery()", &[]).await?.try_get(0)?)
        });
        asked.await.unwrap_or(false)
    }
}
