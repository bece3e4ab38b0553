//! The command line of `failover-check`: what was typed, and what each command does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::act::Outcome;
use super::clock::Clock;
use super::decide::promotable;
use super::decision::Unpromotable;
use super::error::Error;
use super::journal::Journal;
use super::lock::{Lock, Purpose};
use super::observation::{Observation, RuntimeView, ServerView};
use super::parts::Parts;
use super::pass::{Checker, Look, Pass, TurnOf, needs_a_person};
use super::report::{self, Report};
use super::settings::Settings;
use super::words::in_one_line;
use crate::exit_code::ExitCode;
use crate::record::{NodeName, Pause, Record, RecordStore, TransitionKind};

/// How long a command waits for a running loop to let it go first; a loop looks ten times a second, unless it is in the middle of a failover.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a person's change of primary is watched until the pair is healthy again.
const HEALING: Duration = Duration::from_secs(120);

/// Fails a PostgreSQL pair over, and says why it did or did not.
#[derive(Debug, Parser)]
#[command(name = "failover-check", version, after_help = ExitCode::TABLE, max_term_width = 120)]
pub struct CommandLine {
    /// The settings of the installation
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/understudy/failover-check.toml")]
    settings: PathBuf,
    /// Answer with one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Observe, decide and act once, or over and over
    Run {
        /// Go on for so long, as cron's line does: a pass a second, and at once when a container ends
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        total: Option<Duration>,
    },
    /// How things stand
    Status,
    /// A dry run: what was seen, which rule fires, what would be done
    Explain {
        /// Print the table of rules instead
        #[arg(long)]
        rules: bool,
    },
    /// What happened, oldest first
    History {
        /// So many of the latest events
        #[arg(long, value_name = "NUMBER", default_value_t = 50)]
        limit: usize,
    },
    /// Leave the pair alone until `resume`; only two writable nodes are still acted on, and a transition under way is finished
    Pause {
        /// Why, for whoever finds it
        #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// End a pause, and let failovers happen again after too many
    Resume,
    /// Move the primary in good order, without loss
    Switchover {
        /// The node that is to be primary; the other one if not given
        #[arg(long, value_name = "NODE")]
        to: Option<NodeName>,
    },
    /// Promote the standby of a lost primary although commits may be missing on it
    Failover {
        /// Say so in so many words
        #[arg(long, required = true)]
        accept_data_loss: bool,
    },
    /// Wait until the pair is healthy, the standby in sync and the app ready
    WaitHealthy {
        /// At most so long
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "120s")]
        limit: Duration,
    },
}

/// What is to be printed, and how the program ends.
pub struct Answer {
    /// On standard output; nothing where empty.
    pub output: String,
    /// How the program ends.
    pub exit_code: ExitCode,
}

