//! The containers and their runtime.
//!
//! The runtime can be away, slow, or forget to answer: then its order is carried out later, or not at all. What it says of a container that has no process is
//! always true; that is what the whole tool rests on, and what the broken rule "promote before the fence is verified" takes away.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use understudy::failover::observation::InsideView;
use understudy::failover::runtime::{ContainerState, Runtime, RuntimeError};
use understudy::node::discarded::Discarded;
use understudy::node::plan::Noted;
use understudy::postgres::connection::ServerError;
use understudy::postgres::timeline::Timelines;

use super::postgres::{Data, Phase, Server};
use super::{A, B, Hand, State, TICK};
use crate::broken_rules::BrokenRule;

/// As in `docker.rs`.
const ANSWER: Duration = Duration::from_secs(5);
const DEED: Duration = Duration::from_secs(20);
/// How long an order that got no answer may take to be carried out.
const LATEST: u64 = 40;
/// A primary that shuts down waits so long at the most for its standby to take the rest.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Running,
    /// `docker pause`: frozen, and killable.
    Paused,
    Stopped(&'static str),
    Missing,
}

/// A data directory that was replaced.
pub struct Kept {
    pub data: Data,
    /// Only a person removes it.
    pub forever: bool,
}

/// What the tool was shown of a node. The invariants judge by this and by the truth, never by what the tool made of it.
#[derive(Debug)]
pub struct Evidence {
    /// It took writes, by its own word or the app's.
    pub served: Instant,
    /// It said that it is starting.
    pub started: Instant,
    /// Its server answered inside the container.
    pub inside: Instant,
    /// Probes from the host that got no answer since.
    pub silent: u32,
    pub silent_since: Option<Instant>,
    /// The runtime's last word on whether it runs.
    pub ran: bool,
    /// The last moment at which its container did not run.
    pub stopped: Instant,
    /// Since when nothing whatever is wrong with it.
    pub fine_since: Option<Instant>,
}

impl Evidence {
    fn new() -> Self {
        let now = Instant::now();
        Self { served: now, started: now, inside: now, silent: 0, silent_since: None, ran: false, stopped: now, fine_since: None }
    }

    pub fn serves(&mut self) {
        self.served = Instant::now();
        (self.silent, self.silent_since) = (0, None);
    }

    /// Takes an answer to a probe from the host, which began then.
    pub fn take<T>(&mut self, answer: &Result<T, ServerError>, began: Instant) {
        match answer {
            Ok(_) | Err(ServerError::Refusing(_)) => self.serves(),
            Err(ServerError::Starting(_)) => self.started = Instant::now(),
            Err(ServerError::Unreachable(_) | ServerError::TimedOut(_)) => self.is_silent(began),
        }
    }

    fn is_silent(&mut self, began: Instant) {
        self.silent += 1;
        self.silent_since.get_or_insert(began);
    }
}

/// A node: its container, its volume, its server.
pub struct Node {
    pub run: Run,
    pub restarts: bool,
    /// Killed, and gone in so many ticks.
    pub dies_in: Option<u32>,
    /// Shuts down in good order: until then at the most, since, and is it to be started again?
    stopping: Option<(Instant, Instant, bool)>,
    pub data: Option<Data>,
    pub kept: Vec<Kept>,
    /// How many data directories there were when somebody last looked.
    pub directories_seen: usize,
    pub noted: Option<Noted>,
    pub server: Option<Server>,
    pub evidence: Evidence,
    /// Its postmaster and all of its children have got SIGSTOP; the container runs.
    pub is_stopped_by_signal: bool,
    pub refuses: bool,
    pub replay_paused: bool,
    pub promotion_hangs: bool,
    pub disk_full: bool,
    pub slot_lost: bool,
    pub rewind_fails: bool,
    pub is_slow: bool,
    pub starts_slowly: bool,
    pub kill_fails: bool,
    pub stop_hangs: bool,
    /// A person has ordered a fresh copy.
    pub copy_ordered: bool,
}

impl Node {
    pub fn new(_index: usize) -> Self {
        Self {
            run: Run::Stopped("created"),
            restarts: false,
            dies_in: None,
            stopping: None,
            data: None,
            kept: Vec::new(),
            directories_seen: 0,
            noted: None,
            server: None,
            evidence: Evidence::new(),
            is_stopped_by_signal: false,
            refuses: false,
            replay_paused: false,
            promotion_hangs: false,
            disk_full: false,
            slot_lost: false,
            rewind_fails: false,
            is_slow: false,
            starts_slowly: false,
            kill_fails: false,
            stop_hangs: false,
            copy_ordered: false,
        }
    }

