//! `switchover`: the role moves in good order, and no acknowledged commit is lost.
//!
//! ```text
//!  nothing is stopped yet                                  writes are stopped
//!  checkpoint (without the lock: it may take minutes)      the primary's fast shutdown: its last checkpoint, all log sent
//!  look, checkpoint again, wait for the standby's replay   verified stopped; the standby has replayed; promoted; recorded
//! ```
//!
//! What writes wait for is nearly all measured before: the second checkpoint is as long as that of the shutdown, for the first one has left it next to
//! nothing to write; and the promotion waits for what the standby has received and not replayed. Where both together are over the limit, or somebody else
//! streams from the primary and is behind (a shutdown waits for them too), the order is refused and nothing was stopped.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::change::{Order, carry_through};
use super::{check_order, person, refused, take_turn};
use crate::exit_code::ExitCode;
use crate::failover::act::Actor;
use crate::failover::decide::promotable;
use crate::failover::error::Error;
use crate::failover::observation::{Observation, ServerView};
use crate::failover::parts::Parts;
use crate::failover::pass::{Checker, Look};
use crate::failover::report::Report;
use crate::failover::servers::Servers;
use crate::postgres::status::{RoleStatus, ServerStatus};
use crate::record::{NodeName, TransitionKind};

/// How long the first checkpoint may take, with all that has gathered since the last one.
const FIRST_CHECKPOINT: Duration = Duration::from_secs(600);
/// The least time that the second checkpoint and the replay are waited for, however short the limit: what takes longer is over the limit anyway.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// Somebody else who streams from the primary may be behind by so much, one WAL segment: it is sent within a moment.
const OTHERS_BEHIND: u64 = 16 * 1024 * 1024;
/// Between two looks at the standby's replay.
const GLANCE: Duration = Duration::from_millis(10);

/// What was measured before anything was stopped.
struct Measured {
    checkpoint: Duration,
    replay: Duration,
}

/// Moves the primary in good order. Refuses where writes would have to stop for longer than `limit`.
///
/// # Errors
/// See [`Error`].
pub async fn switchover(checker: &Checker<impl Parts>, to: Option<&NodeName>, limit: Duration) -> Result<(Report, ExitCode), Error> {
    let look = checker.look().await?;
    if let Some(done) = done_already(&look, to)? {
        return Ok(done);
    }
    check(&look.seen)?;
    let actor = checker.actor();
    let begun = Instant::now();
    checkpoint(&actor, &look, FIRST_CHECKPOINT).await?;
    log::info!("checkpoint on {} after {:.2} s; nothing is stopped yet", look.record.primary, begun.elapsed().as_secs_f64());

    let turn = take_turn(checker).await?;
    // Again: the checkpoint may have taken minutes, and others act meanwhile.
    let look = checker.look().await?;
    if let Some(done) = done_already(&look, to)? {
        return Ok(done);
    }
    check(&look.seen)?;
    let measured = measure(&actor, &look, limit).await?;
    let order = Order { kind: TransitionKind::Switchover, lossy: false, reason: format!("switchover ordered by {}", person()) };
    let changed = carry_through(checker, &turn, &look, order).await?;
    let more = json!({ "checkpoint_seconds": measured.checkpoint.as_secs_f64(), "replay_seconds": measured.replay.as_secs_f64() });
    Ok(changed.report(more.as_object().cloned().unwrap_or_default()))
}

/// The answer where the wanted node is primary already; and whether the order can be taken at all.
fn done_already(look: &Look, to: Option<&NodeName>) -> Result<Option<(Report, ExitCode)>, Error> {
    check_order(look)?;
    let (primary, standby) = (&look.record.primary, &look.seen.standby.name);
    match to {
        Some(to) if to == primary => {
            let json = json!({ "changed": false, "primary": to });
            Ok(Some((Report { text: format!("{to} is primary already"), json }, ExitCode::Done)))
        }
        Some(to) if to != standby => Err(refused(format!("there is no node '{to}'"), &format!("--to {primary} or --to {standby}"))),
        Some(_) | None => Ok(None),
    }
}

