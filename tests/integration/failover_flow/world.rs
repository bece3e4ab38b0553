//! A pair that exists in memory only: containers, servers, volumes, the record, and a writer that never stops.
//!
//! The very `Checker` that production runs stands on it: all of its traits are implemented over one shared state, in which every call lets a little time go by. What a node does when it is
//! started is not made up here: it is what `postgres-node`'s own plan says. The invariants are asserted while the world goes on, not only at its end.

use std::cell::{RefCell, RefMut};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_util::Stream;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use understudy::failover::act::{ActError, Outcome};
use understudy::failover::clock::{Clock, Moment};
use understudy::failover::decide::HEALTHY;
use understudy::failover::decision::{Decision, Rule};
use understudy::failover::journal::Journal;
use understudy::failover::lock::{Lock, LockError, Purpose};
use understudy::failover::memory::{Memory, MemoryStore};
use understudy::failover::observation::{AppView, InsideView, Thresholds};
use understudy::failover::observe::AppProbe;
use understudy::failover::parts::Parts;
use understudy::failover::pass::{Checker, Pass};
use understudy::failover::runtime::{ContainerState, Runtime, RuntimeError};
use understudy::failover::servers::Servers;
use understudy::failover::settings::{Login, Mode, Settings};
use understudy::node::configuration::leading;
use understudy::node::discarded::Discarded;
use understudy::node::plan::{DataDirectory, Noted, Plan, plan};
use understudy::postgres::connection::ServerError;
use understudy::postgres::lsn::Lsn;
use understudy::postgres::status::{PrimaryStatus, RoleStatus, ServerStatus, StandbyLink, StandbyStatus};
use understudy::postgres::timeline::Timelines;
use understudy::record::{NodeName, Record, RecordError, RecordStore, Transition, TransitionKind};

/// The nodes by index.
pub const A: usize = 0;
pub const B: usize = 1;

const IDENTITY: &str = "7000";
/// Log bytes of one commit: three commits behind are more than what counts as caught up.
const COMMIT_BYTES: u64 = 8 * 1024 * 1024;
/// Clients that write. In sync mode each waits for its commit.
const CLIENTS: usize = 3;
/// Ticks from a reload to the moment when the checkpointer notices it.
const CHECKPOINTER_DELAY: u32 = 30;
/// How long a forced checkpoint takes.
const CHECKPOINT: Duration = Duration::from_millis(100);
/// `wal_sender_timeout` of the nodes.
const SENDER_TIMEOUT: Duration = Duration::from_secs(10);
/// Ticks for one delivery to the standby, commits in it, and commits that the clients try in a pass.
const FAST: (u32, usize, u32) = (1, 2, 25);
/// Ticks between two passes.
const QUIET_TICKS: u32 = 10;

