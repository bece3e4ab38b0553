//! A standby: following the primary again after a rewind, or from a fresh base backup.

use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use super::configuration::{FAILOVER_USER, REPLICATION_USER};
use super::error::NodeError;
use super::program::run;
use super::secrets::Secrets;
use super::volume::Volume;
use crate::postgres::conninfo::Conninfo;
use crate::record::NodeName;

/// How long a standby that needs its primary waits for it, before the program ends and is started again.
const PRIMARY_LIMIT: Duration = Duration::from_secs(60);

/// How long one question to the primary may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Room beside the databases that a copy needs: the log written while it is made.
const ROOM_FOR_LOG: u64 = 512 * 1024 * 1024;

/// Resolves a node's name, and gives up after `patience`: where the node is gone, the system may take much longer to say so.
#[must_use]
pub fn address_of(node: &NodeName, patience: Duration) -> Option<IpAddr> {
    let (sender, receiver) = mpsc::channel();
    let name = node.to_string();
    std::thread::spawn(move || {
        let addresses = (name.as_str(), 5432).to_socket_addrs();
        // Nobody listens any more where it took too long.
        let _ = sender.send(addresses.ok().and_then(|mut found| found.next()).map(|found| found.ip()));
    });
    receiver.recv_timeout(patience).ok().flatten()
}

/// Where and as whom the client programs connect.
pub struct Upstream<'a> {
    /// The primary.
    pub primary: &'a NodeName,
    /// Its address, where it could be resolved.
    pub address: Option<IpAddr>,
    /// This node.
    pub node: &'a NodeName,
    /// The libpq password file, for PostgreSQL's own programs.
    pub password_file: &'a Path,
    /// The passwords, for this program.
    pub secrets: &'a Secrets,
}

