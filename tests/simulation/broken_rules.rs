//! The simulation's own test: rules, each broken on purpose, between the real code and the world. Each has to be caught.
//!
//! The programs know nothing of this. A rule is broken by lying to them at the border that they share with the world: what the runtime or a server says, what
//! the record's store gives and takes, what the settings allow, what a node does with its plan.

use std::time::Duration;

use understudy::failover::observation::InsideView;
use understudy::failover::runtime::ContainerState;
use understudy::failover::settings::{Mode, Settings};
use understudy::node::plan::{Plan, Refusal};
use understudy::postgres::connection::ServerError;
use understudy::postgres::status::{RoleStatus, ServerStatus};
use understudy::record::{Record, Step};

use crate::world::Hand;
use crate::world::containers::Node;

/// A rule that does not hold in this world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokenRule {
    /// A container that was told to die counts as stopped.
    FenceNotVerified,
    /// A run that goes on with another's transition takes the fence for done.
    FenceNotRepeated,
    /// The record is written and not flushed.
    RecordNotFlushed,
    /// A record that could not be written counts as written.
    RecordNeedNotBeWritten,
    /// Commits are let go before the record says that the standby is ineligible.
    AsyncBeforeIneligible,
    /// The standby is vouched for before commits in fact wait for it.
    EligibleWithoutSettling,
    /// … before it has what was acknowledged without it.
    EligibleBeforeCaughtUp,
    /// … as soon as there is a new primary.
    EligibleAtOnce,
    /// Whatever the record says of the standby, it may be promoted.
    EligibilityIgnored,
    /// One silent probe is enough, and the witness inside is not heard.
    OneFailedProbe,
    /// A server that refuses the checker counts as silent.
    RefusalCountsAsSilence,
    /// An app that is not ready counts as a dead primary.
    AppMovesThePrimary,
    /// An old primary follows without a rewind.
    TimelineForgotten,
    /// The old data go before their copy is there.
    OldDataDiscardedFirst,
    /// What a person gave up or promoted is not kept.
    GivenUpDataDiscarded,
    /// A lost volume becomes a new cluster.
    LostVolumeBecomesNewCluster,
    /// A node starts by what it remembers where there is no record.
    NodeStartsWithoutRecord,
    /// Whoever wants to act acts.
    NoLock,
    /// A transition goes back after promotion was asked for.
    RolledBackAfterPromotion,
    /// A pause is not respected.
    PauseIgnored,
    /// Passes that were told to observe only act.
    ObserverActs,
    /// A rejoin removes the old data when it orders the copy.
    RejoinDiscardsFirst,
}

impl BrokenRule {
    pub const ALL: [Self; 22] = [
        Self::FenceNotVerified,
        Self::FenceNotRepeated,
        Self::RecordNotFlushed,
        Self::RecordNeedNotBeWritten,
        Self::AsyncBeforeIneligible,
        Self::EligibleWithoutSettling,
        Self::EligibleBeforeCaughtUp,
        Self::EligibleAtOnce,
        Self::EligibilityIgnored,
        Self::OneFailedProbe,
        Self::RefusalCountsAsSilence,
        Self::AppMovesThePrimary,
        Self::TimelineForgotten,
        Self::OldDataDiscardedFirst,
        Self::GivenUpDataDiscarded,
        Self::LostVolumeBecomesNewCluster,
        Self::NodeStartsWithoutRecord,
        Self::NoLock,
        Self::RolledBackAfterPromotion,
        Self::PauseIgnored,
        Self::ObserverActs,
        Self::RejoinDiscardsFirst,
    ];

