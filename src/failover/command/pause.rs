//! `pause` and `resume`: a person's order to leave the pair alone, and its end.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::{person, refused, take_turn};
use crate::exit_code::ExitCode;
use crate::failover::clock::Clock;
use crate::failover::error::Error;
use crate::failover::journal::Journal;
use crate::failover::parts::Parts;
use crate::failover::pass::Checker;
use crate::failover::report::{self, Report};
use crate::record::{Pause, Record, RecordStore};

/// Leaves the pair alone until [`resume`], or for `time`. A second pause takes the first one's place.
///
/// # Errors
/// See [`Error`].
pub async fn pause(checker: &Checker<impl Parts>, reason: &str, time: Option<Duration>) -> Result<(Report, ExitCode), Error> {
    let _turn = take_turn(checker).await?;
    let record = checker.store.load()?;
    let since = checker.clock.wall();
    let until = time.map(|time| {
        let end = SignedDuration::try_from(time).ok().filter(|time| time.is_positive()).and_then(|time| since.checked_add(time).ok());
        end.ok_or_else(|| refused(format!("a pause of {time:?} cannot be"), "--for 2h"))
    });
    let until = until.transpose()?;
    let record = Record { paused: Some(Pause { since, by: person(), reason: reason.to_owned(), until }), ..record };
    checker.store.save(&record)?;
    checker.journal.append("paused", json!({ "epoch": record.epoch, "by": person(), "reason": reason, "until": until }));
    let end = until.map_or(":".to_owned(), |until| format!(" {until:.0}, or until:"));
    Ok((report::record(&record, format!("paused: {reason}; a lost primary stays lost until{end} failover-check resume")), ExitCode::Done))
}

/// Ends a pause, and counts failovers anew.
///
/// # Errors
/// See [`Error`].
pub async fn resume(checker: &Checker<impl Parts>) -> Result<(Report, ExitCode), Error> {
    let _turn = take_turn(checker).await?;
    let before = checker.store.load()?;
    let record = Record { paused: None, ..before.clone() }.counted_anew(checker.clock.wall());
    if before.paused.is_none() && before.failovers_within(checker.settings.flapping_window, checker.clock.wall()) == 0 {
        return Ok((report::record(&record, "not paused, and no failover counted: nothing to resume".to_owned()), ExitCode::Done));
    }
    checker.store.save(&record)?;
    checker.journal.append("resumed", json!({ "epoch": record.epoch, "by": person() }));
    Ok((report::record(&record, "resumed: failover-check acts again, and counts failovers anew".to_owned()), ExitCode::Done))
}