    /// Its server is up in this role, frozen or not.
    pub fn is(&self, primary: bool) -> bool {
        self.server.as_ref().is_some_and(|server| server.is_up() && server.primary == primary)
    }

    /// It takes writes now.
    pub fn is_writable(&self) -> bool {
        self.run == Run::Running && self.is(true) && !self.is_stopped_by_signal && self.stopping.is_none()
    }

    /// Its processes are gone.
    pub fn ends(&mut self, how: &'static str) {
        if self.run != Run::Missing {
            self.run = Run::Stopped(how);
        }
        (self.dies_in, self.stopping, self.server) = (None, None, None);
        self.evidence.stopped = Instant::now();
        self.is_stopped_by_signal = false;
        self.replay_paused = false;
    }

    /// Every data directory on its volume that is one.
    pub fn directories(&self) -> impl Iterator<Item = &Data> {
        self.kept.iter().map(|kept| &kept.data).chain(&self.data).filter(|data| !data.rewinding)
    }
}

/// What the runtime was told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Start(usize),
    Stop(usize, Duration),
    Kill(usize),
    Restart(usize),
    ForbidRestart(usize),
}

/// The runtime itself.
#[derive(Debug, Default)]
pub struct Engine {
    /// Nothing listens at its socket.
    pub away: bool,
    /// It takes a call and gives no answer.
    pub hangs: bool,
    /// It takes an order and gives no answer.
    pub orders_hang: bool,
    /// Its answers take up to so long.
    pub delay: Duration,
    /// When an answer last was so late that whoever asked had to wait.
    pub kept_waiting: Option<Instant>,
    /// Orders that got no answer and are carried out all the same.
    late: Vec<(Instant, Order)>,
    /// So many times a container has ended: whoever listens hears it.
    ended: u32,
    something_ended: Rc<Notify>,
}

impl Engine {
    pub fn forget_orders(&mut self) {
        self.late.clear();
    }
}

fn of_container(container: &str) -> usize {
    if container.ends_with("pg-a") { A } else { B }
}

