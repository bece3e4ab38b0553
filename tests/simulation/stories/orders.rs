//! What a person orders, and what passes leave to a person: pauses that end, the mode that only observes, a switchover that is refused, a loss that is accepted.

use std::time::Duration;

use understudy::exit_code::ExitCode;
use understudy::failover::command::failover::failover;
use understudy::failover::command::pause::pause;
use understudy::failover::command::rejoin::{Way, rejoin};
use understudy::failover::command::switchover::switchover;
use understudy::failover::decide;
use understudy::failover::error::Error;
use understudy::failover::settings::Mode;

use super::HEALING;
use crate::faults::{FOREVER, Fault, Interruption};
use crate::world::{A, B, World};

fn refusal<T>(answer: Option<Result<T, Error>>) -> String {
    match answer.and_then(Result::err) {
        Some(Error::Refused { why, remedy }) => format!("{why}; try: {remedy}"),
        other => panic!("not refused: {other:?}"),
    }
}

/// Whatever happens: the record, the containers and the servers are left alone.
#[tokio::test(start_paused = true)]
async fn a_pass_that_only_observes_calls_nothing_that_changes_anything() {
    type Accident = fn(&World);
    let accidents: [(&str, Accident); 6] = [
        ("the primary dies", |world| world.befall(Fault::Kill(A))),
        ("the primary freezes", |world| world.befall(Fault::Freeze(A, FOREVER))),
        ("both die", |world| {
            world.befall(Fault::Kill(A));
            world.befall(Fault::Kill(B));
        }),
        ("the link is cut", World::cut_link),
        ("the standby dies", |world| world.befall(Fault::Kill(B))),
        ("nothing happens", |_| {}),
    ];
    for fresh in [false, true] {
        for (what, happens) in accidents {
            let world = if fresh { World::of_nothing() } else { World::of_a_pair() };
            world.set_mode(Mode::Observe);
            happens(&world);
            let (before, record) = (world.effects(), world.record());
            world.passes(30).await;
            assert_eq!((world.effects(), world.record()), (before, record), "{what}:\n{}", world.story());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_observing_pass_tells_once_what_it_would_have_done() {
    let world = World::of_a_pair();
    world.set_mode(Mode::Observe);
    world.passes(5).await;
    assert_eq!(world.told("would_have"), 0, "{}", world.story());
    world.befall(Fault::Kill(A));
    world.passes(10).await;
    assert_eq!(world.told("would_have"), 1, "once a decision:\n{}", world.story());
    assert!(world.story().contains(r#"event: would_have {"epoch":1,"rule":"R80","action":"failover","reason":"#), "{}", world.story());
    // It is armed: the same pass does what it has said.
    world.set_mode(Mode::Act);
    world.must_heal(HEALING).await;
    assert_eq!(world.lead(), super::lead("pg-b", 2));
}

/// An order that died half way is not finished behind the person's back; `run --act`, which is a pass in mode act, finishes it.
#[tokio::test(start_paused = true)]
async fn an_unfinished_order_is_left_to_a_person_where_passes_only_observe() {
    let world = World::of_a_pair();
    world.interrupt(4, Interruption::CrashBefore);
    drop(world.switch_over().await);
    world.set_mode(Mode::Observe);
    let (before, record) = (world.effects(), world.record());
    assert!(record.transition.is_some());
    world.passes(5).await;
    assert_eq!((world.effects(), world.record()), (before, record), "{}", world.story());
    world.set_mode(Mode::Act);
    world.must_heal(HEALING).await;
    assert_eq!(world.lead(), super::lead("pg-b", 2));
}

#[tokio::test(start_paused = true)]
async fn a_pause_for_a_time_ends_by_itself_and_says_so() {
    let world = World::of_a_pair();
    world.order(async |checker| pause(&checker, "moving the disk", Some(Duration::from_secs(20))).await).await.unwrap().unwrap();
    world.befall(Fault::Kill(A));
    world.passes(10).await;
    assert!(!world.runs(A) && world.lead() == super::lead("pg-a", 1), "{}", world.story());
    assert_eq!(world.told("pause_ended"), 0);
    world.must_heal(HEALING).await;
    assert_eq!((world.lead(), world.told("pause_ended")), (super::lead("pg-b", 2), 1), "{}", world.story());
    assert_eq!(world.record().paused, None);
    assert!(refusal(world.order(async |checker| pause(&checker, "x", Some(Duration::ZERO)).await).await).contains("cannot be"));
}

/// The end of a pause is written before anything is done; a crash in between changes nothing.
#[tokio::test(start_paused = true)]
async fn i4_a_crash_while_a_pause_ends_only_delays() {
    for what in [Interruption::CrashBefore, Interruption::CrashAfter] {
        for effect in 1..4 {
            let world = World::of_a_pair();
            world.order(async |checker| pause(&checker, "moving the disk", Some(Duration::from_secs(5))).await).await.unwrap().unwrap();
            world.befall(Fault::Kill(A));
            world.interrupt(effect, what);
            world.must_heal(HEALING).await;
            assert!(world.was_interrupted() && world.record().paused.is_none(), "{}", world.story());
            assert_eq!(world.lead(), super::lead("pg-b", 2), "{}", world.story());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_switchover_that_would_take_too_long_is_refused_before_anything_is_stopped() {
    let world = World::of_a_pair();
    world.state().checkpoint_takes = Some(Duration::from_millis(100));
    let (before, record) = (world.effects(), world.record());
    let words = refusal(world.order(async |checker| switchover(&checker, None, Duration::from_millis(50)).await).await);
    assert!(words.starts_with("writes would have to stop for longer than 50ms: 0.10 s for the checkpoint"), "{words}");
    assert!(words.ends_with("or: failover-check switchover --within 1s"), "{words}");
    assert_eq!((world.effects(), world.record()), (before, record), "{}", world.story());
}

#[tokio::test(start_paused = true)]
async fn a_switchover_moves_the_role_and_ends_healthy_also_where_passes_only_observe() {
    let world = World::of_a_pair();
    // As the command line does it for an order.
    world.set_mode(Mode::Act);
    let (report, code) = world.order(async |checker| switchover(&checker, None, Duration::from_secs(2)).await).await.unwrap().unwrap();
    assert_eq!((code, world.lead()), (ExitCode::Done, super::lead("pg-b", 2)), "{}\n{}", report.text, world.story());
    assert!(report.json["checkpoint_seconds"].is_number() && report.json["replay_seconds"].is_number(), "{}", report.json);
    world.set_mode(Mode::Observe);
    let before = world.effects();
    world.passes(5).await;
    assert_eq!(world.effects(), before, "nothing is left to do:\n{}", world.story());
}

/// The standby was left behind, and the primary died: what is lost is said before anything is done, and only a yes does it.
#[tokio::test(start_paused = true)]
async fn what_a_failover_loses_is_said_before_it_is_done() {
    let world = World::of_a_pair();
    world.cut_link();
    world.until(decide::STANDBY_LOST, 30).await;
    world.passes(2).await;
    world.befall(Fault::Kill(A));
    let (before, record) = (world.effects(), world.record());
    let mut shown = String::new();
    let no = |what: &str| {
        what.clone_into(&mut shown);
        Err(Error::Refused { why: "no".to_owned(), remedy: "none".to_owned() })
    };
    assert!(refusal(world.order(async |checker| failover(&checker, no).await).await).starts_with("no; try"));
    assert!(
        shown.starts_with("failover to the standby: ") && shown.contains(" bytes of the log are lost for certain: the primary had "),
        "{shown}"
    );
    assert_eq!((world.effects(), world.record()), (before, record), "a no changes nothing:\n{}", world.story());

    let (report, _) = world.order(async |checker| failover(&checker, |_| Ok(())).await).await.unwrap().unwrap();
    assert!(report.json["loss"]["known_missing_bytes"].as_u64().unwrap() > 0, "{}", report.json);
    assert_eq!((world.lead().0.as_str(), world.told("loss_accepted")), ("pg-b", 1), "{}", world.story());
    assert!(world.record().failovers[0].lossy);
}

/// While the person thought about it, it got worse.
#[tokio::test(start_paused = true)]
async fn a_failover_that_would_lose_more_than_was_accepted_is_refused() {
    let world = World::of_a_pair();
    world.befall(Fault::Kill(A));
    let worse = |what: &str| {
        assert!(what.contains("nothing acknowledged is lost"), "{what}");
        world.doubt_the_standby();
        Ok(())
    };
    let words = refusal(world.order(async |checker| failover(&checker, worse).await).await);
    assert!(words.starts_with("more would be lost than was accepted a moment ago: "), "{words}");
    assert!(world.record().transition.is_none() && !world.is_writable(B), "{}", world.story());
}

const BY_COPY: Way = Way { from_copy: true, limit: Duration::from_secs(120) };
const AS_IT_IS: Way = Way { from_copy: false, limit: Duration::from_secs(120) };

#[tokio::test(start_paused = true)]
async fn a_node_is_brought_back_and_the_recorded_primary_never() {
    let world = World::of_a_pair();
    let node = |name: &str| name.parse().unwrap();
    let (before, record) = (world.effects(), world.record());
    for (name, why) in [("pg-a", "the record names pg-a as the primary"), ("pg-c", "there is no node 'pg-c'")] {
        let words = refusal(world.order(async |checker| rejoin(&checker, &node(name), BY_COPY, |_| Ok(())).await).await);
        assert!(words.starts_with(why), "{words}");
    }
    let (report, _) = world
        .order(async |checker| rejoin(&checker, &node("pg-b"), AS_IT_IS, |_| panic!("nothing is to be asked")).await)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(report.json["changed"], false);
    assert_eq!((world.effects(), world.record()), (before, record), "{}", world.story());

    let (report, code) = world.order(async |checker| rejoin(&checker, &node("pg-b"), BY_COPY, |_| Ok(())).await).await.unwrap().unwrap();
    assert_eq!((code, &report.json["changed"]), (ExitCode::Done, &true.into()), "{}", world.story());
    assert!(world.record().standby_eligible && world.told("rejoined") == 1, "{}", world.story());

    world.befall(Fault::Kill(A));
    let words = refusal(world.order(async |checker| rejoin(&checker, &node("pg-b"), BY_COPY, |_| Ok(())).await).await);
    assert!(words.starts_with("the primary pg-a takes no writes"), "{words}");
}

/// Whatever step it dies at, the passes bring the node back by themselves, and no commit is lost: not even the node's own death in the middle costs one.
#[tokio::test(start_paused = true)]
async fn i4_a_rejoin_that_is_interrupted_at_any_effect_ends_healthy() {
    for what in [
        Interruption::CrashBefore,
        Interruption::CrashAfter,
        Interruption::Fault(Fault::Kill(B)),
        Interruption::Fault(Fault::Kill(A)),
        Interruption::RebootAfter,
    ] {
        for effect in 1.. {
            let world = World::of_a_pair();
            world.passes(3).await;
            world.interrupt(effect, what);
            drop(world.order(async |checker| rejoin(&checker, &"pg-b".parse().unwrap(), BY_COPY, |_| Ok(())).await).await);
            if !world.was_interrupted() {
                assert!(effect > 5, "a rejoin has effects");
                break;
            }
            world.must_heal(HEALING).await;
        }
    }
}