/// What is wrong with a command line, in one line; none where it asked for help or the version, which clap prints.
#[must_use]
pub fn usage_error(error: &clap::Error) -> Option<String> {
    if !error.use_stderr() {
        return None;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Some("no command given; try: --help".to_owned());
    }
    let words = error.to_string();
    // clap draws over several lines: the error, what is missing, tips, the usage.
    let is_frame = |line: &&str| line.starts_with("Usage:") || line.starts_with("For more information");
    let lines: Vec<&str> = words.lines().map(str::trim).take_while(|line| !is_frame(line)).filter(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    Some(format!("{}; try: --help", line.strip_prefix("error: ").unwrap_or(&line)))
}

impl CommandLine {
    /// Carries the command out.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn execute(&self) -> Result<Answer, Error> {
        let user = nix::unistd::geteuid();
        if !user.is_root() {
            return Err(Error::NotRoot(user.as_raw()));
        }
        if let Command::Explain { rules: true } = self.command {
            return Ok(self.answer(report::rules(), ExitCode::Done));
        }
        let checker = Checker::new(Settings::load(&self.settings)?)?;
        // One thread: nothing here computes, and the traits' futures need not be sent anywhere.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
        let (report, exit_code) = runtime.block_on(self.run(&checker))?;
        Ok(self.answer(report, exit_code))
    }

    /// Is the answer to be one JSON object, also where it is an error?
    #[must_use]
    pub fn wants_json(&self) -> bool {
        self.json
    }

    fn answer(&self, report: Report, exit_code: ExitCode) -> Answer {
        Answer { output: if self.json { report.json.to_string() } else { report.text }, exit_code }
    }

    async fn run(&self, checker: &Checker) -> Result<(Report, ExitCode), Error> {
        match &self.command {
            Command::Run { total: None } => after_pass(checker.run_once(PATIENCE).await?),
            // Its log has told what was new; cron would add the last pass to it without a time, each minute.
            Command::Run { total: Some(total) } => {
                let (report, code) = after_pass(checker.run_for(*total).await?)?;
                Ok((Report { text: String::new(), ..report }, code))
            }
            Command::Status => {
                let look = checker.look().await?;
                let events = checker.journal.read().map_err(Error::Journal)?;
                let is_change = |event: &Value| matches!(event.as_str(), Some("failover_finished" | "switchover_finished"));
                let last = events.iter().rev().find(|event| event.get("event").is_some_and(is_change));
                let code = exit_code_of(&look);
                Ok((report::status(&look, last), code))
            }
            Command::Explain { .. } => {
                let look = checker.look().await?;
                let code = exit_code_of(&look);
                Ok((report::explain(&look), code))
            }
            Command::History { limit } => {
                let events = checker.journal.read().map_err(Error::Journal)?;
                Ok((report::history(events.get(events.len().saturating_sub(*limit)..).unwrap_or_default()), ExitCode::Done))
            }
            Command::Pause { reason } => pause(checker, reason).await,
            Command::Resume => resume(checker).await,
            Command::Switchover { to } => switchover(checker, to.as_ref()).await,
            Command::Failover { .. } => failover(checker).await,
            Command::WaitHealthy { limit } => wait_healthy(checker, *limit).await,
        }
    }
}

fn exit_code_of(look: &Look) -> ExitCode {
    match look.seen.runtime {
        RuntimeView::Silent(_) => ExitCode::Runtime,
        RuntimeView::Answers if needs_a_person(&look.decision) => ExitCode::Refused,
        RuntimeView::Answers => ExitCode::Done,
    }
}

/// The answer to `run`: the last pass.
fn after_pass(pass: Pass) -> Result<(Report, ExitCode), Error> {
    let Pass { look, outcome } = pass;
    if let RuntimeView::Silent(_) = look.seen.runtime {
        return Err(Error::Runtime(look.decision.reason.to_string()));
    }
    let code = exit_code_of(&look);
    let outcome = match outcome? {
        Outcome::Idle => "nothing".to_owned(),
        Outcome::Done => format!("{} done", look.decision.action.name()),
        Outcome::Started(node) => format!("started {node}"),
        Outcome::RestartedApp => "restarted the app".to_owned(),
        Outcome::NewPrimary(node) => format!("{node} is primary"),
        Outcome::RolledBack { primary, why } => format!("rolled back to {primary}: {why}"),
    };
    let decision = &look.decision;
    let text = format!(
        "observed: {}\ndecided: {} {}: {}\nacted: {outcome}",
        in_one_line(&look.seen),
        decision.rule.id,
        decision.action.name(),
        decision.reason
    );
    let json = json!({
        "observed": in_one_line(&look.seen),
        "rule": decision.rule.id,
        "action": decision.action.name(),
        "because": decision.reason.to_string(),
        "outcome": outcome,
    });
    Ok((Report { text, json }, code))
}

async fn take_turn<P: Parts>(checker: &Checker<P>) -> Result<TurnOf<P>, Error> {
    Ok(checker.lock.take(Purpose::Command, PATIENCE).await?)
}

/// Who gives an order: the login name behind sudo, else that of the user.
fn person() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty()).or(user).unwrap_or_else(|| "unknown".to_owned())
}

