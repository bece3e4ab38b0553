//! The client of the benchmarks: writes rows all the time and says when it could not, and when it could again.
//!
//! One program for Understudy and for every peer, so that what the client itself adds is the same for all. It finds the primary in one of two ways:
//!
//! - `--follow record`: as the app does, and by the app's own code. It reads the cluster record and connects to the node that this names.
//! - `--follow list`: as libpq does with `host=a,b target_session_attrs=read-write connect_timeout=N`: one host after the other, in the order given,
//!   each with one deadline around connecting and logging in; a host that turns out to be a standby is left for the next.
//!
//! Each row is one transaction under an id of its own. An insert that has no answer within `--answer-limit` is given up and never counted as
//! acknowledged. What it prints is one JSON object a line; its times are seconds of CLOCK_MONOTONIC, which is one clock for all programs of a
//! host, in containers too. When its standard input ends it counts which acknowledged rows are missing, and ends.
// A person reads what it prints, and an error in it has nobody else to go to.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};
use understudy::web::instruments::Instruments;
use understudy::web::primary::{Primary, Target};
use understudy::web::settings::Settings;

/// How long the final count may wait for a primary.
const COUNTING: Duration = Duration::from_secs(60);

/// Failed attempts that took less are told only when they fail in another way than the one before.
const SLOW_ATTEMPT: f64 = 0.2;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Follow {
    /// The cluster record, as the app does.
    Record,
    /// The list of hosts, as libpq does.
    List,
}

