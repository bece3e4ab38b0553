//! One file: from its address to a part that is whole.
//!
//! A first request asks for all of it. What comes back tells how it goes on: a small file is taken as it is; of a large one of known length and version further
//! connections bring ranges, each under the condition that the object is still that version; anything else comes in one piece, and afresh when it breaks.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::Instant;

use super::address::Address;
use super::board::{Board, Claim};
use super::durable::{keeps_unnamed, make_durable};
use super::error::Error;
use super::head::{Validator, checks_of_s3};
use super::network::{Network, Stretch, Trouble};
use super::part::{Part, sidecar_path};
use super::plan::Job;
use super::progress::Meter;
use super::ranges::Ranges;
use super::retry::Attempts;
use super::settings::{Existing, Settings};
use super::sidecar::Sidecar;
use super::unnamed::Unnamed;
use super::verify::Check;

/// Up to this size, in bytes, a file is held in memory until it is whole: it is written in one go then, and a part is not worth its name.
const SMALL: u64 = 256 * 1024;
/// From this size on, in bytes, several connections bring a file.
const LARGE: u64 = 32 * 1024 * 1024;
/// How often what is there is made durable and written down. A kill costs at most what came since; near the end, what came in twice that time.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// A checkpoint that takes long is made less often: at most a tenth of the time is for them.
const CHECKPOINT_SHARE: u32 = 9;
/// How much is written at once, in bytes: worth a turn of another thread.
const BLOCK: usize = 256 * 1024;

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
    /// There was something under the name of its part, from before or from an attempt at a larger version.
    had_part: bool,
}

impl Received {
    fn new(body: Body, size: u64, checks: Vec<Check>) -> Self {
        Self { body, size, resumed: false, remark: None, checks, had_part: false }
    }