/// What happens at a numbered effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// `failover-check` dies, and the effect does not take place.
    CrashBefore,
    /// `failover-check` dies when the effect has taken place.
    CrashAfter,
    /// The host goes down, and the effect does not take place.
    RebootBefore,
    /// The host goes down when the effect has taken place.
    RebootAfter,
    /// Somebody starts a node's container.
    StartByHand(usize),
    /// A node's container dies.
    Kill(usize),
    /// A node's container dies, and somebody starts it at once.
    Restart(usize),
    /// A node's container is frozen for so long.
    Freeze(usize, Duration),
    /// The runtime is silent for so many passes.
    SilentRuntime(u32),
    /// A node's server does not answer the checker any more. Nobody mends that but the test.
    Mute(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Running,
    Paused,
    Stopped(&'static str),
}

#[derive(Debug, Clone)]
struct Data {
    /// Commit ids, always ascending: the clients never use one twice.
    log: Vec<u64>,
    standby_signal: bool,
    unpromoted: bool,
    rewinding: bool,
    /// `synchronous_standby_names` in `postgresql.auto.conf` names the peer.
    synchronous: bool,
}

/// What `postgres-node` compares before it becomes postgres.
type Basis = (u64, NodeName, Option<Transition>);

#[derive(Debug)]
enum Phase {
    /// `postgres-node` takes the primary's data.
    Joining {
        basis: Basis,
        ticks: u32,
    },
    Starting {
        ticks: u32,
    },
    Up,
}

#[derive(Debug)]
struct Server {
    phase: Phase,
    primary: bool,
    replayed: usize,
    promoted_in: Option<u32>,
    /// Commits wait for the peer: as the server has read it, and as commits in fact do.
    written: bool,
    in_force: bool,
    applied_in: Option<u32>,
    /// In the log, not acknowledged.
    waiting: Vec<u64>,
    /// The standby's row: commits flushed there, and when it last said so.
    row: Option<(usize, Instant)>,
}

impl Server {
    fn new(phase: Phase, primary: bool, synchronous: bool, replayed: usize) -> Self {
        Self {
            phase,
            primary,
            replayed,
            promoted_in: None,
            written: synchronous,
            in_force: synchronous,
            applied_in: None,
            waiting: Vec::new(),
            row: None,
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up)
    }
}

#[derive(Debug)]
struct Node {
    name: NodeName,
    run: Run,
    restarts: bool,
    /// Killed, and gone in so many ticks.
    dies_in: Option<u32>,
    data: Option<Data>,
    kept: Vec<Data>,
    /// With commits whose loss a person has accepted: only a person removes them.
    given_up: Vec<Data>,
    noted: Option<Noted>,
    server: Option<Server>,
}

impl Node {
    fn is(&self, primary: bool) -> bool {
        self.server.as_ref().is_some_and(|server| server.is_up() && server.primary == primary)
    }

    fn is_writable(&self) -> bool {
        self.run == Run::Running && self.is(true)
    }

    fn log(&self) -> &[u64] {
        self.data.as_ref().map_or(&[], |data| &data.log)
    }

    fn ends(&mut self, how: &'static str) {
        self.run = Run::Stopped(how);
        self.dies_in = None;
        self.server = None;
    }
}

struct State {
    nodes: [Node; 2],
    record: Record,
    memory: Memory,
    boot: u32,
    booted: Instant,
    link: bool,
    /// Ticks for one delivery to the standby, and commits in it.
    stream_every: u32,
    stream_commits: usize,
    kill_works: bool,
    silent_passes: u32,
    /// A frozen node, and when it thaws.
    thaw: Option<(usize, Instant)>,
    mute: Option<usize>,
    next_commit: u64,
    /// Commits that the clients try in a pass, and how many of them are left.
    commits_per_pass: u32,
    commits_left: u32,
    acknowledged: Vec<u64>,
    ticks: u32,
    effects: u32,
    interruption: Option<(u32, Interruption)>,
    dead: bool,
    trace: Vec<String>,
}

/// The world. See the module's text. A clone is the same world.
#[derive(Clone)]
pub struct World {
    state: Rc<RefCell<State>>,
    pub settings: Settings,
}

impl Parts for World {
    type Runtime = Self;
    type Servers = Self;
    type Store = Self;
    type Journal = Self;
    type App = Self;
    type Clock = Self;
    type Memories = Self;
    type Lock = Self;
}

fn contains(log: &[u64], ids: &[u64]) -> bool {
    let mut log = log.iter();
    ids.iter().all(|id| log.any(|logged| logged == id))
}

fn lsn(commits: usize) -> Lsn {
    let bytes = (u64::try_from(commits).unwrap() + 1) * COMMIT_BYTES;
    format!("{:X}/{:X}", bytes >> 32, bytes & 0xFFFF_FFFF).parse().unwrap()
}

fn node(index: usize, data: Option<Data>) -> Node {
    Node {
        name: ["pg-a", "pg-b"][index].parse().unwrap(),
        run: Run::Stopped("created"),
        restarts: false,
        dies_in: None,
        data,
        kept: Vec::new(),
        given_up: Vec::new(),
        noted: None,
        server: None,
    }
}

fn settings() -> Settings {
    Settings {
        state_directory: PathBuf::from("/nowhere"),
        docker_socket: PathBuf::from("/nowhere/docker.sock"),
        app_container: "app".to_owned(),
        app_url: "http://127.0.0.1:1".to_owned(),
        nodes: [A, B].map(|index| (node(index, None).name, format!("understudy-{}", node(index, None).name))).into(),
        login: Login { port: 5432, user: "u".to_owned(), password: "p".to_owned(), database: "d".to_owned() },
        probe_deadline: Duration::from_millis(700),
        flapping_window: Duration::from_secs(1_800),
        thresholds: Thresholds {
            suspicion_passes: 3,
            suspicion: Duration::from_millis(2_500),
            isolation_grace: Duration::from_secs(30),
            startup_grace: Duration::from_secs(120),
            app_grace: Duration::from_secs(10),
            app_restart_cooldown: Duration::from_secs(120),
            standby_grace: Duration::from_secs(5),
            standby_restart_grace: Duration::from_secs(60),
            node_start_cooldown: Duration::from_secs(5),
            start_attempts: 3,
            flapping_limit: 3,
        },
        mode: Mode::Act,
        drill: None,
        metrics_file: None,
        notify: None,
    }
}

impl World {
    /// A new installation: nothing runs, both volumes are empty.
    pub fn fresh() -> Self {
        let record = Record {
            version: 1,
            epoch: 1,
            primary: node(A, None).name,
            standby_eligible: false,
            transition: None,
            paused: None,
            system_identifier: None,
            counted_since: None,
            failovers: Vec::new(),
        };
        let state = State {
            nodes: [node(A, None), node(B, None)],
            record,
            memory: Memory::default(),
            boot: 1,
            booted: Instant::now(),
            link: true,
            stream_every: FAST.0,
            stream_commits: FAST.1,
            kill_works: true,
            silent_passes: 0,
            thaw: None,
            mute: None,
            next_commit: 1,
            commits_per_pass: FAST.2,
            commits_left: 0,
            acknowledged: Vec::new(),
            ticks: 0,
            effects: 0,
            interruption: None,
            dead: false,
            trace: Vec::new(),
        };
        Self { state: Rc::new(RefCell::new(state)), settings: settings() }
    }

    /// A pair in sync, pg-a primary.
    pub fn healthy() -> Self {
        let world = Self::fresh();
        {
            let mut state = world.state();
            let data =
                |standby| Data { log: Vec::new(), standby_signal: standby, unpromoted: standby, rewinding: false, synchronous: !standby };
            state.record.standby_eligible = true;
            state.record.system_identifier = Some(IDENTITY.to_owned());
            state.nodes = [node(A, Some(data(false))), node(B, Some(data(true)))];
            state.start(A).unwrap();
            state.start(B).unwrap();
            for _ in 0..QUIET_TICKS {
                state.commits_left = 1;
                state.tick();
            }
            state.check();
        }
        world
    }

    fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub fn record(&self) -> Record {
        self.state().record.clone()
    }

    /// (the recorded primary, the epoch).
    pub fn lead(&self) -> (String, u64) {
        let record = self.record();
        (record.primary.to_string(), record.epoch)
    }

    pub fn kill(&self, index: usize) {
        self.state().kill(index);
    }

    pub fn pause(&self, index: usize) {
        self.state().pause(index);
    }

    pub fn unpause(&self, index: usize) {
        self.state().unpause(index);
    }

    /// What a person does with `docker start`.
    pub fn start_by_hand(&self, index: usize) {
        self.state().start_by_hand(index);
    }

    pub fn cut_link(&self) {
        self.state().link = false;
    }

    pub fn mend_link(&self) {
        self.state().link = true;
    }

    pub fn reboot(&self) {
        self.state().reboot();
    }

    /// The record does not vouch for the standby any more.
    pub fn doubt_the_standby(&self) {
        self.state().record.standby_eligible = false;
    }

    /// Cron starts `failover-check` again where it died.
    pub fn revive(&self) {
        self.state().dead = false;
    }

    /// From now on a killed container goes on, or not any more.
    pub fn let_kill_work(&self, works: bool) {
        self.state().kill_works = works;
    }

    pub fn unmute(&self) {
        self.state().mute = None;
    }

    /// The runtime would start this node by itself: somebody changed its restart policy.
    pub fn give_restart_policy(&self, index: usize) {
        self.state().nodes[index].restarts = true;
    }

    /// The standby takes one commit in six ticks. The clients write faster, and less in all.
    pub fn slow_standby(&self) {
        let mut state = self.state();
        (state.stream_every, state.stream_commits, state.commits_per_pass) = (6, 1, 2);
    }

    /// As the world begins.
    pub fn fast_standby(&self) {
        let mut state = self.state();
        (state.stream_every, state.stream_commits, state.commits_per_pass) = FAST;
    }

    pub fn is_writable(&self, index: usize) -> bool {
        self.state().nodes[index].is_writable()
    }

    pub fn runs(&self, index: usize) -> bool {
        !matches!(self.state().nodes[index].run, Run::Stopped(_))
    }

    pub fn keeps_replaced_data(&self, index: usize) -> bool {
        !self.state().nodes[index].kept.is_empty()
    }

    /// Lets `what` happen at the `count`-th effect from now on.
    pub fn interrupt(&self, count: u32, what: Interruption) {
        let mut state = self.state();
        state.interruption = Some((state.effects + count, what));
    }

    /// How many effects there were so far: calls that change something.
    pub fn effects(&self) -> u32 {
        self.state().effects
    }

    /// How often an event was told so far.
    pub fn told(&self, event: &str) -> usize {
        let words = format!("event: {event} ");
        self.state().trace.iter().filter(|line| line.contains(&words)).count()
    }

    /// It will not happen any more.
    pub fn forget_interruption(&self) {
        self.state().interruption = None;
    }

    /// Has it happened?
    pub fn was_interrupted(&self) -> bool {
        self.state().interruption.is_none()
    }

    fn has_faults(&self) -> bool {
        let state = self.state();
        state.thaw.is_some() || state.silent_passes > 0
    }

    /// The events and decisions so far, for the words of a failed assertion.
    pub fn story(&self) -> String {
        self.state().trace.join("\n")
    }

    /// The very program that production runs, standing on this world.
    pub fn checker(&self) -> Checker<World> {
        let part = || self.clone();
        Checker {
            settings: self.settings.clone(),
            runtime: part(),
            servers: part(),
            store: part(),
            journal: part(),
            app: part(),
            clock: part(),
            memories: part(),
            lock: part(),
            outward: None,
        }
    }

    /// One pass of `failover-check` and the second until the next. None where it could not decide or died.
    pub async fn pass(&self) -> Option<(Decision, Result<Outcome, ActError>)> {
        self.state().clients_come();
        let passed = self.one_pass().await;
        {
            let mut state = self.state();
            if state.dead {
                state.trace.push("failover-check died".to_owned());
            }
            // Cron starts the next one.
            state.dead = false;
            state.silent_passes = state.silent_passes.saturating_sub(1);
        }
        for _ in 0..QUIET_TICKS {
            sleep(Duration::from_secs(1) / QUIET_TICKS).await;
            self.state().tick();
        }
        self.state().check();
        passed
    }

    async fn one_pass(&self) -> Option<(Decision, Result<Outcome, ActError>)> {
        let passed = self.checker().pass(&()).await;
        let mut state = self.state();
        if state.dead {
            return None;
        }
        let Pass { look, outcome } = passed.ok()?;
        state.trace.push(format!("acted: {outcome:?}"));
        Some((look.decision, outcome))
    }

    /// What the command `switchover` does, once it has found the pair in sync.
    pub async fn switch_over(&self) -> Result<Outcome, ActError> {
        self.state().clients_come();
        let record = self.record();
        let to = self.settings.other(&record.primary).unwrap().clone();
        let outcome = self.checker().actor().begin(record, TransitionKind::Switchover, &to, false, "ordered".to_owned()).await;
        let mut state = self.state();
        state.trace.push(format!("switchover: {outcome:?}"));
        state.dead = false;
        outcome
    }

    pub async fn passes(&self, count: u32) {
        for _ in 0..count {
            self.pass().await;
        }
    }

    /// Passes until one that fires `rule`, and says how many it took.
    pub async fn until(&self, rule: Rule, limit: u32) -> u32 {
        for number in 1..=limit {
            if self.pass().await.is_some_and(|(decision, _)| decision.rule == rule) {
                return number;
            }
        }
        panic!("no {} within {limit} passes:\n{}", rule.id, self.story());
    }

    /// I2 at the end of a story: once no fault is left the pair is healthy within `limit` passes, and whatever was acknowledged is in the recorded
    /// primary's log.
    pub async fn must_heal(&self, limit: u32) -> u32 {
        let mut taken = self.until(HEALTHY, limit).await;
        while self.has_faults() {
            self.pass().await;
            taken = self.until(HEALTHY, limit).await;
        }
        let mut state = self.state();
        state.check();
        let primary = state.index(&state.record.primary);
        let standby = 1 - primary;
        assert!(state.nodes[primary].is_writable() && state.nodes[standby].is(false), "healthy, and yet:\n{}", state.trace.join("\n"));
        assert!(
            contains(state.nodes[primary].log(), &state.acknowledged),
            "I2: an acknowledged commit is lost:\n{}",
            state.trace.join("\n")
        );
        assert_eq!(state.record.transition, None);
        let before = state.acknowledged.len();
        state.clients_come();
        for _ in 0..QUIET_TICKS {
            state.tick();
        }
        assert!(state.acknowledged.len() > before, "nothing is acknowledged by a healthy pair:\n{}", state.trace.join("\n"));
        taken
    }

    /// A call of one of the traits: a tick, and for an effect whatever is to happen at it. None: the program is dead.
    fn call<T>(&self, effect: Option<String>, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        let state = &mut *self.state();
        if state.dead {
            return None;
        }
        let Some(words) = effect else {
            state.tick();
            return Some(work(state));
        };
        state.effects += 1;
        state.trace.push(format!("effect {}: {words}", state.effects));
        let due = state.interruption.take_if(|(at, _)| *at == state.effects).map(|(_, what)| what);
        if let Some(what) = due {
            state.trace.push(format!("at this effect: {what:?}"));
            if !matches!(what, Interruption::CrashAfter | Interruption::RebootAfter) {
                state.happen(what);
            }
            if state.dead {
                return None;
            }
        }
        state.tick();
        let result = work(state);
        state.check();
        if let Some(what @ (Interruption::CrashAfter | Interruption::RebootAfter)) = due {
            state.happen(what);
            return None;
        }
        Some(result)
    }

    fn runtime<T>(&self, effect: Option<String>, work: impl FnOnce(&mut State) -> Result<T, RuntimeError>) -> Result<T, RuntimeError> {
        let silent = |why: &str| Err(RuntimeError::Silent(why.to_owned()));
        let answer = self.call(effect, |state| if state.silent_passes > 0 { silent("no answer") } else { work(state) });
        answer.unwrap_or_else(|| silent("failover-check is dead"))
    }

    async fn server<T>(
        &self,
        at: IpAddr,
        effect: Option<&str>,
        work: impl FnOnce(&mut State, usize) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let IpAddr::V4(address) = at else { panic!("{at}") };
        let index = usize::from(address.octets()[3]) - 1;
        let deadline = self.settings.probe_deadline;
        let late = {
            let state = self.state();
            !state.dead && (state.mute == Some(index) || state.nodes[index].run == Run::Paused)
        };
        if late {
            sleep(deadline).await;
        }
        let effect = effect.map(|words| format!("{words} on {index}"));
        let answer = self.call(effect, |state| {
            let node = &state.nodes[index];
            match (&node.run, node.server.as_ref().map(|server| &server.phase)) {
                _ if late => Err(ServerError::TimedOut(deadline)),
                (Run::Running, Some(Phase::Up)) => work(state, index),
                (Run::Running, Some(Phase::Starting { .. })) => Err(ServerError::Starting("the database system is starting up".to_owned())),
                (Run::Running | Run::Paused | Run::Stopped(_), _) => Err(ServerError::Unreachable("connection refused".to_owned())),
            }
        });
        answer.unwrap_or_else(|| Err(ServerError::Unreachable("failover-check is dead".to_owned())))
    }
}

impl State {
    fn index(&self, name: &NodeName) -> usize {
        self.nodes.iter().position(|node| node.name == *name).unwrap()
    }

    fn of_container(&self, container: &str) -> usize {
        self.nodes.iter().position(|node| container.ends_with(node.name.as_str())).unwrap()
    }

    fn clients_come(&mut self) {
        self.commits_left = self.commits_per_pass;
    }

    fn happen(&mut self, what: Interruption) {
        match what {
            Interruption::CrashBefore | Interruption::CrashAfter => self.dead = true,
            Interruption::RebootBefore | Interruption::RebootAfter => {
                self.dead = true;
                self.reboot();
            }
            Interruption::StartByHand(index) => self.start_by_hand(index),
            Interruption::Kill(index) => self.kill(index),
            Interruption::Restart(index) => {
                self.kill(index);
                self.start_by_hand(index);
            }
            Interruption::Freeze(index, time) => {
                self.pause(index);
                self.thaw = Some((index, Instant::now() + time));
            }
            Interruption::SilentRuntime(passes) => self.silent_passes = passes,
            Interruption::Mute(index) => self.mute = Some(index),
        }
    }

    fn kill(&mut self, index: usize) {
        self.trace.push(format!("fault: node {index} dies"));
        if !matches!(self.nodes[index].run, Run::Stopped(_)) {
            self.nodes[index].ends("exited with code 137");
        }
    }

    fn pause(&mut self, index: usize) {
        self.trace.push(format!("fault: node {index} is frozen"));
        if self.nodes[index].run == Run::Running {
            self.nodes[index].run = Run::Paused;
        }
    }

    fn unpause(&mut self, index: usize) {
        self.thaw.take_if(|(frozen, _)| *frozen == index);
        self.trace.push(format!("node {index} is thawed"));
        if self.nodes[index].run == Run::Paused {
            self.nodes[index].run = Run::Running;
        }
    }

    fn start_by_hand(&mut self, index: usize) {
        self.trace.push(format!("somebody starts node {index}"));
        // Refused where it is frozen; then nothing has happened.
        let _ = self.start(index);
    }

    fn reboot(&mut self) {
        self.trace.push("the host goes down and comes back".to_owned());
        self.boot += 1;
        self.booted = Instant::now();
        for index in [A, B] {
            self.nodes[index].ends("exited with code 255");
            if self.nodes[index].restarts {
                self.start_by_hand(index);
            }
        }
    }

    /// `postgres-node`, up to the moment when it becomes postgres.
    fn start(&mut self, index: usize) -> Result<(), RuntimeError> {
        let record = self.record.clone();
        let peer = self.nodes[1 - index].name.clone();
        let node = &mut self.nodes[index];
        match node.run {
            Run::Running => return Ok(()),
            Run::Paused => {
                let why = "it is paused".to_owned();
                return Err(RuntimeError::Refused { container: node.name.to_string(), doing: "start", why });
            }
            Run::Stopped(_) => {}
        }
        let volume = node.data.as_ref().map_or(DataDirectory::Empty, |data| DataDirectory::Present {
            system_identifier: IDENTITY.to_owned(),
            standby_signal: data.standby_signal,
            unpromoted: data.unpromoted,
            rewinding: data.rewinding,
        });
        let plan = plan(&node.name, &record, &volume, node.noted);
        self.trace.push(format!("postgres-node {index}: {plan:?}"));
        let starting = || Phase::Starting { ticks: 2 };
        let replayed = node.log().len();
        let server = match plan {
            Plan::Refuse(_) => {
                node.ends("exited with code 1");
                return Ok(());
            }
            Plan::Initialise => {
                assert!(self.acknowledged.is_empty(), "I5: a new cluster in the place of one that has data:\n{}", self.trace.join("\n"));
                node.data = Some(Data { log: Vec::new(), standby_signal: false, unpromoted: false, rewinding: false, synchronous: false });
                Server::new(starting(), true, false, 0)
            }
            Plan::Lead { synchronous } => {
                let data = node.data.as_mut().unwrap();
                // What the real configuration makes of it, where it does not leave the setting as it is.
                if let Some(names) = leading(&peer, synchronous).extra.get("synchronous_standby_names") {
                    data.synchronous = names.as_ref().is_some_and(|names| !names.is_empty());
                }
                Server::new(starting(), true, data.synchronous, replayed)
            }
            Plan::Follow => {
                let data = node.data.as_mut().unwrap();
                (data.standby_signal, data.synchronous) = (true, false);
                Server::new(starting(), false, false, replayed)
            }
            Plan::Rewind | Plan::Clone { .. } => {
                let basis = (record.epoch, record.primary, record.transition);
                node.run = Run::Running;
                node.server = Some(Server::new(Phase::Joining { basis, ticks: 25 }, false, false, 0));
                if plan == Plan::Rewind && self.nodes[1 - index].is_writable() && self.link {
                    self.nodes[index].data.as_mut().unwrap().rewinding = true;
                }
                return Ok(());
            }
        };
        node.noted = Some(Noted { epoch: record.epoch, leading: server.primary });
        node.run = Run::Running;
        node.server = Some(server);
        Ok(())
    }

    /// A little time goes by.
    fn tick(&mut self) {
        self.ticks += 1;
        if let Some((index, _)) = self.thaw.take_if(|(_, at)| *at <= Instant::now()) {
            self.unpause(index);
        }
        for index in [A, B] {
            self.live(index);
        }
        for index in [A, B] {
            self.stream(index);
        }
        for index in [A, B] {
            self.write(index);
        }
        let leads = self.nodes.iter().filter(|node| node.is(true)).count();
        assert!(leads <= 1, "I1: two nodes can acknowledge writes:\n{}", self.trace.join("\n"));
    }

    fn live(&mut self, index: usize) {
        let peer_serves = self.link && self.nodes[1 - index].is_writable();
        let record = &self.record;
        let (left, right) = self.nodes.split_at_mut(1);
        let (node, peer) = if index == A { (&mut left[0], &right[0]) } else { (&mut right[0], &left[0]) };
        if node.dies_in == Some(0) {
            node.ends("exited with code 137");
        }
        node.dies_in = node.dies_in.map(|ticks| ticks - 1);
        let (Run::Running, Some(server)) = (node.run, &mut node.server) else { return };
        match &mut server.phase {
            Phase::Joining { .. } if !peer_serves => node.ends("exited with code 1: the primary is not there"),
            Phase::Joining { basis: (epoch, primary, transition), .. }
                if (*epoch, &*primary, &*transition) != (record.epoch, &record.primary, &record.transition) =>
            {
                node.ends("exited with code 1: the record changed")
            }
            Phase::Joining { ticks: 0, .. } => {
                server.phase = Phase::Starting { ticks: 2 };
                let log = peer.log().to_vec();
                server.replayed = log.len();
                // A rewind happens in place and its remains are worth nothing; a base backup leaves what it replaces.
                if let Some(replaced) = node.data.take().filter(|data| !data.rewinding) {
                    let is_given_up = record.failovers.last().is_some_and(|past| past.lossy && past.from == node.name);
                    if is_given_up { &mut node.given_up } else { &mut node.kept }.push(replaced);
                }
                node.data = Some(Data { log, standby_signal: true, unpromoted: true, rewinding: false, synchronous: false });
                node.noted = Some(Noted { epoch: record.epoch, leading: false });
            }
            Phase::Starting { ticks: 0 } => server.phase = Phase::Up,
            Phase::Joining { ticks, .. } | Phase::Starting { ticks } => *ticks -= 1,
            Phase::Up => {
                let data = node.data.as_mut().unwrap();
                if !server.primary {
                    server.replayed = (server.replayed + 1).min(data.log.len());
                }
                if server.promoted_in == Some(0) {
                    *server = Server::new(Phase::Up, true, false, data.log.len());
                    (data.standby_signal, data.unpromoted) = (false, false);
                    self.trace.push(format!("node {index} has left recovery"));
                } else {
                    server.promoted_in = server.promoted_in.map(|ticks| ticks - 1);
                    if server.applied_in == Some(0) {
                        server.in_force = server.written;
                    }
                    server.applied_in = server.applied_in.and_then(|ticks| ticks.checked_sub(1));
                }
            }
        }
    }

    /// From the primary at `index` to its standby, and the standby's word back.
    fn stream(&mut self, index: usize) {
        let (link, due) = (self.link, self.ticks.is_multiple_of(self.stream_every));
        let commits = self.stream_commits;
        let (left, right) = self.nodes.split_at_mut(1);
        let (primary, standby) = if index == A { (&mut left[0], &mut right[0]) } else { (&mut right[0], &mut left[0]) };
        if !primary.is_writable() {
            return;
        }
        let is_there = standby.is(false);
        let (Some(server), Some(data)) = (&mut primary.server, &primary.data) else { return };
        if (link && !is_there) || server.row.is_some_and(|(_, heard)| heard.elapsed() > SENDER_TIMEOUT) {
            server.row = None;
        }
        let Some(copy) = standby.data.as_mut().filter(|_| link && is_there && standby.run == Run::Running) else { return };
        let has = copy.log.len();
        if has > data.log.len() || (has > 0 && copy.log[has - 1] != data.log[has - 1]) {
            return;
        }
        if due {
            copy.log.extend(data.log[has..].iter().take(commits));
        }
        server.row = Some((copy.log.len(), Instant::now()));
    }

    /// Each client commits, or waits for the acknowledgement of its last commit.
    fn write(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.is_writable() {
            return;
        }
        let (Some(server), Some(data)) = (&mut node.server, &mut node.data) else { return };
        let flushed = server.row.map_or(0, |(flushed, _)| flushed);
        let in_force = server.in_force;
        let here = server.waiting.iter().take_while(|id| !in_force || data.log[..flushed].binary_search(id).is_ok()).count();
        self.acknowledged.extend(server.waiting.drain(..here));
        if self.commits_left > 0 && server.waiting.len() < CLIENTS {
            self.commits_left -= 1;
            data.log.push(self.next_commit);
            if in_force {
                server.waiting.push(self.next_commit)
            } else {
                self.acknowledged.push(self.next_commit)
            }
            self.next_commit += 1;
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let story = || self.trace.join("\n");
        let standby = 1 - self.index(&self.record.primary);
        assert!(
            !self.record.standby_eligible || contains(self.nodes[standby].log(), &self.acknowledged),
            "I2: the record vouches for a standby that lacks an acknowledged commit:\n{}",
            story()
        );
        let mut copies =
            self.nodes.iter().flat_map(|node| node.kept.iter().chain(&node.given_up).chain(&node.data).filter(|data| !data.rewinding));
        assert!(
            self.acknowledged.is_empty() || copies.any(|data| contains(&data.log, &self.acknowledged)),
            "I5: no complete copy is left:\n{}",
            story()
        );
    }
}

impl Runtime for World {
    async fn endings(&self, _containers: &[String]) -> Option<impl Stream<Item = ()>> {
        None::<futures_util::stream::Pending<()>>
    }

    async fn inspect(&self, container: &str) -> Result<ContainerState, RuntimeError> {
        self.runtime(None, |state| {
            let index = state.of_container(container);
            let node = &state.nodes[index];
            let address = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(index).unwrap() + 1)));
            Ok(match node.run {
                Run::Running | Run::Paused => ContainerState::Running { address, paused: node.run == Run::Paused, restarts: node.restarts },
                Run::Stopped(how) => ContainerState::Stopped { how: how.to_owned(), restarts: node.restarts },
            })
        })
    }

    async fn start(&self, container: &str) -> Result<(), RuntimeError> {
        self.runtime(Some(format!("start {container}")), |state| state.start(state.of_container(container)))
    }

    async fn stop(&self, container: &str, _grace: Duration) -> Result<(), RuntimeError> {
        self.runtime(Some(format!("stop {container}")), |state| {
            let index = state.of_container(container);
            // In good order: the standby is sent everything first.
            if state.nodes[index].run == Run::Running {
                state.commits_left = 0;
                for _ in 0..QUIET_TICKS {
                    state.tick();
                }
            }
            state.nodes[index].dies_in = Some(0);
            Ok(())
        })
    }

    async fn kill(&self, container: &str) -> Result<(), RuntimeError> {
        self.runtime(Some(format!("kill {container}")), |state| {
            let index = state.of_container(container);
            if state.kill_works && !matches!(state.nodes[index].run, Run::Stopped(_)) {
                state.nodes[index].dies_in = Some(2);
            }
            Ok(())
        })
    }

    async fn restart(&self, container: &str) -> Result<(), RuntimeError> {
        self.runtime(Some(format!("restart {container}")), |_| Ok(()))
    }

    async fn forbid_restart(&self, container: &str) -> Result<(), RuntimeError> {
        self.runtime(Some(format!("forbid restarts of {container}")), |state| {
            let index = state.of_container(container);
            state.nodes[index].restarts = false;
            Ok(())
        })
    }

    async fn probe_inside(&self, container: &str, _deadline: Duration) -> InsideView {
        let answer = self.runtime(None, |state| {
            let node = &state.nodes[state.of_container(container)];
            Ok(match (node.run, node.server.as_ref().map(|server| &server.phase)) {
                (Run::Running, Some(Phase::Up | Phase::Starting { .. })) => InsideView::Alive,
                (Run::Running, Some(Phase::Joining { .. })) => InsideView::Preparing("a base backup".to_owned()),
                (Run::Running | Run::Paused | Run::Stopped(_), _) => InsideView::Dead("no answer".to_owned()),
            })
        });
        answer.unwrap_or_else(|error| InsideView::Unknown(error.to_string()))
    }

    async fn note_lead(&self, container: &str, epoch: u64) -> Result<(), RuntimeError> {
        self.runtime(Some(format!("note that {container} leads")), |state| {
            let index = state.of_container(container);
            state.nodes[index].noted = Some(Noted { epoch, leading: true });
            Ok(())
        })
    }

    async fn discarded(&self, _container: &str, _primary: &Timelines) -> Result<Vec<Discarded>, RuntimeError> {
        self.runtime(None, |_| Ok(Vec::new()))
    }

    async fn order_copy(&self, container: &str) -> Result<(), RuntimeError> {
        self.runtime(Some(format!("order a copy for {container}")), |_| Ok(()))
    }

    async fn discard_old_data(&self, container: &str) -> Result<String, RuntimeError> {
        self.runtime(Some(format!("discard old data of {container}")), |state| {
            let index = state.of_container(container);
            state.nodes[index].kept.clear();
            Ok("discarded".to_owned())
        })
    }
}