    /// The invariant that has to catch it, or one of those that may.
    pub fn caught_by(self) -> &'static [&'static str] {
        match self {
            Self::FenceNotVerified | Self::FenceNotRepeated => &["I1"],
            Self::RecordNotFlushed | Self::RecordNeedNotBeWritten => &["I1", "I2", "I4"],
            Self::AsyncBeforeIneligible | Self::EligibleWithoutSettling | Self::EligibleBeforeCaughtUp | Self::EligibilityIgnored => {
                &["I2"]
            }
            Self::EligibleAtOnce => &["I2", "I4"],
            Self::OneFailedProbe | Self::RefusalCountsAsSilence => &["I3", "I6"],
            Self::AppMovesThePrimary => &["I3", "I6"],
            Self::TimelineForgotten => &["I2", "I4"],
            Self::OldDataDiscardedFirst | Self::GivenUpDataDiscarded | Self::LostVolumeBecomesNewCluster => &["I5"],
            Self::NodeStartsWithoutRecord => &["I5"],
            Self::NoLock => &["I1", "I2", "I4"],
            Self::RolledBackAfterPromotion => &["I1", "I2", "I4"],
            Self::PauseIgnored => &["pause"],
            Self::ObserverActs => &["observe"],
            Self::RejoinDiscardsFirst => &["I5"],
        }
    }

    /// What the settings allow.
    pub fn set_up(self, settings: &mut Settings) {
        if self == Self::OneFailedProbe {
            settings.thresholds.suspicion_passes = 1;
            settings.thresholds.suspicion = Duration::ZERO;
        }
    }

    /// What a program takes the mode for.
    pub fn mode(broken: Option<Self>, mode: Mode) -> Mode {
        if broken == Some(Self::ObserverActs) { Mode::Act } else { mode }
    }

    /// What the order of a copy does to a volume.
    pub fn copy_ordered(broken: Option<Self>, node: &mut Node) {
        if broken == Some(Self::RejoinDiscardsFirst) {
            node.data = None;
        }
    }

    fn of(hand: &Hand) -> Option<Self> {
        hand.state().broken
    }

    /// What the record's store gives.
    pub fn load(hand: &Hand, mut record: Record) -> Record {
        match Self::of(hand) {
            Some(Self::PauseIgnored) => record.paused = None,
            Some(Self::EligibilityIgnored) if record.transition.is_none() => record.standby_eligible = true,
            Some(Self::RolledBackAfterPromotion) => {
                if let Some(transition) = record.transition.as_mut().filter(|transition| transition.step == Step::PromoteRequested) {
                    transition.step = Step::Fenced;
                }
            }
            _ => {}
        }
        record
    }

    /// What the record's store takes, and whether it says so whatever came of it.
    pub fn save(hand: &Hand, record: &Record) -> (Record, bool) {
        let mut record = record.clone();
        let before = hand.state().disk.record.clone();
        match Self::of(hand) {
            Some(Self::AsyncBeforeIneligible) if before.standby_eligible && !record.standby_eligible && before.epoch == record.epoch => {
                hand.step(Some(("set async", "early".to_owned())), |state| {
                    let primary = state.index(&record.primary);
                    drop(state.set_synchronous(primary, false));
                });
            }
            Some(Self::EligibleAtOnce) if before.epoch != record.epoch => record.standby_eligible = true,
            Some(Self::RecordNeedNotBeWritten) => return (record, true),
            _ => {}
        }
        (record, false)
    }

    /// What a server says.
    pub fn answer<T>(hand: &Hand, index: usize, answer: Result<T, ServerError>) -> Result<T, ServerError> {
        let state = hand.state();
        match (state.broken, answer) {
            (Some(Self::RefusalCountsAsSilence), Err(ServerError::Refusing(why))) => Err(ServerError::Unreachable(why)),
            (Some(Self::AppMovesThePrimary), Ok(_)) if !state.app_was_ready && index == state.index(&state.disk.record.primary) => {
                Err(ServerError::Unreachable("the app says so".to_owned()))
            }
            (_, answer) => answer,
        }
    }

    /// What a server says of itself.
    pub fn status(hand: &Hand, mut status: ServerStatus) -> ServerStatus {
        if Self::of(hand) == Some(Self::EligibleBeforeCaughtUp)
            && let RoleStatus::Primary(primary) = &mut status.role
        {
            for link in &mut primary.standbys {
                link.flushed = Some(primary.flushed);
            }
        }
        status
    }

    /// What the app says.
    pub fn app(hand: &Hand, ready: bool) {
        hand.state().app_was_ready = ready;
    }

    /// What the runtime says of a container.
    pub fn inspected(hand: &Hand, index: usize, found: ContainerState) -> ContainerState {
        let state = hand.state();
        let stopped = || ContainerState::Stopped { how: "exited, so to speak".to_owned(), restarts: false };
        let leads_away = state.disk.record.transition.as_ref().is_some_and(|transition| state.index(&transition.from) == index);
        match state.broken {
            Some(Self::FenceNotVerified) if hand.process.killed.get()[index] => stopped(),
            Some(Self::FenceNotRepeated) if leads_away && !hand.process.began_transition.get() => stopped(),
            _ => found,
        }
    }

    /// What the witness inside says.
    pub fn inside(hand: &Hand, index: usize, view: InsideView) -> InsideView {
        let state = hand.state();
        let dead = || InsideView::Dead("not heard".to_owned());
        match (state.broken, &view) {
            (Some(Self::OneFailedProbe), InsideView::Alive) => dead(),
            (Some(Self::RefusalCountsAsSilence), InsideView::Alive) if state.nodes[index].refuses => dead(),
            (Some(Self::AppMovesThePrimary), InsideView::Alive) if !state.app_was_ready => dead(),
            _ => view,
        }
    }

    /// What a node does with its plan.
    pub fn plan(broken: Option<Self>, plan: Plan) -> Plan {
        match (broken, plan) {
            (Some(Self::TimelineForgotten), Plan::Rewind) => Plan::Follow,
            (Some(Self::GivenUpDataDiscarded), Plan::Clone { keep: true }) => Plan::Clone { keep: false },
            (Some(Self::LostVolumeBecomesNewCluster), Plan::Refuse(Refusal::DataLost)) => Plan::Initialise,
            (_, plan) => plan,
        }
    }
}