impl Upstream<'_> {
    fn conninfo(&self, user: &str, database: &str) -> Result<String, NodeError> {
        let password_file = self.password_file.to_string_lossy();
        // No application_name of the node's: the primary would count the backup's connection as the synchronous standby.
        let pairs = [
            ("host", self.primary.as_str()),
            ("port", "5432"),
            ("user", user),
            ("dbname", database),
            ("passfile", password_file.as_ref()),
            ("connect_timeout", "3"),
        ];
        Ok(Conninfo::new(pairs)?.to_connection_string())
    }

    /// Runs `work` on a connection to the primary's database `postgres`, and gives up after `patience`, whatever the primary does: a frozen one accepts a
    /// connection and never answers.
    fn ask<T: Send + 'static>(
        &self,
        (user, password): (&str, &str),
        patience: Duration,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, NodeError> {
        let address = self.address.ok_or_else(|| NodeError::Primary(format!("the name {} is not known", self.primary)))?;
        let mut config = postgres::Config::new();
        config.host(self.primary.as_str()).hostaddr(address).port(5432).user(user).password(password).dbname("postgres");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let answer = config.connect(NoTls).and_then(|mut client| work(&mut client));
            // Nobody listens any more where it took too long.
            let _ = sender.send(answer);
        });
        match receiver.recv_timeout(patience) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(NodeError::Primary(error.as_db_error().map_or_else(|| error.to_string(), |answer| answer.message().to_owned())))
            }
            Err(_) => Err(NodeError::Primary(format!("{} gave no answer within {patience:?}", self.primary))),
        }
    }

    /// Does the primary still keep the log that this node needs? No where the slot is gone, or has lost what it kept (`max_slot_wal_keep_size`): the node
    /// would ask for a segment that is not there any more, for ever.
    ///
    /// # Errors
    /// When the primary cannot be asked within `patience`. That says nothing about the slot.
    pub fn keeps_our_log(&self, patience: Duration) -> Result<bool, NodeError> {
        let slot = self.node.slot();
        self.ask((REPLICATION_USER, &self.secrets.replication), patience, move |client| {
            let row = client.query_opt("SELECT wal_status FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", &[&slot])?;
            Ok(row.is_some_and(|row| row.get::<_, Option<String>>(0).as_deref() != Some("lost")))
        })
    }

    /// Has the primary keep its log for this node from now on. `anew`: also where a slot is there already, which may have lost its log or hold back far more
    /// than a fresh copy needs. Waits for the primary.
    fn keep_log(&self, anew: bool) -> Result<(), NodeError> {
        let until = Instant::now() + PRIMARY_LIMIT;
        loop {
            let slot = self.node.slot();
            let made = self.ask((REPLICATION_USER, &self.secrets.replication), ANSWER_LIMIT, move |client| {
                if anew {
                    client.execute(
                        "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
                        &[&slot],
                    )?;
                }
                // Reserved at once: until the node streams, nothing else keeps what is written while its data are copied.
                let make = "SELECT pg_catalog.pg_create_physical_replication_slot($1::name, true) \
                     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1)";
                client.execute(make, &[&slot])
            });
            match made {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(error) => log::info!("waiting for {}: {error}", self.primary),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Refuses a copy for which there is no room: on one host both nodes share the disk, and filling it would stop the primary too.
    fn check_room(&self, volume: &Volume) -> Result<(), NodeError> {
        let needed: i64 = self.ask((FAILOVER_USER, &self.secrets.failover), ANSWER_LIMIT, |client| {
            let sum = "SELECT sum(pg_catalog.pg_database_size(oid))::bigint FROM pg_catalog.pg_database";
            Ok(client.query_one(sum, &[])?.get(0))
        })?;
        let needed = u64::try_from(needed).unwrap_or_default().saturating_add(ROOM_FOR_LOG);
        let free = volume.free_bytes().map_err(NodeError::file(&volume.data()))?;
        if free < needed { Err(NodeError::NoRoom { needed, free }) } else { Ok(()) }
    }

    /// Takes back what this node has and the primary has not, so that it can follow.
    ///
    /// # Errors
    /// When it cannot be done; the data directory is then fit for nothing but a base backup in its place, and the volume says so.
    pub fn rewind(&self, volume: &Volume) -> Result<(), NodeError> {
        self.keep_log(false)?;
        let data = volume.data();
        volume.note_rewinding(true).map_err(NodeError::file(&data))?;
        // Left by a server that was killed with its container. pg_rewind starts a server of its own to recover from that, which would take this
        // program, process 1 here as that server was there, for the old one. This container has only begun: no server of it can run.
        remove_file(&data.join("postmaster.pid")).map_err(NodeError::file(&data))?;
        let mut rewind = Command::new("pg_rewind");
        rewind.arg("--target-pgdata").arg(&data).arg("--source-server").arg(self.conninfo(FAILOVER_USER, "postgres")?);
        run(&mut rewind, "pg_rewind")
    }

    /// Takes a base backup into the volume's incoming data directory.
    ///
    /// # Errors
    /// When the primary cannot be reached in time or the backup fails; what was there before is untouched.
    pub fn base_backup(&self, volume: &Volume) -> Result<(), NodeError> {
        self.check_room(volume)?;
        self.keep_log(true)?;
        let incoming = volume.incoming();
        let mut backup = Command::new("pg_basebackup");
        backup.arg("--pgdata").arg(&incoming).arg("--dbname").arg(self.conninfo(REPLICATION_USER, "replication")?);
        backup.args(["--no-password", "--wal-method=stream", "--checkpoint=fast", "--progress", "--slot"]).arg(self.node.slot());
        run(&mut backup, "pg_basebackup")
    }
}

/// Removes the slots that this node kept as a primary. A standby does not advance them, and they would hold back its log until the disk is full.
///
/// # Errors
/// The first system call that failed.
pub fn drop_own_slots(data: &Path) -> io::Result<()> {
    let slots = match fs::read_dir(data.join("pg_replslot")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        slots => slots?,
    };
    for slot in slots {
        let slot = slot?;
        if slot.file_name().to_string_lossy().starts_with("understudy_") {
            fs::remove_dir_all(slot.path())?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
