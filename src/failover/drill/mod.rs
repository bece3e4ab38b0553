//! `drill`: a failover rehearsed on a running system. The primary's container is killed; the passes that always watch do the rest; a client of the drill's own
//! counts what it was told is committed.
//!
//! The client logs in as the app's own role, in the app's own database: the one way by which rows get there anyway, so no role gets a right that it has not.
//! Its table lies in a schema of its own, `understudy_drill`, which the drill makes and removes. Where the drill itself is ended in the middle, the schema
//! stays until the next one, and the failover goes on without it. The drill holds no lock: it would keep off the very passes that it is to see at work.

pub mod report;
pub mod witness;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::command::switchover::switchover;
use super::command::{is_healthy, person, refused};
use super::error::Error;
use super::journal::Journal;
use super::pass::{Checker, Look};
use super::report::Report;
use super::runtime::Runtime;
use super::settings::{Login, Mode};
use crate::exit_code::ExitCode;
use crate::record::RecordStore;
use crate::replace_file;
use report::{Measured, longest_gap, outage, steps};
use witness::Witness;

/// The passes that are to do the failover have to have looked so lately.
const WATCHED: Duration = Duration::from_secs(5);
/// Rows that have to be acknowledged before the kill, and after it.
const ROWS: usize = 50;
/// How long these rows may take.
const WRITING: Duration = Duration::from_secs(20);
/// How long the change of primary may take.
const FAILOVER: Duration = Duration::from_secs(60);
/// How long the old primary may take to follow in sync.
const HEALING: Duration = Duration::from_secs(300);
/// How long the way back may keep writes off.
const WAY_BACK: Duration = Duration::from_secs(10);
/// Between two looks.
const GLANCE: Duration = Duration::from_millis(100);

/// What was ordered.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// The longest time without an acknowledged row that still holds.
    pub max_outage: Duration,
    /// Move the role back in the end.
    pub switch_back: bool,
}

/// Rehearses a failover. `accept` is shown what will happen before anything does.
///
/// # Errors
/// Where the drill is refused or cannot begin; what goes wrong after the kill is part of its report.
pub async fn drill(checker: &Checker, order: Order, accept: impl FnOnce(&str) -> Result<(), Error>) -> Result<(Report, ExitCode), Error> {
    let look = checker.look().await?;
    check(checker, &look)?;
    let client = client(checker)?;
    let (from, to) = (look.record.primary.clone(), look.seen.standby.name.clone());
    accept(&format!(
        "A drill: {from}'s container is killed, and {to} takes over. Writes stop for a moment, connections to {from} end, and the failover counts \
         ({} of {} within the window so far). A table is made in database {} and removed.",
        look.seen.elapsed.recent_failovers, look.seen.thresholds.flapping_limit, client.database
    ))?;
    // A person may have thought about it for long.
    let look = checker.look().await?;
    check(checker, &look)?;
    if look.record.primary != from {
        return Err(refused("the primary has changed meanwhile", "failover-check status, then the same again"));
    }

    let witness = Witness::new(checker, client);
    witness
        .make_table()
        .await
        .map_err(|why| refused(format!("the drill's table cannot be made: {why}"), "see that the app's role may log in"))?;
    let story = async {
        let told = tell(checker, &witness, &look, order).await;
        witness.end();
        told
    };
    let ((), told) = tokio::join!(witness.look(), story);
    let mut measured = match told {
        Ok(measured) => measured,
        Err(error) => {
            remove_table(&witness).await;
            return Err(error);
        }
    };
    measured.rows_acknowledged = witness.acknowledged();
    measured.most_writable = witness.most_writable();
    match witness.lost().await {
        Ok(lost) => measured.rows_lost = Some(lost.len()),
        Err(why) => measured.faults.push(why),
    }
    remove_table(&witness).await;
    measured.judge();
    checker.journal.append(
        "drill_finished",
        json!({ "from": from, "to": to, "held": measured.held, "seconds": measured.write_outage_seconds, "reason": measured.faults.join("; ") }),
    );
    let text = measured.text();
    let saved = match save(checker, &measured, &text) {
        Ok(path) => format!("\nsaved as {}", path.display()),
        Err(error) => format!("\nnot saved: {error}"),
    };
    let code = if measured.held { ExitCode::Done } else { ExitCode::NotHeld };
    Ok((Report { text: text + &saved, json: json!(measured) }, code))
}

/// A drill is for a system that could stand the real thing.
fn check(checker: &Checker, look: &Look) -> Result<(), Error> {
    if checker.settings.mode == Mode::Observe {
        return Err(refused("mode = observe: nobody would fail over", "set understudy_mode: act, and run playbooks/run_containers.yml"));
    }
    if look.record.paused.is_some() {
        return Err(refused("the tool is paused: nobody would fail over", "failover-check resume"));
    }
    if !is_healthy(look) {
        let decision = &look.decision;
        return Err(refused(
            format!("not healthy: {} {}", decision.rule.id, decision.reason),
            "failover-check wait-healthy, then the same again",
        ));
    }
    let (failovers, limit) = (look.seen.elapsed.recent_failovers, look.seen.thresholds.flapping_limit);
    if failovers + 1 >= limit {
        return Err(refused(
            format!("{failovers} failovers within the window: after a drill there would be none left for a real loss (limit {limit})"),
            "failover-check resume, which counts them anew; or wait until the window has passed over them",
        ));
    }
    if look.last_pass_ago.is_none_or(|ago| ago > WATCHED) {
        let ago = look.last_pass_ago.map_or("never".to_owned(), |ago| format!("{:.0} s ago", ago.as_secs_f64()));
        return Err(refused(
            format!("nobody watches, so nobody would fail over: the last pass was {ago} (limit {} s)", WATCHED.as_secs()),
            "see that cron runs; meanwhile failover-check run --for 60s",
        ));
    }
    Ok(())
}

