//! PostgreSQL, as far as a failover touches it: a write-ahead log with timelines, streaming, synchronous commit, promotion.
//!
//! | what | as in PostgreSQL | simplified |
//! | --- | --- | --- |
//! | position | a server compares positions and timeline histories, never contents (`StartReplication` in `walsender.c`) | each commit is 8 MiB of log, so that three behind are more than what counts as caught up |
//! | timeline | a promotion begins the next number after the highest in its own history; two servers can take the same one | the history is read from the log itself |
//! | streaming | refused from beyond the end of the primary's log, and from a timeline that is not in its history or was left before | a connection is made at once |
//! | commit | waits for its position to be flushed here and, by a flag that only the checkpointer sets, at the standby (`SyncRepWaitForLSN`, `syncrep.c`) | one standby |
//! | a killed server | keeps what it has written, flushed or not; its clients' waiting commits stay in the log and are never acknowledged | |
//! | a loss of power | takes what was not flushed | |
//! | promotion | what is in the local log is replayed first; a paused replay goes on (documentation of `pg_promote`) | some ticks |
//! | a full disk | PostgreSQL ends itself (PANIC) when it cannot write its log, and at each start again | only the primary writes |

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use understudy::failover::servers::Servers;
use understudy::postgres::connection::ServerError;
use understudy::postgres::lsn::Lsn;
use understudy::postgres::status::{PrimaryStatus, RoleStatus, ServerStatus, StandbyLink, StandbyStatus};
use understudy::postgres::timeline::Timelines;
use understudy::record::NodeName;

use super::clients::Ids;
use super::containers::Run;
use super::disk::IDENTITY;
use super::{Hand, State};
use crate::broken_rules::BrokenRule;
use crate::default_settings::default_settings;

/// Log bytes of one commit.
pub const COMMIT_BYTES: u64 = 8 * 1024 * 1024;
/// `wal_sender_timeout` and `wal_receiver_timeout` of the nodes.
const SENDER_TIMEOUT: Duration = Duration::from_secs(10);
/// Commits that a tick replays.
const REPLAYED: usize = 4;

/// A data directory.
#[derive(Debug, Clone)]
pub struct Data {
    /// The commit at each position; 0: a record that is no client's.
    log: Vec<u32>,
    /// Where each timeline begins.
    timelines: Vec<(u32, usize)>,
    /// All commits in the log, and those in its flushed part.
    pub ids: Ids,
    pub flushed_ids: Ids,
    pub flushed: usize,
    pub standby_signal: bool,
    pub unpromoted: bool,
    pub rewinding: bool,
    /// `synchronous_standby_names` in `postgresql.auto.conf` names the peer.
    pub synchronous: bool,
}

impl Data {
    /// A pair in sync begins with two of these.
    pub fn new(standby: bool) -> Self {
        Self {
            log: vec![0],
            timelines: vec![(1, 0)],
            ids: Ids::default(),
            flushed_ids: Ids::default(),
            flushed: 1,
            standby_signal: standby,
            unpromoted: standby,
            rewinding: false,
            synchronous: !standby,
        }
    }

    /// As after `initdb`.
    pub fn of_a_new_cluster() -> Self {
        Self { synchronous: false, ..Self::new(false) }
    }

    /// What a base backup or a rewind makes of it.
    pub fn copy_of(primary: &Self) -> Self {
        let mut copy = Self { standby_signal: true, unpromoted: true, rewinding: false, synchronous: false, ..primary.clone() };
        copy.flush();
        copy
    }

    pub fn end(&self) -> usize {
        self.log.len()
    }

    pub fn timeline(&self) -> u32 {
        self.timelines.last().map_or(1, |(timeline, _)| *timeline)
    }

    fn history(&self) -> Timelines {
        let ended = self.timelines.windows(2).map(|pair| (pair[0].0, lsn(pair[1].1))).collect();
        Timelines { ended, current: self.timeline() }
    }

    /// Where this history leaves a timeline; None where it never was on it.
    fn leaves(&self, timeline: u32) -> Option<usize> {
        let at = self.timelines.iter().position(|(known, _)| *known == timeline)?;
        Some(self.timelines.get(at + 1).map_or(usize::MAX, |(_, begins)| *begins))
    }

    pub fn push(&mut self, id: u32) {
        self.log.push(id);
        self.ids.insert(id);
    }

    /// Flushes all that is written.
    pub fn flush(&mut self) {
        for id in &self.log[self.flushed.min(self.log.len())..] {
            self.flushed_ids.insert(*id);
        }
        self.flushed = self.log.len();
    }

    pub fn lose_unflushed(&mut self) {
        self.log.truncate(self.flushed);
        while self.timelines.len() > 1 && self.timelines.last().is_some_and(|(_, begins)| *begins >= self.flushed) {
            self.timelines.pop();
        }
        self.ids = self.flushed_ids.clone();
    }

