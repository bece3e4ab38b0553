//! `rejoin NODE`: brings a node back as the primary's standby, by what the node itself finds possible: as it is, by a rewind, else by a fresh copy beside its
//! old data; with `--from-copy` always by the copy.
//!
//! What only this node has is shown before anything is done, and its old data are kept until the new ones stream in sync (those that may hold commits that
//! nobody else has for good). Each step can be repeated, and a crash after it leaves what the passes mend by themselves:
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | commits go on without the node, where they waited for it | a pair in mode async, which returns to sync |
//! | its container is stopped | a standby that does not run: R320 starts it |
//! | a copy is ordered on its volume | the same; it takes the copy when it starts |
//! | its container is started | a standby on its way |

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{check_order, is_healthy, person, refused, take_turn};
use crate::exit_code::ExitCode;
use crate::failover::act::ActError;
use crate::failover::error::Error;
use crate::failover::journal::Journal;
use crate::failover::observation::ContainerView;
use crate::failover::parts::Parts;
use crate::failover::pass::{Checker, Look};
use crate::failover::report::Report;
use crate::failover::runtime::{Runtime, RuntimeError};
use crate::failover::servers::Servers;
use crate::node::discarded::Discarded;
use crate::postgres::lsn::Lsn;
use crate::record::NodeName;

/// How long the node may take to end in good order.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// Between two passes while the node comes back.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often it is said that the node is still on its way.
const PROGRESS: Duration = Duration::from_secs(10);

/// How a node is to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// By a fresh copy, whatever there is.
    pub from_copy: bool,
    /// How long it is waited for; the node goes on by itself afterwards.
    pub limit: Duration,
}

