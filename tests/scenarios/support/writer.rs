//! A client that writes all the time, follows the primary by itself, and remembers exactly what was acknowledged.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::server::{Addresses, Connection, Login, writable_connection};

/// How long the final count may wait for a primary.
const COUNTING: Duration = Duration::from_secs(30);

/// How fast the writer writes, and comes back.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two inserts.
    pub between_rows: Duration,
    /// Between two attempts to find a writable node.
    pub retry: Duration,
}

impl Pace {
    /// For the scenarios: a row every few milliseconds.
    pub const STEADY: Self = Self { between_rows: Duration::from_millis(10), retry: Duration::from_millis(20) };
    /// For the measurement: what the writer itself adds is a few milliseconds.
    pub const EAGER: Self = Self { between_rows: Duration::from_millis(5), retry: Duration::from_millis(5) };
}

/// A row whose commit the server has acknowledged.
#[derive(Debug)]
struct Acknowledged {
    id: i64,
    at: Instant,
    /// The node that acknowledged it.
    node: String,
    /// The writer was told to hold before it: what lies between is no outage.
    held: bool,
}

/// What came of all the writing.
#[derive(Debug)]
pub struct Report {
    pub acknowledged: usize,
    /// Acknowledged, and not there any more.
    pub lost: Vec<i64>,
    /// The longest time without an acknowledged row although one was to be written.
    pub longest_gap: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} rows acknowledged, {} lost, longest gap {:.3} s",
            self.acknowledged,
            self.lost.len(),
            self.longest_gap.as_secs_f64()
        )
    }
}

/// What the writer is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Write,
    Hold,
    Stop,
}

/// Writes in a thread of its own until it is stopped.
pub struct Writer {
    login: Login,
    run: String,
    rows: Arc<Mutex<Vec<Acknowledged>>>,
    order: watch::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Makes the table and begins. Each run writes under its own name.
    pub fn start(login: &Login, name: &str, pace: Pace) -> Self {
        let begun = Timestamp::now();
        let run = format!("{name} {begun}");
        let rows = Arc::new(Mutex::new(Vec::new()));
        let (order, orders) = watch::channel(Order::Write);
        block_on(make_table(login));
        let thread = std::thread::spawn({
            let (login, run, rows) = (login.clone(), run.clone(), Arc::clone(&rows));
            let first = begun.as_microsecond();
            move || block_on(write(&login, &run, first, pace, &rows, orders))
        });
        Self { login: login.clone(), run, rows, order, thread: Some(thread) }
    }

    /// From now on no row is written, until this is taken back.
    pub fn hold(&self, hold: bool) {
        self.order.send_replace(if hold { Order::Hold } else { Order::Write });
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    /// When `node` acknowledged its first row after `since`.
    pub fn first_by(&self, node: &str, since: Instant) -> Option<Instant> {
        self.rows.lock().unwrap().iter().find(|row| row.node == node && row.at > since).map(|row| row.at)
    }

    /// From the row before `node`'s first one after `since`, to that one.
    pub fn outage_until(&self, node: &str, since: Instant) -> Option<Duration> {
        let rows = self.rows.lock().unwrap();
        let first = rows.iter().position(|row| row.node == node && row.at > since)?;
        let before = first.checked_sub(1).and_then(|last| rows.get(last))?;
        Some(rows[first].at - before.at)
    }

    /// When the last row before `moment` was acknowledged.
    pub fn last_before(&self, moment: Instant) -> Option<Instant> {
        self.rows.lock().unwrap().iter().rev().map(|row| row.at).find(|at| *at < moment)
    }

    /// Ends the writing and counts on the primary what is there.
    pub fn stop(mut self) -> Report {
        self.end();
        let rows = std::mem::take(&mut *self.rows.lock().unwrap());
        let there = block_on(count(&self.login, &self.run));
        let gaps = rows.windows(2).filter(|pair| !pair[1].held).map(|pair| pair[1].at - pair[0].at);
        let longest_gap = gaps.max().unwrap_or_default();
        Report { acknowledged: rows.len(), lost: rows.iter().map(|row| row.id).filter(|id| !there.contains(id)).collect(), longest_gap }
    }

    fn end(&mut self) {
        self.order.send_replace(Order::Stop);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// On whichever node takes writes. The rows of earlier runs are of no use any more.
async fn make_table(login: &Login) {
    let made = on_the_primary(login, |connection| async move {
        connection
            .run(
                "CREATE TABLE IF NOT EXISTS scenario_rows (id bigint PRIMARY KEY, run text NOT NULL); \
                 DELETE FROM scenario_rows",
            )
            .await
    });
    made.await;
}

async fn count(login: &Login, run: &str) -> HashSet<i64> {
    let ids = on_the_primary(login, |connection| async move {
        connection.numbers(&format!("SELECT id FROM scenario_rows WHERE run = '{run}'")).await
    });
    ids.await.into_iter().collect()
}

/// Tries until it succeeds, within [`COUNTING`].
async fn on_the_primary<T, F>(login: &Login, work: impl Fn(Connection) -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let addresses = Addresses::of(login);
    let mut last = String::new();
    let trying = async {
        loop {
            let (node, connection) = writable_connection(login, &addresses, Pace::STEADY.retry).await;
            match work(connection).await {
                Ok(done) => return done,
                Err(error) => last = format!("{}: {error}", node.name),
            }
            tokio::time::sleep(Pace::STEADY.retry).await;
        }
    };
    match timeout(COUNTING, trying).await {
        Ok(done) => done,
        Err(_) => panic!("the primary could not be asked within {COUNTING:?}: {last} {}", addresses.trouble()),
    }
}

async fn write(login: &Login, run: &str, first: i64, pace: Pace, rows: &Mutex<Vec<Acknowledged>>, orders: watch::Receiver<Order>) {
    let addresses = Addresses::of(login);
    let (mut held, mut stopped) = (orders.clone(), orders);
    let mut id = first;
    let mut held_before = false;
    let writing = async {
        loop {
            let (node, connection) = writable_connection(login, &addresses, pace.retry).await;
            loop {
                held_before |= *held.borrow() == Order::Hold;
                // It fails only when the writer is gone, and then the stop below comes first.
                let _ = held.wait_for(|order| *order != Order::Hold).await;
                id += 1;
                // An id is used once: what became of it when no acknowledgement came is not known, and not counted.
                let insert = format!("BEGIN; INSERT INTO scenario_rows VALUES ({id}, '{run}'); COMMIT");
                if connection.run(&insert).await.is_err() {
                    break;
                }
                rows.lock().unwrap().push(Acknowledged { id, at: Instant::now(), node: node.name.clone(), held: held_before });
                held_before = false;
                tokio::time::sleep(pace.between_rows).await;
            }
            addresses.doubt();
            tokio::time::sleep(pace.retry).await;
        }
    };
    tokio::select! {
        () = writing => {}
        _ = stopped.wait_for(|order| *order == Order::Stop) => {}
    }
}
