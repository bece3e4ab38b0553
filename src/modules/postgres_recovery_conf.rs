//! Makes a data directory a standby's, or no longer one.
//!
//! It edits files only and restarts nothing: what the server needs is returned, so that a handler can do it at the right moment.
//!
//! `state: absent` is for a server that was promoted and still carries its old settings. On a standby that was *not* promoted it is
//! refused: the next start would make it take writes on its primary's own timeline, beside the primary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ansible_module::Module;
use crate::ansible_module::arguments::{Context, Kind, OptionSpec};
use crate::ansible_module::outcome::{Difference, ModuleError, Outcome};
use crate::postgres::conninfo::{Conninfo, ConninfoError};
use crate::postgres::control_file;
use crate::postgres::recovery_conf::{FileChange, Notice, RecoveryConf, RecoveryConfError};
use crate::postgres::settings_file;

/// The module.
#[derive(Debug)]
pub struct PostgresRecoveryConf;

/// The options of a task.
#[derive(Debug, Deserialize)]
pub struct Options {
    data_directory: PathBuf,
    state: State,
    primary_conninfo: Option<String>,
    primary_slot_name: Option<String>,
    restore_command: Option<String>,
    recovery_target_timeline: String,
    trigger_file: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, Option<String>>,
    accept_unpromoted_standby: bool,
}

/// Whether the data directory shall be a standby's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Present,
    Absent,
}

/// What the module returns.
#[derive(Debug, Serialize)]
pub struct Returned {
    version: u16,
    files: Vec<File>,
    restart_required: bool,
    reload_required: bool,
}

/// What became of a file.
#[derive(Debug, Serialize)]
struct File {
    path: PathBuf,
    action: Action,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Created,
    Changed,
    Removed,
}

impl Module for PostgresRecoveryConf {
    const NAME: &'static str = "postgres_recovery_conf";
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::new("data_directory", Kind::Path).required(),
        OptionSpec::new("state", Kind::Choice(&["present", "absent"])).default("present"),
        OptionSpec::new("primary_conninfo", Kind::Conninfo),
        OptionSpec::new("primary_slot_name", Kind::Text),
        OptionSpec::new("restore_command", Kind::Text),
        OptionSpec::new("recovery_target_timeline", Kind::Text).default("latest"),
        OptionSpec::new("trigger_file", Kind::Path).aliases(&["promote_trigger_file"]),
        OptionSpec::new("settings", Kind::Settings),
        OptionSpec::new("accept_unpromoted_standby", Kind::Boolean).default("false"),
    ];
    type Options = Options;
    type Returned = Returned;
    type Error = Error;

    fn run(options: Options, context: Context) -> Result<Outcome<Returned>, Error> {
        let plan = wanted(&options)?.plan(&options.data_directory)?;
        let changed = !plan.changes.is_empty();
        let mut warnings = Vec::new();
        if options.state == State::Absent && changed && is_unpromoted_standby(&options)? {
            if !options.accept_unpromoted_standby {
                return Err(Error::Unpromoted { directory: options.data_directory });
            }
            warnings.push(format!(
                "'{}' was not promoted: its next start makes it take writes on the timeline of its primary",
                options.data_directory.display()
            ));
        }
        if !context.check_mode {
            plan.apply()?;
        }
        let role = match options.state {
            State::Present => "a standby's",
            State::Absent => "no standby's",
        };
        let need = match plan.notice {
            Notice::Nothing => "",
            Notice::Reload => "; a running server needs a reload",
            Notice::Restart => "; a running server needs a restart",
        };
        let verb = match (changed, context.check_mode) {
            (false, _) => "is already",
            (true, false) => "is now",
            (true, true) => "would be",
        };
        Ok(Outcome {
            changed,
            message: format!("'{}' {verb} {role}{need}", options.data_directory.display()),
            returned: Returned {
                version: plan.version.0,
                files: plan.changes.iter().map(File::of).collect(),
                restart_required: plan.notice == Notice::Restart,
                reload_required: plan.notice == Notice::Reload,
            },
            differences: plan.changes.iter().map(difference).collect(),
            warnings,
        })
    }
}

