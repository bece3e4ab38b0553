//! What can go wrong, and when it does: everything is drawn from the seed.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::people::Order;
use crate::world::containers::Run;
use crate::world::disk::Unreadable;
use crate::world::{A, B, State};

/// As the time of a fault: until it is mended.
pub const FOREVER: u32 = u32::MAX;

/// Something goes wrong. Where there is a time in milliseconds, it is over after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The node's processes die.
    Kill(usize),
    /// They die and somebody starts the container at once.
    Restart(usize),
    StartByHand(usize),
    /// Somebody promotes this node, if it is a standby.
    PromoteByHand(usize),
    /// `docker pause`.
    Freeze(usize, u32),
    /// SIGSTOP for the postmaster and its children.
    StopBySignal(usize, u32),
    RuntimeAway(u32),
    RuntimeHangs(u32),
    /// It answers questions, and carries orders out when it likes.
    OrdersHang(u32),
    /// The runtime's answers take up to the second.
    RuntimeSlow(u32, u32),
    /// The runtime and all containers end, and the runtime comes back.
    RuntimeRestart(u32),
    CheckerCut(usize, u32),
    PairCut(u32),
    AppCut(usize, u32),
    Detached(usize, u32),
    /// So many of a hundred probes are lost.
    Loss(u32, u32),
    /// Probes take up to the second.
    Delay(u32, u32),
    KillFails(usize, u32),
    StopHangs(usize, u32),
    PromotionHangs(usize, u32),
    DiskFull(usize, u32),
    StateDiskFull(u32),
    VolumeLost(usize),
    ContainerRemoved(usize, u32),
    ReplayPaused(usize, u32),
    ConnectionsExhausted(usize, u32),
    AppDown(u32),
    /// The wall clock is set by so many seconds.
    ClockJump(i32),
    /// The host sleeps.
    HostSleeps(u32),
    Reboot,
    /// Somebody lets the runtime start this node by itself.
    RestartPolicy(usize),
    RecordMissing(u32),
    RecordTorn(u32),
    MemoryBroken,
    /// The primary does not keep this node's log any more.
    SlotLost(usize),
    RewindFails(usize, u32),
    SlowStandby(usize, u32),
    SlowStart(usize, u32),
    /// Every running `failover-check` is killed.
    ProgramsKilled,
    /// A person's order.
    Order(Order),
}

/// What happens at a numbered effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The program dies, and the effect does not take place.
    CrashBefore,
    /// The program dies when the effect has taken place.
    CrashAfter,
    /// The host goes down, and the effect does not take place.
    RebootBefore,
    /// The host goes down when the effect has taken place.
    RebootAfter,
    /// Something goes wrong right before the effect.
    Fault(Fault),
}

impl Interruption {
    pub fn comes_after(&self) -> bool {
        matches!(self, Self::CrashAfter | Self::RebootAfter)
    }

    pub fn is_reboot(&self) -> bool {
        matches!(self, Self::RebootBefore | Self::RebootAfter | Self::Fault(Fault::Reboot))
    }
}

/// How many kinds [`draw`] draws from.
const KINDS: u32 = 42;

/// The names of all kinds, as [`Fault::kind`] gives them: each has to happen in a long run, or the generator has gone blind.
pub const ALL_KINDS: &[&str] = &[
    "kill",
    "restart by hand",
    "start by hand",
    "promote by hand",
    "freeze short",
    "freeze long",
    "stop by signal",
    "runtime away",
    "runtime hangs",
    "orders hang",
    "runtime slow",
    "runtime restart",
    "checker cut",
    "pair cut",
    "app cut",
    "detached",
    "packet loss",
    "delay",
    "kill fails",
    "stop hangs",
    "promotion hangs",
    "disk full",
    "state disk full",
    "volume lost",
    "container removed",
    "replay paused",
    "connections exhausted",
    "app down",
    "clock jump",
    "host sleeps",
    "host reboot",
    "restart policy",
    "record missing",
    "record torn",
    "memory broken",
    "slot lost",
    "rewind fails",
    "slow standby",
    "slow start",
    "programs killed",
    "order switchover",
    "order pause",
    "order pause for a time",
    "order resume",
    "order rejoin",
    "order rejoin from copy",
    "order failover",
];