/// The app's own login, from the section `[drill]` of the settings.
fn client(checker: &Checker) -> Result<Login, Error> {
    let Some(drill) = &checker.settings.drill else {
        return Err(refused(
            "the settings have no section [drill], which says as whom a drill writes",
            "lay it down with playbooks/run_containers.yml",
        ));
    };
    let password = fs::read_to_string(&drill.password_file).map_err(|error| {
        refused(format!("cannot read '{}': {error}", drill.password_file.display()), "lay it down with playbooks/run_containers.yml")
    })?;
    Ok(Login {
        port: checker.settings.login.port,
        user: drill.user.clone(),
        password: password.trim_end_matches('\n').to_owned(),
        database: drill.database.clone(),
    })
}

/// The story: rows, the kill, the failover, rows again, a whole pair, and the way back where that was ordered.
async fn tell(checker: &Checker, witness: &Witness<'_>, look: &Look, order: Order) -> Result<Measured, Error> {
    let (from, to) = (&look.record.primary, &look.seen.standby.name);
    if !more_rows(witness, ROWS).await {
        return Err(refused("the drill's client gets no row acknowledged; nothing was killed", "failover-check explain"));
    }
    let (at, begun) = (Timestamp::now(), Instant::now());
    checker.journal.append("drill_begun", json!({ "epoch": look.record.epoch, "from": from, "to": to, "by": person() }));
    log::info!("killing {from}");
    let container = checker.settings.container(from).unwrap_or_default();
    checker.runtime.kill(container).await.map_err(super::act::ActError::from)?;

    let mut faults = Vec::new();
    let moved = timeout(FAILOVER, async {
        while !checker.store.load().is_ok_and(|record| record.primary == *to && record.transition.is_none()) {
            sleep(GLANCE).await;
        }
    });
    if moved.await.is_err() {
        faults.push(format!("the record does not name {to} as the primary after {FAILOVER:?}"));
    }
    log::info!("{to} is primary; waiting for {from} to follow it in sync");
    let healed = timeout(HEALING, async {
        while !checker.look().await.is_ok_and(|look| is_healthy(&look)) {
            sleep(GLANCE).await;
        }
        begun.elapsed().as_secs_f64()
    });
    let healthy_after_seconds = healed.await.ok();
    if !more_rows(witness, ROWS).await {
        faults.push("the drill's client gets no row acknowledged any more".to_owned());
    }
    let events = checker.journal.read().unwrap_or_default();
    let write_outage_seconds = outage(&witness.rows(), to).map(|time| time.as_secs_f64());

    let mut switch_back_outage_seconds = None;
    if order.switch_back && healthy_after_seconds.is_some() {
        let turned = Instant::now();
        match switchover(checker, Some(from), WAY_BACK).await {
            Ok((report, ExitCode::Done)) => log::info!("{}", report.text),
            Ok((report, _)) => faults.push(format!("the way back: {}", report.text)),
            Err(error) => faults.push(format!("the way back: {error}")),
        }
        if !more_rows(witness, ROWS).await {
            faults.push("no row was acknowledged after the way back".to_owned());
        }
        switch_back_outage_seconds = longest_gap(&witness.rows(), turned).map(|time| time.as_secs_f64());
    }
    Ok(Measured {
        at,
        from: from.clone(),
        to: to.clone(),
        held: false,
        faults,
        write_outage_seconds,
        max_outage_seconds: order.max_outage.as_secs_f64(),
        rows_acknowledged: 0,
        rows_lost: None,
        most_writable: 0,
        healthy_after_seconds,
        steps: steps(&events, at),
        switch_back_outage_seconds,
    })
}

/// Waits until that many more rows are acknowledged from now on.
async fn more_rows(witness: &Witness<'_>, rows: usize) -> bool {
    let wanted = witness.acknowledged() + rows;
    let written = timeout(WRITING, async {
        while witness.acknowledged() < wanted {
            sleep(GLANCE).await;
        }
    });
    written.await.is_ok()
}

/// Best effort: the next drill takes away what is left.
async fn remove_table(witness: &Witness<'_>) {
    if let Err(why) = witness.remove_table().await {
        log::warn!("the schema understudy_drill is left behind, until the next drill: {why}");
    }
}

/// Keeps the report beside the record, as JSON and as text.
fn save(checker: &Checker, measured: &Measured, text: &str) -> io::Result<PathBuf> {
    let folder = checker.settings.state_directory.join("drills");
    fs::create_dir_all(&folder)?;
    let name = format!("{:.0}", measured.at).replace(':', "-");
    let path = folder.join(format!("{name}.json"));
    let json = serde_json::to_string_pretty(measured).map_err(io::Error::other)?;
    replace_file::write(&path, format!("{json}\n").as_bytes())?;
    replace_file::write(&folder.join(format!("{name}.txt")), format!("{text}\n").as_bytes())?;
    Ok(path)
}