    /// May a standby with these data stream from a primary with those? What PostgreSQL compares, and no more.
    pub fn can_follow(&self, primary: &Self) -> bool {
        let timeline = self.timeline();
        if timeline == primary.timeline() {
            return self.end() <= primary.flushed;
        }
        primary.leaves(timeline).is_some_and(|end| self.end() <= end)
    }

    /// Takes at most so many records of the primary's flushed log.
    fn receive(&mut self, primary: &Self, most: usize) {
        for at in self.end()..primary.flushed.min(self.end() + most) {
            if let Some(begun) = primary.timelines.iter().find(|(_, begins)| *begins == at)
                && begun.0 > self.timeline()
            {
                self.timelines.push(*begun);
            }
            self.push(primary.log[at]);
        }
    }

    /// Leaves recovery on a new timeline.
    fn promote(&mut self) {
        let next = self.timeline() + 1;
        self.timelines.push((next, self.end()));
        self.push(0);
        self.flush();
        (self.standby_signal, self.unpromoted) = (false, false);
    }
}

/// How far a container's server is.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// `postgres-node` makes the data directory ready.
    Preparing(super::node::Preparation),
    /// PostgreSQL recovers, or waits for consistency.
    Starting {
        ticks: u32,
    },
    Up,
}

/// A server, and whatever of it is gone when its processes are.
#[derive(Debug)]
pub struct Server {
    pub phase: Phase,
    pub primary: bool,
    pub replayed: usize,
    /// It has received something since it started: before, it does not know what it has.
    received: bool,
    streaming: bool,
    /// When the primary last sent it something, as it does all the time.
    heard: Option<Instant>,
    /// Leaves recovery in so many ticks.
    pub promoted_in: Option<u32>,
    /// Commits wait for the peer: as the server has read it, and as commits in fact do.
    written: bool,
    pub in_force: bool,
    applied_in: Option<u32>,
    /// In the log and not acknowledged: the commit, and where it ends.
    pub waiting: Vec<(u32, usize)>,
    /// What the standby has said to have flushed, and when.
    pub row: Option<(usize, Instant)>,
    /// A person has promoted it, behind the tool's back.
    pub by_hand: bool,
}

impl Server {
    pub fn new(phase: Phase, primary: bool, synchronous: bool) -> Self {
        Self {
            phase,
            primary,
            replayed: 0,
            received: false,
            streaming: false,
            heard: None,
            promoted_in: None,
            written: synchronous,
            in_force: synchronous,
            applied_in: None,
            waiting: Vec::new(),
            row: None,
            by_hand: false,
        }
    }

    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    pub fn streams(&self) -> bool {
        self.streaming
    }
}

/// The position after so many records.
pub fn lsn(records: usize) -> Lsn {
    let bytes = (u64::try_from(records).unwrap() + 1) * COMMIT_BYTES;
    format!("{:X}/{:X}", bytes >> 32, bytes & 0xFFFF_FFFF).parse().unwrap()
}