/// Leaves the pair alone until [`resume`].
///
/// # Errors
/// See [`Error`].
pub async fn pause(checker: &Checker<impl Parts>, reason: &str) -> Result<(Report, ExitCode), Error> {
    let _turn = take_turn(checker).await?;
    let record = checker.store.load()?;
    let record =
        Record { paused: Some(Pause { since: checker.clock.wall(), by: person(), reason: reason.to_owned(), until: None }), ..record };
    checker.store.save(&record)?;
    checker.journal.append("paused", json!({ "epoch": record.epoch, "by": person(), "reason": reason }));
    Ok((report::record(&record, format!("paused: {reason}; a lost primary stays lost until: failover-check resume")), ExitCode::Done))
}

/// Ends a pause, and counts failovers anew.
///
/// # Errors
/// See [`Error`].
pub async fn resume(checker: &Checker<impl Parts>) -> Result<(Report, ExitCode), Error> {
    let _turn = take_turn(checker).await?;
    let before = checker.store.load()?;
    let record = Record { paused: None, counted_since: Some(checker.clock.wall()), ..before.clone() };
    if before.paused.is_none() && before.failovers_within(checker.settings.flapping_window, checker.clock.wall()) == 0 {
        return Ok((report::record(&record, "not paused, and no failover counted: nothing to resume".to_owned()), ExitCode::Done));
    }
    checker.store.save(&record)?;
    checker.journal.append("resumed", json!({ "epoch": record.epoch, "by": person() }));
    Ok((report::record(&record, "resumed: failover-check acts again, and counts failovers anew".to_owned()), ExitCode::Done))
}

fn refused(why: impl Into<String>, remedy: &str) -> Error {
    Error::Refused { why: why.into(), remedy: remedy.to_owned() }
}

/// What both changes of primary by a person need first.
fn check_order(look: &Look) -> Result<(), Error> {
    if let RuntimeView::Silent(why) = &look.seen.runtime {
        return Err(Error::Runtime(format!("the container runtime does not answer: {why}")));
    }
    if look.record.transition.is_some() {
        return Err(refused(
            "another transition is unfinished",
            "failover-check run, which finishes it; then look at failover-check status",
        ));
    }
    Ok(())
}

/// Moves the primary in good order.
///
/// # Errors
/// See [`Error`].
pub async fn switchover(checker: &Checker<impl Parts>, to: Option<&NodeName>) -> Result<(Report, ExitCode), Error> {
    let turn = take_turn(checker).await?;
    let look = checker.look().await?;
    check_order(&look)?;
    let (record, seen) = (&look.record, &look.seen);
    match to {
        Some(to) if *to == record.primary => {
            let report = Report { text: format!("{to} is primary already"), json: json!({ "changed": false, "primary": to }) };
            return Ok((report, ExitCode::Done));
        }
        Some(to) if *to != seen.standby.name => {
            return Err(refused(format!("there is no node '{to}'"), &format!("--to {} or --to {}", record.primary, seen.standby.name)));
        }
        _ => {}
    }
    promotable(seen).map_err(|why| refused(why.to_string(), "wait until failover-check status says sync"))?;
    let in_sync = seen.primary.is_seen_as_primary() && seen.link().is_some_and(|link| link.enforced && link.synchronous);
    if !in_sync {
        return Err(refused(
            "the primary does not confirm that the standby is in sync",
            "failover-check explain; a lost primary is failed over by failover-check run",
        ));
    }
    let reason = format!("switchover ordered by {}", person());
    carry_through(checker, &turn, &look, TransitionKind::Switchover, false, reason).await
}

