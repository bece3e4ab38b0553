//! The files of a node's data directory that are ours: what the server is set to, who may connect, and its recovery settings.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::postgres::conninfo::Conninfo;
use crate::postgres::recovery_conf::RecoveryConf;
use crate::postgres::settings_file::quote;
use crate::record::NodeName;
use crate::replace_file;

/// Role that streams; it can do nothing else.
pub const REPLICATION_USER: &str = "understudy_replication";
/// Role of `failover-check` and of `pg_rewind`.
pub const FAILOVER_USER: &str = "understudy_failover";

/// Our settings, included at the end of `postgresql.conf`.
const SETTINGS_FILE: &str = "understudy.conf";

/// What every node is set to. `postgresql.extra.conf` comes after these and wins; `postgresql.auto.conf` comes last.
const SETTINGS: &str = "\
# Written by postgres-node at each start; put your own settings into postgresql.extra.conf.
listen_addresses = '*'
port = 5432
unix_socket_directories = '/run/postgresql'
password_encryption = 'scram-sha-256'
wal_level = 'replica'
hot_standby = on
max_wal_senders = 10
max_replication_slots = 10
# The checker and the standby get in also when clients have taken every other connection.
reserved_connections = 5
# Enough for a rewind after a short absence. A slot holds back more, up to its limit, so that a standby that stays away cannot fill the primary's disk.
wal_keep_size = '256MB'
max_slot_wal_keep_size = '1GB'
# How soon a standby tries again to reach its primary. In sync mode every commit waits for that after a reconnect, and a promotion waits for it too
# (failover-check lowers it for that moment). Shorter fills the log while the primary is down.
wal_retrieve_retry_interval = '500ms'
# A cut network is noticed within this.
wal_receiver_timeout = '10s'
wal_sender_timeout = '10s'
wal_receiver_status_interval = '1s'
";

/// Writes the settings and the access rules into a data directory.
///
/// # Errors
/// The first system call that failed.
pub fn write(data: &Path, database: &str, database_user: &str, extra_settings: &Path) -> io::Result<()> {
    let include = format!("include_if_exists = {}\n", quote(&extra_settings.to_string_lossy()));
    replace_file::write(&data.join(SETTINGS_FILE), format!("{SETTINGS}{include}").as_bytes())?;
    let main = data.join("postgresql.conf");
    let text = fs::read_to_string(&main)?;
    let line = format!("include_if_exists = '{SETTINGS_FILE}'");
    if !text.lines().any(|present| present == line) {
        replace_file::write(&main, format!("{text}\n{line}\n").as_bytes())?;
    }
    replace_file::write(&data.join("pg_hba.conf"), access_rules(database, database_user).as_bytes())
}

/// `pg_hba.conf`. Only the pair's own network gets in over TCP (`samenet`), each role only where it belongs; the superuser only over the socket.
fn access_rules(database: &str, database_user: &str) -> String {
    // A name in double quotes loses any special meaning, such as that of `all` or `replication`.
    let name = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    format!(
        "# Written by postgres-node at each start.\n\
         local  all          postgres                     peer\n\
         host   replication  {REPLICATION_USER}  samenet  scram-sha-256\n\
         host   postgres     {FAILOVER_USER}     samenet  scram-sha-256\n\
         host   postgres     {REPLICATION_USER}  samenet  scram-sha-256\n\
         host   {0}  {1}  samenet  scram-sha-256\n\
         local  {0}  {1}  scram-sha-256\n",
        name(database),
        name(database_user)
    )
}

/// The recovery settings of a primary. `synchronous`: commits wait for the peer from the first one on. Otherwise the setting stays as failover-check left it:
/// it may be about to vouch for the standby, and a primary restarted at that moment without the setting would acknowledge what the standby lacks.
#[must_use]
pub fn leading(peer: &NodeName, synchronous: bool) -> RecoveryConf {
    RecoveryConf {
        standby_mode: false,
        // The hyphen in a node's name asks for quotes inside the list.
        extra: managed(synchronous.then(|| format!("\"{peer}\""))),
        ..RecoveryConf::default()
    }
}