fn is_unpromoted_standby(options: &Options) -> Result<bool, Error> {
    control_file::is_unpromoted_standby(&options.data_directory)
        .map_err(|source| Error::ControlFile { directory: options.data_directory.clone(), source })
}

fn wanted(options: &Options) -> Result<RecoveryConf, Error> {
    let only_for_a_standby = [
        ("primary_conninfo", options.primary_conninfo.is_some()),
        ("primary_slot_name", options.primary_slot_name.is_some()),
        ("restore_command", options.restore_command.is_some()),
        ("trigger_file", options.trigger_file.is_some()),
    ];
    if options.state == State::Absent {
        if let Some((option, _)) = only_for_a_standby.iter().find(|(_, given)| *given) {
            return Err(Error::Conflict { option });
        }
        return Ok(RecoveryConf { extra: options.settings.clone(), ..RecoveryConf::default() });
    }
    if options.primary_conninfo.is_none() && options.restore_command.is_none() {
        return Err(Error::NoSource);
    }
    Ok(RecoveryConf {
        standby_mode: true,
        primary_conninfo: options.primary_conninfo.as_deref().map(Conninfo::parse).transpose()?,
        primary_slot_name: options.primary_slot_name.clone(),
        restore_command: options.restore_command.clone(),
        recovery_target_timeline: Some(options.recovery_target_timeline.clone()),
        trigger_file: options.trigger_file.clone(),
        extra: options.settings.clone(),
    })
}

impl File {
    fn of(change: &FileChange) -> Self {
        let action = match (&change.before, &change.after) {
            (None, _) => Action::Created,
            (Some(_), Some(_)) => Action::Changed,
            (Some(_), None) => Action::Removed,
        };
        Self { path: change.path.clone(), action }
    }
}

fn difference(change: &FileChange) -> Difference {
    let header = |text: &Option<String>| match text {
        Some(_) => change.path.display().to_string(),
        None => format!("{} (absent)", change.path.display()),
    };
    let shown = |text: &Option<String>| settings_file::masked(text.as_deref().unwrap_or_default());
    Difference {
        before_header: header(&change.before),
        after_header: header(&change.after),
        before: shown(&change.before),
        after: shown(&change.after),
    }
}

/// Why the recovery settings were not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be planned or written.
    #[error(transparent)]
    RecoveryConf(#[from] RecoveryConfError),
    /// The connection string cannot be read.
    #[error(transparent)]
    Conninfo(#[from] ConninfoError),
    /// An option that means nothing when the directory shall be no standby's.
    #[error("'{option}' and 'state: absent' exclude each other")]
    Conflict {
        /// The option.
        option: &'static str,
    },
    /// A standby without a source.
    #[error("a standby needs 'primary_conninfo' or 'restore_command'")]
    NoSource,
    /// The state of the data directory is unknown.
    #[error("cannot read '{}/global/pg_control'", directory.display())]
    ControlFile {
        /// The data directory.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The standby was not promoted.
    #[error("'{}' is a standby that was not promoted: without its standby settings it would take writes beside its primary", directory.display())]
    Unpromoted {
        /// The data directory.
        directory: PathBuf,
    },
}

impl ModuleError for Error {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::RecoveryConf(error) => error.remedy(),
            Self::Conninfo(error) => error.remedy(),
            Self::Conflict { option } => Some(format!("leave '{option}' out")),
            Self::NoSource => Some("give 'primary_conninfo', such as host=10.0.0.1 user=replication".to_owned()),
            Self::ControlFile { .. } => Some("run as root or as the owner of the data directory".to_owned()),
            Self::Unpromoted { .. } => Some("promote it with postgres_promote, or say 'accept_unpromoted_standby: true'".to_owned()),
        }
    }

    fn changed(&self) -> bool {
        // Files are written one after the other, so an earlier one may be written.
        matches!(self, Self::RecoveryConf(RecoveryConfError::Write { .. }))
    }
}
