//! The world: one shared state, and what lets its time go by. The other modules of this folder are its parts.
//!
//! Whoever acts in the world holds a [`Hand`], which belongs to one process. All of `failover-check`'s traits are implemented on it. Each call takes a little
//! time; each effect is numbered, and at it whatever the seed has chosen happens. A process that has died has no effect any more, whatever its code still does.

pub mod clients;
pub mod containers;
pub mod disk;
pub mod network;
pub mod node;
pub mod postgres;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use understudy::failover::clock::{Clock, Moment};
use understudy::failover::lock::{Lock, LockError, Purpose};
use understudy::failover::parts::Parts;
use understudy::failover::pass::Checker;
use understudy::failover::settings::{Mode, Settings};
use understudy::record::NodeName;

use crate::broken_rules::BrokenRule;
use crate::coverage::Tally;
use crate::default_settings::default_settings;
use crate::faults::{Fault, Interruption};
use crate::people::Order;
use clients::Ledger;
use containers::{Engine, Node, Run};
use disk::Disk;
use network::Network;
use postgres::Data;

/// The nodes by index.
pub const A: usize = 0;
pub const B: usize = 1;

/// The programs: what cron starts, and what a person does.
pub const CRON: &str = "failover-check";
pub const ORDER: &str = "a person's order";

/// How far the world goes on at a time, while nobody calls it.
pub const TICK: Duration = Duration::from_millis(100);

/// How often somebody who wants to act looks whether it is its turn. `lock.rs` looks five times as often; nothing rests on that here, and it would be most of what
/// happens in a world.
const LOCK_LOOK: Duration = Duration::from_millis(100);

/// Everything there is.
pub struct State {
    pub rng: Rng,
    pub nodes: [Node; 2],
    pub disk: Disk,
    pub network: Network,
    pub engine: Engine,
    pub ledger: Ledger,
    pub tally: Tally,
    /// The rule that is broken in this world, if any.
    pub broken: Option<BrokenRule>,
    pub violation: Option<String>,
    pub effects: u32,
    /// What happens at which effect.
    pub interruptions: Vec<(u32, Interruption)>,
    /// What happens at the next effect of a kind.
    pub aimed: Vec<(&'static str, Interruption)>,
    /// The rule that the last pass fired, and since when it does.
    pub last_rule: Option<(String, Instant)>,
    pub passes: u32,
    boot: u32,
    booted: Instant,
    /// Time that the host slept through: the boot's clock counts it, the world's does not.
    slept: Duration,
    /// How far the wall clock is off.
    wall_offset: SignedDuration,
    began: Instant,
    processes: Vec<Rc<Process>>,
    lock: LockState,
    trace: Option<Vec<String>>,
    /// What lasts, and until when.
    pub endings: Vec<(Instant, Fault)>,
    /// What a person is about to order.
    pub orders: Vec<Order>,
    /// Orders that a program is carrying out.
    pub orders_under_way: u32,
    /// Orders of a fresh copy among them.
    pub copies_under_way: u32,
    /// A person has promoted a node behind the tool's back at some time.
    pub promoted_by_hand: bool,
    /// When the last transition began.
    pub accepted_at: Option<Instant>,
    /// What the app last said; for a broken rule.
    pub app_was_ready: bool,
    /// How long a checkpoint takes; drawn where a story does not say.
    pub checkpoint_takes: Option<Duration>,
    /// When cron's passes first did something, and the rule by which; or would have.
    pub first_deed: Option<(Duration, String)>,
    /// … and which rule it was that they last told of, where it asks for a deed.
    pub told_deed: Option<String>,
}

#[derive(Default)]
struct LockState {
    next: u64,
    holder: Option<u64>,
    queue: Option<(u64, Purpose)>,
}

/// A running program.
pub struct Process {
    name: &'static str,
    alive: Cell<bool>,
    gone: Notify,
    /// It was told to observe only.
    pub observes: bool,
    /// When it last read the record, the pair was paused, and no transition unfinished.
    pub read_a_pause: Cell<bool>,
    /// It has itself verified that the node that its transition leads away from does not run; for a broken rule.
    pub began_transition: Cell<bool>,
    /// Containers that it told to die; for a broken rule.
    pub killed: Cell<[bool; 2]>,
}

impl Process {
    fn ends(&self) {
        if self.alive.replace(false) {
            self.gone.notify_one();
        }
    }

