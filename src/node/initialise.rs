//! A new cluster: `initdb`, the roles and the database.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};

use super::configuration::{FAILOVER_USER, REPLICATION_USER};
use super::error::NodeError;
use super::program::run;
use super::secrets::Secrets;

/// How long the new server may take to answer; it has next to nothing to do.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Makes a cluster in `data`, which does not exist yet, with everything that later runs rely on.
///
/// # Errors
/// See [`NodeError`]; `data` is then worth nothing.
pub fn initialise(data: &Path, database: &str, database_user: &str, secrets: &Secrets) -> Result<(), NodeError> {
    log::info!("making a new cluster");
    let mut initdb = Command::new("initdb");
    initdb.arg("--pgdata").arg(data).args(["--username=postgres", "--auth-local=peer", "--auth-host=scram-sha-256"]);
    // Checksums let pg_rewind work and damaged pages be noticed.
    run(initdb.args(["--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8"]), "initdb")?;
    let socket = tempfile::tempdir().map_err(|source| NodeError::File { path: "a temporary folder".into(), source })?;
    let mut server = start_server(data, socket.path())?;
    let made = make_roles(socket.path(), database, database_user, secrets);
    // SIGINT: a fast shutdown, with a checkpoint.
    let id = nix::unistd::Pid::from_raw(i32::try_from(server.id()).unwrap_or_default());
    let stopped = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).map_err(std::io::Error::from).and_then(|()| server.wait());
    made?;
    match stopped {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(NodeError::Program { program: "postgres", how: status.to_string() }),
        Err(error) => Err(NodeError::Program { program: "postgres", how: error.to_string() }),
    }
}

/// A server that nobody but this program can reach.
fn start_server(data: &Path, socket: &Path) -> Result<Child, NodeError> {
    let mut server = Command::new("postgres");
    server.arg("-D").arg(data).args(["-c", "listen_addresses=", "-c"]).arg(format!("unix_socket_directories={}", socket.display()));
    server.stdin(Stdio::null()).spawn().map_err(|error| NodeError::Program { program: "postgres", how: error.to_string() })
}

fn make_roles(socket: &Path, database: &str, database_user: &str, secrets: &Secrets) -> Result<(), NodeError> {
    let mut client = connect(socket)?;
    let failed = |error: postgres::Error| {
        NodeError::Database(error.as_db_error().map_or_else(|| error.to_string(), |answer| answer.message().to_owned()))
    };
    // A statement that fails is not to be logged: it may hold a password.
    client.batch_execute("SET log_min_error_statement = 'panic'").map_err(failed)?;
    for (role, password, rights) in [
        (REPLICATION_USER, &secrets.replication, "LOGIN REPLICATION"),
        (FAILOVER_USER, &secrets.failover, "LOGIN IN ROLE pg_monitor, pg_checkpoint, pg_use_reserved_connections"),
        (database_user, &secrets.database, "LOGIN"),
    ] {
        // format() quotes; CREATE ROLE takes no parameters.
        let text = "SELECT format('CREATE ROLE %I PASSWORD %L ' || $3::text, $1::text, $2::text)";
        let statement: String = client.query_one(text, &[&role, password, &rights]).map_err(failed)?.get(0);
        client.batch_execute(&statement).map_err(failed)?;
    }
    let grants = format!(
        "GRANT pg_use_reserved_connections TO {REPLICATION_USER};
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO {FAILOVER_USER};
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO {FAILOVER_USER};
         GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names, wal_retrieve_retry_interval TO {FAILOVER_USER};
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO {FAILOVER_USER};
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO {FAILOVER_USER};
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO {FAILOVER_USER};
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO {FAILOVER_USER};"
    );
    client.batch_execute(&grants).map_err(failed)?;
    let text =
        "SELECT format('CREATE DATABASE %I OWNER %I', $1::text, $2::text), format('REVOKE ALL ON DATABASE %I FROM PUBLIC', $1::text)";
    let row = client.query_one(text, &[&database, &database_user]).map_err(failed)?;
    for column in 0..2 {
        client.batch_execute(row.get::<_, &str>(column)).map_err(failed)?;
    }
    Ok(())
}

fn connect(socket: &Path) -> Result<Client, NodeError> {
    let until = Instant::now() + START_LIMIT;
    loop {
        match Config::new().host_path(socket).user("postgres").dbname("postgres").connect(NoTls) {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= until => return Err(NodeError::Database(error.to_string())),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
