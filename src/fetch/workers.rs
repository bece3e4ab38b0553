//! Carries a plan out: so many files at a time, so many of one host, until all have ended or everything has to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::company::Company;
use super::error::Error;
use super::network::Network;
use super::part::sync_directory;
use super::plan::{Job, Plan, Step};
use super::progress::{Meter, Progress};
use super::queue::Queue;
use super::report::{Outcome, Row};
use super::settings::Settings;
use super::transfer::{Received, Unreceived, World, blocking, finish, finish_together, receive};

/// Files that are made durable, or wait for it in memory, beside those that come: a disk writes many down at once in hardly more time than one.
const FINISHING: usize = 64;
/// Files that are there already whose checksums are looked at, at a time.
const VERIFYING: usize = 4;

/// A timer of the runtime that ends before that of any request. Were there none, each request's would wake the runtime to look at it: two system calls a file.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What came of one file, on its way.
enum Ended {
    Received(Result<Received, Unreceived>),
    /// It got no name together with others.
    Left(Received),
    Finished {
        result: Result<(), Error>,
        size: u64,
        resumed: bool,
        remark: Option<String>,
    },
    Verified {
        result: Result<(), Error>,
        size: u64,
    },
}

/// What comes back from where it was done.
enum Arrival {
    One(Box<(Task, Ended)>),
    /// Small files that were finished together.
    Company(Vec<(Task, Ended)>),
}

/// A file on its way.
struct Task {
    /// Which entry of the plan it is.
    number: usize,
    job: Job,
    /// Its host, while it counts against that.
    host: String,
    meter: Arc<Meter>,
    begun: Instant,
}

