//! Promotes the standby on this host and comes back when it takes writes.
//!
//! ```text
//! ask ─► primary already ──────────────────────────────► unchanged
//!   └──► standby, replay paused ───────────────────────► refused: the promotion would wait until somebody resumes it
//!   └──► standby ─► pg_promote() | trigger file | pg_ctl ─► fresh connections until one can write ─► changed
//! ```
//!
//! It does not ask whether the old primary is gone: stop that one first.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::SimpleQueryMessage;

use super::login::{self, Login, LoginError};
use crate::ansible_module::Module;
use crate::ansible_module::arguments::{Context, Kind, OptionSpec};
use crate::ansible_module::outcome::{ModuleError, Outcome};
use crate::postgres::connection::{ServerError, Target, connect, within};
use crate::postgres::promote;
use crate::postgres::settings_file;
use crate::postgres::version::MajorVersion;

/// Longest time that one connection with its query may take; a frozen server never answers.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two looks at the server. A promotion takes some tens of milliseconds at best.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The module.
#[derive(Debug)]
pub struct PostgresPromote;

/// The options of a task.
#[derive(Deserialize)]
pub struct Options {
    #[serde(flatten)]
    login: Login,
    data_directory: Option<PathBuf>,
    method: MethodOption,
    trigger_file: Option<PathBuf>,
    pg_ctl: Option<PathBuf>,
    timeout: f64,
}

/// How the task wants it promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MethodOption {
    Auto,
    PgPromote,
    TriggerFile,
    PgCtl,
}

/// How it is promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Method {
    PgPromote,
    TriggerFile { path: PathBuf, data_directory: PathBuf },
    PgCtl { program: PathBuf, data_directory: PathBuf },
}

/// What the module returns.
#[derive(Debug, Serialize)]
pub struct Returned {
    method: &'static str,
    timeline: u32,
    lsn: String,
    seconds: f64,
}

/// What the server says of itself before anything is done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    version: MajorVersion,
    in_recovery: bool,
    replay_paused: bool,
    timeline: u32,
    lsn: String,
    /// `None` where the user may not see it.
    data_directory: Option<PathBuf>,
    /// `promote_trigger_file`, from 12 to 15.
    trigger_file: Option<PathBuf>,
}

impl Module for PostgresPromote {
    const NAME: &'static str = "postgres_promote";
    const OPTIONS: &'static [OptionSpec] = &[
        login::LOGIN_HOST,
        login::LOGIN_PORT,
        login::LOGIN_USER,
        login::LOGIN_PASSWORD,
        login::LOGIN_UNIX_SOCKET,
        login::LOGIN_DB,
        OptionSpec::new("data_directory", Kind::Path),
        OptionSpec::new("method", Kind::Choice(&["auto", "pg_promote", "trigger_file", "pg_ctl"])).default("auto"),
        OptionSpec::new("trigger_file", Kind::Path),
        OptionSpec::new("pg_ctl", Kind::Path),
        OptionSpec::new("timeout", Kind::Seconds).default("60"),
    ];
    type Options = Options;
    type Returned = Returned;
    type Error = Error;

    fn run(options: Options, context: Context) -> Result<Outcome<Returned>, Error> {
        options.check()?;
        let target = options.login.target(Self::NAME)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        runtime.block_on(promote_standby(&options, &target, context))
    }
}

impl Options {
    /// With `auto` the two paths are for where they are needed; beside another method they would mean nothing.
    fn check(&self) -> Result<(), Error> {
        let means_nothing = [
            ("trigger_file", self.trigger_file.is_some() && matches!(self.method, MethodOption::PgPromote | MethodOption::PgCtl)),
            ("pg_ctl", self.pg_ctl.is_some() && matches!(self.method, MethodOption::PgPromote | MethodOption::TriggerFile)),
        ];
        match means_nothing.iter().find(|(_, conflicts)| *conflicts) {
            Some((option, _)) => Err(Error::Conflict { option }),
            None => Ok(()),
        }
    }
}

