//! Whole stories: something fails, `failover-check` acts, and is itself interrupted at each of its effects in turn.
//!
//! What the simulation meets by luck is told here on purpose, and named. The world asserts its invariants as ever; here it is asserted that the story ends well.

mod orders;
mod outward;
mod stage;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::Config;
use tokio::time::{Instant, sleep};
use understudy::failover::act::{ActError, Outcome};
use understudy::failover::decide;
use understudy::failover::pass::Checker;
use understudy::record::Step;

use crate::faults::{FOREVER, Fault, Interruption};
use crate::world::{A, B, Hand, World};

/// In milliseconds; longer than it takes a primary to miss its standby and to drop to async.
const FREEZE: u32 = 20_000;

/// In milliseconds: some passes.
const SILENCE: u32 = 3_000;

/// Passes, one a second, within which a pair must be healthy again once nothing fails any more.
const HEALING: u32 = 60;

fn lead(node: &str, epoch: u64) -> (String, u64) {
    (node.to_owned(), epoch)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    DeadPrimary,
    FrozenPrimary,
    Switchover,
    /// The link is cut until the pair has dropped to async, then mended.
    StandbyLostAndBack,
    /// As before, and the standby is slower than the clients.
    SlowStandbyBack,
    BothStopped,
    FirstStart,
}

const STORIES: [Story; 7] = [
    Story::DeadPrimary,
    Story::FrozenPrimary,
    Story::Switchover,
    Story::StandbyLostAndBack,
    Story::SlowStandbyBack,
    Story::BothStopped,
    Story::FirstStart,
];

impl Story {
    /// Tells the story, with `what` at the `count`-th effect, until the pair is healthy again.
    async fn tell(self, count: u32, what: Option<Interruption>) -> World {
        let world = if self == Self::FirstStart { World::of_nothing() } else { World::of_a_pair() };
        if let Some(what) = what {
            world.interrupt(count, what);
        }
        match self {
            Self::DeadPrimary => world.befall(Fault::Kill(A)),
            Self::FrozenPrimary => {
                world.befall(Fault::RestartPolicy(A));
                world.befall(Fault::Freeze(A, FOREVER));
            }
            Self::Switchover => drop(world.switch_over().await),
            Self::StandbyLostAndBack | Self::SlowStandbyBack => {
                if self == Self::SlowStandbyBack {
                    world.slow_standby();
                }
                world.cut_link();
                world.passes(20).await;
                world.mend_link();
            }
            Self::BothStopped => {
                world.befall(Fault::Kill(A));
                world.befall(Fault::Kill(B));
            }
            Self::FirstStart => {}
        }
        // The slow standby has a long way to catch up.
        world.must_heal(if self == Self::SlowStandbyBack { 4 * HEALING } else { HEALING }).await;
        world
    }

    /// Where the lead ends without an interruption.
    fn end(self) -> (String, u64) {
        match self {
            Self::DeadPrimary | Self::FrozenPrimary | Self::Switchover => lead("pg-b", 2),
            Self::StandbyLostAndBack | Self::SlowStandbyBack | Self::BothStopped | Self::FirstStart => lead("pg-a", 1),
        }
    }
}