/// Short against the thresholds, near them, or long.
fn time(rng: &mut Rng) -> u32 {
    match rng.u32(0..3) {
        0 => rng.u32(100..2_500),
        1 => rng.u32(2_000..9_000),
        _ => rng.u32(8_000..50_000),
    }
}

/// Draws one fault.
pub fn draw(rng: &mut Rng) -> Fault {
    let node = if rng.bool() { A } else { B };
    let ms = time(rng);
    match rng.u32(0..KINDS) {
        0..=2 => Fault::Kill(node),
        3 => Fault::Restart(node),
        4 => Fault::StartByHand(node),
        5 => Fault::PromoteByHand(node),
        6..=7 => Fault::Freeze(node, ms),
        8 => Fault::StopBySignal(node, ms),
        9 => Fault::RuntimeAway(ms),
        10 => {
            if rng.bool() {
                Fault::RuntimeHangs(ms)
            } else {
                Fault::OrdersHang(ms)
            }
        }
        11 => Fault::RuntimeSlow(ms, rng.u32(100..30_000)),
        12 => Fault::RuntimeRestart(ms),
        13 => Fault::CheckerCut(node, ms),
        14 => Fault::PairCut(ms),
        15 => Fault::AppCut(node, ms),
        16 => Fault::Detached(node, ms),
        17 => Fault::Loss(ms, rng.u32(10..95)),
        18 => Fault::Delay(ms, rng.u32(100..2_000)),
        19 => Fault::KillFails(node, ms),
        20 => Fault::StopHangs(node, ms),
        21 => Fault::PromotionHangs(node, ms),
        22 => Fault::DiskFull(node, ms),
        23 => Fault::StateDiskFull(ms),
        24 => Fault::VolumeLost(node),
        25 => Fault::ContainerRemoved(node, ms),
        26 => Fault::ReplayPaused(node, ms),
        27 => Fault::ConnectionsExhausted(node, ms),
        28 => Fault::AppDown(ms),
        29 => match rng.u32(0..4) {
            0 => Fault::ClockJump(rng.i32(-100_000..100_000)),
            1 => Fault::HostSleeps(ms),
            2 => Fault::MemoryBroken,
            _ => Fault::ProgramsKilled,
        },
        30 => Fault::Reboot,
        31 => Fault::RestartPolicy(node),
        32 => Fault::RecordMissing(ms),
        33 => Fault::RecordTorn(ms),
        34 => Fault::SlotLost(node),
        35 => Fault::RewindFails(node, ms),
        36 => Fault::SlowStandby(node, ms),
        37 => Fault::SlowStart(node, ms),
        _ => Fault::Order(match rng.u32(0..11) {
            0..=4 => Order::Switchover,
            5 => Order::Pause,
            6 => Order::PauseFor(ms),
            7 => Order::Resume,
            8 => Order::Failover,
            _ => Order::Rejoin { node, from_copy: rng.bool() },
        }),
    }
}

/// Bad luck that single draws meet too rarely.
pub struct HardLuck {
    /// Faults of a pair that pg-a leads, each with the milliseconds until the next, or until others.
    pub faults: Vec<(Fault, u64)>,
    /// An effect that it leads to and little else does.
    pub leads_to: Option<&'static str>,
}

