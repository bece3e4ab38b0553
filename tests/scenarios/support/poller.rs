//! Watches whether two nodes ever take writes at the same time.
//!
//! Each node is asked about every 20 ms, in a thread of its own, so that a frozen one does not slow the other's down.
//! An answer carries the moment at which the server looked at itself, by the clock that both servers share with this
//! host. Between two answers "writable" of the same life of a server (its process was not restarted) it was writable
//! all the time: a primary does not go back to recovery without a restart. So each life has one span, from its first to
//! its last writable answer, and two lives whose spans overlap, or interleave, were writable at once.
//!
//! A question that a frozen server leaves open is kept open beside a new connection: should the server come back to
//! life and answer late, that answer counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::docker::Node;
use super::server::{Addresses, Connection, Login};

/// Between two questions to one node.
const EVERY: Duration = Duration::from_millis(20);

/// How long a question holds up the next one.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a question stays open in all.
const LATE: Duration = Duration::from_secs(120);

/// The span in which one life of one server was writable.
#[derive(Debug, Clone)]
struct Span {
    node: String,
    /// In microseconds since 1970.
    from: i64,
    /// In microseconds since 1970.
    to: i64,
    answers: usize,
}

#[derive(Debug, Default)]
struct Seen {
    spans: BTreeMap<i64, Span>,
    answers: usize,
}

/// What the polling has shown.
#[derive(Debug)]
pub struct Report {
    /// The most nodes that were writable at one time.
    pub most_writable: usize,
    /// Which, when there was more than one.
    pub proof: String,
    answers: usize,
    lives: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} writable at once at most, in {} answers of {} writable lives", self.most_writable, self.answers, self.lives)
    }
}

/// Polls until it is stopped.
pub struct WritablePoller {
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl WritablePoller {
    pub fn start(login: &Login) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = watch::channel(false);
        let threads = login
            .nodes
            .iter()
            .map(|node| {
                let (login, node) = (login.clone(), node.clone());
                let (seen, mut stopped) = (Arc::clone(&seen), stopped.clone());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        tokio::select! {
                            () = poll(&login, &node, &seen) => {}
                            _ = stopped.wait_for(|stop| *stop) => {}
                        }
                    });
                })
            })
            .collect();
        Self { seen, stop, threads }
    }

    /// What the polling has shown so far.
    pub fn report(&self) -> Report {
        let seen = self.seen.lock().unwrap();
        let spans: Vec<&Span> = seen.spans.values().collect();
        let (most_writable, proof) = overlap(&spans);
        Report { most_writable, proof, answers: seen.answers, lives: spans.len() }
    }

    pub fn stop(mut self) -> Report {
        self.end();
        self.report()
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !std::thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for WritablePoller {
    fn drop(&mut self) {
        self.end();
    }
}

/// The most spans that share a moment, and which. The most is reached at the beginning of one of them.
fn overlap(spans: &[&Span]) -> (usize, String) {
    let begun = spans.iter().map(|span| span.from).min().unwrap_or_default();
    let millis = |at: i64| (at - begun) / 1000;
    let mut most = (0, String::new());
    for moment in spans.iter().map(|span| span.from) {
        let at_once: Vec<&&Span> = spans.iter().filter(|span| span.from <= moment && moment <= span.to).collect();
        if at_once.len() > most.0 {
            let proof = at_once
                .iter()
                .map(|span| format!("{} from {} ms to {} ms ({} answers)", span.node, millis(span.from), millis(span.to), span.answers));
            most = (at_once.len(), proof.collect::<Vec<_>>().join(" and "));
        }
    }
    most
}

/// Asks one node for ever.
async fn poll(login: &Login, node: &Node, seen: &Arc<Mutex<Seen>>) {
    let addresses = Addresses::of(login);
    let mut kept: Option<Connection> = None;
    loop {
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(login, &addresses, node).await,
        };
        if let Ok(connection) = connection {
            // A task of its own: given up here, it still waits for the answer.
            let asking = tokio::spawn(ask(connection, node.name.clone(), Arc::clone(seen)));
            if let Ok(Ok(Some(connection))) = timeout(PATIENCE, asking).await {
                kept = Some(connection);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Asks once, and notes a writable answer. Gives the connection back when it still serves.
async fn ask(connection: Connection, node: String, seen: Arc<Mutex<Seen>>) -> Option<Connection> {
    let answer = timeout(LATE, connection.ask()).await.ok()?.ok()?;
    let mut seen = seen.lock().unwrap();
    seen.answers += 1;
    if answer.writable {
        let span = seen.spans.entry(answer.life).or_insert(Span { node, from: answer.at, to: answer.at, answers: 0 });
        span.from = span.from.min(answer.at);
        span.to = span.to.max(answer.at);
        span.answers += 1;
    }
    Some(connection)
}

/// The judge is judged too: these need no installation.
#[cfg(test)]
mod tests {
    use super::*;

    fn most(spans: &[(&str, i64, i64)]) -> usize {
        let spans: Vec<Span> =
            spans.iter().map(|(node, from, to)| Span { node: (*node).to_owned(), from: *from, to: *to, answers: 1 }).collect();
        overlap(&spans.iter().collect::<Vec<_>>()).0
    }

    #[test]
    fn one_after_the_other_is_one_and_anything_that_overlaps_is_two() {
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[("pg-a", 0, 100)]), 1);
        assert_eq!(most(&[("pg-a", 0, 100), ("pg-b", 101, 200), ("pg-a", 201, 300)]), 1);
        assert_eq!(most(&[("pg-a", 0, 100), ("pg-b", 99, 200)]), 2);
        assert_eq!(most(&[("pg-a", 0, 1000), ("pg-b", 500, 501)]), 2);
        assert_eq!(most(&[("pg-b", 500, 501), ("pg-a", 0, 1000)]), 2);
    }
}
