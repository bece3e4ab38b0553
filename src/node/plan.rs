//! From the record and the state of the volume to what the node does. Pure.

use std::fmt;

use crate::record::{NodeName, Record, Step};

/// What the volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDirectory {
    /// Nothing.
    Empty,
    /// A data directory.
    Present {
        /// PostgreSQL's identity of its cluster.
        system_identifier: String,
        /// It is a standby's: `standby.signal` is there.
        standby_signal: bool,
        /// Its control file says that it was in recovery and never promoted.
        unpromoted: bool,
        /// A rewind was begun and not finished: it is a mixture.
        rewinding: bool,
    },
}

/// How this node has last started, or been promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Under which epoch.
    pub epoch: u64,
    /// As primary.
    pub leading: bool,
}

/// What the node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Make a new cluster, and start as its primary.
    Initialise,
    /// Start as primary. `synchronous`: commits wait for the peer from the first one on, since the record vouches for it; else they wait or not as before.
    Lead {
        /// See above.
        synchronous: bool,
    },
    /// Start as the standby that it was.
    Follow,
    /// It was primary: take back what the new primary does not have, then follow. A fresh base backup where that fails.
    Rewind,
    /// Take a base backup from the primary, then follow. What is there is kept aside until the replacement streams.
    Clone {
        /// It may hold commits that nobody else has: promoted by somebody else, or given up by a person. Its data are kept until a person removes them.
        keep: bool,
    },
    /// Do not start.
    Refuse(Refusal),
}

impl Plan {
    /// The plan where a person has ordered a fresh copy: a node that would follow in any way takes one. Not while a transition is unfinished, which may need
    /// this node as it is; and a node that leads or refuses does not change its mind.
    #[must_use]
    pub fn by_copy(self, record: &Record) -> Self {
        match self {
            Self::Follow | Self::Rewind if record.transition.is_none() => Self::Clone { keep: false },
            plan => plan,
        }
    }
}

/// Why a node does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A transition leads away from this node.
    Fenced {
        /// To whom.
        to: NodeName,
    },
    /// It is to be promoted, and its data directory cannot be.
    NotPromotable,
    /// The record names it primary of a cluster that exists, and its volume is empty.
    DataLost,
    /// The record names it primary, and its data directory is a standby's or a mixture.
    StandbyData,
    /// Its data directory belongs to another cluster.
    Stranger {
        /// The identity in the record.
        recorded: String,
        /// The identity found.
        found: String,
    },
    /// The record is older than the volume.
    OldRecord {
        /// The record's epoch.
        recorded: u64,
        /// The epoch that this node has already started under.
        seen: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fenced { to } => write!(f, "a transition to '{to}' is unfinished, and this node is the one it leads away from; try: failover-check run, which finishes it"),
            Self::NotPromotable => f.write_str("a transition to this node is unfinished, and its data directory is no standby's; try: failover-check explain"),
            Self::DataLost => f.write_str(
                "the record names this node primary of a cluster that exists, but its volume is empty; try: failover-check failover --accept-data-loss, or restore the volume",
            ),
            Self::StandbyData => f.write_str("the record names this node primary, but its data directory is that of a standby; try: compare the record with events.jsonl, and repair it"),
            Self::Stranger { recorded, found } => {
                write!(f, "the data directory belongs to another cluster (system identifier {found}, recorded {recorded}); try: move it away, it is not deleted by itself")
            }
            Self::OldRecord { recorded, seen } => {
                write!(f, "the record is of epoch {recorded}, but this node has already started under epoch {seen}; try: restore the newer record")
            }
        }
    }
}

