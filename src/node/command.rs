//! The command line of `postgres-node`, and the way from the plan to a running server.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use super::configuration;
use super::discarded::discarded;
use super::error::NodeError;
use super::follow::{Upstream, address_of, drop_own_slots};
use super::initialise::initialise;
use super::plan::{Noted, Plan, plan};
use super::probe::probe;
use super::secrets::Secrets;
use super::volume::Volume;
use crate::postgres::recovery_conf::RecoveryConf;
use crate::postgres::timeline::Timelines;
use crate::record::{NodeName, RecordFile, RecordStore};

/// Where the server's socket and the password file are: a tmpfs of the container.
const RUN_DIRECTORY: &str = "/run/postgresql";

/// How long a standby that can start without its primary looks for it.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

/// Makes a node's data directory match its role in the cluster record, then becomes postgres
#[derive(Debug, Parser)]
#[command(name = "postgres-node", version)]
pub struct CommandLine {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Take the recorded role and become postgres
    Run(RunArguments),
    /// Does the server answer over its socket? Ends with 0 for yes, 1 for no, 3 while the data directory is made ready
    Probe {
        /// One deadline around everything
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "700ms")]
        deadline: Duration,
    },
    /// Note that this node leads an epoch; for failover-check, once it has promoted it
    NoteLead {
        /// The epoch
        #[arg(long)]
        epoch: u64,
        /// The volume
        #[arg(long, default_value = "/var/lib/postgresql/node")]
        directory: PathBuf,
    },
    /// What the volume has that the primary has not, as JSON; for failover-check, before a node rejoins
    Discarded {
        /// The primary's timelines, as in 1@0/3000148,2: each that ended with where it ended, then the current one
        #[arg(long)]
        primary: Timelines,
        /// The volume
        #[arg(long, default_value = "/var/lib/postgresql/node")]
        directory: PathBuf,
    },
    /// Take a fresh copy of the primary's data at the next start, whatever there is; for failover-check
    OrderCopy {
        /// The volume
        #[arg(long, default_value = "/var/lib/postgresql/node")]
        directory: PathBuf,
    },
    /// Remove replaced data directories; for failover-check, once the replacement streams
    DiscardOldData {
        /// The volume
        #[arg(long, default_value = "/var/lib/postgresql/node")]
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// This node's name
    #[arg(long, env = "UNDERSTUDY_NODE")]
    node: NodeName,
    /// The other node's name
    #[arg(long, env = "UNDERSTUDY_PEER")]
    peer: NodeName,
    /// The cluster record
    #[arg(long, default_value = "/var/lib/understudy/cluster.json")]
    record: PathBuf,
    /// The volume
    #[arg(long, default_value = "/var/lib/postgresql/node")]
    directory: PathBuf,
    /// Folder of the files database_password, replication_password and failover_password
    #[arg(long, default_value = "/run/secrets/understudy")]
    secrets: PathBuf,
    /// The app's database
    #[arg(long, env = "UNDERSTUDY_DATABASE")]
    database: String,
    /// The app's role, which owns the database
    #[arg(long, env = "UNDERSTUDY_DATABASE_USER")]
    database_user: String,
    /// Settings of the operator's own, included where the file exists
    #[arg(long, default_value = "/etc/understudy/postgres/postgresql.extra.conf")]
    extra_settings: PathBuf,
}

/// What a command that does not become postgres has to say.
pub struct Said {
    /// For standard output.
    pub output: String,
    /// How the program ends.
    pub exit_code: u8,
}

impl CommandLine {
    /// Carries the command out. `run` does not come back but with an error.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn execute(self) -> Result<Said, NodeError> {
        match self.command {
            NodeCommand::Run(arguments) => match arguments.run()? {},
            NodeCommand::Probe { deadline } => {
                let testimony = probe(Path::new(RUN_DIRECTORY), deadline);
                Ok(Said { output: testimony.words, exit_code: testimony.life as u8 })
            }
            NodeCommand::NoteLead { epoch, directory } => {
                Volume::new(&directory).note(Noted { epoch, leading: true }).map_err(NodeError::file(&directory))?;
                Ok(Said { output: format!("leads epoch {epoch}"), exit_code: 0 })
            }
            NodeCommand::Discarded { primary, directory } => {
                let found = discarded(&Volume::new(&directory), &primary).map_err(NodeError::file(&directory))?;
                Ok(Said { output: json!({ "discarded": found }).to_string(), exit_code: 0 })
            }
            NodeCommand::OrderCopy { directory } => {
                Volume::new(&directory).order_copy().map_err(NodeError::file(&directory))?;
                Ok(Said { output: json!({ "copy_ordered": true }).to_string(), exit_code: 0 })
            }
            NodeCommand::DiscardOldData { directory } => {
                let discarded = Volume::new(&directory).discard_old().map_err(NodeError::file(&directory))?;
                Ok(Said { output: json!({ "discarded": discarded }).to_string(), exit_code: 0 })
            }
        }
    }
}