/// Promotes the standby of a lost primary, although commits may be missing on it.
///
/// # Errors
/// See [`Error`].
pub async fn failover(checker: &Checker<impl Parts>) -> Result<(Report, ExitCode), Error> {
    let turn = take_turn(checker).await?;
    let look = checker.look().await?;
    check_order(&look)?;
    let seen = &look.seen;
    if seen.primary.is_seen_as_primary() {
        return Err(refused(format!("{} is up and takes writes", seen.primary.name), "failover-check switchover, which loses nothing"));
    }
    let adopted = seen.primary.is_down() && seen.standby.is_seen_as_primary();
    let (lossy, loss) = match promotable(seen) {
        Ok(()) => (false, "nothing acknowledged is lost".to_owned()),
        Err(why @ Unpromotable::Ineligible { .. }) => (true, why.to_string()),
        Err(Unpromotable::NotInRecovery) if adopted => {
            (true, format!("{} was promoted by somebody else and is adopted as it is", seen.standby.name))
        }
        Err(why) => return Err(refused(why.to_string(), "mend the standby first (failover-check explain); it alone can be promoted")),
    };
    let reason = format!("failover ordered by {}, data loss accepted: {loss}", person());
    carry_through(checker, &turn, &look, TransitionKind::Failover, lossy, reason).await
}

/// Changes the primary and then passes until the pair is healthy again, or for the limit.
async fn carry_through<P: Parts>(
    checker: &Checker<P>,
    turn: &TurnOf<P>,
    look: &Look,
    kind: TransitionKind,
    lossy: bool,
    reason: String,
) -> Result<(Report, ExitCode), Error> {
    let begun = Instant::now();
    let to = &look.seen.standby.name;
    log::info!("{} → {to}: {reason}", look.record.primary);
    if let Outcome::RolledBack { primary, why } = checker.actor().begin(look.record.clone(), kind, to, lossy, reason).await? {
        return Err(refused(format!("rolled back, {primary} is primary still: {why}"), "failover-check explain"));
    }
    let writable_after = begun.elapsed().as_secs_f64();
    log::info!("{to} is primary after {writable_after:.2} s; waiting for {} to follow it", look.record.primary);
    let mut healthy = false;
    while !healthy && begun.elapsed() < HEALING {
        let pass = checker.pass(turn).await?;
        healthy = is_healthy(&pass.look);
        sleep(Duration::from_millis(200)).await;
    }
    let whole = begun.elapsed().as_secs_f64();
    let tail = if healthy {
        format!("the pair is healthy again after {whole:.1} s")
    } else {
        "the pair is not healthy yet: failover-check explain".to_owned()
    };
    let report = Report {
        text: format!("{to} is primary after {writable_after:.2} s; {tail}"),
        json: json!({ "changed": true, "primary": to, "writable_after_seconds": writable_after, "healthy": healthy, "seconds": whole }),
    };
    Ok((report, if healthy { ExitCode::Done } else { ExitCode::ActionFailed }))
}

fn is_healthy(look: &Look) -> bool {
    look.decision.rule == super::decide::HEALTHY
}

async fn wait_healthy(checker: &Checker, limit: Duration) -> Result<(Report, ExitCode), Error> {
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        let look = checker.look().await?;
        let seconds = begun.elapsed().as_secs_f64();
        if is_healthy(&look) {
            let text = format!("healthy after {seconds:.1} s: {}", describe(&look.seen));
            return Ok((Report { text, json: json!({ "healthy": true, "seconds": seconds }) }, ExitCode::Done));
        }
        let words = format!("{} {}", look.decision.rule.id, look.decision.reason);
        if begun.elapsed() >= limit {
            return Err(refused(format!("not healthy after {seconds:.0} s: {words}"), "failover-check explain; is cron running?"));
        }
        if last != look.decision.rule.id {
            log::info!("waiting: {words}");
            look.decision.rule.id.clone_into(&mut last);
        }
        sleep(Duration::from_millis(250)).await;
    }
}

fn describe(seen: &Observation) -> String {
    let position = match &seen.primary.server {
        ServerView::Primary { status, .. } => format!(" at {}", status.flushed),
        _ => String::new(),
    };
    format!("primary {}{position}, standby {} in sync", seen.primary.name, seen.standby.name)
}