/// Brings `node` back. `accept` is shown what it has that the primary has not, before anything is done and without the lock.
///
/// # Errors
/// See [`Error`].
pub async fn rejoin(
    checker: &Checker<impl Parts>,
    node: &NodeName,
    way: Way,
    accept: impl FnOnce(&str) -> Result<(), Error>,
) -> Result<(Report, ExitCode), Error> {
    let look = checker.look().await?;
    if !needs_to(&look, node, way)? {
        let json = json!({ "changed": false, "node": node });
        return Ok((
            Report { text: format!("{node} follows {} already; --from-copy makes a fresh copy all the same", look.record.primary), json },
            ExitCode::Done,
        ));
    }
    let discarded = what_only_it_has(checker, &look, node).await;
    accept(&question(node, way, &discarded))?;

    let turn = take_turn(checker).await?;
    let look = checker.look().await?;
    if !needs_to(&look, node, way)? {
        let json = json!({ "changed": false, "node": node });
        return Ok((Report { text: format!("{node} has come back by itself meanwhile"), json }, ExitCode::Done));
    }
    let begun = Instant::now();
    let found = discarded.as_ref().map_or_else(|why| json!({ "unknown": why }), |found| json!(found));
    let details = json!({ "epoch": look.record.epoch, "node": node, "by": person(), "from_copy": way.from_copy, "discarded": found });
    checker.journal.append("rejoin_begun", details);
    let container = checker.settings.container(node).unwrap_or_default();
    // Also where only the record still vouches for it: what is stopped here may come back with other data.
    if look.record.standby_eligible || look.seen.link().is_some_and(|link| link.enforced) {
        checker.actor().drop_to_async(&look.record, json!({ "reason": format!("rejoin of {node} ordered by {}", person()) })).await?;
    }
    if look.seen.standby.container == ContainerView::Running {
        checker.runtime.stop(container, STOP_GRACE).await.map_err(of_the_runtime)?;
    }
    if way.from_copy {
        checker.runtime.order_copy(container).await.map_err(of_the_runtime)?;
    }
    checker.runtime.start(container).await.map_err(of_the_runtime)?;

    let (mut last, mut told) = (String::new(), Instant::now());
    loop {
        let pass = checker.pass(&turn).await?;
        let words = format!("{} {}", pass.look.decision.rule.id, pass.look.decision.reason);
        if is_healthy(&pass.look) {
            break;
        }
        if begun.elapsed() >= way.limit {
            let limit = way.limit;
            return Err(refused(
                format!("{node} is not back after {limit:?}: {words}"),
                "failover-check wait-healthy: it goes on by itself; or docker logs, where it does not",
            ));
        }
        if last != pass.look.decision.rule.id || told.elapsed() >= PROGRESS {
            log::info!("waiting: {words}");
            (last, told) = (pass.look.decision.rule.id.to_owned(), Instant::now());
        }
        sleep(INTERVAL).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    checker.journal.append("rejoined", json!({ "epoch": look.record.epoch, "node": node, "seconds": seconds }));
    let text = format!("{node} follows {} in sync after {seconds:.1} s", look.record.primary);
    Ok((
        Report { text, json: json!({ "changed": true, "node": node, "seconds": seconds, "from_copy": way.from_copy, "discarded": found }) },
        ExitCode::Done,
    ))
}

/// Whether there is anything to do.
///
/// # Errors
/// Where the node cannot be brought back.
fn needs_to(look: &Look, node: &NodeName, way: Way) -> Result<bool, Error> {
    check_order(look)?;
    let (primary, standby) = (&look.record.primary, &look.seen.standby);
    if node == primary {
        return Err(refused(
            format!("the record names {node} as the primary; its data are what the others follow"),
            &format!("failover-check rejoin {}, or first: failover-check switchover", standby.name),
        ));
    }
    if *node != standby.name {
        return Err(refused(format!("there is no node '{node}'"), &format!("failover-check rejoin {}", standby.name)));
    }
    if !look.seen.primary.is_seen_as_primary() {
        return Err(refused(format!("the primary {primary} takes no writes, so there is nobody to follow"), "failover-check explain"));
    }
    if standby.is_seen_as_primary() {
        return Err(refused(format!("{node} takes writes itself"), "failover-check run --act, which fences it; then the same again"));
    }
    match &standby.container {
        ContainerView::Missing => {
            return Err(refused(format!("the container of {node} does not exist"), "playbooks/run_containers.yml, which makes it again"));
        }
        ContainerView::Unknown(why) => {
            return Err(refused(format!("the runtime does not say whether {node} runs: {why}"), "failover-check explain"));
        }
        ContainerView::Running | ContainerView::Stopped(_) => {}
    }
    Ok(way.from_copy || !look.seen.link().is_some_and(|link| link.streaming))
}

/// The inner error: why it could not be told.
async fn what_only_it_has(checker: &Checker<impl Parts>, look: &Look, node: &NodeName) -> Result<Vec<Discarded>, String> {
    let at = checker.actor().address(&look.record.primary).await.map_err(|error| error.to_string())?;
    let primary = checker.servers.timelines(at).await.map_err(|error| format!("{}: {error}", look.record.primary))?;
    let container = checker.settings.container(node).unwrap_or_default();
    checker.runtime.discarded(container, &primary).await.map_err(|error| error.to_string())
}

fn question(node: &NodeName, way: Way, discarded: &Result<Vec<Discarded>, String>) -> String {
    let how =
        if way.from_copy { "by a fresh copy beside its old data" } else { "as it is, by a rewind, or by a fresh copy beside its old data" };
    let mut lines = vec![format!("{node} comes back as the standby, {how}.")];
    match discarded {
        Err(why) => lines.push(format!("What only it has cannot be told: {why}")),
        Ok(found) => {
            let beyond: Vec<&Discarded> = found.iter().filter(|found| found.from.is_some()).collect();
            if beyond.is_empty() {
                lines.push("It has nothing that the primary has not.".to_owned());
            }
            lines.extend(beyond.into_iter().map(one));
        }
    }
    lines.push("Old data are kept until the new ones stream, and data.kept-* until you remove them.".to_owned());
    lines.join("\n")
}

fn one(found: &Discarded) -> String {
    let at = |lsn: Option<Lsn>| lsn.map_or("?".to_owned(), |lsn| lsn.to_string());
    let times = match (&found.first_commit, &found.last_commit) {
        (Some(first), Some(last)) => format!(", committed from {first} to {last}"),
        _ => String::new(),
    };
    format!(
        "Only in {}: timeline {} from {} to {}, {} bytes, {} records, {} transactions{times}",
        found.directory,
        found.timeline,
        at(found.from),
        at(found.to),
        found.bytes,
        found.records,
        found.commits
    )
}

fn of_the_runtime(error: RuntimeError) -> Error {
    ActError::from(error).into()
}