impl Servers for World {
    async fn ask(&self, at: IpAddr) -> Result<ServerStatus, ServerError> {
        let work = |state: &mut State, index: usize| {
            let (node, peer) = (&state.nodes[index], &state.nodes[1 - index]);
            let server = node.server.as_ref().unwrap();
            let role = if server.primary {
                let standby = server.row.map(|(flushed, _)| StandbyLink {
                    name: peer.name.to_string(),
                    streaming: true,
                    synchronous: server.written,
                    flushed: Some(lsn(flushed)),
                });
                RoleStatus::Primary(PrimaryStatus {
                    read_only: false,
                    flushed: lsn(node.log().len()),
                    synchronous_standby_names: if server.written { format!("\"{}\"", peer.name) } else { String::new() },
                    synchronous_commit: "on".to_owned(),
                    standbys: standby.into_iter().collect(),
                    timeline: Some(1),
                    slot_retained: Some(0),
                })
            } else {
                RoleStatus::Standby(StandbyStatus {
                    streaming: state.link && peer.is_writable(),
                    replay_paused: false,
                    received: Some(lsn(node.log().len())),
                    replayed: Some(lsn(server.replayed)),
                    drained: false,
                    timeline: Some(1),
                })
            };
            Ok(ServerStatus { system_identifier: IDENTITY.to_owned(), role })
        };
        self.server(at, None, work).await
    }