/// Write rows and say when that was not possible.
#[derive(Debug, Parser)]
struct Arguments {
    /// How the primary is found
    #[arg(long)]
    follow: Follow,
    /// The hosts to try, in this order
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT", required_if_eq("follow", "list"))]
    hosts: Vec<String>,
    /// The cluster record
    #[arg(long, default_value = "/var/lib/understudy/cluster.json")]
    record: PathBuf,
    #[arg(long)]
    database: String,
    #[arg(long)]
    user: String,
    /// File that holds the password, where one is asked for
    #[arg(long, required_if_eq("follow", "record"))]
    password_file: Option<PathBuf>,
    /// How long connecting to one host of the list may take, with logging in
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    connect_timeout: Duration,
    /// libpq's tcp_user_timeout
    #[arg(long, value_parser = humantime::parse_duration)]
    tcp_user_timeout: Option<Duration>,
    /// How long an insert may take
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    answer_limit: Duration,
    /// Between two inserts
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Between two attempts to find the primary
    #[arg(long, default_value = "20ms", value_parser = humantime::parse_duration)]
    retry: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut writer = Writer {
        run: format!("{}-{}", std::process::id(), jiff::Timestamp::now().as_microsecond()),
        answer_limit: arguments.answer_limit,
        interval: arguments.interval,
        acknowledged: Vec::new(),
        next: 0,
        last: None,
        longest_gap: 0.0,
        told: None,
    };
    let mut finder = match Finder::open(&arguments).await {
        Ok(finder) => finder,
        Err(why) => {
            eprintln!("write_client: {why}");
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        () = writer.write(&mut finder, arguments.retry) => {}
        () = end_of_input() => {}
    }
    match timeout(COUNTING, writer.count(&mut finder, arguments.retry)).await {
        Ok(there) => {
            let lost: Vec<i64> = writer.acknowledged.iter().filter(|id| !there.contains(id)).copied().collect();
            say(
                json!({ "event": "counted", "acknowledged": writer.acknowledged.len(), "lost": lost.len(), "longest_gap": writer.longest_gap }),
            );
            ExitCode::SUCCESS
        }
        Err(_) => {
            eprintln!("write_client: no primary to count on within {COUNTING:?}");
            ExitCode::FAILURE
        }
    }
}

async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: the read has no limit, and must not hold up the end of the runtime.
    std::thread::spawn(move || {
        // An error ends the input as well.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// Seconds on the clock that every program of this host shares.
fn now() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    Duration::from(time).as_secs_f64()
}

/// One line, whole and at once: whoever reads it waits for it.
fn say(line: Value) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: the end of the input, which comes with it, ends the program.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A connection to the primary.
enum Connection {
    /// From the app's pool.
    Pooled(deadpool_postgres::Object),
    /// Of its own.
    Single(Client),
}

impl Connection {
    fn client(&self) -> &Client {
        match self {
            Self::Pooled(object) => object,
            Self::Single(client) => client,
        }
    }
}

/// A host that was tried and did not serve.
struct Miss {
    host: String,
    why: String,
    seconds: f64,
}

impl Miss {
    fn since(begun: f64, host: &str, why: String) -> Self {
        Self { host: host.to_owned(), why, seconds: now() - begun }
    }
}

/// Where to look for the primary.
enum Finder {
    Record(tokio::sync::watch::Receiver<Option<Arc<Target>>>),
    List { hosts: Vec<String>, config: Box<Config>, connect_timeout: Duration },
}

impl Finder {
    async fn open(arguments: &Arguments) -> Result<Self, String> {
        match arguments.follow {
            Follow::Record => {
                let settings = Settings {
                    listen: ([127, 0, 0, 1], 0).into(),
                    record: arguments.record.clone(),
                    password_file: arguments.password_file.clone().unwrap_or_default(),
                    database: arguments.database.clone(),
                    database_user: arguments.user.clone(),
                    database_port: 5432,
                    ready_deadline: Duration::from_secs(1),
                    pool_size: 4,
                };
                let primary = Primary::open(&settings, Arc::new(Instruments::new())).await.map_err(|error| error.to_string())?;
                let targets = primary.watch();
                tokio::spawn(async move { primary.follow().await });
                Ok(Self::Record(targets))
            }
            Follow::List => {
                let mut config = Config::new();
                config.dbname(&arguments.database).user(&arguments.user).application_name("understudy-bench");
                if let Some(file) = &arguments.password_file {
                    let password = std::fs::read_to_string(file).map_err(|error| format!("cannot read '{}': {error}", file.display()))?;
                    config.password(password.trim_end());
                }
                if let Some(limit) = arguments.tcp_user_timeout {
                    config.tcp_user_timeout(limit);
                }
                Ok(Self::List { hosts: arguments.hosts.clone(), config: Box::new(config), connect_timeout: arguments.connect_timeout })
            }
        }
    }

    /// One attempt to reach the primary: the node's name with the connection, where one was made, and the hosts that did not serve before.
    async fn find(&mut self) -> (Option<(String, Connection)>, Vec<Miss>) {
        match self {
            Self::Record(targets) => {
                let target = targets.borrow_and_update().clone();
                let begun = now();
                let Some(target) = target else { return (None, vec![Miss::since(begun, "-", "the record names nobody".to_owned())]) };
                tokio::select! {
                    found = target.pool.get() => match found {
                        Ok(object) => (Some((target.primary.clone(), Connection::Pooled(object))), Vec::new()),
                        Err(error) => (None, vec![Miss::since(begun, &target.primary, in_full(&error))]),
                    },
                    _ = targets.changed() => (None, vec![Miss::since(begun, &target.primary, "the record names another".to_owned())]),
                }
            }
            Self::List { hosts, config, connect_timeout } => {
                let mut missed = Vec::new();
                for host in hosts.iter() {
                    let begun = now();
                    match open_listed(host, config, *connect_timeout).await {
                        Ok(client) => return (Some((host.clone(), Connection::Single(client))), missed),
                        Err(why) => missed.push(Miss::since(begun, host, why)),
                    }
                }
                (None, missed)
            }
        }
    }

    /// Comes back when another primary is named than the one that [`Finder::find`] went to; never for a list, which names nobody.
    async fn moved(&mut self) {
        match self {
            Self::Record(targets) => drop(targets.changed().await),
            Self::List { .. } => std::future::pending().await,
        }
    }
}

/// Connects to one host of a list, and refuses one that takes no writes. As in libpq the name is looked up outside the deadline.
async fn open_listed(host: &str, config: &Config, limit: Duration) -> Result<Client, String> {
    let addresses = tokio::net::lookup_host(host).await.map_err(|error| format!("lookup: {error}"))?;
    let mut last = "no address".to_owned();
    for address in addresses {
        let mut config = config.clone();
        config.host(address.ip().to_string()).hostaddr(address.ip()).port(address.port());
        let opening = async {
            let (client, connection) = config.connect(NoTls).await.map_err(|error| in_full(&error))?;
            // Told by the server at login since PostgreSQL 14, so that libpq asks nothing either.
            let on = |name| connection.parameter(name).is_some_and(|value| value == "on");
            if on("in_hot_standby") || on("default_transaction_read_only") {
                return Err("read-only".to_owned());
            }
            // The client is told of its end too.
            tokio::spawn(async move { drop(connection.await) });
            Ok(client)
        };
        match timeout(limit, opening).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(why)) => last = why,
            Err(_) => last = format!("no connection within {limit:?}"),
        }
    }
    Err(last)
}