    /// A program that passes, rather than a person's.
    pub fn is_crons(&self) -> bool {
        self.name == CRON
    }
}

/// The world. A clone is the same world.
#[derive(Clone)]
pub struct World {
    state: Rc<RefCell<State>>,
    pub settings: Rc<RefCell<Settings>>,
    pub rebooted: Rc<Notify>,
}

/// One process's hold on the world.
#[derive(Clone)]
pub struct Hand {
    pub world: World,
    pub process: Rc<Process>,
}

impl Parts for Hand {
    type Runtime = Self;
    type Servers = Self;
    type Store = Self;
    type Journal = Self;
    type App = Self;
    type Clock = Self;
    type Memories = Self;
    type Lock = Self;
}

/// A node's name.
pub fn name(index: usize) -> NodeName {
    ["pg-a", "pg-b"][index].parse().unwrap()
}

impl World {
    /// A new installation: nothing runs, both volumes are empty.
    pub fn fresh(seed: u64, broken: Option<BrokenRule>, traced: bool) -> Self {
        let now = Instant::now();
        let state = State {
            rng: Rng::with_seed(seed),
            nodes: [Node::new(A), Node::new(B)],
            disk: Disk::new(),
            network: Network::default(),
            engine: Engine::default(),
            ledger: Ledger::new(),
            tally: Tally::default(),
            broken,
            violation: None,
            effects: 0,
            interruptions: Vec::new(),
            aimed: Vec::new(),
            last_rule: None,
            passes: 0,
            boot: 1,
            booted: now,
            slept: Duration::ZERO,
            wall_offset: SignedDuration::ZERO,
            began: now,
            processes: Vec::new(),
            lock: LockState::default(),
            trace: traced.then(Vec::new),
            endings: Vec::new(),
            orders: Vec::new(),
            orders_under_way: 0,
            copies_under_way: 0,
            promoted_by_hand: false,
            accepted_at: None,
            app_was_ready: true,
            checkpoint_takes: None,
            first_deed: None,
            told_deed: None,
        };
        let settings = default_settings().clone();
        let world =
            Self { state: Rc::new(RefCell::new(state)), settings: Rc::new(RefCell::new(settings)), rebooted: Rc::new(Notify::new()) };
        if let Some(broken) = broken {
            broken.set_up(&mut world.settings.borrow_mut());
        }
        world
    }

    /// A pair in sync, pg-a primary, that has served for a moment.
    pub fn healthy(seed: u64, broken: Option<BrokenRule>, traced: bool) -> Self {
        let world = Self::fresh(seed, broken, traced);
        {
            let mut state = world.state();
            state.disk.begin_in_sync();
            for index in [A, B] {
                state.nodes[index].data = Some(Data::new(index == B));
                state.start(index).unwrap();
            }
            for _ in 0..40 {
                state.tick();
            }
        }
        world
    }

    pub fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Time goes by, for as long as nothing forbidden happens.
    pub async fn live(&self) {
        loop {
            sleep(TICK).await;
            let mut state = self.state();
            state.tick();
            if state.violation.is_some() {
                return;
            }
        }
    }