/// Draws one.
pub fn draw_hard_luck(rng: &mut Rng) -> HardLuck {
    let (faults, leads_to) = match rng.u32(0..19) {
        // The primary is lost when the standby has missed commits: only a person can go on.
        0 => {
            let lost_and_given_up = vec![
                (Fault::PairCut(rng.u32(20_000..40_000)), rng.u64(9_000..18_000)),
                (Fault::DiskFull(A, 90_000), rng.u64(25_000..40_000)),
                (Fault::Order(Order::Failover), 0),
            ];
            (lost_and_given_up, Some("set async"))
        }
        // Reached by nobody for longer than the grace.
        1 => (vec![(Fault::Detached(A, rng.u32(45_000..70_000)), 40_000)], Some("kill")),
        // It recovers for longer than the grace, or nearly.
        2 | 17 => (vec![(Fault::SlowStart(A, 20_000), 100), (Fault::Restart(A), 130_000)], None),
        // The standby runs and gets nothing for longer than the grace.
        3 | 15 => (vec![(Fault::PairCut(rng.u32(80_000..110_000)), 80_000)], Some("restart")),
        // More failovers than the tool makes by itself.
        4 => ([A, B, A, B].map(|node| (Fault::Kill(node), rng.u64(20_000..35_000))).into(), None),
        // The primary does not stay up, and the standby that could take over does not run.
        5 => (vec![(Fault::DiskFull(A, 60_000), 0), (Fault::RewindFails(B, 60_000), 0), (Fault::RuntimeRestart(100), 20_000)], None),
        6 => (vec![(Fault::AppDown(rng.u32(20_000..40_000)), 15_000)], Some("restart app")),
        7 => (vec![(Fault::RestartPolicy(A), 100), (Fault::Kill(A), 0)], Some("forbid restarts")),
        // What the runtime was told it does later, or never.
        8 => (vec![(Fault::OrdersHang(rng.u32(20_000..40_000)), 100), (Fault::Kill(B), 20_000)], None),
        // Something is lost while the pair is paused.
        9 => {
            let lost = Fault::Kill(if rng.bool() { A } else { B });
            (vec![(Fault::Order(Order::PauseFor(rng.u32(5_000..40_000))), 2_000), (lost, 5_000)], None)
        }
        // A person brings a node back that is about to come back by itself …
        10 => {
            let back = Fault::Order(Order::Rejoin { node: A, from_copy: false });
            (vec![(Fault::Kill(A), rng.u64(500..4_000)), (back, 0)], Some("relax"))
        }
        // … or one that is well, and something happens meanwhile …
        11 => (vec![(order_of_a_copy(), rng.u64(0..6_000)), (draw(rng), 0)], Some("order a copy")),
        // … or the new copy becomes the primary before what it replaced has gone.
        12 => (vec![(order_of_a_copy(), rng.u64(2_000..9_000)), (Fault::Kill(A), 0)], Some("stop")),
        // Its rewind fails half way.
        16 => (vec![(Fault::RewindFails(A, 30_000), 0), (Fault::Kill(A), 15_000)], None),
        // Nothing can be written while there is something to write.
        13 => (vec![(Fault::StateDiskFull(rng.u32(2_000..10_000)), rng.u64(0..1_000)), (Fault::Kill(A), 2_000)], None),
        // Somebody promotes the standby of a primary that then dies, and no pass has seen it.
        14 => (vec![(Fault::ProgramsKilled, 0), (Fault::PromoteByHand(B), 600), (Fault::Kill(A), 20_000)], None),
        // A node starts where there is no record.
        _ => {
            let again = Fault::Restart(if rng.bool() { A } else { B });
            (vec![(Fault::RecordMissing(rng.u32(2_000..10_000)), rng.u64(0..1_000)), (again, 2_000)], None)
        }
    };
    HardLuck { faults, leads_to }
}

fn order_of_a_copy() -> Fault {
    Fault::Order(Order::Rejoin { node: B, from_copy: true })
}

/// What happens at an effect.
pub fn draw_interruption(rng: &mut Rng) -> Interruption {
    match rng.u32(0..12) {
        0..=3 => Interruption::CrashBefore,
        4..=7 => Interruption::CrashAfter,
        8 => Interruption::RebootBefore,
        9 => Interruption::RebootAfter,
        _ => Interruption::Fault(draw(rng)),
    }
}