/// What does `node` do? `noted`: how it has last started or been promoted.
#[must_use]
pub fn plan(node: &NodeName, record: &Record, data: &DataDirectory, noted: Option<Noted>) -> Plan {
    if let Some(noted) = noted.filter(|noted| noted.epoch > record.epoch) {
        return Plan::Refuse(Refusal::OldRecord { recorded: record.epoch, seen: noted.epoch });
    }
    if let (Some(recorded), DataDirectory::Present { system_identifier: found, .. }) = (&record.system_identifier, data)
        && recorded != found
    {
        return Plan::Refuse(Refusal::Stranger { recorded: recorded.clone(), found: found.clone() });
    }
    if let Some(transition) = &record.transition {
        if transition.from == *node {
            return Plan::Refuse(Refusal::Fenced { to: transition.to.clone() });
        }
        return match data {
            // In recovery without its signal: a promotion removes that first and writes the end of recovery last, and was interrupted in between. It is asked for again.
            DataDirectory::Present { rewinding: false, standby_signal: true, .. }
            | DataDirectory::Present { rewinding: false, unpromoted: true, .. } => Plan::Follow,
            // Promotion was asked for and happened; the old primary is fenced. Commits wait for nobody: there is no standby.
            DataDirectory::Present { rewinding: false, unpromoted: false, .. } if transition.step >= Step::PromoteRequested => {
                Plan::Lead { synchronous: false }
            }
            DataDirectory::Present { .. } | DataDirectory::Empty => Plan::Refuse(Refusal::NotPromotable),
        };
    }
    let is_primary = record.primary == *node;
    match data {
        DataDirectory::Empty if !is_primary => Plan::Clone { keep: false },
        DataDirectory::Empty if record.system_identifier.is_none() && record.epoch == 1 => Plan::Initialise,
        DataDirectory::Empty => Plan::Refuse(Refusal::DataLost),
        DataDirectory::Present { rewinding, standby_signal, unpromoted, .. } if is_primary => {
            if *rewinding || *standby_signal || *unpromoted {
                Plan::Refuse(Refusal::StandbyData)
            } else {
                Plan::Lead { synchronous: record.standby_eligible }
            }
        }
        DataDirectory::Present { rewinding: true, .. } => Plan::Clone { keep: false },
        DataDirectory::Present { standby_signal: true, .. } => Plan::Follow,
        // In recovery and without its signal: somebody removed it, and PostgreSQL would come up writable. It never was primary, so it only has to follow again.
        DataDirectory::Present { unpromoted: true, .. } => Plan::Follow,
        // Followed under this epoch and leads since: promoted by somebody else than failover-check, which would have begun a new epoch.
        DataDirectory::Present { .. } if noted == Some(Noted { epoch: record.epoch, leading: false }) => Plan::Clone { keep: true },
        DataDirectory::Present { .. } if lost_commits_are_here(node, record) => Plan::Clone { keep: true },
        DataDirectory::Present { .. } => Plan::Rewind,
    }
}