    /// Runs a program on a checker, until it ends or dies; then None.
    pub async fn run<T>(&self, name: &'static str, program: impl AsyncFnOnce(Checker<Hand>) -> T) -> Option<T> {
        let mut settings = self.settings.borrow().clone();
        let process = Rc::new(Process {
            name,
            alive: Cell::new(true),
            gone: Notify::new(),
            observes: name == CRON && settings.mode == Mode::Observe,
            read_a_pause: Cell::new(false),
            began_transition: Cell::new(false),
            killed: Cell::new([false; 2]),
        });
        self.state().processes.push(process.clone());
        let hand = Hand { world: self.clone(), process: process.clone() };
        settings.mode = BrokenRule::mode(self.state().broken, settings.mode);
        let part = || hand.clone();
        let checker = Checker {
            settings,
            runtime: part(),
            servers: part(),
            store: part(),
            journal: part(),
            app: part(),
            clock: part(),
            memories: part(),
            lock: part(),
            outward: None,
        };
        let _fuse = Fuse { world: self.clone(), name };
        let ended = tokio::select! {
            biased;
            () = process.gone.notified() => None,
            ended = program(checker) => Some(ended),
        };
        let alive = process.alive.replace(false);
        let mut state = self.state();
        state.processes.retain(|other| !Rc::ptr_eq(other, &process));
        if !alive {
            state.say(|| format!("{name} died"));
        }
        ended.filter(|_| alive)
    }
}

/// A program of ours that panics does so in a task, where nobody would hear it.
struct Fuse {
    world: World,
    name: &'static str,
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(mut state) = self.world.state.try_borrow_mut()
        {
            state.violate(format!("{} panicked", self.name));
        }
    }
}

impl State {
    pub fn index(&self, name: &NodeName) -> usize {
        if name.as_str() == "pg-a" { A } else { B }
    }

    /// Since the world began.
    pub fn time(&self) -> Duration {
        self.began.elapsed()
    }

    /// Adds a line to the trace, where one is kept.
    pub fn say(&mut self, words: impl FnOnce() -> String) {
        let time = self.began.elapsed();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3} {}", time.as_secs_f64(), words()));
        }
    }

    /// What has happened so far, where a trace is kept.
    pub fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// What must never be, is. The first one counts.
    pub fn violate(&mut self, words: String) {
        self.say(|| format!("VIOLATION {words}"));
        self.violation.get_or_insert(words);
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    /// The host loses its power and comes back: every process is gone, and what was not flushed is lost or torn.
    pub fn reboot(&mut self) {
        self.say(|| "the host goes down and comes back".to_owned());
        self.tally.count("reboot");
        self.boot += 1;
        self.booted = Instant::now();
        self.slept = Duration::ZERO;
        for process in std::mem::take(&mut self.processes) {
            process.ends();
        }
        for node in &mut self.nodes {
            node.ends("exited with code 255");
            for data in node.data.iter_mut() {
                data.lose_unflushed();
            }
        }
        self.disk.lose_power(&mut self.rng);
        self.engine.forget_orders();
        for index in [A, B] {
            if self.nodes[index].restarts {
                self.say(|| format!("the runtime starts node {index} by its restart policy"));
                let _ = self.start(index);
            }
        }
    }

    /// Every running `failover-check` is killed.
    pub fn kill_programs(&mut self) {
        for process in std::mem::take(&mut self.processes) {
            process.ends();
        }
    }

    /// The host sleeps, and everything on it: a snapshot of a virtual machine.
    pub fn sleep_through(&mut self, time: Duration) {
        self.slept += time;
    }

    /// How long the host has slept since it was started.
    pub fn slept(&self) -> Duration {
        self.slept
    }

    pub fn move_wall_clock(&mut self, seconds: i64) {
        self.wall_offset += SignedDuration::from_secs(seconds);
    }

    /// What the host's clock shows.
    pub fn wall(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.time()).unwrap() + self.wall_offset;
        Timestamp::from_second(1_790_000_000).unwrap() + since
    }

    /// A little time goes by.
    pub fn tick(&mut self) {
        self.end_faults();
        self.carry_out_late_orders();
        for index in [A, B] {
            self.live(index);
        }
        for index in [A, B] {
            self.stream(index);
        }
        for index in [A, B] {
            self.serve_clients(index);
        }
        self.ledger.app_starts_in = self.ledger.app_starts_in.and_then(|ticks| ticks.checked_sub(1));
        self.disk.settle();
        self.check();
    }
}

