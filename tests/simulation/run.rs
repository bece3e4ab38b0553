//! One seed: a world, faults, then none any more, and what has become of it.

use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};
use understudy::failover::decide::HEALTHY;
use understudy::failover::settings::Mode;

use crate::broken_rules::BrokenRule;
use crate::coverage::{EFFECTS, Tally};
use crate::faults::{Interruption, draw, draw_hard_luck, draw_interruption};
use crate::people::{give_orders, remedy};
use crate::world::{A, B, TICK, World};

/// How long a pair may take to be healthy once nothing is wrong any more. What needs longest are a node that waits a minute for its primary before it ends, a minute
/// without a stream before a standby is restarted, and a person's patience, each perhaps twice.
const HEALING: Duration = Duration::from_secs(600);
/// How long a healthy pair may take to acknowledge a commit. In sync mode it waits for the standby, and that may be slow.
const SERVING: Duration = Duration::from_secs(10);
/// How long a person looks at a refusal before doing what it says.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of a seed.
pub struct Outcome {
    /// What must never be, and was.
    pub violation: Option<String>,
    pub tally: Tally,
    /// Everything that happened, where it was asked for.
    pub trace: Vec<String>,
    /// How long the world existed, by its own clock.
    pub lived: Duration,
    /// When passes first did something, or would have, and by which rule.
    pub first_deed: Option<(Duration, String)>,
}

/// Lives through a seed, in the mode that it draws.
pub fn live_through(seed: u64, broken: Option<BrokenRule>, traced: bool) -> Outcome {
    live_through_in(None, seed, broken, traced)
}

/// Lives through a seed, in a mode that does not depend on it.
pub fn live_through_in(mode: Option<Mode>, seed: u64, broken: Option<BrokenRule>, traced: bool) -> Outcome {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut rng = Rng::with_seed(seed);
        let world =
            if rng.u32(0..10) == 0 { World::fresh(rng.u64(..), broken, traced) } else { World::healthy(rng.u64(..), broken, traced) };
        let drawn = if rng.u32(0..12) == 0 { Mode::Observe } else { Mode::Act };
        world.settings.borrow_mut().mode = mode.unwrap_or(drawn);
        tokio::select! {
            biased;
            () = world.live() => {}
            () = direct(&world, &mut rng) => {}
        }
        let mut state = world.state();
        let acknowledged = state.ledger.acknowledged.len() + state.ledger.outside.len();
        let (given_up, destroyed) = (state.ledger.given_up.len(), state.ledger.destroyed.len());
        state.tally.add("commits acknowledged", acknowledged);
        state.tally.add("commits given up by a person", given_up);
        state.tally.add("commits destroyed with the only disk that had them", destroyed);
        let lost = acknowledged_and_nowhere(&state);
        state.tally.add("commits lost", lost);
        Outcome {
            violation: state.violation.take(),
            tally: std::mem::take(&mut state.tally),
            lived: state.time(),
            first_deed: state.first_deed.take(),
            trace: state.trace().to_vec(),
        }
    })
}

fn acknowledged_and_nowhere(state: &crate::world::State) -> u32 {
    let copies = state.copies();
    state.ledger.acknowledged.missing_in(&[&copies, &state.ledger.destroyed])
}