impl State {
    pub fn carry_out_late_orders(&mut self) {
        let now = Instant::now();
        let due: Vec<Order> = self.engine.late.extract_if(.., |(at, _)| *at <= now).map(|(_, order)| order).collect();
        for order in due {
            self.say(|| format!("the runtime carries out, late: {order:?}"));
            self.tally.count("order carried out late");
            let _ = self.carry_out(order);
        }
        for index in [A, B] {
            self.go_on_stopping(index);
            let node = &mut self.nodes[index];
            let before = node.evidence.ran;
            if !node.runs() {
                node.evidence.stopped = now;
            }
            if before != node.runs() {
                node.evidence.ran = node.runs();
                self.engine.ended += u32::from(before);
                self.engine.something_ended.notify_waiters();
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> Result<(), RuntimeError> {
        match order {
            Order::Start(index) => self.start(index),
            Order::Kill(index) => {
                let ticks = self.rng.u32(0..5);
                let node = &mut self.nodes[index];
                if node.runs() && !node.kill_fails {
                    node.dies_in.get_or_insert(ticks);
                }
                Ok(())
            }
            Order::Stop(index, grace) => {
                self.begin_stopping(index, grace, false);
                Ok(())
            }
            Order::Restart(index) => {
                if self.nodes[index].runs() {
                    self.begin_stopping(index, Duration::from_secs(5), true);
                    Ok(())
                } else {
                    self.start(index)
                }
            }
            Order::ForbidRestart(index) => {
                self.nodes[index].restarts = false;
                Ok(())
            }
        }
    }

    fn begin_stopping(&mut self, index: usize, grace: Duration, again: bool) {
        let node = &mut self.nodes[index];
        if node.runs() && node.stopping.is_none() {
            let now = Instant::now();
            node.stopping = Some((now + grace, now, again));
            // Who waits for the standby is sent away and told nothing.
            if let Some(server) = &mut node.server {
                server.waiting.clear();
            }
        }
    }

    /// A primary sends its standby the rest first, if that is connected. What does not end is killed when its grace is over.
    fn go_on_stopping(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some((until, since, again)) = node.stopping else { return };
        let moves = node.run == Run::Running && !node.is_stopped_by_signal && !node.stop_hangs;
        let has_all =
            |server: &Server| !server.primary || server.row.is_none_or(|(flushed, _)| Some(flushed) == node.data.as_ref().map(Data::end));
        let is_done = moves && (node.server.as_ref().is_none_or(has_all) || since.elapsed() > SHUTDOWN);
        let is_killed = Instant::now() >= until && !node.kill_fails;
        if is_done || is_killed {
            if let Some(data) = node.data.as_mut().filter(|_| is_done) {
                data.flush();
            }
            node.ends(if is_done { "exited with code 0" } else { "exited with code 137" });
            if again {
                let _ = self.start(index);
            }
        }
    }
}

impl Hand {
    /// A call of the runtime, which takes at most `limit`.
    async fn engine<T>(
        &self,
        effect: Option<(&'static str, String)>,
        order: Option<Order>,
        limit: Duration,
        work: impl FnOnce(&mut State) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let silent = |why: &str| RuntimeError::Silent(why.to_owned());
        let (away, delay) = self
            .call(None, |state| {
                let slowest = state.engine.delay;
                let delay =
                    if state.engine.hangs || (order.is_some() && state.engine.orders_hang) { limit } else { state.latency(slowest) };
                if delay > TICK {
                    state.engine.kept_waiting = Some(Instant::now() + delay);
                }
                (state.engine.away, delay)
            })
            .await;
        if away {
            return self.call(effect, |_| Err(silent("nothing listens at its socket"))).await;
        }
        if delay < limit {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            return self.call(effect, work).await;
        }
        sleep(limit).await;
        self.call(effect, |state| {
            state.tally.count("runtime gave no answer");
            if let Some(order) = order
                && state.rng.bool()
            {
                let at = Instant::now() + Duration::from_secs(state.rng.u64(0..LATEST));
                state.engine.late.push((at, order));
            }
        })
        .await;
        Err(silent("no answer"))
    }

    async fn order(&self, kind: &'static str, order: Order) -> Result<(), RuntimeError> {
        self.engine(Some((kind, format!("{order:?}"))), Some(order), DEED, |state| state.carry_out(order)).await
    }
}

/// What the runtime says of a command inside a container that does not run.
fn not_running(container: &str, doing: &'static str) -> RuntimeError {
    RuntimeError::Refused { container: container.to_owned(), doing, why: "the container is not running".to_owned() }
}

impl Runtime for Hand {
    async fn endings(&self, _containers: &[String]) -> Option<impl Stream<Item = ()>> {
        let away = self.call(None, |state| state.engine.away || state.engine.hangs).await;
        let (heard, ended) = {
            let engine = &self.state().engine;
            (engine.ended, engine.something_ended.clone())
        };
        let listen = async |(hand, ended, heard): (Self, Rc<Notify>, u32)| loop {
            ended.notified().await;
            let (away, now) = {
                let engine = &hand.state().engine;
                (engine.away, engine.ended)
            };
            if away {
                return None;
            }
            if now != heard {
                return Some(((), (hand, ended, now)));
            }
        };
        (!away).then(|| Box::pin(stream::unfold((self.clone(), ended, heard), listen)))
    }

    async fn inspect(&self, container: &str) -> Result<ContainerState, RuntimeError> {
        let index = of_container(container);
        let began = Instant::now();
        let found = self
            .engine(None, None, ANSWER, |state| {
                let node = &mut state.nodes[index];
                // Nobody asks a server that is frozen or on no network.
                if node.run == Run::Paused || state.network.detached[index] {
                    node.evidence.is_silent(began);
                }
                let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(index).unwrap() + 1));
                let address = (!state.network.detached[index]).then_some(address);
                Ok(match node.run {
                    Run::Running | Run::Paused => {
                        ContainerState::Running { address, paused: node.run == Run::Paused, restarts: node.restarts }
                    }
                    Run::Stopped(how) => ContainerState::Stopped { how: how.to_owned(), restarts: node.restarts },
                    Run::Missing => ContainerState::Missing,
                })
            })
            .await?;
        Ok(BrokenRule::inspected(self, index, found))
    }

    async fn start(&self, container: &str) -> Result<(), RuntimeError> {
        self.order("start", Order::Start(of_container(container))).await
    }

    async fn stop(&self, container: &str, grace: Duration) -> Result<(), RuntimeError> {
        let index = of_container(container);
        self.order("stop", Order::Stop(index, grace)).await?;
        let until = Instant::now() + grace + DEED;
        while self.call(None, |state| state.nodes[index].runs()).await {
            if Instant::now() >= until {
                return Err(RuntimeError::Silent("no answer".to_owned()));
            }
            sleep(TICK).await;
        }
        Ok(())
    }

    async fn kill(&self, container: &str) -> Result<(), RuntimeError> {
        let index = of_container(container);
        let killed = self.order("kill", Order::Kill(index)).await;
        let mut all = self.process.killed.get();
        all[index] = true;
        self.process.killed.set(all);
        killed
    }

    async fn restart(&self, container: &str) -> Result<(), RuntimeError> {
        if container == "app" {
            let restarted = |state: &mut State| {
                state.ledger.app_starts_in = Some(20);
                Ok(())
            };
            return self.engine(Some(("restart app", String::new())), None, DEED, restarted).await;
        }
        self.order("restart", Order::Restart(of_container(container))).await
    }

    async fn forbid_restart(&self, container: &str) -> Result<(), RuntimeError> {
        self.order("forbid restarts", Order::ForbidRestart(of_container(container))).await
    }

    async fn probe_inside(&self, container: &str, deadline: Duration) -> InsideView {
        let index = of_container(container);
        let probed = self
            .engine(None, None, deadline + Duration::from_millis(800), |state| {
                let node = &mut state.nodes[index];
                match (node.run, node.server.as_ref().map(|server| &server.phase)) {
                    (Run::Running, _) if node.is_stopped_by_signal => Ok(InsideView::Dead("no answer within 700ms".to_owned())),
                    (Run::Running, Some(Phase::Up | Phase::Starting { .. })) => {
                        node.evidence.inside = Instant::now();
                        Ok(InsideView::Alive)
                    }
                    (Run::Running, Some(Phase::Preparing(_))) => {
                        node.evidence.started = Instant::now();
                        Ok(InsideView::Preparing("postgres-node makes the data directory ready".to_owned()))
                    }
                    _ => Err(not_running(container, "probe")),
                }
            })
            .await;
        let view = probed.unwrap_or_else(|error| InsideView::Unknown(error.to_string()));
        BrokenRule::inside(self, index, view)
    }

    async fn note_lead(&self, container: &str, epoch: u64) -> Result<(), RuntimeError> {
        let index = of_container(container);
        let note = |state: &mut State| {
            let node = &mut state.nodes[index];
            if node.run != Run::Running {
                return Err(not_running(container, "note the lead in"));
            }
            node.noted = Some(Noted { epoch, leading: true });
            Ok(())
        };
        self.engine(Some(("note lead", format!("{epoch} on {index}"))), None, DEED, note).await
    }

    /// What a person reads before a rejoin; nothing is decided by it.
    async fn discarded(&self, _container: &str, _primary: &Timelines) -> Result<Vec<Discarded>, RuntimeError> {
        self.engine(None, None, DEED, |_| Ok(Vec::new())).await
    }

    async fn order_copy(&self, container: &str) -> Result<(), RuntimeError> {
        let index = of_container(container);
        let order = |state: &mut State| {
            let node = &mut state.nodes[index];
            node.copy_ordered = true;
            BrokenRule::copy_ordered(state.broken, node);
            Ok(())
        };
        self.engine(Some(("order a copy", format!("on {index}"))), None, DEED, order).await
    }

    async fn discard_old_data(&self, container: &str) -> Result<String, RuntimeError> {
        let index = of_container(container);
        let discard = |state: &mut State| {
            if state.nodes[index].run != Run::Running {
                return Err(not_running(container, "discard old data of"));
            }
            let node = &mut state.nodes[index];
            let before = node.kept.len();
            node.kept.retain(|kept| kept.forever);
            if node.kept.len() < before {
                state.tally.count("old data discarded");
            }
            Ok("discarded".to_owned())
        };
        self.engine(Some(("discard old data", format!("on {index}"))), None, DEED, discard).await
    }
}
