//! The command line of `failover-check`: what was typed, and what each command does. One file a command, where it is more than a few lines.

pub mod change;
pub mod confirm;
pub mod failover;
pub mod notify;
pub mod pause;
pub mod rejoin;
pub mod switchover;
pub mod wait;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use super::act::Outcome;
use super::drill;
use super::error::Error;
use super::lock::{Lock, Purpose};
use super::observation::RuntimeView;
use super::parts::Parts;
use super::pass::{Checker, Look, Pass, TurnOf, needs_a_person};
use super::report::{self, Report};
use super::settings::{Mode, Settings};
use super::words::in_one_line;
use crate::exit_code::ExitCode;
use crate::record::NodeName;
use confirm::{Unasked, confirm};

/// How long a command waits for a running loop to let it go first; a loop looks ten times a second, unless it is in the middle of a failover.
const PATIENCE: Duration = Duration::from_secs(60);

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
        /// Act also where the settings say mode = "observe"
        #[arg(long)]
        act: bool,
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
    /// Leave the pair alone until `resume`, or for a time; only two writable nodes are still acted on, and a transition under way is finished
    Pause {
        /// Why, for whoever finds it
        #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
        /// Go on by itself after so long, for example 2h
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        time: Option<Duration>,
    },
    /// End a pause, and let failovers happen again after too many
    Resume,
    /// Move the primary in good order, without loss
    Switchover {
        /// The node that is to be primary; the other one if not given
        #[arg(long, value_name = "NODE")]
        to: Option<NodeName>,
        /// Refuse, before anything is stopped, where writes would have to stop for longer by what is measured
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2s")]
        within: Duration,
    },
    /// Promote the standby of a lost primary although commits may be missing on it; says first how much is known to be lost
    Failover {
        /// Say so in so many words
        #[arg(long, required = true)]
        accept_data_loss: bool,
        /// Do not ask on the terminal
        #[arg(long)]
        yes: bool,
    },
    /// Bring a node back as the standby: as it is, by a rewind, else by a fresh copy beside its old data; shows first what only it has
    Rejoin {
        /// The node
        node: NodeName,
        /// By a fresh copy, whatever there is
        #[arg(long)]
        from_copy: bool,
        /// Do not ask on the terminal; needed where there is none
        #[arg(long)]
        yes: bool,
        /// Wait at most so long; the node goes on by itself afterwards
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10m")]
        limit: Duration,
    },
    /// Rehearse a failover on the running system: kill the primary, watch, count acknowledged rows, report
    Drill {
        /// Do not ask on the terminal; needed where there is none
        #[arg(long)]
        yes: bool,
        /// The longest time without an acknowledged row that still holds
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5s")]
        max_outage: Duration,
        /// Move the role back in the end, by a switchover
        #[arg(long)]
        switch_back: bool,
    },
    /// Tell the webhook and the command of what waits to be told; passes start this by themselves
    Notify {
        /// Send one notification that says that it is a test, and say whether it was taken
        #[arg(long)]
        test: bool,
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

impl Command {
    /// Does a person order a deed with it?
    fn is_an_order(&self) -> bool {
        match self {
            Self::Run { act, .. } => *act,
            Self::Switchover { .. } | Self::Failover { .. } | Self::Rejoin { .. } => true,
            Self::Drill { .. }
            | Self::Status
            | Self::Explain { .. }
            | Self::History { .. }
            | Self::Pause { .. }
            | Self::Resume
            | Self::Notify { .. }
            | Self::WaitHealthy { .. } => false,
        }
    }
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
        let settings = Settings::load(&self.settings)?;
        // A person's order is carried out whatever the passes may do, and so is the healing that belongs to it.
        let mode = if self.command.is_an_order() { Mode::Act } else { settings.mode };
        let checker = Checker::new(Settings { mode, ..settings })?;
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
            Command::Run { total: None, .. } => after_pass(checker.run_once(PATIENCE).await?, checker.settings.mode),
            // Its log has told what was new; cron would add the last pass to it without a time, each minute.
            Command::Run { total: Some(total), .. } => {
                let (report, code) = after_pass(checker.run_for(*total).await?, checker.settings.mode)?;
                Ok((Report { text: String::new(), ..report }, code))
            }
            Command::Status => {
                let look = checker.look().await?;
                let events = checker.journal.read().map_err(Error::Journal)?;
                let last = |names: &[&str]| {
                    let is_one = |event: &Value| event.as_str().is_some_and(|name| names.contains(&name));
                    events.iter().rev().find(|event| event.get("event").is_some_and(is_one))
                };
                let (change, would_have) = (last(&["failover_finished", "switchover_finished"]), last(&["would_have"]));
                let code = exit_code_of(&look, checker.settings.mode);
                Ok((report::status(&look, &checker.settings, change, would_have), code))
            }
            Command::Explain { .. } => {
                let look = checker.look().await?;
                let code = exit_code_of(&look, checker.settings.mode);
                Ok((report::explain(&look, &checker.settings), code))
            }
            Command::History { limit } => {
                let events = checker.journal.read().map_err(Error::Journal)?;
                Ok((report::history(events.get(events.len().saturating_sub(*limit)..).unwrap_or_default()), ExitCode::Done))
            }
            Command::Pause { reason, time } => pause::pause(checker, reason, *time).await,
            Command::Resume => pause::resume(checker).await,
            Command::Switchover { to, within } => switchover::switchover(checker, to.as_ref(), *within).await,
            // Its option says it in so many words, so without a terminal it goes on, as scripts and the playbook expect.
            Command::Failover { yes, .. } => failover::failover(checker, |what| confirm(what, *yes, Unasked::GoesOn)).await,
            Command::Rejoin { node, from_copy, yes, limit } => {
                let way = rejoin::Way { from_copy: *from_copy, limit: *limit };
                rejoin::rejoin(checker, node, way, |what| confirm(what, *yes, Unasked::IsRefused)).await
            }
            Command::Drill { yes, max_outage, switch_back } => {
                let order = drill::Order { max_outage: *max_outage, switch_back: *switch_back };
                drill::drill(checker, order, |what| confirm(what, *yes, Unasked::IsRefused)).await
            }
            Command::Notify { test } => notify::notify(checker, *test).await,
            Command::WaitHealthy { limit } => wait::wait_healthy(checker, *limit).await,
        }
    }
}

