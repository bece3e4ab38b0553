//! What a story does to the world, and how it waits.
//!
//! The simulation has cron; a story gives its passes itself, one a second, so that it can say at which effect of which pass something happens. Beside whatever it
//! waits for, time goes by, and every invariant is asserted as in the simulation.

use std::time::Duration;

use tokio::time::sleep;
use understudy::failover::act::{ActError, Outcome};
use understudy::failover::command::switchover::switchover;
use understudy::failover::decide::HEALTHY;
use understudy::failover::decision::{Decision, Rule};
use understudy::failover::error::Error;
use understudy::failover::pass::{Checker, Pass};
use understudy::failover::settings::Mode;
use understudy::record::Record;

use crate::faults::{FOREVER, Fault, Interruption};
use crate::run::{is_healthy, must_serve};
use crate::world::clients::BUSY;
use crate::world::{Hand, World};

/// Every story is told under the same seed: what happens at which of its effects does not depend on luck.
const SEED: u64 = 1;
/// Between two passes.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a pass waits for the right to act, which nobody else has.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a planned switchover may keep writes off: longer than two of the world's checkpoints.
const WITHIN: Duration = Duration::from_secs(5);
/// Of a hundred ticks so many bring a commit, where the standby is to take more than comes.
const CALM: u32 = 10;

impl World {
    /// A pair in sync, pg-a primary.
    pub fn of_a_pair() -> Self {
        Self::healthy(SEED, None, true)
    }

    /// A new installation.
    pub fn of_nothing() -> Self {
        Self::fresh(SEED, None, true)
    }

    /// Time goes by for as long as this takes.
    pub async fn during<T>(&self, story: impl Future<Output = T>) -> T {
        let told = tokio::select! {
            biased;
            () = self.live() => None,
            told = story => Some(told),
        };
        let violation = self.state().violation.clone();
        assert_eq!(violation, None, "in\n{}", self.story());
        told.unwrap()
    }

    /// What passes do with their decisions from now on.
    pub fn set_mode(&self, mode: Mode) {
        self.settings.borrow_mut().mode = mode;
    }

    pub fn record(&self) -> Record {
        self.state().disk.record.clone()
    }

    /// (the recorded primary, the epoch).
    pub fn lead(&self) -> (String, u64) {
        let record = self.record();
        (record.primary.to_string(), record.epoch)
    }

    pub fn befall(&self, fault: Fault) {
        self.state().befall(fault);
    }

    pub fn mend(&self, fault: Fault) {
        self.state().mend(fault);
    }

    /// The link is cut until the pair is mended.
    pub fn cut_link(&self) {
        self.befall(Fault::PairCut(FOREVER));
    }

    pub fn mend_link(&self) {
        self.mend(Fault::PairCut(FOREVER));
    }

    /// The record does not vouch for the standby any more.
    pub fn doubt_the_standby(&self) {
        self.state().disk.record.standby_eligible = false;
    }

    /// Whichever node is the standby takes one commit in six ticks, for good: the pair has to heal with it. The clients write less, or it would never catch up.
    pub fn slow_standby(&self) {
        let mut state = self.state();
        state.nodes.iter_mut().for_each(|node| node.is_slow = true);
        state.ledger.busy = CALM;
    }

    /// As the world begins.
    pub fn fast_standby(&self) {
        let mut state = self.state();
        state.nodes.iter_mut().for_each(|node| node.is_slow = false);
        state.ledger.busy = BUSY;
    }

    pub fn is_writable(&self, index: usize) -> bool {
        self.state().nodes[index].is_writable()
    }

    pub fn runs(&self, index: usize) -> bool {
        self.state().nodes[index].runs()
    }

    pub fn keeps_replaced_data(&self, index: usize) -> bool {
        !self.state().nodes[index].kept.is_empty()
    }

    /// Lets `what` happen at the `count`-th effect from now on.
    pub fn interrupt(&self, count: u32, what: Interruption) {
        let mut state = self.state();
        let at = state.effects + count;
        state.interruptions = vec![(at, what)];
    }

    /// It will not happen any more.
    pub fn forget_interruption(&self) {
        self.state().interruptions.clear();
    }

    /// Has it happened?
    pub fn was_interrupted(&self) -> bool {
        self.state().interruptions.is_empty()
    }

    /// How many effects there were so far: calls that change something.
    pub fn effects(&self) -> u32 {
        self.state().effects
    }

    /// How often an event was told so far.
    pub fn told(&self, event: &str) -> usize {
        let words = format!(" event: {event} ");
        self.state().trace().iter().filter(|line| line.contains(&words)).count()
    }

    /// What has happened so far, for the words of a failed assertion.
    pub fn story(&self) -> String {
        self.state().trace().join("\n")
    }

    /// A program that a person runs. None where it died.
    pub async fn order<T>(&self, program: impl AsyncFnOnce(Checker<Hand>) -> T) -> Option<T> {
        self.during(self.run("a person's order", program)).await
    }

    /// The command `switchover`. None where it died.
    pub async fn switch_over(&self) -> Option<Result<(), Error>> {
        let given = self.order(async |checker| switchover(&checker, None, WITHIN).await.map(drop)).await;
        self.state().say(|| format!("switchover: {given:?}"));
        given
    }

    /// One pass of `failover-check` and the second until the next. None where it could not decide or died.
    pub async fn pass(&self) -> Option<(Decision, Result<Outcome, ActError>)> {
        let passed = self.during(self.run("failover-check", async |checker| checker.run_once(PATIENCE).await)).await;
        self.during(sleep(INTERVAL)).await;
        let Pass { look, outcome } = passed?.ok()?;
        self.state().say(|| format!("acted: {outcome:?}"));
        Some((look.decision, outcome))
    }

    pub async fn passes(&self, count: u32) {
        for _ in 0..count {
            self.pass().await;
        }
    }

    /// Passes until one that fires `rule`.
    pub async fn until(&self, rule: Rule, limit: u32) {
        for _ in 0..limit {
            if self.pass().await.is_some_and(|(decision, _)| decision.rule == rule) {
                return;
            }
        }
        panic!("no {} within {limit} passes:\n{}", rule.id, self.story());
    }

    /// How a story ends: once no fault is left the pair is healthy within `limit` passes, serves, and has all that was acknowledged.
    pub async fn must_heal(&self, limit: u32) {
        self.until(HEALTHY, limit).await;
        while self.state().has_faults() {
            self.pass().await;
            self.until(HEALTHY, limit).await;
        }
        assert!(is_healthy(self), "healthy, and yet:\n{}", self.story());
        self.during(must_serve(self)).await;
    }
}