async fn promote_standby(options: &Options, target: &Target, context: Context) -> Result<Outcome<Returned>, Error> {
    let started = Instant::now();
    let timeout = Duration::from_secs_f64(options.timeout);
    let server = first_answer(target, started, timeout).await.map_err(Error::Server)?;
    same_data_directory(options, &server)?;
    let outcome = |changed, message: String, method, server: &Server| Outcome {
        changed,
        message,
        returned: Returned {
            method,
            timeline: server.timeline,
            lsn: server.lsn.clone(),
            seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        },
        differences: Vec::new(),
        warnings: Vec::new(),
    };
    if !server.in_recovery {
        return Ok(outcome(false, format!("the server is already a primary, on timeline {}", server.timeline), "none", &server));
    }
    if server.replay_paused {
        return Err(Error::ReplayPaused);
    }
    let method = Method::choose(options, &server)?;
    if context.check_mode {
        return Ok(outcome(true, format!("the standby would be promoted by {}", method.name()), method.name(), &server));
    }
    method.ask_for_promotion(target, timeout).await?;
    let primary = wait_until_writable(target, started, timeout, method.name()).await?;
    Ok(outcome(
        true,
        format!("the standby was promoted by {} and takes writes on timeline {}", method.name(), primary.timeline),
        method.name(),
        &primary,
    ))
}

impl Method {
    fn choose(options: &Options, server: &Server) -> Result<Self, Error> {
        let data_directory = || options.data_directory.clone().or_else(|| server.data_directory.clone()).ok_or(Error::NoDataDirectory);
        let by_trigger_file = || {
            let data_directory = data_directory()?;
            Ok(Self::TriggerFile { path: trigger_file(options, server, &data_directory)?, data_directory })
        };
        let by_pg_ctl = || Ok(Self::PgCtl { program: pg_ctl(options, server.version)?, data_directory: data_directory()? });
        let has_pg_promote = server.version.0 >= 12;
        match options.method {
            MethodOption::PgPromote if !has_pg_promote => Err(Error::NoPgPromote { version: server.version }),
            MethodOption::PgPromote => Ok(Self::PgPromote),
            MethodOption::TriggerFile => by_trigger_file(),
            MethodOption::PgCtl => by_pg_ctl(),
            MethodOption::Auto if has_pg_promote => Ok(Self::PgPromote),
            MethodOption::Auto => match by_trigger_file() {
                Err(Error::NoTriggerFile { .. }) => by_pg_ctl(),
                method => method,
            },
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::PgPromote => "pg_promote",
            Self::TriggerFile { .. } => "trigger_file",
            Self::PgCtl { .. } => "pg_ctl",
        }
    }

    async fn ask_for_promotion(&self, target: &Target, timeout: Duration) -> Result<(), Error> {
        match self {
            Self::PgPromote => {
                match promote::request(target, timeout.min(ATTEMPT_DEADLINE)).await {
                    // It may have been heard, so what follows is waiting.
                    Ok(()) | Err(ServerError::TimedOut(_)) => Ok(()),
                    Err(error) => Err(Error::Server(error)),
                }
            }
            Self::TriggerFile { path, data_directory } => {
                create_trigger_file(path, data_directory).map_err(|source| Error::WriteTriggerFile { path: path.clone(), source })
            }
            Self::PgCtl { program, data_directory } => {
                let run = tokio::process::Command::from(pg_ctl_promote(program, data_directory)?).kill_on_drop(true).output();
                let unable = |source| Error::RunPgCtl { program: program.clone(), source };
                let output =
                    tokio::time::timeout(timeout, run).await.map_err(|_| unable(std::io::ErrorKind::TimedOut.into()))?.map_err(unable)?;
                if output.status.success() {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
                Err(Error::PgCtlRefused { said: said.split_whitespace().collect::<Vec<_>>().join(" ") })
            }
        }
    }
}

/// `pg_ctl` and the trigger file work on the directory, not on the connection: with another one they would promote another server.
fn same_data_directory(options: &Options, server: &Server) -> Result<(), Error> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match (&options.data_directory, &server.data_directory) {
        (Some(given), Some(told)) if real(given) != real(told) => {
            Err(Error::OtherDataDirectory { given: given.clone(), told: told.clone() })
        }
        _ => Ok(()),
    }
}

/// The file that the server watches for. An option that names another one is refused: the server would never see it.
fn trigger_file(options: &Options, server: &Server, data_directory: &Path) -> Result<PathBuf, Error> {
    let watched = if server.version.has_standby_signal() {
        server.trigger_file.clone()
    } else {
        let path = data_directory.join("recovery.conf");
        let text = match (std::fs::read_to_string(&path), &options.trigger_file) {
            (Ok(text), _) => text,
            (Err(_), Some(given)) => return Ok(given.clone()),
            (Err(source), None) => return Err(Error::DataDirectory { path, source }),
        };
        settings_file::value(&text, "trigger_file").filter(|path| !path.is_empty()).map(PathBuf::from)
    };
    // The server's working directory is its data directory.
    let watched = watched.map(|path| data_directory.join(path));
    match (&options.trigger_file, watched) {
        (Some(given), Some(watched)) if *given != watched => Err(Error::OtherTriggerFile { given: given.clone(), watched }),
        (_, Some(watched)) => Ok(watched),
        (_, None) => Err(Error::NoTriggerFile { version: server.version }),
    }
}

