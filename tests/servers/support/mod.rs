//! Real servers in a folder of the test, run by a user who is not root, and gone at the end of the test whatever happens in it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User};
use postgres::{Client, NoTls};
use serde_json::{Value, json};

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The programs of one major version.
#[derive(Clone)]
pub struct Installation {
    pub major: u16,
    pub bin: PathBuf,
}

impl Installation {
    pub fn of(major: u16) -> Self {
        let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(".cache/postgresql/{major}/bin"));
        assert!(bin.join("postgres").exists(), "PostgreSQL {major} is not in '{}'; try: scripts/fetch-test-servers", bin.display());
        // The user who runs the servers may not be able to follow the way through a private home; the real folder is open to all.
        Self { major, bin: bin.canonicalize().unwrap() }
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// A folder for the servers of one test. Owned by the user who runs them.
pub struct Folder {
    folder: tempfile::TempDir,
    owner: Option<(Uid, Gid)>,
}

impl Folder {
    pub fn new() -> Self {
        // Servers refuse to run as root. Where the tests do not run as root, their own user will do.
        let owner = nix::unistd::geteuid().is_root().then(|| {
            let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).unwrap());
            let user = user.expect("a user 'postgres' or 'nobody' to run the servers");
            (user.uid, user.gid)
        });
        let folder = tempfile::Builder::new().prefix("understudy-servers-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(uid.as_raw()), Some(gid.as_raw())).unwrap();
        }
        Self { folder, owner }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The name of the user who owns the folder.
    pub fn owner_name(&self) -> String {
        let uid = self.owner.map_or_else(nix::unistd::geteuid, |(uid, _)| uid);
        User::from_uid(uid).unwrap().unwrap().name
    }

    /// The name of that user's group.
    pub fn group_name(&self) -> String {
        let gid = self.owner.map_or_else(nix::unistd::getegid, |(_, gid)| gid);
        Group::from_gid(gid).unwrap().unwrap().name
    }

    /// Runs a program as the folder's owner and wants it to succeed.
    pub fn run(&self, command: &mut Command) -> Output {
        if let Some((uid, gid)) = self.owner {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        // A message in another language could not be understood, a locale of the machine not be found by a foreign C library.
        let output = command.current_dir("/").env("LC_ALL", "C").output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// A primary that standbys can stream from.
    pub fn primary(&self, major: u16) -> Server<'_> {
        let server = self.server(major, "primary");
        let mut initdb = Command::new(server.installation.program("initdb"));
        self.run(initdb.arg("-D").arg(&server.data).args(["-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "--nosync"]));
        server.configure(&format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nwal_level = replica\nmax_wal_senders = 5\nmax_replication_slots = 5\nhot_standby = on\nfsync = off\n",
            self.path().display()
        ));
        server.start();
        server
    }

    /// A server that is not there yet.
    pub fn server(&self, major: u16, name: &str) -> Server<'_> {
        Server { folder: self, installation: Installation::of(major), data: self.path().join(name), port: free_port() }
    }
}

/// A port that nothing listens on, and that stays free until the server is made: below the range from which the system takes the ports of
/// outgoing connections, and different for each process, since tests run side by side.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(16).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (number % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One server: its data directory and its port. Stopped when dropped.
pub struct Server<'a> {
    pub folder: &'a Folder,
    pub installation: Installation,
    pub data: PathBuf,
    pub port: u16,
}

impl<'a> Server<'a> {
    /// A copy of this server's data with a slot of its own, as any base backup makes it: no standby yet.
    pub fn base_backup(&self, name: &str) -> Server<'a> {
        let copy = self.folder.server(self.installation.major, name);
        self.execute(&format!("SELECT pg_create_physical_replication_slot('{name}')"));
        // The packages of 10 and 11 have no pg_basebackup; a newer one reads older servers.
        let newest = Installation::of(self.installation.major.max(15));
        let port = self.port.to_string();
        let mut command = Command::new(newest.program("pg_basebackup"));
        self.folder.run(
            command
                .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-X", "stream", "-c", "fast", "--no-sync", "-S", name])
                .arg("-D")
                .arg(&copy.data),
        );
        copy.configure("");
        copy
    }