fn exit_code_of(look: &Look, mode: Mode) -> ExitCode {
    match look.seen.runtime {
        RuntimeView::Silent(_) => ExitCode::Runtime,
        RuntimeView::Answers if needs_a_person(&look.decision) => ExitCode::Refused,
        // What would be done is not done, unless a person does it.
        RuntimeView::Answers if mode == Mode::Observe && look.decision.action.is_deed() => ExitCode::Refused,
        RuntimeView::Answers => ExitCode::Done,
    }
}

/// The answer to `run`: the last pass.
fn after_pass(pass: Pass, mode: Mode) -> Result<(Report, ExitCode), Error> {
    let Pass { look, outcome } = pass;
    if let RuntimeView::Silent(_) = look.seen.runtime {
        return Err(Error::Runtime(look.decision.reason.to_string()));
    }
    let code = exit_code_of(&look, mode);
    let outcome = match outcome? {
        Outcome::Idle if mode == Mode::Observe && look.decision.action.is_deed() => "nothing: observing only".to_owned(),
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
pub(super) fn person() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty()).or(user).unwrap_or_else(|| "unknown".to_owned())
}

pub(super) fn refused(why: impl Into<String>, remedy: &str) -> Error {
    Error::Refused { why: why.into(), remedy: remedy.to_owned() }
}

/// What every order of a person needs first.
fn check_order(look: &Look) -> Result<(), Error> {
    if let RuntimeView::Silent(why) = &look.seen.runtime {
        return Err(Error::Runtime(format!("the container runtime does not answer: {why}")));
    }
    if look.record.transition.is_some() {
        return Err(refused(
            "another transition is unfinished",
            "failover-check run --act, which finishes it; then look at failover-check status",
        ));
    }
    Ok(())
}

pub(super) fn is_healthy(look: &Look) -> bool {
    look.decision.rule == super::decide::HEALTHY
}