    async fn relax(&self, at: IpAddr) -> Result<(), ServerError> {
        self.server(at, Some("relax"), |_, _| Ok(())).await
    }

    async fn promote(&self, at: IpAddr) -> Result<(), ServerError> {
        let work = |state: &mut State, index: usize| {
            // What a person has given up counts as never acknowledged.
            if state.record.transition.as_ref().is_some_and(|transition| transition.lossy) {
                let kept = state.nodes[index].log();
                state.acknowledged = state.acknowledged.iter().copied().filter(|id| kept.contains(id)).collect();
            }
            let server = state.nodes[index].server.as_mut().unwrap();
            if !server.primary && server.promoted_in.is_none() {
                server.promoted_in = Some(3);
            }
            Ok(())
        };
        self.server(at, Some("promote"), work).await
    }

    async fn is_writable(&self, at: IpAddr) -> Result<bool, ServerError> {
        self.server(at, None, |state, index| Ok(state.nodes[index].is_writable())).await
    }

    async fn set_synchronous_standby(&self, at: IpAddr, standby: Option<&NodeName>) -> Result<(), ServerError> {
        let work = |state: &mut State, index: usize| {
            let node = &mut state.nodes[index];
            node.data.as_mut().unwrap().synchronous = standby.is_some();
            let server = node.server.as_mut().unwrap();
            server.written = standby.is_some();
            // Each as bad as it can be: protection comes late, and is gone at once.
            server.applied_in = Some(if standby.is_some() { CHECKPOINTER_DELAY } else { 0 });
            Ok(())
        };
        self.server(at, Some(if standby.is_some() { "set sync" } else { "set async" }), work).await
    }