impl Hand {
    pub fn state(&self) -> RefMut<'_, State> {
        self.world.state()
    }

    /// Does one thing to the world, at once: a step of the world, and for an effect whatever is to happen at it. None: the process is dead.
    pub fn step<T>(&self, effect: Option<(&'static str, String)>, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.state();
        if !self.process.alive.get() || state.violation.is_some() {
            return None;
        }
        let Some((kind, details)) = effect else { return Some(work(&mut state)) };
        state.effects += 1;
        state.tally.count_effect(kind);
        let (number, program) = (state.effects, self.process.name);
        state.say(|| format!("effect {number} of {program}: {kind} {details}"));
        state.a_deed_is_done(kind, &self.process);
        let mut due: Vec<Interruption> = state.interruptions.extract_if(.., |(at, _)| *at == number).map(|(_, what)| what).collect();
        due.extend(state.aimed.extract_if(.., |(at, _)| *at == kind).map(|(_, what)| what));
        for what in due.iter().filter(|what| !what.comes_after()) {
            state.interrupt(*what, kind, &self.process);
        }
        if !self.process.alive.get() {
            drop(state);
            self.tell_of_reboot(&due);
            return None;
        }
        state.tick();
        let result = work(&mut state);
        state.check();
        for what in due.iter().filter(|what| what.comes_after()) {
            state.interrupt(*what, kind, &self.process);
        }
        let alive = self.process.alive.get() && state.violation.is_none();
        drop(state);
        self.tell_of_reboot(&due);
        alive.then_some(result)
    }

    fn tell_of_reboot(&self, due: &[Interruption]) {
        if due.iter().any(Interruption::is_reboot) {
            self.world.rebooted.notify_waiters();
        }
    }

    /// As [`Hand::step`]; a dead process waits for its end.
    pub async fn call<T>(&self, effect: Option<(&'static str, String)>, work: impl FnOnce(&mut State) -> T) -> T {
        match self.step(effect, work) {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

impl State {
    fn interrupt(&mut self, what: Interruption, kind: &'static str, process: &Rc<Process>) {
        self.say(|| format!("at this effect: {what:?}"));
        match what {
            Interruption::CrashBefore | Interruption::CrashAfter => {
                self.tally.count_crash(kind, what == Interruption::CrashAfter);
                process.ends();
            }
            Interruption::RebootBefore | Interruption::RebootAfter => self.reboot(),
            Interruption::Fault(fault) => self.befall(fault),
        }
    }
}

impl Clock for Hand {
    fn moment(&self) -> Moment {
        let state = self.state();
        Moment { boot: state.boot.to_string(), since_boot: state.booted.elapsed() + state.slept }
    }

    fn wall(&self) -> Timestamp {
        self.state().wall()
    }
}

/// The right to act. As with a lock of the kernel, it is free when its holder is gone.
pub struct Turn {
    world: World,
    number: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.world.state();
        let lock = &mut state.lock;
        lock.holder.take_if(|holder| *holder == self.number);
        lock.queue.take_if(|(waiting, _)| *waiting == self.number);
    }
}

impl Lock for Hand {
    type Turn = Turn;

    async fn take(&self, purpose: Purpose, patience: Duration) -> Result<Turn, LockError> {
        let turn = {
            let mut state = self.state();
            state.lock.next += 1;
            Turn { world: self.world.clone(), number: state.lock.next }
        };
        let until = Instant::now() + patience;
        let mut is_queued = false;
        loop {
            {
                let mut state = self.state();
                if state.broken == Some(BrokenRule::NoLock) {
                    return Ok(turn);
                }
                let lock = &mut state.lock;
                if !is_queued && lock.queue.is_none() {
                    lock.queue = Some((turn.number, purpose));
                    is_queued = true;
                }
                if is_queued && lock.holder.is_none() {
                    lock.holder = Some(turn.number);
                    lock.queue = None;
                    return Ok(turn);
                }
            }
            if Instant::now() >= until {
                return Err(LockError::Busy { waited: patience, holder: String::new() });
            }
            sleep(LOCK_LOOK).await;
        }
    }

    fn waiting(&self) -> Option<Purpose> {
        let state = self.state();
        state.lock.queue.filter(|_| state.broken != Some(BrokenRule::NoLock)).map(|(_, purpose)| purpose)
    }
}

impl Node {
    /// Its container has processes, or may get them back by itself.
    pub fn runs(&self) -> bool {
        !matches!(self.run, Run::Stopped(_) | Run::Missing)
    }
}