    /// Appends to `postgresql.conf`, where the last line wins.
    fn configure(&self, text: &str) {
        let path = self.data.join("postgresql.conf");
        let present = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{present}\nport = {}\n{text}", self.port)).unwrap();
    }

    pub fn start(&self) {
        self.pg_ctl(&["-w", "-t", "30", "-l", &self.data.with_extension("log").display().to_string(), "start"]);
    }

    pub fn stop(&self) {
        self.pg_ctl(&["-w", "-m", "fast", "stop"]);
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        self.folder.run(Command::new(self.installation.program("pg_ctl")).arg("-D").arg(&self.data).args(arguments));
    }

    /// The process that listens, as its own file says.
    pub fn postmaster(&self) -> Option<nix::unistd::Pid> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok().map(nix::unistd::Pid::from_raw)
    }

    pub fn client(&self) -> Client {
        let settings = format!("host=127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=5", self.port);
        Client::connect(&settings, NoTls)
            .unwrap_or_else(|error| panic!("cannot connect to '{}': {error}; its log:\n{}", self.data.display(), self.log()))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    pub fn execute(&self, statement: &str) {
        self.client().batch_execute(statement).unwrap();
    }

    /// One value, as text.
    pub fn ask(&self, expression: &str) -> String {
        let row = self.client().query_one(&format!("SELECT ({expression})::text"), &[]).unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Waits until an expression has a value, and says what it was when it never came.
    pub fn wait_for(&self, expression: &str, expected: &str) {
        let started = Instant::now();
        loop {
            let seen = self.ask(expression);
            if seen == expected {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "'{expression}' is '{seen}', not '{expected}'; log of '{}':\n{}",
                self.data.display(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The options that make a standby of this one's data directory.
    pub fn standby_options(&self, primary: &Server<'_>, slot: &str) -> Value {
        json!({
            "data_directory": self.data,
            "primary_conninfo": {
                "host": "127.0.0.1",
                "port": primary.port,
                "user": "postgres",
                "password": PASSWORD,
                "application_name": APPLICATION_NAME,
            },
            "primary_slot_name": slot,
        })
    }

    /// The options that reach this server.
    pub fn login_options(&self) -> Value {
        json!({ "login_host": "127.0.0.1", "login_port": self.port, "timeout": 30 })
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if let Some(postmaster) = self.postmaster() {
            // A frozen one hears nothing until it goes on.
            let _ = nix::sys::signal::kill(postmaster, nix::sys::signal::Signal::SIGCONT);
            let mut command = Command::new(self.installation.program("pg_ctl"));
            if let Some((uid, gid)) = self.folder.owner {
                command.uid(uid.as_raw()).gid(gid.as_raw());
            }
            let _ = command.current_dir("/").arg("-D").arg(&self.data).args(["-w", "-m", "immediate", "stop"]).output();
        }
    }
}

/// Everything that quoting can get wrong. The servers trust everybody, so nobody looks at the password, but libpq has to read past it.
pub const PASSWORD: &str = r"it's a \ 'secret' = #1";
/// It comes out at the other end of the connection, so it proves that the quoting is right.
pub const APPLICATION_NAME: &str = r"o'clock \ standby";

/// Runs a module as Ansible does and gives its one JSON object.
pub fn module(name: &str, mut options: Value, more: Value) -> Value {
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let program = match name {
        "postgres_promote" => env!("CARGO_BIN_EXE_postgres_promote"),
        "postgres_recovery_conf" => env!("CARGO_BIN_EXE_postgres_recovery_conf"),
        other => panic!("no module '{other}'"),
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), options.to_string()).unwrap();
    let output = Command::new(program).arg(file.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(!text.contains("secret"), "the password is shown: {text}");
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(output.status.success(), object.get("failed").is_none(), "{object}");
    object
}
