//! Connections to the nodes, as the app's user, by the addresses that the containers have at the time.
//!
//! Every step has a hard limit around it: a frozen node accepts connections and never answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use super::docker::{self, Node};

/// The longest that a connection, a question or an insert may take.
pub const LIMIT: Duration = Duration::from_secs(2);

/// The shortest time between two questions to Docker for the addresses.
const ADDRESSES_AGE: Duration = Duration::from_millis(250);

/// Role, read-only, when the server was started, and when it says so. No two servers share their start: an address that
/// Docker has given to another container meanwhile cannot make one server look like two.
const ASK: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
                   (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
                   (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// How to log in to either node.
#[derive(Debug, Clone)]
pub struct Login {
    pub nodes: Vec<Node>,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: String,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub writable: bool,
    /// The start of the server's process, in microseconds since 1970: names one life of one server.
    pub life: i64,
    /// When it looked, in microseconds since 1970. Both servers go by this host's clock.
    pub at: i64,
}

/// The containers' addresses, asked for again in the background, so that no one waits for the `docker` command.
pub struct Addresses {
    known: Arc<Mutex<BTreeMap<String, IpAddr>>>,
    ask: SyncSender<()>,
    /// What each node last said or did instead of taking writes, for the message of a failed scenario.
    trouble: Mutex<BTreeMap<String, String>>,
}

impl Addresses {
    pub fn of(login: &Login) -> Arc<Self> {
        let containers: Vec<String> = login.nodes.iter().map(|node| node.container.clone()).collect();
        let look = move || docker::addresses(&containers.iter().map(String::as_str).collect::<Vec<_>>());
        let known = Arc::new(Mutex::new(look()));
        let (ask, asked) = mpsc::sync_channel(1);
        let shared = Arc::clone(&known);
        // Ends when the last one who asks is gone.
        std::thread::spawn(move || {
            while asked.recv().is_ok() {
                *shared.lock().unwrap() = look();
                std::thread::sleep(ADDRESSES_AGE);
            }
        });
        Arc::new(Self { known, ask, trouble: Mutex::default() })
    }

    fn get(&self, node: &Node) -> Option<IpAddr> {
        self.known.lock().unwrap().get(&node.container).copied()
    }

    /// What each node last said or did instead of taking writes.
    pub fn trouble(&self) -> String {
        format!("{:?}", self.trouble.lock().unwrap())
    }

    fn note(&self, node: &Node, trouble: &str) {
        self.trouble.lock().unwrap().insert(node.name.clone(), trouble.to_owned());
    }

    /// The address did not serve: it may be another one by now.
    pub fn doubt(&self) {
        // Full: it is being asked already.
        let _ = self.ask.try_send(());
    }
}

/// The driver's words with their cause, which it leaves to `source`.
fn in_full(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// One connection; closed at once when dropped, whatever the server does.
pub struct Connection {
    client: Client,
    serving: JoinHandle<()>,
}

impl Connection {
    /// Connects within [`LIMIT`].
    pub async fn open(login: &Login, addresses: &Addresses, node: &Node) -> Result<Self, String> {
        let opening = async {
            let address = addresses.get(node).ok_or("no address")?;
            let (client, connection) = tokio_postgres::Config::new()
                .host(address.to_string())
                .port(login.port)
                .dbname(&login.database)
                .user(&login.user)
                .password(&login.password)
                .application_name("understudy-scenarios")
                .connect(NoTls)
                .await
                .map_err(|error| in_full(&error))?;
            let serving = tokio::spawn(async move {
                // The client is told of the error too.
                let _ = connection.await;
            });
            Ok(Self { client, serving })
        };
        let opened = timeout(LIMIT, opening).await.unwrap_or_else(|_| Err(format!("no connection within {LIMIT:?}")));
        if opened.is_err() {
            addresses.doubt();
        }
        opened
    }

    /// Asks, for as long as it takes.
    pub async fn ask(&self) -> Result<Answer, String> {
        let row = self.client.query_typed_one(ASK, &[]).await.map_err(|error| in_full(&error))?;
        let in_recovery: bool = row.get(0);
        let read_only: bool = row.get(1);
        Ok(Answer { writable: !in_recovery && !read_only, life: row.get(2), at: row.get(3) })
    }

    /// Runs statements within [`LIMIT`]. Sent as one simple query, whose success is told after the commit.
    pub async fn run(&self, statements: &str) -> Result<(), String> {
        self.run_within(statements, LIMIT).await
    }

    /// The same, with another limit.
    pub async fn run_within(&self, statements: &str, limit: Duration) -> Result<(), String> {
        match timeout(limit, self.client.batch_execute(statements)).await {
            Ok(done) => done.map_err(|error| in_full(&error)),
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    /// The numbers in the first column, within ten times [`LIMIT`]: a whole table may be read.
    pub async fn numbers(&self, query: &str) -> Result<Vec<i64>, String> {
        match timeout(LIMIT * 10, self.client.query_typed(query, &[])).await {
            Ok(rows) => rows.map(|rows| rows.iter().map(|row| row.get(0)).collect()).map_err(|error| in_full(&error)),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Waits at both nodes' doors at once and comes back with a connection to whichever takes writes. A frozen node keeps
/// nobody from the other. A standby's connection is kept and asked again every `retry`: it outlives the promotion.
pub async fn writable_connection(login: &Login, addresses: &Addresses, retry: Duration) -> (Node, Connection) {
    let waits = login.nodes.iter().map(|node| Box::pin(wait_at(login, addresses, node, retry)));
    futures_util::future::select_all(waits).await.0
}

async fn wait_at(login: &Login, addresses: &Addresses, node: &Node, retry: Duration) -> (Node, Connection) {
    let mut kept: Option<Connection> = None;
    loop {
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(login, addresses, node).await,
        };
        match connection {
            Ok(connection) => match timeout(LIMIT, connection.ask()).await {
                Ok(Ok(answer)) if answer.writable => return (node.clone(), connection),
                Ok(Ok(_)) => {
                    addresses.note(node, "it takes no writes");
                    kept = Some(connection);
                }
                Ok(Err(error)) => {
                    addresses.note(node, &error);
                    addresses.doubt();
                }
                Err(_) => {
                    addresses.note(node, "it does not answer");
                    addresses.doubt();
                }
            },
            Err(error) => addresses.note(node, &error),
        }
        tokio::time::sleep(retry).await;
    }
}