/// `pg_ctl` of the server's version: as given, in `PATH`, or where the packages of Debian and of Red Hat put it.
fn pg_ctl(options: &Options, version: MajorVersion) -> Result<PathBuf, Error> {
    if let Some(given) = &options.pg_ctl {
        return Ok(given.clone());
    }
    let packaged = [format!("/usr/lib/postgresql/{version}/bin"), format!("/usr/pgsql-{version}/bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = packaged.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join("pg_ctl")).find(|program| program.is_file()).ok_or(Error::NoPgCtl)
}

/// `pg_ctl` refuses to run as root, so root becomes the owner of the data directory for it.
fn pg_ctl_promote(program: &Path, data_directory: &Path) -> Result<std::process::Command, Error> {
    let mut command = std::process::Command::new(program);
    command.arg("promote").arg("--no-wait").arg("--pgdata").arg(data_directory).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        let owner = std::fs::metadata(data_directory).map_err(|source| Error::DataDirectory { path: data_directory.to_owned(), source })?;
        command.uid(owner.uid()).gid(owner.gid());
    }
    Ok(command)
}

/// The file belongs to the owner of the data directory, since the server removes it when it has seen it.
fn create_trigger_file(path: &Path, data_directory: &Path) -> std::io::Result<()> {
    let owner = std::fs::metadata(data_directory)?;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (owner.uid(), owner.gid()) {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.sync_all()
}

/// What is left of the time, as far as one attempt may use it; in whole milliseconds, which is what is told when it was not enough.
fn attempt_deadline(started: Instant, timeout: Duration) -> Duration {
    let left = timeout.saturating_sub(started.elapsed()).min(ATTEMPT_DEADLINE);
    Duration::from_millis(u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}

/// The server's state, waited for while it says that it is starting, as it does after a restart.
async fn first_answer(target: &Target, started: Instant, timeout: Duration) -> Result<Server, ServerError> {
    loop {
        let deadline = attempt_deadline(started, timeout);
        match ask(target, deadline).await {
            Err(ServerError::Starting(_)) if deadline > POLL_INTERVAL => {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            answer => return answer,
        }
    }
}

/// Looks over fresh connections until one can write, or until the time is up.
async fn wait_until_writable(target: &Target, started: Instant, timeout: Duration, method: &'static str) -> Result<Server, Error> {
    let mut last;
    loop {
        let deadline = attempt_deadline(started, timeout);
        last = match promote::is_writable(target, deadline).await {
            Ok(true) => match ask(target, deadline).await {
                Ok(server) => return Ok(server),
                Err(error) => error.to_string(),
            },
            Ok(false) => "it is still read-only".to_owned(),
            Err(error) => error.to_string(),
        };
        if started.elapsed() + POLL_INTERVAL >= timeout {
            return Err(Error::NotWritable { method, seconds: timeout.as_secs_f64(), last });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The timeline of a primary is that of the segment it writes: `pg_control` still tells the old one right after a promotion.
/// `data_directory` is shown to `pg_read_all_settings` only, and asking for it as anybody else is an error, hence `pg_settings`.
const STATE_QUERY: &str = "SELECT pg_catalog.current_setting('server_version_num')::int / 10000, \
     pg_catalog.pg_is_in_recovery(), \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT timeline_id::text FROM pg_catalog.pg_control_checkpoint()) \
          ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END, \
     (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'), \
     pg_catalog.current_setting('promote_trigger_file', true)";

async fn ask(target: &Target, deadline: Duration) -> Result<Server, ServerError> {
    within(deadline, async {
        let session = connect(target, deadline).await?;
        read_server(&row(session.simple_query(STATE_QUERY).await?))
            .ok_or_else(|| ServerError::Refusing("its answer about its state cannot be read".to_owned()))
    })
    .await
}

/// The texts of the first row.
fn row(messages: Vec<SimpleQueryMessage>) -> Vec<Option<String>> {
    let columns = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect()),
        _ => None,
    });
    columns.unwrap_or_default()
}

fn read_server(columns: &[Option<String>]) -> Option<Server> {
    let column = |index: usize| columns.get(index)?.as_deref();
    let path = |index: usize| column(index).filter(|path| !path.is_empty()).map(PathBuf::from);
    let in_recovery = column(1)? == "t";
    let timeline = match column(4)? {
        number if in_recovery => number.parse().ok()?,
        // The first eight hexadecimal digits of a segment's name.
        segment => u32::from_str_radix(segment.get(..8)?, 16).ok()?,
    };
    Some(Server {
        version: MajorVersion(column(0)?.parse().ok()?),
        in_recovery,
        replay_paused: column(2)? == "t",
        timeline,
        lsn: column(3)?.to_owned(),
        data_directory: path(5),
        trigger_file: path(6),
    })
}

/// Why the standby was not promoted, or not seen to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not known where to connect.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// An option that means nothing to the method.
    #[error("the option '{option}' means nothing to this method")]
    Conflict {
        /// The option.
        option: &'static str,
    },
    /// The program cannot wait for sockets.
    #[error("cannot start the event loop")]
    Runtime(#[source] std::io::Error),
    /// The server did not answer as it should, before anything was asked of it.
    #[error("cannot ask the server")]
    Server(#[source] ServerError),
    /// Somebody paused replay.
    #[error("replay is paused on the standby: a promotion would wait until it is resumed")]
    ReplayPaused,
    /// The version has no such function.
    #[error("PostgreSQL {version} has no pg_promote()")]
    NoPgPromote {
        /// The version.
        version: MajorVersion,
    },
    /// The server watches for no file.
    #[error("the server, PostgreSQL {version}, watches for no trigger file")]
    NoTriggerFile {
        /// The version.
        version: MajorVersion,
    },
    /// The server watches for another file.
    #[error("the server watches for the trigger file '{}', not for '{}'", watched.display(), given.display())]
    OtherTriggerFile {
        /// The option.
        given: PathBuf,
        /// What the server watches for.
        watched: PathBuf,
    },
    /// The trigger file cannot be made.
    #[error("cannot create the trigger file '{}'", path.display())]
    WriteTriggerFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither the task nor the server says where the data directory is.
    #[error("the server does not tell this user its data directory")]
    NoDataDirectory,
    /// The connection leads to one server and the data directory to another.
    #[error("the data directory of the server is '{}', not '{}'", told.display(), given.display())]
    OtherDataDirectory {
        /// The option.
        given: PathBuf,
        /// What the server says.
        told: PathBuf,
    },
    /// The data directory cannot be looked at.
    #[error("cannot look at '{}'", path.display())]
    DataDirectory {
        /// The data directory, or a file in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no `pg_ctl`.
    #[error("'pg_ctl' is not found")]
    NoPgCtl,
    /// `pg_ctl` cannot be run.
    #[error("cannot run '{}'", program.display())]
    RunPgCtl {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `pg_ctl` failed.
    #[error("pg_ctl refused: {said}")]
    PgCtlRefused {
        /// Its words.
        said: String,
    },
    /// The promotion was asked for, and its end was not seen.
    #[error("the promotion by {method} was asked for, but the server took no writes within {seconds} s: {last}")]
    NotWritable {
        /// How it was asked for.
        method: &'static str,
        /// The time given.
        seconds: f64,
        /// What the last look said.
        last: String,
    },
}

impl ModuleError for Error {
    fn remedy(&self) -> Option<String> {
        let words = match self {
            Self::Login(error) => return error.remedy(),
            Self::Conflict { option } => {
                return Some(format!("leave '{option}' out, or say 'method: {option}'"));
            }
            Self::Runtime(_) => "look at the limits of open files and processes of this user",
            Self::Server(ServerError::Refusing(_)) => {
                "look at login_user, login_password and pg_hba.conf; pg_promote() is for superusers and whoever was granted it"
            }
            Self::Server(_) => "look whether the server runs and at login_host, login_port or login_unix_socket",
            Self::ReplayPaused => "SELECT pg_wal_replay_resume() on the standby",
            Self::NoPgPromote { .. } => "'method: auto'",
            Self::NoTriggerFile { .. } => "'method: pg_ctl', or write the trigger file's path with postgres_recovery_conf and restart",
            Self::OtherTriggerFile { .. } => "leave 'trigger_file' out",
            Self::WriteTriggerFile { .. } | Self::DataDirectory { .. } => "run as root or as the owner of the data directory",
            Self::OtherDataDirectory { .. } => {
                "look whether login_host, login_port or login_unix_socket lead to the server that you mean, or leave 'data_directory' out"
            }
            Self::NoDataDirectory => "give 'data_directory'",
            Self::NoPgCtl | Self::RunPgCtl { .. } => "give the path of the program as 'pg_ctl'",
            Self::PgCtlRefused { .. } => "look at the server's log",
            Self::NotWritable { .. } => "look at the server's log; run the task again, it goes on waiting",
        };
        Some(words.to_owned())
    }

    fn changed(&self) -> bool {
        matches!(self, Self::NotWritable { .. })
    }
}