    async fn timelines(&self, at: IpAddr) -> Result<Timelines, ServerError> {
        self.server(at, None, |_, _| Ok(Timelines { ended: Vec::new(), current: 1 })).await
    }

    async fn checkpoint(&self, at: IpAddr, _limit: Duration) -> Result<(), ServerError> {
        sleep(CHECKPOINT).await;
        self.server(at, None, |_, _| Ok(())).await
    }

    async fn settle(&self, at: IpAddr) -> Result<(), ServerError> {
        let work = |state: &mut State, index: usize| {
            let server = state.nodes[index].server.as_mut().unwrap();
            server.in_force = server.written;
            server.applied_in = None;
            Ok(())
        };
        self.server(at, Some("settle"), work).await
    }
}

impl RecordStore for World {
    fn load(&self) -> Result<Record, RecordError> {
        let dead = || RecordError::Missing { path: PathBuf::from("failover-check is dead") };
        self.call(None, |state| state.record.clone()).ok_or_else(dead)
    }

    fn save(&self, record: &Record) -> Result<(), RecordError> {
        let transition = record.transition.as_ref().map(|transition| transition.step);
        let words = format!(
            "record primary {}, epoch {}, eligible {}, transition {transition:?}",
            record.primary, record.epoch, record.standby_eligible
        );
        // Whatever is written must be readable again.
        let text = serde_json::to_string(record).unwrap();
        assert_eq!(Record::parse(&text, &PathBuf::from("r")).unwrap(), *record);
        let dead = || RecordError::Missing { path: PathBuf::from("failover-check is dead") };
        self.call(Some(words), |state| state.record = record.clone()).ok_or_else(dead)
    }
}