    /// Whether it may be finished together with others: it is still in memory, and no part of it lies there, which would stay beside it.
    #[must_use]
    pub fn likes_company(&self) -> bool {
        matches!(self.body, Body::Small(_)) && !self.had_part
    }
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
    let mut had_part = job.begun;
    if let Some(begun) = if had_part { left_by_an_earlier_run(world, job).await? } else { None } {
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
                        had_part = true;
                        let part = begin_part(world, job, Some(length)).await?;
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
                        had_part = true;
                        let part = begin_part(world, job, None).await?;
                        in_one_piece(world, job, meter, part, response, None).await
                    }
                    (200, None) => Err(Error::NoLength),
                    (status, _) => Err(Error::Nonsense { cause: format!("{status} to a request for the whole") }),
                };
                match whole {
                    Ok(received) => return Ok(Received { remark, had_part, ..received }),
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

/// Begins a part afresh. To take its space is quick on most file systems, and on some as slow as to write it.
async fn begin_part(world: &World, job: &Job, size: Option<u64>) -> Result<Part, Error> {
    let (directory, name) = (world.settings.directory.clone(), job.name.clone());
    world.unless_stopped(blocking(move || begun_afresh(&directory, &name, size))).await?
}

/// Opens a part and begins it afresh. Blocks.
fn begun_afresh(directory: &Path, name: &str, size: Option<u64>) -> Result<Part, Error> {
    let part = Part::open(directory, name)?;
    part.begin(size).map_err(|error| discarded(&part, error))?;
    Ok(part)
}

/// Does what waits for the disk beside the network.
///
/// # Errors
/// Those of the work.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::Nonsense { cause: error.to_string() }))
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

/// What an earlier run has left of this file in its part, where it may be gone on with.
async fn left_by_an_earlier_run(world: &World, job: &Job) -> Result<Option<Begun>, Error> {
    let (directory, job) = (world.settings.directory.clone(), job.clone());
    let look = move || {
        let sidecar = sidecar_path(&directory, &job.name);
        if job.afresh || sidecar.symlink_metadata().is_err() {
            return Ok(None);
        }
        let part = Part::open(&directory, &job.name)?;
        Ok(Sidecar::load(&sidecar, &job.address, part.size()).map(|Sidecar { size, validator, checks, finished, .. }| Begun {
            part,
            size,
            validator,
            checks,
            finished,
        }))
    };
    world.unless_stopped(blocking(look)).await?
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
    Ok(Received::new(Body::Small(body), length, checks))
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
    meter: &Arc<Meter>,
    part: Part,
    mut response: Response,
    length: Option<u64>,
) -> Result<Received, Error> {
    let checks = checks_of(job, &response);
    meter.expect(length.unwrap_or_default(), 0);
    let part = Arc::new(part);
    let write = {
        let (part, meter) = (Arc::clone(&part), Arc::clone(meter));
        move |block: Vec<Bytes>, at| {
            meter.add(part.write_block(&block, at)?);
            Ok(())
        }
    };
    let whole = async {
        let (mut behind, mut at) = (Behind::new(0, write), 0);
        while let Some(chunk) = world.network.chunk(&mut response).await? {
            at += chunk.len() as u64;
            not_longer(at, length)?;
            behind.push(chunk).await?;
        }
        behind.flush().await?;
        match length {
            Some(expected) if expected != at => Err(Error::Short { received: at, expected }),
            _ => Ok(at),
        }
    };
    let whole = world.unless_stopped(whole).await.and_then(|whole| whole);
    match whole {
        Ok(size) => {
            let part = Arc::try_unwrap(part).map_err(|_| in_use())?;
            Ok(Received::new(Body::Part(part), size, checks))
        }
        // What may still be written then is written to a file without a name.
        Err(error) => Err(discarded(&part, error)),
    }
}

/// Whoever wrote a part has ended when all of it is written: this is never seen.
fn in_use() -> Error {
    Error::Nonsense { cause: "a part is whole, and still in use".to_owned() }
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
    /// Held by who writes.
    writes: Arc<RwLock<()>>,
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
        writes: Arc::default(),
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
    // A write that is under way does not end with who asked for it. Nothing may come into the part any more: it may be begun afresh next.
    drop(Arc::clone(&lanes.writes).write_owned().await);
    let finished = lanes.board().finished();
    let error = match ended {
        Ok(()) => match Arc::try_unwrap(lanes) {
            Ok(Lanes { part, checks, .. }) => return Ok(Ok(Received { resumed, ..Received::new(Body::Part(part), size, checks) })),
            Err(_) => return Err(in_use().into()),
        },
        Err(Halt::Failed(error)) => error,
        Err(Halt::Afresh(afresh)) => return Ok(Err(afresh)),
    };
    // What came can be gone on with, by the next run.
    let kept = finished.total();
    let stored = spawn_blocking(move || if kept > 0 { lanes.checkpoint() } else { Err(discarded(&lanes.part, Error::Interrupted)) }).await;
    let kept = if matches!(stored, Ok(Ok(()))) { kept } else { 0 };
    Err(Unreceived { error, kept, size: Some(size) })
}

/// Writes what came while more comes: the network does not wait for the disk, unless that falls back by a block.
struct Behind<W> {
    /// Writes pieces, one after the other, from this place on.
    write: W,
    /// Where the block belongs.
    at: u64,
    block: Vec<Bytes>,
    length: usize,
    writing: Option<JoinHandle<Result<(), Error>>>,
}

impl<W: FnOnce(Vec<Bytes>, u64) -> Result<(), Error> + Clone + Send + 'static> Behind<W> {
    /// For bytes from this place on.
    fn new(at: u64, write: W) -> Self {
        Self { write, at, block: Vec::new(), length: 0, writing: None }
    }

    async fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.length += bytes.len();
        self.block.push(bytes);
        if self.length < BLOCK { Ok(()) } else { self.turn().await }
    }

    /// When the last block is written, begins with this one.
    async fn turn(&mut self) -> Result<(), Error> {
        if let Some(writing) = self.writing.take() {
            writing.await.unwrap_or_else(|error| Err(Error::Nonsense { cause: error.to_string() }))?;
        }
        if self.length > 0 {
            let (write, block, at) = (self.write.clone(), std::mem::take(&mut self.block), self.at);
            self.at += std::mem::take(&mut self.length) as u64;
            self.writing = Some(spawn_blocking(move || write(block, at)));
        }
        Ok(())
    }

    /// Ends when all is written.
    async fn flush(mut self) -> Result<(), Error> {
        // The first turn begins with what is left, the second waits for it.
        self.turn().await?;
        self.turn().await
    }
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
        let (started, (before, _)) = (Instant::now(), self.standing());
        let mut next_checkpoint = started + CHECKPOINT;
        let mut is_left_out = false;
        loop {
            tokio::select! {
                ended = running.join_next() => match ended {
                    None => break,
                    Some(Ok(ended)) => ended?,
                    Some(Err(error)) => return Err(Halt::Failed(Error::Nonsense { cause: error.to_string() })),
                },
                () = tokio::time::sleep_until(next_checkpoint) => {
                    let (finished, size) = self.standing();
                    let came = finished.total().saturating_sub(before.total());
                    is_left_out = !is_left_out && is_nearly_there(came, started.elapsed(), size - finished.total());
                    if is_left_out {
                        next_checkpoint = Instant::now() + CHECKPOINT;
                        continue;
                    }
                    let (lanes, begun) = (Arc::clone(&self), Instant::now());
                    // Without its sidecar a checkpoint is one that is missing; the next one may succeed.
                    let _ = spawn_blocking(move || lanes.checkpoint()).await;
                    if let Some(error) = self.part.lost() {
                        return Err(Halt::Failed(error));
                    }
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

    async fn bring(self: &Arc<Self>, claim: Claim, mut response: Option<Response>, attempts: &mut Attempts) -> Result<(), Halt> {
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
    async fn pump(self: &Arc<Self>, claim: Claim, mut response: Response) -> Result<(), Error> {
        let (mut at, _) = self.board().lacks(claim);
        let writer = Writer { lanes: Arc::clone(self), claim, _busy: Arc::new(Arc::clone(&self.writes).read_owned().await) };
        let mut behind = Behind::new(at, move |block, at| writer.write(&block, at));
        let ended = loop {
            let mut chunk = match self.world.network.chunk(&mut response).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(false),
                Err(error) => break Err(error),
            };
            let (_, end) = self.board().lacks(claim);
            let room = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let is_cut = chunk.len() > room;
            chunk.truncate(room);
            at += chunk.len() as u64;
            behind.push(chunk).await?;
            if is_cut {
                // Another connection brings the rest. Should it give that back while this is being written, what comes here next would not fit any more.
                break Ok(true);
            }
        };
        // Also what came before a connection broke.
        behind.flush().await?;
        let is_cut = ended?;
        let (next, end) = self.board().lacks(claim);
        if next < end && !is_cut { Err(Error::Short { received: next, expected: end }) } else { Ok(()) }
    }
}

/// Whether the rest comes before the next checkpoint, at the pace of what came. Then one would hold up the end, and be of use to nobody.
fn is_nearly_there(came: u64, within: Duration, rest: u64) -> bool {
    u128::from(rest) * within.as_millis() <= u128::from(came) * CHECKPOINT.as_millis()
}

/// Writes what one connection brings.
#[derive(Clone)]
struct Writer {
    lanes: Arc<Lanes>,
    claim: Claim,
    /// Dropped last (fields are, in their order): when nobody is busy, nobody holds the part either.
    _busy: Arc<OwnedRwLockReadGuard<()>>,
}

impl Writer {
    /// Blocks.
    fn write(&self, block: &[Bytes], at: u64) -> Result<(), Error> {
        let bytes = self.lanes.part.write_block(block, at)?;
        self.lanes.board().advance(self.claim, bytes);
        self.lanes.meter.add(bytes);
        Ok(())
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
    let checks = all_checks(job, &received);
    let replace = settings.existing == Existing::Overwrite;
    match received.body {
        Body::Part(part) => part.finish(&checks, replace),
        Body::Small(bytes) => {
            verify_all(&checks, &bytes)?;
            let part = begun_afresh(&settings.directory, &job.name, Some(received.size))?;
            part.write_at(&bytes, 0).map_err(|error| discarded(&part, error))?;
            part.finish(&[], replace)
        }
    }
}

/// Gives small files their final names together, which is much less work for the disk and the processor than one after the other. Says for each whether it
/// has its name now. Whatever stood in the way, a checksum that does not fit among it: [`finish`] gets past it, or has the words for it. Blocks.
pub fn finish_together<'a>(settings: &Settings, files: impl Iterator<Item = (&'a Job, &'a Received)> + Clone) -> Vec<bool> {
    // Opened before anything is written, so that it is told what could not be.
    let Some(directory) = File::open(&settings.directory).ok().filter(keeps_unnamed) else { return files.map(|_| false).collect() };
    let is_replaced = |job: &Job| settings.existing == Existing::Overwrite && settings.directory.join(&job.name).symlink_metadata().is_ok();
    let write = |(job, received): (&Job, &Received)| match &received.body {
        Body::Small(bytes) if !is_replaced(job) && verify_all(&all_checks(job, received), bytes).is_ok() => {
            Unnamed::write(&directory, bytes).ok()
        }
        _ => None,
    };
    let unnamed: Vec<Option<Unnamed>> = files.clone().map(write).collect();
    let written: Vec<&File> = unnamed.iter().flatten().map(Unnamed::file).collect();
    let mut durable = make_durable(&directory, &written).into_iter();
    let give_name = |(unnamed, (job, _)): (Option<Unnamed>, (&Job, &Received))| {
        let Some(unnamed) = unnamed else { return false };
        durable.next().is_some_and(|durable| durable.is_ok()) && unnamed.give_name(&directory, &job.name).is_ok()
    };
    unnamed.into_iter().zip(files).map(give_name).collect()
}

fn all_checks(job: &Job, received: &Received) -> Vec<Check> {
    job.sha256.iter().chain(&received.checks).cloned().collect()
}

fn verify_all(checks: &[Check], bytes: &[u8]) -> Result<(), Error> {
    checks.iter().try_for_each(|check| check.verify(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::verify::Algorithm;

    fn settings(directory: &Path) -> Settings {
        Settings {
            directory: directory.to_owned(),
            jobs: 1,
            per_host: 1,
            connections: 1,
            retries: 0,
            timeout: Duration::from_secs(1),
            deadline: None,
            existing: Existing::Refuse,
            cacert: None,
            endpoint_url: None,
            profile: None,
            sign: false,
        }
    }

    fn small(name: &str, crc: &str) -> (Job, Received) {
        let job = Job { address: Address::parse("http://h/a").unwrap(), name: name.to_owned(), sha256: None, begun: false, afresh: false };
        let checks = vec![Check::from_hexadecimal(Algorithm::Crc32, crc).unwrap()];
        (job, Received::new(Body::Small(b"abc".to_vec()), 3, checks))
    }

    #[test]
    fn in_company_only_what_is_right_gets_a_name_that_is_free() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "mine").unwrap();
        let (right, wrong) = ("352441c2", "352441c3");
        let files = [small("a", right), small("b", wrong), small("mine", right), small("c", right), small("d", right), small("e", right)];
        let named = finish_together(&settings(folder.path()), files.iter().map(|(job, received)| (job, received)));
        // Elsewhere each is finished by itself.
        let known = keeps_unnamed(&File::open(folder.path()).unwrap());
        assert_eq!(named, [known, false, false, known, known, known]);
        assert!(!folder.path().join("b").exists());
        assert_eq!(std::fs::read(folder.path().join("mine")).unwrap(), b"mine");
        assert!(!known || std::fs::read(folder.path().join("e")).unwrap() == b"abc");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), if known { 5 } else { 1 }, "and nothing else is left");
        let [_, (job, received), ..] = files;
        assert!(matches!(finish(&settings(folder.path()), &job, received), Err(Error::Mismatch { .. })), "alone it is told why");
    }

    #[test]
    fn a_file_is_nearly_there_when_the_rest_comes_within_a_checkpoint() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        assert!(is_nearly_there(100, second, 100) && !is_nearly_there(100, second, 101));
        assert!(is_nearly_there(0, second, 0) && !is_nearly_there(0, second, 1), "nothing comes");
        assert!(is_nearly_there(7200, hour, 2) && !is_nearly_there(7200, hour, 3));
        assert!(!is_nearly_there(u64::MAX / 2, hour, u64::MAX), "nothing overflows");
    }

    /// However the network cuts it up, and however far the disk falls back.
    #[tokio::test]
    async fn what_is_written_behind_the_network_is_written_in_order_and_whole() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let write = {
            let written = Arc::clone(&written);
            move |block: Vec<Bytes>, at: u64| {
                let mut written = written.lock().unwrap();
                assert_eq!(at, 5 + written.len() as u64);
                block.iter().for_each(|piece| written.extend_from_slice(piece));
                Ok(())
            }
        };
        let mut behind = Behind::new(5, write);
        let sent: Vec<u8> = (0..3 * BLOCK).map(|number| number.to_le_bytes()[0]).collect();
        for piece in sent.chunks(BLOCK / 3 + 1) {
            behind.push(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        behind.flush().await.unwrap();
        assert_eq!(*written.lock().unwrap(), sent);
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_told_at_the_latest_at_the_end() {
        let mut behind = Behind::new(0, |_, _| Err(Error::DiskFull { needed: 1 }));
        behind.push(Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(behind.flush().await, Err(Error::DiskFull { needed: 1 }));
    }
}