/// Cron, the people, the faults, and the end.
async fn direct(world: &World, rng: &mut Rng) {
    let period = Duration::from_secs([5, 10, 20, 60][rng.usize(0..4)]);
    spawn_local(cron(world.clone(), period));
    spawn_local(give_orders(world.clone()));
    world.state().ledger.busy = [5, 30, 90][rng.usize(0..3)];
    if rng.u32(0..4) == 0 {
        sleep(Duration::from_secs(8)).await;
        let luck = draw_hard_luck(rng);
        let aim = luck.leads_to.filter(|_| rng.u32(0..4) > 0).map(|kind| (kind, draw_interruption(rng)));
        world.state().aimed.extend(aim);
        for (fault, then) in luck.faults {
            world.state().befall(fault);
            sleep(Duration::from_millis(then)).await;
        }
    }
    for _ in 0..rng.u32(1..8) {
        sleep(Duration::from_millis(rng.u64(0..12_000))).await;
        // Half of them while the tool is about to do something.
        if rng.bool() {
            let (within, what) = (rng.u32(1..10), draw_interruption(rng));
            let aim = rng.bool().then(|| EFFECTS[rng.usize(0..EFFECTS.len())]);
            let mut state = world.state();
            let at = state.effects + within;
            match aim {
                Some(kind) => state.aimed.push((kind, what)),
                None => state.interruptions.push((at, what)),
            }
        }
        let fault = draw(rng);
        world.state().befall(fault);
        // Not told from within the state: whoever waits for it looks at the state.
        if Interruption::Fault(fault).is_reboot() {
            world.rebooted.notify_waiters();
        }
    }
    while world.state().has_faults() {
        sleep(Duration::from_millis(500)).await;
    }
    {
        let mut state = world.state();
        state.interruptions.clear();
        state.aimed.clear();
        state.say(|| "nothing is wrong any more".to_owned());
    }
    if std::mem::replace(&mut world.settings.borrow_mut().mode, Mode::Act) == Mode::Observe {
        let mut state = world.state();
        state.tally.count("observed only, then armed");
        state.say(|| "a person lets the passes act".to_owned());
    }
    heal(world).await;
}

/// Cron starts a program each so often, and at boot.
async fn cron(world: World, period: Duration) {
    loop {
        let watcher = world.clone();
        spawn_local(async move {
            // A little longer than the period: the next one takes over under the lock.
            let _ =
                watcher.run("failover-check", async move |checker| checker.run_for(period + Duration::from_secs(5)).await.is_ok()).await;
        });
        tokio::select! {
            biased;
            () = world.rebooted.notified() => sleep(Duration::from_secs(2)).await,
            () = sleep(period) => {}
        }
    }
}

/// Once nothing is wrong any more the pair becomes healthy, by itself or with what its messages ask a person to do.
async fn heal(world: &World) {
    let until = Instant::now() + HEALING;
    let mut remedied = Instant::now();
    loop {
        sleep(Duration::from_millis(500)).await;
        let (rule, since) = world.state().last_rule.clone().unwrap_or((String::new(), Instant::now()));
        if rule == HEALTHY.id && is_healthy(world) {
            break;
        }
        if Instant::now() >= until {
            world.state().violate(format!("I4: not healthy {HEALING:?} after the last fault; the rule is {rule}"));
            return;
        }
        let asks = match rule.as_str() {
            "R40" | "R70" | "R130" | "R350" => true,
            "R50" => !world.state().pause_ends_within(HEALING / 2),
            _ => false,
        };
        if asks && since.elapsed() > PATIENCE && remedied.elapsed() > PATIENCE {
            remedied = Instant::now();
            if !remedy(world, &rule).await {
                world.state().violate(format!("I4: {rule} asks for a person and names nothing that helps"));
                return;
            }
        }
    }
    world.state().tally.count("healed");
    must_serve(world).await;
}

/// A healthy pair serves, and its primary has whatever was acknowledged.
pub async fn must_serve(world: &World) {
    let before = world.state().ledger.acknowledged.len();
    world.state().ledger.busy = 90;
    let until = Instant::now() + SERVING;
    while world.state().ledger.acknowledged.len() <= before && Instant::now() < until {
        sleep(TICK).await;
    }
    let mut state = world.state();
    if state.ledger.acknowledged.len() <= before {
        state.violate("I4: a healthy pair acknowledges nothing".to_owned());
    }
    let primary = state.index(&state.disk.record.primary);
    let held = state.nodes[primary].data.as_ref().map(|data| data.ids.clone()).unwrap_or_default();
    let ledger = &state.ledger;
    let lost = ledger.acknowledged.missing_in(&[&held, &ledger.given_up, &ledger.destroyed]);
    if lost > 0 {
        state.violate(format!("I2: the primary of a healthy pair lacks {lost} acknowledged commits"));
    }
}

/// By the truth.
pub fn is_healthy(world: &World) -> bool {
    let state = world.state();
    let record = &state.disk.record;
    let primary = state.index(&record.primary);
    let (leads, follows) = (&state.nodes[primary], &state.nodes[if primary == A { B } else { A }]);
    let streams = follows.server.as_ref().is_some_and(|server| server.streams());
    record.transition.is_none() && record.paused.is_none() && record.standby_eligible && leads.is_writable() && streams
}