/// An error with its causes, which the driver leaves to `source`.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

/// Writes, and remembers what was acknowledged.
struct Writer {
    run: String,
    answer_limit: Duration,
    interval: Duration,
    acknowledged: Vec<i64>,
    next: i64,
    /// When the last row was acknowledged.
    last: Option<f64>,
    longest_gap: f64,
    /// The last failed attempt that was told.
    told: Option<String>,
}

impl Writer {
    async fn write(&mut self, finder: &mut Finder, retry: Duration) {
        loop {
            let (host, connection) = self.connected(finder, retry).await;
            let mut first = true;
            let why = loop {
                self.next += 1;
                // An id is used once: what became of it when no acknowledgement came is not known, and not counted.
                let insert = format!("INSERT INTO bench_rows VALUES ('{}', {})", self.run, self.next);
                let written = tokio::select! {
                    written = timeout(self.answer_limit, connection.client().batch_execute(&insert)) => written,
                    () = finder.moved() => break "the record names another".to_owned(),
                };
                match written {
                    Ok(Ok(())) => {}
                    // Each run makes its table, on whichever node is primary.
                    Ok(Err(error)) if error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE) => {
                        let table = "CREATE TABLE IF NOT EXISTS bench_rows (run text, id bigint, PRIMARY KEY (run, id))";
                        // Another client may have been quicker.
                        let _ = connection.client().batch_execute(table).await;
                        continue;
                    }
                    Ok(Err(error)) => break in_full(&error),
                    Err(_) => break format!("no answer within {:?}", self.answer_limit),
                }
                self.acknowledge(&host, first);
                first = false;
                sleep(self.interval).await;
            };
            say(json!({ "event": "lost", "at": now(), "last": self.last, "host": host, "why": why }));
        }
    }

    fn acknowledge(&mut self, host: &str, first: bool) {
        let at = now();
        if let Some(last) = self.last {
            self.longest_gap = self.longest_gap.max(at - last);
        }
        if first {
            say(json!({ "event": "writing", "at": at, "last": self.last, "host": host }));
            self.told = None;
        }
        self.last = Some(at);
        self.acknowledged.push(self.next);
    }

    async fn connected(&mut self, finder: &mut Finder, retry: Duration) -> (String, Connection) {
        loop {
            let (found, missed) = finder.find().await;
            for Miss { host, why, seconds } in missed {
                let words = format!("{host}: {why}");
                if seconds >= SLOW_ATTEMPT || self.told.as_ref() != Some(&words) {
                    say(json!({ "event": "failed", "at": now(), "host": host, "why": why, "seconds": seconds }));
                    self.told = Some(words);
                }
            }
            if let Some(found) = found {
                return found;
            }
            sleep(retry).await;
        }
    }

    /// The ids of this run that are on the primary. Tries until somebody answers.
    async fn count(&mut self, finder: &mut Finder, retry: Duration) -> HashSet<i64> {
        let query = format!("SELECT id FROM bench_rows WHERE run = '{}'", self.run);
        loop {
            let (_, connection) = self.connected(finder, retry).await;
            if let Ok(Ok(rows)) = timeout(self.answer_limit * 5, connection.client().query(&query, &[])).await {
                return rows.iter().map(|row| row.get(0)).collect();
            }
            sleep(retry).await;
        }
    }
}
