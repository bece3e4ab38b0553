//! One file: from its address to a part that is whole.
//!
//! A first request asks for all of it. What comes back tells how it goes on: a small file is taken as it is; of a large one of known length and version further
//! connections bring ranges, each under the condition that the object is still that version; anything else comes in one piece, and afresh when it breaks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Response;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::address::Address;
use super::board::{Board, Claim};
use super::error::Error;
use super::head::{Validator, checks_of_s3};
use super::network::{Network, Stretch, Trouble};
use super::part::{Part, part_path, sidecar_path};
use super::plan::Job;
use super::progress::Meter;
use super::ranges::Ranges;
use super::retry::Attempts;
use super::settings::{Existing, Settings};
use super::sidecar::Sidecar;
use super::verify::Check;

/// Up to this size, in bytes, a file is held in memory until it is whole: it is written in one go then, and a part is not worth its name.
const SMALL: u64 = 256 * 1024;
/// From this size on, in bytes, several connections bring a file.
const LARGE: u64 = 32 * 1024 * 1024;
/// How often what is there is made durable and written down. A kill costs at most what came since.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// A checkpoint that takes long is made less often: at most a tenth of the time is for them.
const CHECKPOINT_SHARE: u32 = 9;

/// What all transfers of a run have in common.
#[derive(Debug)]
pub struct World {
    /// The connections.
    pub network: Network,
    /// The options.
    pub settings: Settings,
    /// When the run has to have ended.
    pub deadline: Option<Instant>,
    /// Why everything has to stop, once it has to.
    pub stop: tokio::sync::watch::Receiver<Option<Error>>,
}

impl World {
    /// Ends when everything has to stop, with the reason.
    pub async fn stopped(&self) -> Error {
        let mut stop = self.stop.clone();
        let reason = stop.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// What work brings, or why everything has to stop.
    ///
    /// # Errors
    /// It has to.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            done = work => Ok(done),
            reason = self.stopped() => Err(reason),
        }
    }

    fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// A file that was received whole.
#[derive(Debug)]
pub struct Received {
    body: Body,
    /// In bytes.
    pub size: u64,
    /// Whether an earlier run brought some of it.
    pub resumed: bool,
    /// What else there is to know.
    pub remark: Option<String>,
    checks: Vec<Check>,
}

#[derive(Debug)]
enum Body {
    Small(Vec<u8>),
    Part(Part),
}

/// A file that was not received.
#[derive(Debug)]
pub struct Unreceived {
    /// Why.
    pub error: Error,
    /// The bytes that lie in its part, to be resumed.
    pub kept: u64,
    /// Its size, where that is known.
    pub size: Option<u64>,
}

impl From<Error> for Unreceived {
    fn from(error: Error) -> Self {
        Self { error, kept: 0, size: None }
    }
}

/// Why the file has to be begun afresh.
enum Afresh {
    /// The object is another one now.
    Changed,
    /// The server gives no ranges, though it might have.
    NoRanges,
}

/// Why ranges of one version do not become a file.
enum Halt {
    /// The file failed, for good.
    Failed(Error),
    /// Not in this way.
    Afresh(Afresh),
}

/// A part of which something is there, and what it belongs to.
struct Begun {
    part: Part,
    size: u64,
    validator: Validator,
    checks: Vec<Check>,
    finished: Ranges,
}

/// Receives a file.
///
/// # Errors
/// It is not there, or not whole; with what is kept of it.
pub async fn receive(world: &Arc<World>, job: &Job, meter: &Arc<Meter>) -> Result<Received, Unreceived> {
    let mut attempts = Attempts::new(world.settings.retries);
    let mut ranges_are_given = true;
    if let Some(begun) = left_by_an_earlier_run(world, job)? {
        match ranges(world, job, meter, begun, None, &attempts).await? {
            Ok(received) => return Ok(received),
            Err(Afresh::NoRanges) => ranges_are_given = false,
            // The part is emptied when the object has answered.
            Err(Afresh::Changed) => {}
        }
    }
    loop {
        let trouble = match world.unless_stopped(world.network.get(&job.address, None)).await? {
            Err(trouble) => trouble,
            Ok((head, response)) => {
                let remark = head.encoding.as_ref().map(|encoding| format!("stored as it was sent, encoded as {encoding}"));
                let whole = match (head.status, head.length) {
                    (200, Some(length)) if length <= SMALL => small(world, job, meter, response, length).await,
                    (200, Some(length)) => {
                        let part = open_part(world, job)?;
                        part.begin(Some(length)).map_err(|error| discarded(&part, error))?;
                        match head.validator.clone().filter(|_| ranges_are_given && !head.refuses_ranges) {
                            Some(validator) => {
                                let checks = checks_of(job, &response);
                                let begun = Begun { part, size: length, validator, checks, finished: Ranges::default() };
                                match ranges(world, job, meter, begun, Some(response), &attempts).await? {
                                    Ok(received) => return Ok(Received { remark, ..received }),
                                    Err(Afresh::NoRanges) => {
                                        ranges_are_given = false;
                                        continue;
                                    }
                                    Err(Afresh::Changed) => Err(Error::Changed),
                                }
                            }
                            None => in_one_piece(world, job, meter, part, response, Some(length)).await,
                        }
                    }
                    (200, None) if head.chunked || job.sha256.is_some() || response.url().scheme() == "https" => {
                        let part = open_part(world, job)?;
                        part.begin(None).map_err(|error| discarded(&part, error))?;
                        in_one_piece(world, job, meter, part, response, None).await
                    }
                    (200, None) => Err(Error::NoLength),
                    (status, _) => Err(Error::Nonsense { cause: format!("{status} to a request for the whole") }),
                };
                match whole {
                    Ok(received) => return Ok(Received { remark, ..received }),
                    Err(error) => error.into(),
                }
            }
        };
        wait(world, &mut attempts, trouble, 0).await?;
    }
}