/// Carries a plan out. `interrupt` ends when a person wants it to end. Rows come in the order of the plan.
///
/// # Errors
/// The network cannot be prepared. In words.
pub async fn run(plan: &Plan, settings: &Settings, progress: &Progress, interrupt: impl Future<Output = ()>) -> Result<Vec<Row>, String> {
    let (stop, stopped) = watch::channel(None);
    let deadline = settings.deadline.map(|deadline| Instant::now() + deadline);
    let world = Arc::new(World { network: Network::new(settings)?, settings: settings.clone(), deadline, stop: stopped });
    let mut rows: Vec<Option<Row>> = plan.entries.iter().map(|_| None).collect();
    let mut running: JoinSet<Arrival> = JoinSet::new();
    let mut company = Company::default();
    let mut queue = Queue::new(settings.per_host);
    let verifying = Arc::new(Semaphore::new(VERIFYING));
    queue.extend(plan.entries.iter().enumerate().filter_map(|(number, entry)| match &entry.step {
        Step::Fetch(job) => Some((job.address.host(), (number, job.clone()))),
        _ => None,
    }));
    for (number, entry) in plan.entries.iter().enumerate() {
        let row = |outcome, size| Row::of(&entry.shown, entry.name.as_deref(), size, outcome);
        match &entry.step {
            Step::Fetch(_) => {}
            Step::Keep(size) => rows[number] = Some(row(Outcome::Present, Some(*size))),
            Step::Refuse(error) => {
                rows[number] = Some(row(Outcome::Failed(error.clone()), None));
            }
            Step::Verify(job, size) => {
                let task = Task {
                    number,
                    job: job.clone(),
                    host: String::new(),
                    meter: Arc::new(progress.begin(&job.name)),
                    begun: Instant::now(),
                };
                running.spawn(verified(Arc::clone(&world), Arc::clone(&verifying), task, *size));
            }
        }
        if let Some(row) = &rows[number] {
            progress.tell(row);
        }
    }

    tokio::pin!(interrupt);
    let mut heartbeat = interval(HEARTBEAT);
    let (mut coming, mut finishing) = (0, 0);
    let mut ends = false;
    loop {
        while !ends
            && coming < settings.jobs
            && finishing < FINISHING
            && let Some((host, (number, job))) = queue.take()
        {
            let task = Task { number, meter: Arc::new(progress.begin(&job.name)), job, host, begun: Instant::now() };
            running.spawn(received(Arc::clone(&world), task));
            coming += 1;
        }
        if let Some(group) = company.go(Instant::now(), coming > 0) {
            let settings = settings.clone();
            running.spawn_blocking(move || Arrival::Company(together(&settings, group)));
        }
        let arrival = tokio::select! {
            joined = running.join_next() => match joined {
                None => break,
                Some(Ok(arrival)) => arrival,
                Some(Err(error)) => return Err(format!("a transfer ended by itself: {error}; try: tell its authors")),
            },
            () = until(company.goes_at()) => continue,
            _ = heartbeat.tick() => continue,
            () = &mut interrupt, if !ends => {
                ends = true;
                let _ = stop.send(Some(Error::Interrupted));
                continue;
            }
            () = until(deadline), if !ends => {
                ends = true;
                let _ = stop.send(Some(Error::Deadline));
                continue;
            }
        };
        let arrived = match arrival {
            Arrival::One(one) => vec![*one],
            Arrival::Company(group) => {
                company.arrived();
                group
            }
        };
        for (task, ended) in arrived {
            let row = match ended {
                Ended::Received(result) => {
                    queue.done(&task.host);
                    coming -= 1;
                    match result {
                        Ok(received) => {
                            finishing += 1;
                            if received.likes_company() {
                                company.join((task, received), Instant::now());
                            } else {
                                running.spawn(finished(settings.clone(), task, received));
                            }
                            continue;
                        }
                        Err(Unreceived { error, kept, size }) => Row { kept, ..row_of(plan, &task, size, Outcome::Failed(error)) },
                    }
                }
                Ended::Left(received) => {
                    running.spawn(finished(settings.clone(), task, received));
                    continue;
                }
                Ended::Finished { result, size, resumed, remark } => {
                    finishing -= 1;
                    // What an earlier run brought may be what is wrong: once more, without it.
                    if resumed && !ends && matches!(result, Err(Error::Mismatch { .. })) {
                        progress.end(&task.meter);
                        queue.extend([(task.host.clone(), (task.number, Job { afresh: true, ..task.job }))]);
                        continue;
                    }
                    let row = row_of(plan, &task, Some(size), result.map_or_else(Outcome::Failed, |()| Outcome::Fetched));
                    Row { remark, ..row }
                }
                Ended::Verified { result, size } => {
                    row_of(plan, &task, Some(size), result.map_or_else(Outcome::Failed, |()| Outcome::Present))
                }
            };
            settle(&mut rows, progress, &task, row);
        }
    }
    // Once for all: a name that is lost in a power cut before this is one of a part that is whole.
    let named = rows.iter().flatten().any(|row| row.outcome == Outcome::Fetched);
    if named {
        let directory = settings.directory.clone();
        let synced = blocking(move || sync_directory(&directory).map_err(|error| Error::disk("make the names durable", &error))).await;
        if let Err(error) = synced {
            for row in rows.iter_mut().flatten().filter(|row| row.outcome == Outcome::Fetched) {
                row.outcome = Outcome::Failed(error.clone());
            }
        }
    }
    let reason = stop.borrow().clone().unwrap_or(Error::Interrupted);
    let never_begun = |(entry, row): (&super::plan::Entry, Option<Row>)| {
        row.unwrap_or_else(|| Row::of(&entry.shown, entry.name.as_deref(), None, Outcome::Failed(reason.clone())))
    };
    Ok(plan.entries.iter().zip(rows).map(never_begun).collect())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn received(world: Arc<World>, task: Task) -> Arrival {
    let result = receive(&world, &task.job, &task.meter).await;
    Arrival::One(Box::new((task, Ended::Received(result))))
}

/// Looks at the checksum of a file that is there. When everything has to stop this is given up, whatever of it is still being read.
async fn verified(world: Arc<World>, turns: Arc<Semaphore>, task: Task, size: u64) -> Arrival {
    let (path, check) = (world.settings.directory.join(&task.job.name), task.job.sha256.clone());
    let look = async {
        // It is never closed.
        let _turn = turns.acquire().await;
        blocking(move || match check {
            Some(check) => {
                std::fs::File::open(path).map_err(|error| Error::disk("read the file", &error)).and_then(|file| check.verify(file))
            }
            None => Ok(()),
        })
        .await
    };
    let result = world.unless_stopped(look).await.and_then(|looked| looked);
    Arrival::One(Box::new((task, Ended::Verified { result, size })))
}

async fn finished(settings: Settings, task: Task, received: Received) -> Arrival {
    let (size, resumed, remark, job) = (received.size, received.resumed, received.remark.clone(), task.job.clone());
    let result = blocking(move || finish(&settings, &job, received)).await;
    Arrival::One(Box::new((task, Ended::Finished { result, size, resumed, remark })))
}

/// Blocks.
fn together(settings: &Settings, group: Vec<(Task, Received)>) -> Vec<(Task, Ended)> {
    let named = finish_together(settings, group.iter().map(|(task, received)| (&task.job, received)));
    let ended = |((task, received), named)| {
        let Received { size, resumed, .. } = received;
        (task, if named { Ended::Finished { result: Ok(()), size, resumed, remark: received.remark } } else { Ended::Left(received) })
    };
    group.into_iter().zip(named).map(ended).collect()
}

fn row_of(plan: &Plan, task: &Task, size: Option<u64>, outcome: Outcome) -> Row {
    let entry = &plan.entries[task.number];
    // Whole milliseconds and never none: it did take time.
    let took = task.begun.elapsed().max(Duration::from_millis(1));
    Row { received: task.meter.received(), took, ..Row::of(&entry.shown, entry.name.as_deref(), size, outcome) }
}

fn settle(rows: &mut [Option<Row>], progress: &Progress, task: &Task, row: Row) {
    progress.end(&task.meter);
    progress.tell(&row);
    rows[task.number] = Some(row);
}