/// What can be seen without measuring.
fn check(seen: &Observation) -> Result<(), Error> {
    promotable(seen).map_err(|why| refused(why.to_string(), "wait until failover-check status says sync"))?;
    let link = seen.link().filter(|link| link.enforced && link.synchronous);
    let (Some(_), ServerView::Primary { status, .. }) = (link, &seen.primary.server) else {
        return Err(refused(
            "the primary does not confirm that the standby is in sync",
            "failover-check explain; a lost primary is failed over by failover-check run",
        ));
    };
    let behind = |flushed| status.flushed.bytes_since(flushed);
    let others = status.standbys.iter().filter(|other| other.name != seen.standby.name.as_str() && other.streaming);
    match others.filter_map(|other| Some((&other.name, behind(other.flushed?)))).find(|(_, bytes)| *bytes > OTHERS_BEHIND) {
        Some((name, bytes)) => Err(refused(
            format!(
                "'{name}' streams from the primary too and is {bytes} bytes behind (limit {OTHERS_BEHIND}); a shutdown would wait for it"
            ),
            "end it, or wait until it has caught up",
        )),
        None => Ok(()),
    }
}

async fn checkpoint(actor: &Actor<'_, impl Parts>, look: &Look, limit: Duration) -> Result<(), Error> {
    let at = actor.address(&look.record.primary).await?;
    actor.servers.checkpoint(at, limit).await.map_err(|why| {
        refused(
            format!("the primary has not made a checkpoint within {limit:?}, and its shutdown would wait for one: {why}"),
            "again when there is less to write; --within TIME allows for a longer one",
        )
    })
}

/// How long writes would have to stop, as far as that can be known before.
async fn measure(actor: &Actor<'_, impl Parts>, look: &Look, limit: Duration) -> Result<Measured, Error> {
    let patience = limit.max(LEAST_WAIT);
    let begun = Instant::now();
    checkpoint(actor, look, patience).await?;
    let checkpoint = begun.elapsed();
    let begun = Instant::now();
    let replayed = timeout(patience, replay_of_all_there_is(actor, look)).await;
    let replay = begun.elapsed();
    replayed.map_err(|_| {
        refused(
            format!("the standby has not replayed within {patience:?} what the primary had written, and a promotion would wait for that"),
            "again when there is less to write; --within TIME allows for a longer one",
        )
    })??;
    let expected = checkpoint + replay;
    if expected > limit {
        return Err(refused(
            format!(
                "writes would have to stop for longer than {limit:?}: {:.2} s for the checkpoint of the shutdown, {:.2} s for the standby's replay, as just measured",
                checkpoint.as_secs_f64(),
                replay.as_secs_f64()
            ),
            &format!("again when there is less to write, or: failover-check switchover --within {}s", expected.as_secs() + 1),
        ));
    }
    Ok(Measured { checkpoint, replay })
}

/// Comes back when the standby has replayed what the primary's log held at the call.
async fn replay_of_all_there_is(actor: &Actor<'_, impl Parts>, look: &Look) -> Result<(), Error> {
    let unknown = |why: String| refused(why, "failover-check explain");
    let at = actor.address(&look.record.primary).await?;
    let end = match actor.servers.ask(at).await {
        Ok(ServerStatus { role: RoleStatus::Primary(status), .. }) => status.flushed,
        Ok(_) => return Err(unknown(format!("{} is in recovery", look.record.primary))),
        Err(error) => return Err(unknown(format!("{}: {error}", look.record.primary))),
    };
    let standby = &look.seen.standby.name;
    let at = actor.address(standby).await?;
    loop {
        match actor.servers.ask_again(at).await {
            Ok(ServerStatus { role: RoleStatus::Standby(status), .. }) if status.replayed.is_some_and(|replayed| replayed >= end) => {
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => log::debug!("{standby}: {error}"),
        }
        sleep(GLANCE).await;
    }
}