/// Tells every story with `what` at its first effect, at its second, and so on until the story is over before that.
async fn at_every_effect(what: Interruption, judge: impl Fn(Story, u32, &World)) {
    for story in STORIES {
        for count in 1.. {
            let world = story.tell(count, Some(what)).await;
            if !world.was_interrupted() {
                assert!(count > 2, "{story:?} has no effects");
                break;
            }
            judge(story, count, &world);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn i2_every_story_ends_well_when_nothing_interrupts_it() {
    for story in STORIES {
        let world = story.tell(0, None).await;
        assert_eq!(world.lead(), story.end(), "{story:?}:\n{}", world.story());
        assert!(!world.keeps_replaced_data(A) && !world.keeps_replaced_data(B), "{story:?}:\n{}", world.story());
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_crash_before_any_effect_changes_no_ending() {
    at_every_effect(Interruption::CrashBefore, |story, count, world| {
        // An order that dies before its intent is recorded was never given.
        let end = if (story, count) == (Story::Switchover, 1) { lead("pg-a", 1) } else { story.end() };
        assert_eq!(world.lead(), end, "{story:?}:\n{}", world.story());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn i4_a_crash_after_any_effect_changes_no_ending() {
    at_every_effect(Interruption::CrashAfter, |story, _, world| assert_eq!(world.lead(), story.end(), "{story:?}:\n{}", world.story()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn i4_a_reboot_at_any_effect_ends_healthy() {
    at_every_effect(Interruption::RebootBefore, |_, _, _| {}).await;
    at_every_effect(Interruption::RebootAfter, |_, _, _| {}).await;
}

#[tokio::test(start_paused = true)]
async fn i1_the_old_primary_started_by_hand_at_any_effect_never_leads_beside_the_new_one() {
    at_every_effect(Interruption::Fault(Fault::StartByHand(A)), |_, _, _| {}).await;
    at_every_effect(Interruption::Fault(Fault::StartByHand(B)), |_, _, _| {}).await;
}

#[tokio::test(start_paused = true)]
async fn i4_a_node_that_dies_at_any_effect_ends_healthy() {
    at_every_effect(Interruption::Fault(Fault::Kill(A)), |_, _, _| {}).await;
    at_every_effect(Interruption::Fault(Fault::Kill(B)), |_, _, _| {}).await;
}

#[tokio::test(start_paused = true)]
async fn i2_a_node_restarted_by_hand_at_any_effect_costs_no_commit() {
    at_every_effect(Interruption::Fault(Fault::Restart(A)), |_, _, _| {}).await;
    at_every_effect(Interruption::Fault(Fault::Restart(B)), |_, _, _| {}).await;
}

#[tokio::test(start_paused = true)]
async fn i2_a_node_that_freezes_at_any_effect_and_thaws_later_costs_no_commit() {
    at_every_effect(Interruption::Fault(Fault::Freeze(A, FREEZE)), |_, _, _| {}).await;
    at_every_effect(Interruption::Fault(Fault::Freeze(B, FREEZE)), |_, _, _| {}).await;
}

#[tokio::test(start_paused = true)]
async fn i4_a_runtime_that_is_silent_from_any_effect_on_only_delays() {
    at_every_effect(Interruption::Fault(Fault::RuntimeAway(SILENCE)), |story, _, world| {
        assert_eq!(world.lead().0, story.end().0, "{story:?}:\n{}", world.story())
    })
    .await;
}

/// Each pass beside a silent primary waits for answers that do not come; the one that decides ends when the silence has just been long enough.
#[tokio::test(start_paused = true)]
async fn a_frozen_primary_is_given_up_as_soon_as_the_threshold_is_reached() {
    // It freezes at different moments between two passes, which are a second apart.
    for phase in (100..1_100).step_by(90).map(Duration::from_millis) {
        let world = World::of_a_pair();
        let story = async |checker: Checker<Hand>| {
            let frozen_for = async {
                sleep(phase).await;
                world.befall(Fault::StopBySignal(A, FOREVER));
                let frozen = Instant::now();
                while world.record().transition.is_none() {
                    sleep(Duration::from_millis(1)).await;
                }
                frozen.elapsed()
            };
            tokio::select! {
                passed = checker.run_for(Duration::from_secs(20)) => panic!("no failover: {:?}", passed.is_ok()),
                took = frozen_for => (took, checker.settings.thresholds.suspicion),
            }
        };
        let (took, threshold) = world.order(story).await.unwrap();
        let latest = threshold + Duration::from_millis(1_100);
        assert!((threshold..latest).contains(&took), "after {took:?}, phase {phase:?}:\n{}", world.story());
    }
}

#[tokio::test(start_paused = true)]
async fn i1_a_primary_that_cannot_be_fenced_is_never_replaced() {
    let world = World::of_a_pair();
    world.befall(Fault::KillFails(A, FOREVER));
    world.befall(Fault::Freeze(A, FOREVER));
    world.until(decide::UNFINISHED, 10).await;
    let (_, outcome) = world.pass().await.unwrap();
    assert!(matches!(outcome, Err(ActError::NotFenced { .. })), "{outcome:?}");
    // Even when it thaws: it is primary still, and the other one was never asked.
    world.mend(Fault::Freeze(A, FOREVER));
    world.passes(3).await;
    assert!(world.is_writable(A) && !world.is_writable(B), "{}", world.story());
    assert_eq!(world.record().transition.unwrap().step, Step::Intent);
    world.mend(Fault::KillFails(A, FOREVER));
    world.must_heal(HEALING).await;
    assert_eq!(world.lead(), lead("pg-b", 2));
}

#[tokio::test(start_paused = true)]
async fn i1_a_primary_with_a_restart_policy_is_fenced_for_good() {
    let world = World::of_a_pair();
    world.befall(Fault::RestartPolicy(A));
    world.befall(Fault::Kill(A));
    world.passes(1).await;
    world.befall(Fault::Reboot);
    assert!(!world.runs(A), "{}", world.story());
    world.must_heal(HEALING).await;
    assert_eq!(world.lead(), lead("pg-b", 2));
}

/// However long this host has not reached it: while it serves others, nobody waits.
#[tokio::test(start_paused = true)]
async fn i3_a_primary_that_served_others_until_a_moment_ago_is_given_the_whole_grace() {
    let world = World::of_a_pair();
    world.befall(Fault::CheckerCut(A, FOREVER));
    world.passes(35).await;
    world.befall(Fault::Detached(A, FOREVER));
    // The standby misses it after ten seconds, and the grace is thirty.
    world.passes(20).await;
    assert_eq!(world.lead(), lead("pg-a", 1), "{}", world.story());
    world.until(decide::ISOLATED_TOO_LONG, 30).await;
    assert_eq!(world.lead(), lead("pg-b", 2), "{}", world.story());
}

#[tokio::test(start_paused = true)]
async fn i4_a_standby_that_falls_silent_before_promotion_gives_the_lead_back() {
    let world = World::of_a_pair();
    world.befall(Fault::Kill(A));
    world.interrupt(1, Interruption::Fault(Fault::CheckerCut(B, FOREVER)));
    let (decision, outcome) = world.pass().await.unwrap();
    assert_eq!(decision.rule, decide::PRIMARY_DOWN);
    assert!(matches!(outcome, Ok(Outcome::RolledBack { .. })), "{outcome:?}");
    world.passes(3).await;
    assert!(world.is_writable(A), "{}", world.story());
    world.mend(Fault::CheckerCut(B, FOREVER));
    world.must_heal(HEALING).await;
    assert_eq!(world.lead(), lead("pg-a", 1));
}

#[tokio::test(start_paused = true)]
async fn i4_a_standby_that_dies_right_before_promotion_is_asked_for_gives_the_lead_back() {
    // Effects of a failover: intent, fenced, replayed, promote_requested.
    for (effect, what) in [(2, Interruption::Fault(Fault::Kill(B))), (4, Interruption::RebootBefore)] {
        let world = Story::DeadPrimary.tell(effect, Some(what)).await;
        assert_eq!(world.lead(), lead("pg-a", 1), "{}", world.story());
    }
}

#[tokio::test(start_paused = true)]
async fn i2_a_standby_that_is_shown_as_sync_and_froze_is_not_vouched_for() {
    let world = World::of_a_pair();
    world.cut_link();
    world.until(decide::STANDBY_LOST, 30).await;
    world.interrupt(1, Interruption::Fault(Fault::Freeze(B, FREEZE)));
    // They never rest, so that the standby always lacks a commit.
    world.state().ledger.busy = 100;
    world.mend_link();
    world.until(decide::STANDBY_CAUGHT_UP, HEALING).await;
    assert!(!world.record().standby_eligible, "{}", world.story());
    world.befall(Fault::Kill(A));
    world.must_heal(HEALING).await;
    assert_eq!(world.lead(), lead("pg-a", 1));
}

#[tokio::test(start_paused = true)]
async fn i2_a_primary_restarted_by_hand_while_sync_is_restored_acknowledges_nothing_alone() {
    let world = World::of_a_pair();
    world.cut_link();
    world.until(decide::STANDBY_LOST, 30).await;
    // The effects of restoring sync: the setting, settle, the record.
    world.interrupt(3, Interruption::Fault(Fault::Restart(A)));
    world.mend_link();
    world.until(decide::STANDBY_CAUGHT_UP, HEALING).await;
    assert!(world.was_interrupted());
    world.befall(Fault::Kill(A));
    world.must_heal(HEALING).await;
    assert_eq!(world.lead(), lead("pg-b", 2));
}

#[tokio::test(start_paused = true)]
async fn i4_once_promotion_was_asked_for_there_is_only_forward() {
    // The effects of a failover from a primary that is down: intent, fenced, replayed, promote_requested, promote.
    for fault in [Fault::CheckerCut(B, FOREVER), Fault::Freeze(B, FOREVER)] {
        let world = World::of_a_pair();
        world.befall(Fault::Kill(A));
        world.interrupt(5, Interruption::Fault(fault));
        world.passes(3).await;
        assert!(world.was_interrupted());
        world.befall(Fault::StartByHand(A));
        world.passes(2).await;
        assert!(!world.runs(A), "the old primary must not come back:\n{}", world.story());
        assert!(world.record().transition.is_some_and(|transition| transition.step >= Step::PromoteRequested), "{}", world.story());
        world.mend(fault);
        world.must_heal(HEALING).await;
        assert_eq!(world.lead(), lead("pg-b", 2));
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Befalls(Fault),
    IsMended(Fault),
    /// At one of the next effects.
    Later(u32, Interruption),
    SlowStandby,
    Switchover,
}

fn interruption() -> impl Strategy<Value = Interruption> {
    let node = || prop_oneof![Just(A), Just(B)];
    prop_oneof![
        3 => Just(Interruption::CrashBefore),
        3 => Just(Interruption::CrashAfter),
        1 => Just(Interruption::RebootBefore),
        1 => Just(Interruption::RebootAfter),
        1 => node().prop_map(|node| Interruption::Fault(Fault::StartByHand(node))),
        1 => node().prop_map(|node| Interruption::Fault(Fault::Kill(node))),
        1 => node().prop_map(|node| Interruption::Fault(Fault::Restart(node))),
        1 => node().prop_map(|node| Interruption::Fault(Fault::Freeze(node, FREEZE))),
        1 => Just(Interruption::Fault(Fault::RuntimeAway(SILENCE))),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let node = || prop_oneof![Just(A), Just(B)];
    prop_oneof![
        3 => node().prop_map(|node| Happening::Befalls(Fault::Kill(node))),
        2 => node().prop_map(|node| Happening::Befalls(Fault::Freeze(node, FOREVER))),
        2 => node().prop_map(|node| Happening::IsMended(Fault::Freeze(node, FOREVER))),
        2 => node().prop_map(|node| Happening::Befalls(Fault::StartByHand(node))),
        1 => Just(Happening::Befalls(Fault::PairCut(FOREVER))),
        1 => Just(Happening::IsMended(Fault::PairCut(FOREVER))),
        1 => Just(Happening::SlowStandby),
        1 => Just(Happening::Befalls(Fault::Reboot)),
        6 => (1_u32..9, interruption()).prop_map(|(count, what)| Happening::Later(count, what)),
        1 => Just(Happening::Switchover),
    ]
}

/// What happens and passes, then nothing any more.
async fn live_through(happenings: &[(Happening, u32)]) {
    let world = World::of_a_pair();
    {
        // What these limits make the tool refuse is for a person, and there is none here.
        let limits = &mut world.settings.borrow_mut().thresholds;
        (limits.flapping_limit, limits.start_attempts) = (u32::MAX, u32::MAX);
    }
    for (happening, passes) in happenings {
        match *happening {
            Happening::Befalls(fault) => world.befall(fault),
            Happening::IsMended(fault) => world.mend(fault),
            Happening::Later(count, what) => world.interrupt(count, what),
            Happening::SlowStandby => world.slow_standby(),
            Happening::Switchover => drop(world.switch_over().await),
        }
        world.passes(*passes).await;
    }
    world.forget_interruption();
    for fault in [Fault::Freeze(A, FOREVER), Fault::Freeze(B, FOREVER), Fault::PairCut(FOREVER)] {
        world.mend(fault);
    }
    world.fast_standby();
    world.must_heal(HEALING).await;
}

proptest! {
    #![proptest_config(Config { cases: 200, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() })]

    #[test]
    fn i2_whatever_fails_in_whatever_order_no_acknowledged_commit_is_lost_and_the_pair_heals(happenings in prop::collection::vec((happening(), 0_u32..9), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live_through(&happenings));
    }
}
