//! A standby: following the primary again after a rewind, or from a fresh base backup.

use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::command::{NodeError, run};
use super::configuration::{FAILOVER_USER, REPLICATION_USER};
use super::volume::Volume;
use crate::postgres::conninfo::Conninfo;
use crate::record::NodeName;

/// How long a standby that needs its primary waits for it, before the program ends and is started again.
const PRIMARY_LIMIT: Duration = Duration::from_secs(60);

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
    /// The libpq password file.
    pub password_file: &'a Path,
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

    /// Makes this node's slot on the primary, where it is not there yet. Waits for the primary.
    ///
    /// # Errors
    /// When the primary cannot be reached in time.
    pub fn ensure_slot(&self, patience: Duration) -> Result<(), NodeError> {
        let until = Instant::now() + patience;
        loop {
            let mut receivewal = Command::new("pg_receivewal");
            receivewal.arg("--dbname").arg(self.conninfo(REPLICATION_USER, "replication")?);
            receivewal.args(["--no-password", "--create-slot", "--if-not-exists", "--slot"]).arg(self.node.slot());
            match run(&mut receivewal, "pg_receivewal") {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(error) => log::info!("waiting for {}: {error}", self.primary),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Does the primary still keep the log that this node needs? No where the slot is gone, or has lost what it kept (`max_slot_wal_keep_size`): the node
    /// would ask for a segment that is not there any more, for ever.
    ///
    /// # Errors
    /// When the primary cannot be asked within `patience`. That says nothing about the slot.
    pub fn keeps_our_log(&self, failover_password: &str, patience: Duration) -> Result<bool, NodeError> {
        let address = self.address.ok_or_else(|| NodeError::Primary(format!("the name {} is not known", self.primary)))?;
        let mut config = postgres::Config::new();
        config.host(self.primary.as_str()).hostaddr(address).port(5432).user(FAILOVER_USER).password(failover_password).dbname("postgres");
        let unreachable = |error: postgres::Error| NodeError::Primary(error.to_string());
        let mut client = config.connect_timeout(patience).options("-c statement_timeout=2000").connect(postgres::NoTls).map_err(unreachable)?;
        let query = "SELECT wal_status FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
        let row = client.query_opt(query, &[&self.node.slot()]).map_err(unreachable)?;
        let wal_status = row.and_then(|row| row.get::<_, Option<String>>(0));
        Ok(wal_status.is_some_and(|status| status != "lost"))
    }

    /// Removes this node's slot from the primary, if it is there: a lost one cannot be used again.
    fn drop_slot(&self) -> Result<(), NodeError> {
        let mut receivewal = Command::new("pg_receivewal");
        receivewal.arg("--dbname").arg(self.conninfo(REPLICATION_USER, "replication")?);
        run(receivewal.args(["--no-password", "--drop-slot", "--slot"]).arg(self.node.slot()), "pg_receivewal")
    }

    /// Takes back what this node has and the primary has not, so that it can follow.
    ///
    /// # Errors
    /// When it cannot be done; the data directory is then fit for nothing but a base backup in its place, and the volume says so.
    pub fn rewind(&self, volume: &Volume) -> Result<(), NodeError> {
        self.ensure_slot(PRIMARY_LIMIT)?;
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
        // Anew, since the old one may have lost its log or hold back far more than a fresh copy needs.
        if let Err(error) = self.drop_slot() {
            log::info!("no slot of ours to remove: {error}");
        }
        self.ensure_slot(PRIMARY_LIMIT)?;
        let incoming = volume.incoming();
        volume.clear_incoming().map_err(NodeError::file(&incoming))?;
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