/// Waits until the next attempt may be made.
async fn wait(world: &World, attempts: &mut Attempts, trouble: Trouble, kept: u64) -> Result<(), Error> {
    let wait = attempts.next(trouble.error, trouble.retry_after, kept, world.time_left(), fastrand::f64())?;
    world.unless_stopped(tokio::time::sleep(wait)).await
}

fn open_part(world: &World, job: &Job) -> Result<Part, Error> {
    Part::open(&world.settings.directory, &job.name)
}

/// Removes a part that nobody can go on with.
fn discarded(part: &Part, error: Error) -> Error {
    part.discard();
    error
}

fn checks_of(job: &Job, response: &Response) -> Vec<Check> {
    match job.address {
        Address::Object { .. } => checks_of_s3(response.headers()),
        Address::Web(_) => Vec::new(),
    }
}

/// What an earlier run has left of this file, where it may be gone on with.
fn left_by_an_earlier_run(world: &World, job: &Job) -> Result<Option<Begun>, Error> {
    let directory = &world.settings.directory;
    let sidecar = sidecar_path(directory, &job.name);
    if job.afresh || sidecar.symlink_metadata().is_err() || part_path(directory, &job.name).symlink_metadata().is_err() {
        return Ok(None);
    }
    let part = open_part(world, job)?;
    Ok(Sidecar::load(&sidecar, &job.address, part.size()).map(|Sidecar { size, validator, checks, finished, .. }| Begun {
        part,
        size,
        validator,
        checks,
        finished,
    }))
}

async fn small(world: &World, job: &Job, meter: &Meter, mut response: Response, length: u64) -> Result<Received, Error> {
    let checks = checks_of(job, &response);
    meter.expect(length, 0);
    let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    let whole = async {
        while let Some(chunk) = world.network.chunk(&mut response).await? {
            meter.add(chunk.len() as u64);
            body.extend_from_slice(&chunk);
            not_longer(body.len() as u64, Some(length))?;
        }
        Ok(())
    };
    world.unless_stopped(whole).await??;
    if body.len() as u64 != length {
        return Err(Error::Short { received: body.len() as u64, expected: length });
    }
    Ok(Received { body: Body::Small(body), size: length, resumed: false, remark: None, checks })
}

/// A body that says by itself where it ends may be longer than its head says.
fn not_longer(received: u64, expected: Option<u64>) -> Result<(), Error> {
    match expected {
        Some(expected) if received > expected => {
            Err(Error::Nonsense { cause: format!("the body is longer than the {expected} bytes of its head") })
        }
        _ => Ok(()),
    }
}

/// Without ranges: what is there when a connection breaks is lost.
async fn in_one_piece(
    world: &World,
    job: &Job,
    meter: &Meter,
    part: Part,
    mut response: Response,
    length: Option<u64>,
) -> Result<Received, Error> {
    let checks = checks_of(job, &response);
    meter.expect(length.unwrap_or_default(), 0);
    let mut at = 0;
    let whole = async {
        while let Some(chunk) = world.network.chunk(&mut response).await? {
            not_longer(at + chunk.len() as u64, length)?;
            part.write_at(&chunk, at)?;
            at += chunk.len() as u64;
            meter.add(chunk.len() as u64);
        }
        match length {
            Some(expected) if expected != at => Err(Error::Short { received: at, expected }),
            _ => Ok(()),
        }
    };
    match world.unless_stopped(whole).await.and_then(|whole| whole) {
        Ok(()) => Ok(Received { body: Body::Part(part), size: at, resumed: false, remark: None, checks }),
        Err(error) => Err(discarded(&part, error)),
    }
}