/// The recovery settings of a standby of `primary`. With its `address`, where that is known, the walreceiver resolves no name: the Engine's resolver asks the
/// world outside for the name of a container that is gone, which takes 20 s where nothing answers, and a promotion waits for the walreceiver to end. Should the
/// primary come back under another address, R335 restarts this node.
///
/// # Errors
/// Never for names and paths of ours; the connection string's own rules are checked where it is made.
pub fn following(
    node: &NodeName,
    primary: &NodeName,
    address: Option<IpAddr>,
    password_file: &Path,
) -> Result<RecoveryConf, crate::postgres::conninfo::ConninfoError> {
    let password_file = password_file.to_string_lossy();
    let address = address.map(|address| address.to_string());
    let known = address.as_deref().map(|address| ("hostaddr", address));
    let conninfo = Conninfo::new([("host", primary.as_str())].into_iter().chain(known).chain([
        ("port", "5432"),
        ("user", REPLICATION_USER),
        ("passfile", password_file.as_ref()),
        ("application_name", node.as_str()),
        ("connect_timeout", "3"),
    ]))?;
    Ok(RecoveryConf {
        standby_mode: true,
        primary_conninfo: Some(conninfo),
        primary_slot_name: Some(node.slot()),
        recovery_target_timeline: Some("latest".to_owned()),
        // A standby that is promoted has no standby of its own: commits that waited for one would hang.
        extra: managed(Some(String::new())),
        ..RecoveryConf::default()
    })
}

/// What failover-check changes by ALTER SYSTEM. A clone or a rewind copies it from the other node, where it meant something else. Without
/// `synchronous_standby_names` that setting stays as it is.
fn managed(synchronous_standby_names: Option<String>) -> BTreeMap<String, Option<String>> {
    let names = synchronous_standby_names.map(|names| ("synchronous_standby_names".to_owned(), Some(names)));
    names.into_iter().chain([("wal_retrieve_retry_interval".to_owned(), None)]).collect()
}

/// A libpq password file for both roles, on a tmpfs; written at each start, read by the walreceiver and the client programs.
///
/// # Errors
/// The first system call that failed.
pub fn write_password_file(path: &Path, replication_password: &str, failover_password: &str) -> io::Result<()> {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let line = |user: &str, password: &str| format!("*:*:*:{user}:{}\n", escaped(password));
    let text = line(REPLICATION_USER, replication_password) + &line(FAILOVER_USER, failover_password);
    replace_file::write(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_called_all_opens_only_itself() {
        let rules = access_rules("all", "replication");
        assert!(rules.contains("host   \"all\"  \"replication\"  samenet"));
        assert!(!rules.contains("trust"));
    }

    #[test]
    fn a_standby_never_keeps_the_synchronous_setting_that_it_was_cloned_with() {
        let address = Some([10, 0, 0, 2].into());
        let following = following(&"pg-b".parse().unwrap(), &"pg-a".parse().unwrap(), address, Path::new("/run/p")).unwrap();
        let conninfo = following.primary_conninfo.as_ref().unwrap();
        assert!(conninfo.to_connection_string().starts_with("host=pg-a hostaddr=10.0.0.2 port="), "{}", conninfo.to_connection_string());
        assert_eq!(following.extra["synchronous_standby_names"], Some(String::new()));
        assert_eq!(following.extra["wal_retrieve_retry_interval"], None);
        assert_eq!(following.primary_slot_name.as_deref(), Some("understudy_pg_b"));
        assert_eq!(leading(&"pg-b".parse().unwrap(), true).extra["synchronous_standby_names"].as_deref(), Some("\"pg-b\""));
    }

    #[test]
    fn i2_a_primary_that_the_record_does_not_vouch_for_keeps_the_synchronous_setting_it_has() {
        assert!(!leading(&"pg-b".parse().unwrap(), false).extra.contains_key("synchronous_standby_names"));
    }
}
