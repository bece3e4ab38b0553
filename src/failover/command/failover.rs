//! `failover --accept-data-loss`: a person gives up what only the lost primary has. What that is, as far as it is known, is said before anything is done.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::change::{Order, carry_through};
use super::{check_order, person, refused, take_turn};
use crate::exit_code::ExitCode;
use crate::failover::decide::promotable;
use crate::failover::decision::Unpromotable;
use crate::failover::error::Error;
use crate::failover::journal::Journal;
use crate::failover::observation::{Observation, ServerView};
use crate::failover::parts::Parts;
use crate::failover::pass::{Checker, Look};
use crate::failover::report::Report;
use crate::postgres::lsn::Lsn;
use crate::record::TransitionKind;

/// What a failover would lose, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The record vouches for the standby.
    Nothing,
    /// The standby lacks a part of what the primary was last seen to have.
    Known {
        /// How much.
        bytes: u64,
        /// How long ago the primary was last seen; what it wrote since is not in the number.
        age: Duration,
        /// What the primary had then.
        primary: Lsn,
        /// What the standby has.
        standby: Option<Lsn>,
    },
    /// Where the primary was, or where the standby is, is not known.
    Unknown,
    /// The standby was promoted by somebody else: what it lacks can no longer be told.
    Adopted,
}

impl Loss {
    fn of(look: &Look) -> Result<Self, Error> {
        let seen = &look.seen;
        let adopted = seen.primary.is_down() && seen.standby.is_seen_as_primary();
        match promotable(seen) {
            Ok(()) => Ok(Self::Nothing),
            Err(Unpromotable::Ineligible { .. }) => Ok(match (look.primary_position(), seen.elapsed.behind) {
                (Some((primary, _)), Some((bytes, age))) => Self::Known { bytes, age, primary, standby: received(seen) },
                _ => Self::Unknown,
            }),
            Err(Unpromotable::NotInRecovery) if adopted => Ok(Self::Adopted),
            Err(why) => Err(refused(why.to_string(), "mend the standby first (failover-check explain); it alone can be promoted")),
        }
    }

    /// Is it more than what was accepted?
    fn exceeds(&self, accepted: &Self) -> bool {
        match (accepted, self) {
            (_, Self::Nothing) | (Self::Unknown, Self::Known { .. } | Self::Unknown) | (Self::Adopted, Self::Adopted) => false,
            (Self::Known { bytes: accepted, .. }, Self::Known { bytes, .. }) => bytes > accepted,
            (Self::Nothing | Self::Known { .. } | Self::Unknown | Self::Adopted, _) => true,
        }
    }

    /// For a program.
    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Self::Nothing => json!({ "kind": "nothing", "known_missing_bytes": 0 }),
            Self::Known { bytes, age, primary, standby } => json!({
                "kind": "known",
                "known_missing_bytes": bytes,
                "primary_last_known": primary,
                "primary_last_seen_seconds_ago": age.as_secs_f64(),
                "standby_has": standby,
            }),
            Self::Unknown => json!({ "kind": "unknown", "known_missing_bytes": null }),
            Self::Adopted => json!({ "kind": "adopted", "known_missing_bytes": null }),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing acknowledged is lost: the standby has every acknowledged commit"),
            Self::Known { bytes, age, primary, standby } => {
                let standby = standby.map_or("an unknown position".to_owned(), |at| at.to_string());
                write!(
                    f,
                    "{bytes} bytes of the log are lost for certain: the primary had {primary} when it was last seen, {:.1} s ago, the standby has {standby}; \
                     what the primary wrote after that is lost too, and not in the number",
                    age.as_secs_f64()
                )
            }
            Self::Unknown => f.write_str("how much is lost is unknown: nobody has seen how far the primary or the standby is"),
            Self::Adopted => f.write_str(
                "the other node was promoted by somebody else and is adopted as it is; what it lacks of the recorded primary's log is unknown",
            ),
        }
    }
}

fn received(seen: &Observation) -> Option<Lsn> {
    match &seen.standby.server {
        ServerView::Standby { status, .. } => status.received,
        _ => None,
    }
}

/// Promotes the standby of a lost primary, although commits may be missing on it. `accept` is shown what would be lost, before anything is done and without
/// the lock, since a person may think about it for long; where more would be lost afterwards, the order is refused.
///
/// # Errors
/// See [`Error`].
pub async fn failover(checker: &Checker<impl Parts>, accept: impl FnOnce(&str) -> Result<(), Error>) -> Result<(Report, ExitCode), Error> {
    let accepted = possible(&checker.look().await?)?;
    accept(&format!("failover to the standby: {accepted}"))?;
    let turn = take_turn(checker).await?;
    let look = checker.look().await?;
    let loss = possible(&look)?;
    if loss.exceeds(&accepted) {
        return Err(refused(format!("more would be lost than was accepted a moment ago: {loss}"), "the same again, when that is accepted"));
    }
    let reason = format!("failover ordered by {}, data loss accepted: {loss}", person());
    checker.journal.append("loss_accepted", json!({ "epoch": look.record.epoch, "by": person(), "loss": loss.json(), "reason": reason }));
    let order = Order { kind: TransitionKind::Failover, lossy: loss != Loss::Nothing, reason };
    let changed = carry_through(checker, &turn, &look, order).await?;
    let more = json!({ "loss": loss.json() });
    let (report, code) = changed.report(more.as_object().cloned().unwrap_or_default());
    Ok((Report { text: format!("{}\n{loss}", report.text), ..report }, code))
}

fn possible(look: &Look) -> Result<Loss, Error> {
    check_order(look)?;
    let primary = &look.seen.primary;
    if primary.is_seen_as_primary() {
        return Err(refused(format!("{} is up and takes writes", primary.name), "failover-check switchover, which loses nothing"));
    }
    Loss::of(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(bytes: u64) -> Loss {
        let at = |text: &str| text.parse().unwrap();
        Loss::Known { bytes, age: Duration::from_millis(6_900), primary: at("0/3000138"), standby: Some(at("0/3000000")) }
    }

    #[test]
    fn the_bound_is_said_with_all_that_it_rests_on() {
        assert_eq!(
            known(312).to_string(),
            "312 bytes of the log are lost for certain: the primary had 0/3000138 when it was last seen, 6.9 s ago, the standby has 0/3000000; what the \
             primary wrote after that is lost too, and not in the number"
        );
        assert_eq!(known(312).json()["known_missing_bytes"], 312);
        assert_eq!(Loss::Unknown.json()["known_missing_bytes"], Value::Null, "unknown is not zero");
    }

    #[test]
    fn nobody_loses_more_than_was_accepted() {
        let all = [Loss::Nothing, known(10), known(11), Loss::Unknown, Loss::Adopted];
        for loss in &all {
            assert!(!loss.exceeds(loss), "{loss:?}");
            assert!(!Loss::Nothing.exceeds(loss), "{loss:?}");
            assert_eq!(loss.exceeds(&Loss::Nothing), *loss != Loss::Nothing, "{loss:?}");
        }
        assert!(known(11).exceeds(&known(10)) && !known(10).exceeds(&known(11)));
        assert!(Loss::Unknown.exceeds(&known(10)) && !known(10).exceeds(&Loss::Unknown));
        assert!(Loss::Adopted.exceeds(&Loss::Unknown));
    }
}