impl Fault {
    /// For the summary.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Restart(_) => "restart by hand",
            Self::StartByHand(_) => "start by hand",
            Self::PromoteByHand(_) => "promote by hand",
            Self::Freeze(_, ms) if ms < 2_500 => "freeze short",
            Self::Freeze(..) => "freeze long",
            Self::StopBySignal(..) => "stop by signal",
            Self::RuntimeAway(_) => "runtime away",
            Self::RuntimeHangs(_) => "runtime hangs",
            Self::OrdersHang(_) => "orders hang",
            Self::RuntimeSlow(..) => "runtime slow",
            Self::RuntimeRestart(_) => "runtime restart",
            Self::CheckerCut(..) => "checker cut",
            Self::PairCut(_) => "pair cut",
            Self::AppCut(..) => "app cut",
            Self::Detached(..) => "detached",
            Self::Loss(..) => "packet loss",
            Self::Delay(..) => "delay",
            Self::KillFails(..) => "kill fails",
            Self::StopHangs(..) => "stop hangs",
            Self::PromotionHangs(..) => "promotion hangs",
            Self::DiskFull(..) => "disk full",
            Self::StateDiskFull(_) => "state disk full",
            Self::VolumeLost(_) => "volume lost",
            Self::ContainerRemoved(..) => "container removed",
            Self::ReplayPaused(..) => "replay paused",
            Self::ConnectionsExhausted(..) => "connections exhausted",
            Self::AppDown(_) => "app down",
            Self::ClockJump(_) => "clock jump",
            Self::HostSleeps(_) => "host sleeps",
            Self::Reboot => "host reboot",
            Self::RestartPolicy(_) => "restart policy",
            Self::RecordMissing(_) => "record missing",
            Self::RecordTorn(_) => "record torn",
            Self::MemoryBroken => "memory broken",
            Self::SlotLost(_) => "slot lost",
            Self::RewindFails(..) => "rewind fails",
            Self::SlowStandby(..) => "slow standby",
            Self::SlowStart(..) => "slow start",
            Self::ProgramsKilled => "programs killed",
            Self::Order(Order::Switchover) => "order switchover",
            Self::Order(Order::Pause) => "order pause",
            Self::Order(Order::PauseFor(_)) => "order pause for a time",
            Self::Order(Order::Resume) => "order resume",
            Self::Order(Order::Rejoin { from_copy: false, .. }) => "order rejoin",
            Self::Order(Order::Rejoin { from_copy: true, .. }) => "order rejoin from copy",
            Self::Order(Order::Failover) => "order failover",
        }
    }

    /// How long it lasts; none where it is a moment's thing.
    fn lasts(self) -> Option<u32> {
        match self {
            Self::Freeze(_, ms)
            | Self::StopBySignal(_, ms)
            | Self::RuntimeAway(ms)
            | Self::RuntimeHangs(ms)
            | Self::OrdersHang(ms)
            | Self::RuntimeSlow(ms, _)
            | Self::RuntimeRestart(ms)
            | Self::CheckerCut(_, ms)
            | Self::PairCut(ms)
            | Self::AppCut(_, ms)
            | Self::Detached(_, ms)
            | Self::Loss(ms, _)
            | Self::Delay(ms, _)
            | Self::KillFails(_, ms)
            | Self::StopHangs(_, ms)
            | Self::PromotionHangs(_, ms)
            | Self::DiskFull(_, ms)
            | Self::StateDiskFull(ms)
            | Self::ContainerRemoved(_, ms)
            | Self::ReplayPaused(_, ms)
            | Self::ConnectionsExhausted(_, ms)
            | Self::AppDown(ms)
            | Self::RecordMissing(ms)
            | Self::RecordTorn(ms)
            | Self::RewindFails(_, ms)
            | Self::SlowStandby(_, ms)
            | Self::SlowStart(_, ms) => Some(ms),
            Self::Kill(_)
            | Self::Restart(_)
            | Self::StartByHand(_)
            | Self::PromoteByHand(_)
            | Self::VolumeLost(_)
            | Self::ClockJump(_)
            | Self::HostSleeps(_)
            | Self::Reboot
            | Self::RestartPolicy(_)
            | Self::MemoryBroken
            | Self::SlotLost(_)
            | Self::ProgramsKilled
            | Self::Order(_) => None,
        }
    }
}