impl State {
    /// How long a call takes: nothing worth a wait, most of the time.
    pub fn latency(&mut self, slowest: Duration) -> Duration {
        if slowest.is_zero() && self.rng.u32(0..4) > 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.rng.u64(0..=u64::try_from(slowest.as_millis()).unwrap() + 4))
    }

    /// A node's processes do what they do in a tick.
    pub fn live(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.dies_in == Some(0) {
            node.ends("exited with code 137");
        }
        node.dies_in = node.dies_in.map(|ticks| ticks - 1);
        if node.run != Run::Running || node.is_stopped_by_signal {
            return;
        }
        let Some(server) = &mut node.server else { return };
        match &mut server.phase {
            Phase::Preparing(_) => self.prepare(index),
            Phase::Starting { .. } if node.disk_full && server.primary => node.ends("exited with code 1: no space left on device"),
            Phase::Starting { ticks: 0 } => {
                server.phase = Phase::Up;
                if !server.primary && node.data.as_ref().is_none_or(|data| !data.unpromoted) {
                    // A standby.signal puts whatever was there into recovery.
                    node.data.iter_mut().for_each(|data| data.unpromoted = true);
                }
            }
            Phase::Starting { ticks } => *ticks -= 1,
            Phase::Up => {
                let data = node.data.as_mut().unwrap();
                data.flush();
                if !server.primary && !node.replay_paused {
                    server.replayed = (server.replayed + REPLAYED).min(data.end());
                }
                match server.promoted_in {
                    Some(_) if node.promotion_hangs => {}
                    Some(0) => {
                        let by_hand = server.by_hand;
                        data.promote();
                        *server = Server::new(Phase::Up, true, false);
                        server.by_hand = by_hand;
                        let timeline = data.timeline();
                        node.replay_paused = false;
                        self.say(|| format!("node {index} has left recovery on timeline {timeline}"));
                    }
                    promoted_in => {
                        server.promoted_in = promoted_in.map(|ticks| ticks - 1);
                        if server.applied_in == Some(0) {
                            server.in_force = server.written;
                        }
                        server.applied_in = server.applied_in.and_then(|ticks| ticks.checked_sub(1));
                    }
                }
            }
        }
    }

    /// From the primary at `index` to its standby, and the standby's word back.
    pub fn stream(&mut self, index: usize) {
        let joined = self.network.joins_the_pair();
        let most = if self.nodes[1 - index].is_slow { usize::from(self.rng.u32(0..6) == 0) } else { REPLAYED };
        let (left, right) = self.nodes.split_at_mut(1);
        let (primary, standby) = if index == super::A { (&mut left[0], &mut right[0]) } else { (&mut right[0], &mut left[0]) };
        if !primary.is(true) {
            if let Some(server) = standby.server.as_mut().filter(|server| !server.primary) {
                server.streaming = false;
            }
            return;
        }
        let answers = primary.is_writable();
        let standby_moves = standby.run == Run::Running && !standby.is_stopped_by_signal;
        let is_there = standby.is(false);
        let (Some(server), Some(data)) = (&mut primary.server, &primary.data) else { return };
        if answers && ((joined && !is_there) || server.row.is_some_and(|(_, heard)| heard.elapsed() > SENDER_TIMEOUT)) {
            server.row = None;
        }
        let (true, true, Some(follower), Some(copy)) =
            (is_there && standby_moves, joined && answers, &mut standby.server, &mut standby.data)
        else {
            // Behind a cut it misses its primary after its timeout; else at once, which only the app's and the checker's patience notice.
            if let Some(follower) = &mut standby.server
                && (joined || follower.heard.is_none_or(|heard| heard.elapsed() > SENDER_TIMEOUT))
            {
                follower.streaming = false;
            }
            return;
        };
        if standby.slot_lost || !copy.can_follow(data) {
            follower.streaming = false;
            server.row = None;
            return;
        }
        copy.receive(data, most);
        (follower.streaming, follower.received, follower.heard) = (true, true, Some(Instant::now()));
        // It says what it had flushed before this delivery: the disk of the standby is one tick behind.
        server.row = Some((copy.flushed, Instant::now()));
    }
}

impl Hand {
    /// A question or an order to a server over a fresh connection.
    async fn server<T>(
        &self,
        at: IpAddr,
        effect: Option<(&'static str, String)>,
        work: impl FnOnce(&mut State, usize) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let began = Instant::now();
        let IpAddr::V4(address) = at else { panic!("{at}") };
        let index = usize::from(address.octets()[3]) - 1;
        let deadline = default_settings().probe_deadline;
        let (unheard, answer_lost, delay) = self
            .call(None, |state| {
                let (node, network) = (&state.nodes[index], &state.network);
                let frozen = node.run == Run::Paused || node.is_stopped_by_signal;
                let cut = network.checker_cut[index] || network.detached[index];
                let (loss, slowest) = (network.loss, network.delay);
                let lost = loss > 0 && state.chance(loss);
                let delay = state.latency(slowest);
                // Of the packets that are lost some are those of the answer.
                let answer_lost = (lost && state.rng.bool()) || delay > deadline;
                (frozen || cut || (lost && !answer_lost), answer_lost, delay)
            })
            .await;
        let delay = if unheard || answer_lost { deadline } else { delay };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let answer = if unheard {
            self.call(effect, |_| Err(ServerError::TimedOut(deadline))).await
        } else {
            let answer = self
                .call(effect, |state| {
                    let node = &state.nodes[index];
                    match (&node.run, node.server.as_ref().map(|server| &server.phase)) {
                        (Run::Paused, _) => Err(ServerError::TimedOut(deadline)),
                        (Run::Running, Some(_)) if node.is_stopped_by_signal => Err(ServerError::TimedOut(deadline)),
                        (Run::Running, Some(Phase::Up)) if node.refuses => {
                            Err(ServerError::Refusing("sorry, too many clients already (SQLSTATE 53300)".to_owned()))
                        }
                        (Run::Running, Some(Phase::Up)) => work(state, index),
                        (Run::Running, Some(Phase::Starting { .. })) => {
                            Err(ServerError::Starting("the database system is starting up".to_owned()))
                        }
                        (_, _) => Err(ServerError::Unreachable("connection refused".to_owned())),
                    }
                })
                .await;
            if answer_lost { Err(ServerError::TimedOut(deadline)) } else { answer }
        };
        self.call(None, |state| state.nodes[index].evidence.take(&answer, began)).await;
        BrokenRule::answer(self, index, answer)
    }
}

impl Servers for Hand {
    async fn ask(&self, at: IpAddr) -> Result<ServerStatus, ServerError> {
        let work = |state: &mut State, index: usize| {
            let (node, peer) = (&state.nodes[index], &state.nodes[1 - index]);
            let (server, data) = (node.server.as_ref().unwrap(), node.data.as_ref().unwrap());
            let role = if server.primary {
                let peer = super::name(1 - index);
                let standby = server.row.map(|(flushed, _)| StandbyLink {
                    name: peer.to_string(),
                    streaming: true,
                    synchronous: server.written,
                    flushed: Some(lsn(flushed)),
                });
                RoleStatus::Primary(PrimaryStatus {
                    read_only: false,
                    flushed: lsn(data.flushed),
                    synchronous_standby_names: if server.written { format!("\"{peer}\"") } else { String::new() },
                    synchronous_commit: "on".to_owned(),
                    standbys: standby.into_iter().collect(),
                    timeline: Some(data.timeline()),
                    slot_retained: Some(0),
                })
            } else {
                let received = if server.received { data.flushed.max(server.replayed) } else { server.replayed };
                let streaming = server.streaming && peer.runs();
                RoleStatus::Standby(StandbyStatus {
                    streaming,
                    replay_paused: node.replay_paused,
                    received: Some(lsn(received)),
                    replayed: Some(lsn(server.replayed)),
                    timeline: Some(data.timeline()),
                    drained: !streaming && server.replayed == data.end(),
                })
            };
            Ok(ServerStatus { system_identifier: IDENTITY.to_owned(), role })
        };
        Ok(BrokenRule::status(self, self.server(at, None, work).await?))
    }

