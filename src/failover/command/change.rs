//! A change of primary that a person has ordered, carried through until the pair is healthy again.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{is_healthy, refused};
use crate::exit_code::ExitCode;
use crate::failover::act::Outcome;
use crate::failover::error::Error;
use crate::failover::parts::Parts;
use crate::failover::pass::{Checker, Look, TurnOf};
use crate::failover::report::Report;
use crate::record::{NodeName, TransitionKind};

/// How long a person's change of primary is watched until the pair is healthy again.
const HEALING: Duration = Duration::from_secs(120);

/// What was ordered.
pub struct Order {
    /// What moves the role.
    pub kind: TransitionKind,
    /// The person has accepted that acknowledged commits are lost.
    pub lossy: bool,
    /// Why, for the record and the history.
    pub reason: String,
}

/// What came of it.
pub struct Changed {
    /// The new primary.
    pub primary: NodeName,
    /// From the order to a new primary that takes writes.
    pub writable_after: Duration,
    /// From the order to a healthy pair; none where that took too long.
    pub healthy_after: Option<Duration>,
}

impl Changed {
    /// For the person who ordered it. `more` goes into the JSON.
    #[must_use]
    pub fn report(&self, more: Map<String, Value>) -> (Report, ExitCode) {
        let writable_after = self.writable_after.as_secs_f64();
        let tail = self.healthy_after.map_or("the pair is not healthy yet: failover-check explain".to_owned(), |time| {
            format!("the pair is healthy again after {:.1} s", time.as_secs_f64())
        });
        let mut json = json!({
            "changed": true,
            "primary": self.primary,
            "writable_after_seconds": writable_after,
            "healthy": self.healthy_after.is_some(),
            "seconds": self.healthy_after.map(|time| time.as_secs_f64()),
        });
        if let Value::Object(json) = &mut json {
            json.extend(more);
        }
        let report = Report { text: format!("{} is primary after {writable_after:.2} s; {tail}", self.primary), json };
        (report, if self.healthy_after.is_some() { ExitCode::Done } else { ExitCode::ActionFailed })
    }
}

/// Changes the primary and then passes until the pair is healthy again, or for the limit. Holds the turn all the while, so that nobody else begins anything.
///
/// # Errors
/// See [`Error`]; where the change was rolled back, that it was.
pub async fn carry_through<P: Parts>(checker: &Checker<P>, turn: &TurnOf<P>, look: &Look, order: Order) -> Result<Changed, Error> {
    let begun = Instant::now();
    let to = &look.seen.standby.name;
    log::info!("{} → {to}: {}", look.record.primary, order.reason);
    let Order { kind, lossy, reason } = order;
    if let Outcome::RolledBack { primary, why } = checker.actor().begin(look.record.clone(), kind, to, lossy, reason).await? {
        return Err(refused(format!("rolled back, {primary} is primary still: {why}"), "failover-check explain"));
    }
    let writable_after = begun.elapsed();
    log::info!("{to} is primary after {:.2} s; waiting for {} to follow it", writable_after.as_secs_f64(), look.record.primary);
    let mut healthy_after = None;
    while healthy_after.is_none() && begun.elapsed() < HEALING {
        let pass = checker.pass(turn).await?;
        healthy_after = is_healthy(&pass.look).then(|| begun.elapsed());
        sleep(Duration::from_millis(200)).await;
    }
    Ok(Changed { primary: to.clone(), writable_after, healthy_after })
}
