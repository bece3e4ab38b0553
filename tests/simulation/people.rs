//! The people: who gives orders at random, and who does what a refusal asks for.

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;
use understudy::failover::command;

use crate::world::containers::Run;
use crate::world::{A, B, World};

/// What a person orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Switchover,
    Pause,
    Resume,
    /// `failover --accept-data-loss`.
    Failover,
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
    let given = world.run("a person's order", async move |checker| {
        let answer = match order {
            Order::Switchover => command::switchover::switchover(&checker, None, Duration::from_secs(5)).await,
            Order::Pause => command::pause::pause(&checker, "the simulation says so", None).await,
            Order::Resume => command::pause::resume(&checker).await,
            Order::Failover => command::failover::failover(&checker, |_| Ok(())).await,
        };
        match answer {
            Ok((report, _)) => ("order carried out", report.text),
            Err(error) => ("order refused or failed", error.to_string()),
        }
    });
    let (tally, words) = given.await.unwrap_or(("order died", String::new()));
    let mut state = world.state();
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