    async fn promote(&self, at: IpAddr) -> Result<(), ServerError> {
        let work = |state: &mut State, index: usize| {
            state.i1_is_promoted(index);
            let server = state.nodes[index].server.as_mut().unwrap();
            if !server.primary && server.promoted_in.is_none() {
                server.promoted_in = Some(3);
            }
            Ok(())
        };
        self.server(at, Some(("promote", at.to_string())), work).await
    }

    async fn relax(&self, at: IpAddr) -> Result<(), ServerError> {
        self.server(at, Some(("relax", at.to_string())), |_, _| Ok(())).await
    }

    async fn is_writable(&self, at: IpAddr) -> Result<bool, ServerError> {
        self.server(at, None, |state, index| Ok(state.nodes[index].is_writable())).await
    }

    async fn set_synchronous_standby(&self, at: IpAddr, standby: Option<&NodeName>) -> Result<(), ServerError> {
        let synchronous = standby.is_some();
        let kind = if synchronous { "set sync" } else { "set async" };
        self.server(at, Some((kind, at.to_string())), |state, index| state.set_synchronous(index, synchronous)).await
    }

    async fn timelines(&self, at: IpAddr) -> Result<Timelines, ServerError> {
        let work = |state: &mut State, index: usize| Ok(state.nodes[index].data.as_ref().unwrap().history());
        self.server(at, None, work).await
    }

    async fn checkpoint(&self, at: IpAddr, limit: Duration) -> Result<(), ServerError> {
        let drawn = |state: &mut State| Duration::from_millis(state.rng.u64(10..1_500));
        let time = self.call(None, |state| state.checkpoint_takes.unwrap_or_else(|| drawn(state))).await;
        sleep(time.min(limit)).await;
        if time > limit {
            return Err(ServerError::TimedOut(limit));
        }
        self.server(at, None, |_, _| Ok(())).await
    }

    async fn settle(&self, at: IpAddr) -> Result<(), ServerError> {
        let work = |state: &mut State, index: usize| {
            if state.broken == Some(BrokenRule::EligibleWithoutSettling) {
                return Ok(());
            }
            let server = state.nodes[index].server.as_mut().unwrap();
            server.in_force = server.written;
            server.applied_in = None;
            Ok(())
        };
        self.server(at, Some(("settle", at.to_string())), work).await
    }
}

impl State {
    /// `ALTER SYSTEM` and a reload. Each as bad as it can be: protection comes late, and is gone at once.
    pub fn set_synchronous(&mut self, index: usize, synchronous: bool) -> Result<(), ServerError> {
        let late = self.rng.u32(0..30);
        let node = &mut self.nodes[index];
        let (Some(data), Some(server)) = (&mut node.data, &mut node.server) else {
            return Err(ServerError::Unreachable("connection refused".to_owned()));
        };
        data.synchronous = synchronous;
        server.written = synchronous;
        server.applied_in = Some(if synchronous { late } else { 0 });
        Ok(())
    }
}
