//! The people: who gives orders at random, and who does what a refusal asks for.

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;
use understudy::failover::command;
use understudy::failover::command::rejoin::Way;
use understudy::failover::settings::Mode;

use crate::world::containers::Run;
use crate::world::{A, B, ORDER, World, name};

/// How long a person watches a node come back.
const REJOIN: Duration = Duration::from_secs(120);

/// What a person orders. `drill` is not among them: its witness is a client of PostgreSQL's own, in a database of its own, and its report is a file; of the pair it
/// asks nothing but a killed primary and a switchover, which are drawn as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Switchover,
    Pause,
    /// For so many milliseconds.
    PauseFor(u32),
    Resume,
    /// `failover --accept-data-loss`.
    Failover,
    Rejoin {
        node: usize,
        from_copy: bool,
    },
}

impl Order {
    /// As `Command::is_an_order` has it: carried out whatever passes may do.
    fn is_a_deed(self) -> bool {
        match self {
            Self::Switchover | Self::Failover | Self::Rejoin { .. } => true,
            Self::Pause | Self::PauseFor(_) | Self::Resume => false,
        }
    }
}

/// Gives the orders that are due, each as the program that a person would run.
pub async fn give_orders(world: World) {
    loop {
        let due = std::mem::take(&mut world.state().orders);
        for order in due {
            let world = world.clone();
            spawn_local(async move { give(&world, order).await });
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Gives one order, and says in the trace what came of it.
pub async fn give(world: &World, order: Order) {
    let copies = u32::from(matches!(order, Order::Rejoin { from_copy: true, .. }));
    {
        let mut state = world.state();
        state.orders_under_way += 1;
        state.copies_under_way += copies;
    }
    let given = world.run(ORDER, async move |mut checker| {
        if order.is_a_deed() {
            checker.settings.mode = Mode::Act;
        }
        let answer = match order {
            Order::Switchover => command::switchover::switchover(&checker, None, Duration::from_secs(5)).await,
            Order::Pause => command::pause::pause(&checker, "the simulation says so", None).await,
            Order::PauseFor(ms) => command::pause::pause(&checker, "the simulation says so", Some(Duration::from_millis(ms.into()))).await,
            Order::Resume => command::pause::resume(&checker).await,
            Order::Failover => command::failover::failover(&checker, |_| Ok(())).await,
            Order::Rejoin { node, from_copy } => {
                command::rejoin::rejoin(&checker, &name(node), Way { from_copy, limit: REJOIN }, |_| Ok(())).await
            }
        };
        match answer {
            Ok((report, _)) => ("order carried out", report.text),
            Err(error) => ("order refused or failed", error.to_string()),
        }
    });
    let (tally, words) = given.await.unwrap_or(("order died", String::new()));
    let mut state = world.state();
    state.orders_under_way -= 1;
    state.copies_under_way -= copies;
    state.tally.count(tally);
    state.say(|| format!("{order:?}: {tally}: {words}"));
}

/// Does what the message of a rule that asks for a person names. False: it names nothing that is left to do.
pub async fn remedy(world: &World, rule: &str) -> bool {
    world.state().say(|| format!("a person does what {rule} asks for"));
    world.state().tally.count("remedy of a person");
    match rule {
        // "to go on run: failover-check resume", "find out why, then run: failover-check resume"
        "R50" | "R70" => give(world, Order::Resume).await,
        // "to adopt it stop the recorded primary and run: failover-check failover --accept-data-loss"
        "R40" => {
            {
                let mut state = world.state();
                let primary = state.index(&state.disk.record.primary);
                state.nodes[primary].ends("exited with code 0");
            }
            give(world, Order::Failover).await;
        }
        // "to accept that run: failover-check failover --accept-data-loss", or: "mend either: docker ps -a …, or playbooks/run_containers.yml where a container is gone"
        "R130" => {
            {
                let mut state = world.state();
                for index in [A, B] {
                    let node = &mut state.nodes[index];
                    if node.run == Run::Missing {
                        node.run = Run::Stopped("created");
                    }
                    let _ = state.start(index);
                }
            }
            sleep(Duration::from_secs(8)).await;
            give(world, Order::Failover).await;
        }
        // "to make it again run: playbooks/run_containers.yml"
        "R350" => {
            let mut state = world.state();
            for node in &mut state.nodes {
                if node.run == Run::Missing {
                    node.run = Run::Stopped("created");
                }
            }
        }
        _ => return false,
    }
    true
}