impl State {
    /// It happens now.
    pub fn befall(&mut self, fault: Fault) {
        self.say(|| format!("fault: {fault:?}"));
        if let Fault::VolumeLost(index) = fault
            && !self.may_lose_volume(index)
        {
            return;
        }
        self.tally.count_fault(fault.kind());
        if let Some(ms) = fault.lasts().filter(|ms| *ms < FOREVER) {
            self.endings.push((Instant::now() + Duration::from_millis(ms.into()), fault));
        }
        match fault {
            Fault::Kill(index) => self.nodes[index].ends("exited with code 137"),
            Fault::Restart(index) => {
                self.nodes[index].ends("exited with code 137");
                let _ = self.start(index);
            }
            // Refused where it is frozen or gone; then nothing has happened.
            Fault::StartByHand(index) => drop(self.start(index)),
            Fault::PromoteByHand(index) => {
                let node = &mut self.nodes[index];
                if node.run == Run::Running
                    && let Some(server) = node.server.as_mut().filter(|server| server.is_up() && !server.primary)
                {
                    server.promoted_in.get_or_insert(3);
                    server.by_hand = true;
                    self.promoted_by_hand = true;
                    self.tally.count("promoted behind the tool's back");
                }
            }
            Fault::RuntimeRestart(_) => {
                for node in &mut self.nodes {
                    node.ends("exited with code 255");
                }
                self.engine.forget_orders();
                self.set(fault, true);
            }
            Fault::VolumeLost(index) => self.lose_volume(index),
            Fault::ContainerRemoved(index, _) => {
                self.nodes[index].ends("removed");
                self.nodes[index].run = Run::Missing;
            }
            Fault::ClockJump(seconds) => self.move_wall_clock(seconds.into()),
            Fault::HostSleeps(ms) => self.sleep_through(Duration::from_millis(ms.into())),
            Fault::Reboot => self.reboot(),
            Fault::RestartPolicy(index) => self.nodes[index].restarts = true,
            Fault::MemoryBroken => self.disk.break_memory(),
            Fault::SlotLost(index) => {
                // What still streams holds its slot.
                let node = &mut self.nodes[index];
                node.slot_lost = !node.server.as_ref().is_some_and(|server| server.streams());
            }
            Fault::ProgramsKilled => self.kill_programs(),
            Fault::Order(order) => self.orders.push(order),
            lasting => self.set(lasting, true),
        }
    }