/// A person accepted the loss of commits that only this node, the old primary, has.
fn lost_commits_are_here(node: &NodeName, record: &Record) -> bool {
    record.failovers.last().is_some_and(|past| past.lossy && past.from == *node && past.epoch == record.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Transition, TransitionKind};

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn record(primary: &str) -> Record {
        Record {
            version: 1,
            epoch: 3,
            primary: name(primary),
            standby_eligible: true,
            transition: None,
            paused: None,
            system_identifier: Some("7".to_owned()),
            counted_since: None,
            failovers: Vec::new(),
        }
    }

    fn noted(epoch: u64, leading: bool) -> Option<Noted> {
        Some(Noted { epoch, leading })
    }

    fn in_transition(step: Step) -> Record {
        let transition = Transition {
            kind: TransitionKind::Failover,
            from: name("pg-a"),
            to: name("pg-b"),
            step,
            since: jiff::Timestamp::UNIX_EPOCH,
            lossy: false,
            reason: String::new(),
        };
        Record { transition: Some(transition), ..record("pg-a") }
    }

    fn every_data_directory() -> Vec<DataDirectory> {
        let mut all = vec![DataDirectory::Empty];
        for flags in 0..8 {
            let [standby_signal, unpromoted, rewinding] = [1, 2, 4].map(|flag| flags & flag != 0);
            for system_identifier in ["7", "8"] {
                all.push(DataDirectory::Present { system_identifier: system_identifier.to_owned(), standby_signal, unpromoted, rewinding });
            }
        }
        all
    }

    const PRIMARY: fn() -> DataDirectory =
        || DataDirectory::Present { system_identifier: "7".to_owned(), standby_signal: false, unpromoted: false, rewinding: false };
    const STANDBY: fn() -> DataDirectory =
        || DataDirectory::Present { system_identifier: "7".to_owned(), standby_signal: true, unpromoted: true, rewinding: false };

    /// I1 and I4: whatever its volume holds, a node that a transition leads away from does not start.
    #[test]
    fn i1_the_node_that_a_transition_leads_away_from_never_starts() {
        for step in [Step::Intent, Step::Fenced, Step::Replayed, Step::PromoteRequested, Step::Writable] {
            for data in every_data_directory() {
                assert!(matches!(plan(&name("pg-a"), &in_transition(step), &data, noted(3, true)), Plan::Refuse(_)), "{step:?} {data:?}");
            }
        }
    }

    /// I1: a node comes up writable only where the record names it, or names it as the promoted end of a transition.
    #[test]
    fn i1_only_the_recorded_primary_leads() {
        for data in every_data_directory() {
            for before_promotion in
                [record("pg-a"), in_transition(Step::Intent), in_transition(Step::Fenced), in_transition(Step::Replayed)]
            {
                let plan = plan(&name("pg-b"), &before_promotion, &data, None);
                assert!(!matches!(plan, Plan::Lead { .. } | Plan::Initialise), "{data:?} {plan:?}");
            }
        }
        assert_eq!(plan(&name("pg-b"), &in_transition(Step::PromoteRequested), &PRIMARY(), None), Plan::Lead { synchronous: false });
        for interrupted in [(true, true), (false, true)] {
            let (standby_signal, unpromoted) = interrupted;
            let data = DataDirectory::Present { system_identifier: "7".to_owned(), standby_signal, unpromoted, rewinding: false };
            assert_eq!(
                plan(&name("pg-b"), &in_transition(Step::PromoteRequested), &data, None),
                Plan::Follow,
                "promotion is asked for again"
            );
        }
    }

    /// I5: an empty volume becomes a new cluster only where none was ever seen.
    #[test]
    fn i5_a_lost_volume_is_never_replaced_by_an_empty_cluster() {
        assert_eq!(plan(&name("pg-a"), &record("pg-a"), &DataDirectory::Empty, None), Plan::Refuse(Refusal::DataLost));
        let fresh = Record { epoch: 1, system_identifier: None, ..record("pg-a") };
        assert_eq!(plan(&name("pg-a"), &fresh, &DataDirectory::Empty, None), Plan::Initialise);
        assert_eq!(plan(&name("pg-a"), &Record { epoch: 2, ..fresh }, &DataDirectory::Empty, None), Plan::Refuse(Refusal::DataLost));
    }

    #[test]
    fn a_node_takes_the_role_in_the_record() {
        assert_eq!(plan(&name("pg-a"), &record("pg-a"), &PRIMARY(), noted(3, true)), Plan::Lead { synchronous: true });
        assert_eq!(plan(&name("pg-b"), &record("pg-a"), &STANDBY(), noted(3, false)), Plan::Follow);
        assert_eq!(plan(&name("pg-b"), &record("pg-a"), &DataDirectory::Empty, None), Plan::Clone { keep: false });
        assert_eq!(plan(&name("pg-a"), &record("pg-b"), &PRIMARY(), noted(2, true)), Plan::Rewind);
        assert_eq!(plan(&name("pg-a"), &record("pg-a"), &STANDBY(), noted(3, false)), Plan::Refuse(Refusal::StandbyData));
    }

    #[test]
    fn a_copy_that_a_person_ordered_is_taken_where_the_node_follows_and_nowhere_else() {
        let steady = record("pg-a");
        let transition = Transition {
            kind: TransitionKind::Failover,
            from: name("pg-a"),
            to: name("pg-b"),
            step: Step::Fenced,
            since: jiff::Timestamp::UNIX_EPOCH,
            lossy: false,
            reason: "x".to_owned(),
        };
        let unfinished = Record { transition: Some(transition), ..steady.clone() };
        for plan in [Plan::Follow, Plan::Rewind] {
            assert_eq!(plan.clone().by_copy(&steady), Plan::Clone { keep: false });
            assert_eq!(plan.clone().by_copy(&unfinished), plan);
        }
        for plan in [Plan::Lead { synchronous: true }, Plan::Clone { keep: true }, Plan::Initialise, Plan::Refuse(Refusal::DataLost)] {
            assert_eq!(plan.clone().by_copy(&steady), plan);
        }
    }

    /// A person promoted the standby by hand; whatever happens to its container then, its commits are not rewound away.
    #[test]
    fn i2_a_node_promoted_by_somebody_else_is_not_rewound() {
        assert_eq!(plan(&name("pg-b"), &record("pg-a"), &PRIMARY(), noted(3, false)), Plan::Clone { keep: true });
        assert_eq!(
            plan(&name("pg-b"), &record("pg-a"), &PRIMARY(), noted(2, false)),
            Plan::Rewind,
            "the tool promoted it, and the note is one epoch old"
        );
    }

    #[test]
    fn i5_commits_whose_loss_was_accepted_are_kept_beside() {
        let past =
            crate::record::PastFailover { at: jiff::Timestamp::UNIX_EPOCH, from: name("pg-a"), to: name("pg-b"), epoch: 3, lossy: true };
        let record = Record { failovers: vec![past], ..record("pg-b") };
        assert_eq!(plan(&name("pg-a"), &record, &PRIMARY(), noted(2, true)), Plan::Clone { keep: true });
        assert_eq!(plan(&name("pg-a"), &record, &STANDBY(), noted(3, false)), Plan::Follow, "once it follows it does so again");
    }

    #[test]
    fn an_older_record_and_strange_data_are_refused() {
        assert_eq!(
            plan(&name("pg-a"), &record("pg-a"), &PRIMARY(), noted(4, false)),
            Plan::Refuse(Refusal::OldRecord { recorded: 3, seen: 4 })
        );
        for node in ["pg-a", "pg-b"] {
            let strange =
                DataDirectory::Present { system_identifier: "8".to_owned(), standby_signal: true, unpromoted: true, rewinding: false };
            assert!(matches!(plan(&name(node), &record("pg-a"), &strange, None), Plan::Refuse(Refusal::Stranger { .. })));
        }
    }
}