/// What the connections that bring one file have in common.
struct Lanes {
    world: Arc<World>,
    address: Address,
    part: Part,
    board: Mutex<Board>,
    validator: Validator,
    checks: Vec<Check>,
    meter: Arc<Meter>,
}

/// Ranges of one version, by several connections. Errors of the outer kind come with what is kept.
async fn ranges(
    world: &Arc<World>,
    job: &Job,
    meter: &Arc<Meter>,
    begun: Begun,
    first: Option<Response>,
    attempts: &Attempts,
) -> Result<Result<Received, Afresh>, Unreceived> {
    let Begun { part, size, validator, checks, finished } = begun;
    let resumed = first.is_none();
    meter.expect(size, finished.total());
    let connections = if size < LARGE { 1 } else { world.settings.connections };
    let lanes = Arc::new(Lanes {
        world: Arc::clone(world),
        address: job.address.clone(),
        part,
        board: Mutex::new(Board::new(size, finished)),
        validator,
        checks,
        meter: Arc::clone(meter),
    });
    let mut running = JoinSet::new();
    let mut first = first;
    for _ in 0..connections {
        // Claimed here, in order: the first answer is that to the whole.
        let Some(claim) = lanes.board().claim() else { break };
        // Each counts for itself: a server that restarts breaks all of them off at once, and that is one failure.
        running.spawn(Arc::clone(&lanes).bring_all(claim, first.take(), attempts.clone()));
    }
    let ended = lanes.clone().supervise(&mut running).await;
    running.shutdown().await;
    let finished = lanes.board().finished();
    let error = match ended {
        Ok(()) => match Arc::try_unwrap(lanes) {
            Ok(Lanes { part, checks, .. }) => return Ok(Ok(Received { body: Body::Part(part), size, resumed, remark: None, checks })),
            Err(_) => return Err(Error::Nonsense { cause: "a connection outlives its file".to_owned() }.into()),
        },
        Err(Halt::Failed(error)) => error,
        Err(Halt::Afresh(afresh)) => return Ok(Err(afresh)),
    };
    // What came can be gone on with, by the next run.
    let kept = finished.total();
    let stored =
        tokio::task::spawn_blocking(move || if kept > 0 { lanes.checkpoint() } else { Err(discarded(&lanes.part, Error::Interrupted)) })
            .await;
    let kept = if matches!(stored, Ok(Ok(()))) { kept } else { 0 };
    Err(Unreceived { error, kept, size: Some(size) })
}

impl Lanes {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, and the size of the whole.
    fn standing(&self) -> (Ranges, u64) {
        let board = self.board();
        (board.finished(), board.size())
    }

    /// Waits for all connections, and writes down what is there from time to time.
    async fn supervise(self: Arc<Self>, running: &mut JoinSet<Result<(), Halt>>) -> Result<(), Halt> {
        let stopped = self.world.stopped();
        tokio::pin!(stopped);
        let mut next_checkpoint = Instant::now() + CHECKPOINT;
        loop {
            tokio::select! {
                ended = running.join_next() => match ended {
                    None => break,
                    Some(Ok(ended)) => ended?,
                    Some(Err(error)) => return Err(Halt::Failed(Error::Nonsense { cause: error.to_string() })),
                },
                () = tokio::time::sleep_until(next_checkpoint) => {
                    let (lanes, begun) = (Arc::clone(&self), Instant::now());
                    // A checkpoint that fails is one that is missing: the next one may succeed, and the disk tells its own errors.
                    let _ = tokio::task::spawn_blocking(move || lanes.checkpoint()).await;
                    next_checkpoint = Instant::now() + CHECKPOINT.max(begun.elapsed() * CHECKPOINT_SHARE);
                }
                reason = &mut stopped => return Err(Halt::Failed(reason)),
            }
        }
        let (finished, size) = self.standing();
        let total = finished.total();
        // Each connection has brought all of its share, or given it to one that did.
        if total == size { Ok(()) } else { Err(Halt::Failed(Error::Short { received: total, expected: size })) }
    }

    fn checkpoint(&self) -> Result<(), Error> {
        // What is finished before the part is made durable is durable after it.
        let (finished, size) = self.standing();
        if finished.total() == 0 {
            return Ok(());
        }
        self.part.checkpoint(&Sidecar::new(&self.address, size, self.validator.clone(), self.checks.clone(), finished))
    }

    async fn bring_all(self: Arc<Self>, mut claim: Claim, mut first: Option<Response>, mut attempts: Attempts) -> Result<(), Halt> {
        loop {
            self.bring(claim, first.take(), &mut attempts).await?;
            let Some(next) = self.board().claim() else { return Ok(()) };
            claim = next;
        }
    }