impl RunArguments {
    fn run(&self) -> Result<Infallible, NodeError> {
        end_on_signals()?;
        let record = RecordFile::new(&self.record).load()?;
        let volume = Volume::new(&self.directory);
        let in_volume = NodeError::file(&self.directory);
        let data = volume.inspect().map_err(&in_volume)?;
        let noted = volume.noted().map_err(&in_volume)?;
        let plan = plan(&self.node, &record, &data, noted);
        let plan = if volume.copy_is_ordered().map_err(&in_volume)? { plan.by_copy(&record) } else { plan };
        log::info!("{}: epoch {}, primary {}, volume {data:?}: {plan:?}", self.node, record.epoch, record.primary);
        if let Plan::Refuse(refusal) = plan {
            return Err(NodeError::Refused(refusal));
        }
        // Left by an attempt that was interrupted; it may fill the disk.
        volume.clear_incoming().map_err(&in_volume)?;
        let secrets = Secrets::read(&self.secrets)?;
        let password_file = Path::new(RUN_DIRECTORY).join(".pgpass");
        configuration::write_password_file(&password_file, &secrets.replication, &secrets.failover)
            .map_err(NodeError::file(&password_file))?;
        // The lines of a transition: the record still names the old primary, which is what this node follows or has followed.
        // A primary does not have to wait for the name of a standby that may be gone.
        let follows = matches!(plan, Plan::Follow | Plan::Rewind | Plan::Clone { .. });
        let address = if follows { address_of(&self.peer, SHORT_PATIENCE) } else { None };
        let upstream = Upstream { primary: &self.peer, address, node: &self.node, password_file: &password_file, secrets: &secrets };
        let following = configuration::following(&self.node, &self.peer, address, &password_file)?;
        let current = volume.data();
        match plan {
            Plan::Refuse(refusal) => return Err(NodeError::Refused(refusal)),
            Plan::Initialise => {
                initialise(&volume.incoming(), &self.database, &self.database_user, &secrets)?;
                self.configure(&volume.incoming(), &configuration::leading(&self.peer, false))?;
                volume.install_incoming(record.epoch, false).map_err(&in_volume)?;
            }
            Plan::Lead { synchronous } => self.configure(&current, &configuration::leading(&self.peer, synchronous))?,
            Plan::Follow => {
                match upstream.keeps_our_log(SHORT_PATIENCE) {
                    Ok(true) => self.prepare_standby(&current, &following)?,
                    Ok(false) => {
                        log::warn!(
                            "{} does not keep the log that this node needs any more; taking a fresh base backup beside the old data",
                            self.peer
                        );
                        self.clone_beside(&volume, &upstream, &following, record.epoch, false)?;
                    }
                    // It can start without its primary, and has to where that is lost.
                    Err(error) => {
                        log::warn!("starting without a look at the slot: {error}");
                        self.prepare_standby(&current, &following)?;
                    }
                }
            }
            Plan::Rewind => match upstream.rewind(&volume) {
                Ok(()) => {
                    self.prepare_standby(&current, &following)?;
                    volume.note_rewinding(false).map_err(&in_volume)?;
                }
                Err(error) => {
                    log::warn!("{error}; taking a fresh base backup beside the old data");
                    self.clone_beside(&volume, &upstream, &following, record.epoch, false)?;
                }
            },
            Plan::Clone { keep } => self.clone_beside(&volume, &upstream, &following, record.epoch, keep)?,
        }
        // Read again: making the data directory may have taken long, and the record is what counts at the moment of starting.
        let now = RecordFile::new(&self.record).load()?;
        if (now.epoch, &now.primary, &now.transition) != (record.epoch, &record.primary, &record.transition) {
            return Err(NodeError::Program { program: "postgres-node", how: "the record changed meanwhile; starting anew".to_owned() });
        }
        volume.note(Noted { epoch: record.epoch, leading: !follows }).map_err(&in_volume)?;
        log::info!("becoming postgres");
        let error = Command::new("postgres").arg("-D").arg(&current).exec();
        Err(NodeError::Program { program: "postgres", how: error.to_string() })
    }

    fn clone_beside(
        &self,
        volume: &Volume,
        upstream: &Upstream<'_>,
        following: &RecoveryConf,
        epoch: u64,
        keep: bool,
    ) -> Result<(), NodeError> {
        let copied = upstream.base_backup(volume);
        if copied.is_err() {
            // A part of a copy is worth nothing and may fill a disk that the primary shares.
            volume.clear_incoming().map_err(NodeError::file(&self.directory))?;
        }
        copied?;
        // Before it takes its place: without standby.signal it would be a second primary.
        self.prepare_standby(&volume.incoming(), following)?;
        volume.install_incoming(epoch, keep).map_err(NodeError::file(&self.directory))
    }

    fn prepare_standby(&self, data: &Path, following: &RecoveryConf) -> Result<(), NodeError> {
        drop_own_slots(data).map_err(NodeError::file(data))?;
        self.configure(data, following)
    }

    fn configure(&self, data: &Path, recovery: &RecoveryConf) -> Result<(), NodeError> {
        configuration::write(data, &self.database, &self.database_user, &self.extra_settings).map_err(NodeError::file(data))?;
        Ok(recovery.plan(data)?.apply()?)
    }
}

/// Process 1 of a container ignores every signal that it does not handle, so that `docker stop` would wait out its whole grace while a base backup runs.
/// When this process ends, the kernel ends all others of the container. Becoming postgres takes the handlers away again.
fn end_on_signals() -> Result<(), NodeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Signals)?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(NodeError::Signals)?, signal(SignalKind::terminate()).map_err(NodeError::Signals)?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        log::info!("told to end before postgres was started");
        std::process::exit(0);
    });
    Ok(())
}