impl Journal for World {
    fn append(&self, event: &str, details: Value) {
        let since_boot = self.moment().since_boot;
        self.state().trace.push(format!("{since_boot:?} event: {event} {details}"));
    }
}

impl Clock for World {
    fn moment(&self) -> Moment {
        let state = self.state();
        Moment { boot: state.boot.to_string(), since_boot: state.booted.elapsed() }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.moment().since_boot
    }
}

impl MemoryStore for World {
    fn load(&self) -> Memory {
        self.state().memory.clone()
    }

    fn save(&self, memory: &Memory) -> io::Result<()> {
        let mut state = self.state();
        // What is dead writes nothing.
        if !state.dead {
            state.memory = memory.clone();
        }
        Ok(())
    }
}

/// One `failover-check` at a time is all there is here.
impl Lock for World {
    type Turn = ();

    async fn take(&self, _purpose: Purpose, _patience: Duration) -> Result<(), LockError> {
        Ok(())
    }

    fn waiting(&self) -> Option<Purpose> {
        None
    }
}

impl AppProbe for World {
    async fn ask(&self) -> AppView {
        let ready = self.call(None, |state| state.nodes[state.index(&state.record.primary)].is_writable());
        if ready == Some(true) { AppView::Ready } else { AppView::NotReady("/ready says 503".to_owned()) }
    }
}