    async fn bring(&self, claim: Claim, mut response: Option<Response>, attempts: &mut Attempts) -> Result<(), Halt> {
        loop {
            let (next, end) = self.board().lacks(claim);
            if next >= end {
                return Ok(());
            }
            let opened = match response.take() {
                Some(response) => Ok(response),
                None => match self.open(next, end).await {
                    Ok(response) => Ok(response),
                    Err(Opening::Halted(Halt::Afresh(Afresh::NoRanges))) if self.board().give_back(claim) => return Ok(()),
                    Err(Opening::Halted(halt)) => return Err(halt),
                    Err(Opening::Trouble(trouble)) => Err(trouble),
                },
            };
            let trouble = match opened {
                Ok(response) => match self.pump(claim, response).await {
                    Ok(()) => continue,
                    Err(error) => Trouble::from(error),
                },
                Err(trouble) => trouble,
            };
            let kept = self.board().finished().total();
            let next = attempts.next(trouble.error, trouble.retry_after, kept, self.world.time_left(), fastrand::f64());
            tokio::time::sleep(next.map_err(Halt::Failed)?).await;
        }
    }

    /// Asks for a stretch of this version.
    async fn open(&self, start: u64, end: u64) -> Result<Response, Opening> {
        let stretch = Stretch { start, end, validator: &self.validator };
        let (head, response) = self.world.network.get(&self.address, Some(stretch)).await.map_err(Opening::Trouble)?;
        let size = self.board().size();
        let is_this_version = match (&self.validator, &head.etag) {
            (Validator::ETag(known), Some(etag)) => Some(known == etag),
            // It has to be sent where the whole has one (RFC 9110, 15.3.7): who leaves it out may have left out the condition too.
            (Validator::ETag(_), None) => None,
            (Validator::LastModified(_), _) => Some(head.validator.as_ref().is_none_or(|validator| *validator == self.validator)),
        };
        match (head.status, head.range) {
            (206, Some(range)) if range.size.is_some_and(|told| told != size) || is_this_version == Some(false) => {
                Err(Opening::Halted(Halt::Afresh(Afresh::Changed)))
            }
            (206, Some(range))
                if range.start == start
                    && range.end <= end
                    && is_this_version.is_some()
                    && head.length.is_none_or(|length| length == range.end - range.start) =>
            {
                Ok(response)
            }
            (206, _) => Err(Opening::Halted(Halt::Afresh(Afresh::NoRanges))),
            // The whole from its beginning, which is where this stretch begins.
            (200, _) if start == 0 && head.validator.as_ref() == Some(&self.validator) && head.length == Some(size) => Ok(response),
            (200, _) if head.validator.as_ref() == Some(&self.validator) && head.length == Some(size) => {
                Err(Opening::Halted(Halt::Afresh(Afresh::NoRanges)))
            }
            _ => Err(Opening::Halted(Halt::Afresh(Afresh::Changed))),
        }
    }

    /// Writes what comes to its place, until the claim is whole or the body ends.
    async fn pump(&self, claim: Claim, mut response: Response) -> Result<(), Error> {
        loop {
            let chunk = self.world.network.chunk(&mut response).await?;
            let (next, end) = self.board().lacks(claim);
            let Some(chunk) = chunk else {
                return if next < end { Err(Error::Short { received: next, expected: end }) } else { Ok(()) };
            };
            let length = chunk.len().min(usize::try_from(end - next).unwrap_or(usize::MAX));
            if length == 0 {
                // Another connection brings the rest.
                return Ok(());
            }
            self.part.write_at(&chunk[..length], next)?;
            self.board().advance(claim, length as u64);
            self.meter.add(length as u64);
        }
    }
}

/// Why a stretch did not begin to come.
enum Opening {
    Trouble(Trouble),
    Halted(Halt),
}

/// Gives what was received its final name, when every checksum fits. Blocks.
///
/// # Errors
/// See [`Part::finish`].
pub fn finish(settings: &Settings, job: &Job, received: Received) -> Result<(), Error> {
    let checks: Vec<Check> = job.sha256.iter().cloned().chain(received.checks).collect();
    let replace = settings.existing == Existing::Overwrite;
    match received.body {
        Body::Part(part) => part.finish(&checks, replace),
        Body::Small(bytes) => {
            for check in &checks {
                check.verify(bytes.as_slice())?;
            }
            let part = Part::open(&settings.directory, &job.name)?;
            let written = part.begin(Some(received.size)).and_then(|()| part.write_at(&bytes, 0));
            written.map_err(|error| discarded(&part, error))?;
            part.finish(&[], replace)
        }
    }
}