    /// Begins or ends what lasts.
    fn set(&mut self, fault: Fault, on: bool) {
        match fault {
            Fault::Freeze(index, _) => {
                let run = &mut self.nodes[index].run;
                match (*run, on) {
                    (Run::Running, true) => *run = Run::Paused,
                    (Run::Paused, false) => *run = Run::Running,
                    _ => {}
                }
            }
            Fault::StopBySignal(index, _) => {
                let node = &mut self.nodes[index];
                node.is_stopped_by_signal = on && node.server.as_ref().is_some_and(|server| server.is_up());
            }
            Fault::RuntimeAway(_) | Fault::RuntimeRestart(_) => {
                self.engine.away = on;
                if matches!(fault, Fault::RuntimeRestart(_)) && !on {
                    for index in [A, B] {
                        if self.nodes[index].restarts {
                            drop(self.start(index));
                        }
                    }
                }
            }
            Fault::RuntimeHangs(_) => self.engine.hangs = on,
            Fault::OrdersHang(_) => self.engine.orders_hang = on,
            Fault::RuntimeSlow(_, slowest) => self.engine.delay = Duration::from_millis(if on { slowest.into() } else { 0 }),
            Fault::CheckerCut(index, _) => self.network.checker_cut[index] = on,
            Fault::PairCut(_) => self.network.pair_cut = on,
            Fault::AppCut(index, _) => self.network.app_cut[index] = on,
            Fault::Detached(index, _) => self.network.detached[index] = on,
            Fault::Loss(_, percent) => self.network.loss = if on { percent } else { 0 },
            Fault::Delay(_, slowest) => self.network.delay = Duration::from_millis(if on { slowest.into() } else { 0 }),
            Fault::KillFails(index, _) => self.nodes[index].kill_fails = on,
            Fault::StopHangs(index, _) => self.nodes[index].stop_hangs = on,
            Fault::PromotionHangs(index, _) => self.nodes[index].promotion_hangs = on,
            Fault::DiskFull(index, _) => self.nodes[index].disk_full = on,
            Fault::StateDiskFull(_) => self.disk.full = on,
            Fault::ContainerRemoved(index, _) => {
                let run = &mut self.nodes[index].run;
                if *run == Run::Missing && !on {
                    *run = Run::Stopped("created");
                }
            }
            Fault::ReplayPaused(index, _) => {
                let node = &mut self.nodes[index];
                node.replay_paused = on && node.is(false);
            }
            Fault::ConnectionsExhausted(index, _) => self.nodes[index].refuses = on,
            Fault::AppDown(_) => self.ledger.app_down = on,
            Fault::RecordMissing(_) => self.disk.unreadable = on.then_some(Unreadable::Missing),
            Fault::RecordTorn(_) => self.disk.unreadable = on.then_some(Unreadable::Torn),
            Fault::RewindFails(index, _) => self.nodes[index].rewind_fails = on,
            Fault::SlowStandby(index, _) => self.nodes[index].is_slow = on,
            Fault::SlowStart(index, _) => self.nodes[index].starts_slowly = on,
            Fault::Kill(_)
            | Fault::Restart(_)
            | Fault::StartByHand(_)
            | Fault::PromoteByHand(_)
            | Fault::VolumeLost(_)
            | Fault::ClockJump(_)
            | Fault::HostSleeps(_)
            | Fault::Reboot
            | Fault::RestartPolicy(_)
            | Fault::MemoryBroken
            | Fault::SlotLost(_)
            | Fault::ProgramsKilled
            | Fault::Order(_) => {}
        }
    }

    /// What has lasted long enough is over.
    pub fn end_faults(&mut self) {
        let now = Instant::now();
        if self.endings.is_empty() {
            return;
        }
        let over: Vec<Fault> = self.endings.extract_if(.., |(at, _)| *at <= now).map(|(_, fault)| fault).collect();
        for fault in over {
            self.say(|| format!("over: {fault:?}"));
            self.set(fault, false);
        }
    }

    /// It is over, before its time where it has one.
    pub fn mend(&mut self, fault: Fault) {
        self.say(|| format!("mended: {fault:?}"));
        self.endings.retain(|(_, lasting)| *lasting != fault);
        self.set(fault, false);
    }

    /// Does anything still go on?
    pub fn has_faults(&self) -> bool {
        !self.endings.is_empty() || !self.orders.is_empty() || self.orders_under_way > 0
    }

    /// A volume may be destroyed while the other one holds a server that is up: two destroyed volumes are nobody's fault and nobody's success.
    ///
    /// Not while a person has promoted the other node behind the tool's back: should that one restart before it is adopted, its node waits for the lost primary
    /// and the lost primary's node refuses, and no command of the tool leads out. A person has to start PostgreSQL there without `postgres-node`.
    ///
    /// Nor while the other node is to take a fresh copy: it waits for the lost primary then, whatever data it has, and no command takes that order back.
    fn may_lose_volume(&self, index: usize) -> bool {
        let other = &self.nodes[1 - index];
        let by_hand = other.server.as_ref().is_some_and(|server| server.by_hand);
        let takes_a_copy = self.copies_under_way > 0 || other.copy_ordered;
        other.runs()
            && !by_hand
            && !takes_a_copy
            && (other.is(false) || other.is(true))
            && other.data.as_ref().is_some_and(|data| !data.rewinding)
    }

    fn lose_volume(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.ends("exited with code 1: its volume is gone");
        (node.data, node.noted) = (None, None);
        node.kept.clear();
        node.directories_seen = 0;
        let left = self.copies();
        let ledger = &mut self.ledger;
        let gone = [ledger.acknowledged.without(&[&left]), ledger.outside.without(&[&left])];
        gone.iter().for_each(|gone| ledger.destroyed.add(gone));
    }
}
