//! A real PostgreSQL server in a temporary folder, on a loopback address of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_postgres::NoTls;

/// The superuser of every throw-away server.
pub const USER: &str = "postgres";
/// Its password.
pub const PASSWORD: &str = "hush";

/// How long a server may take to accept connections.
const PATIENCE: Duration = Duration::from_secs(30);

/// Killed, with its folder removed, when the test ends.
pub struct ThrowawayServer {
    // Kept for its Drop, after the process is gone.
    _folder: TempDir,
    postmaster: Child,
    address: String,
    port: u16,
}

impl ThrowawayServer {
    /// Takes reads and writes.
    pub fn primary(address: &str, port: u16) -> Self {
        Self::start(address, port, &[], false)
    }

    /// Refuses writes by a setting.
    pub fn read_only(address: &str, port: u16) -> Self {
        Self::start(address, port, &["-c", "default_transaction_read_only=on"], false)
    }

    /// Is in recovery, of a primary that does not exist.
    pub fn standby(address: &str, port: u16) -> Self {
        Self::start(address, port, &[], true)
    }

    fn start(address: &str, port: u16, settings: &[&str], standby: bool) -> Self {
        let programs = programs();
        let folder = tempfile::tempdir().unwrap();
        own(folder.path());
        let data = folder.path().join("data");
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        own(&password);
        let made = as_postgres(&programs.join("initdb"))
            .args(["--no-sync", "--auth=scram-sha-256", "--username", USER])
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {made:?}");
        if standby {
            fs::write(data.join("standby.signal"), "").unwrap();
            own(&data.join("standby.signal"));
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let postmaster = as_postgres(&programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-h", address, "-p", &port.to_string()])
            .args(["-c", "fsync=off", "-c", "shared_buffers=16MB"])
            .args(settings)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { _folder: folder, postmaster, address: address.to_owned(), port };
        server.wait_until_it_accepts(&programs);
        server
    }

    fn wait_until_it_accepts(&mut self, programs: &Path) {
        let begun = Instant::now();
        loop {
            let asked =
                Command::new(programs.join("pg_isready")).args(["-q", "-h", &self.address, "-p", &self.port.to_string()]).status().unwrap();
            if asked.success() {
                return;
            }
            let ended = self.postmaster.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "the server did not start ({ended:?}):\n{}",
                fs::read_to_string(self._folder.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops every process of the server without ending it: connections stay, nothing answers.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// The end of [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// The postmaster first, so that it makes no new process meanwhile.
    fn signal_all(&self, signal: Signal) {
        let postmaster = i32::try_from(self.postmaster.id()).unwrap();
        kill(Pid::from_raw(postmaster), signal).unwrap();
        for child in children_of(postmaster) {
            // A backend may have ended since it was listed.
            let _ = kill(Pid::from_raw(child), signal);
        }
    }

    /// How many connections the app has to this server.
    pub async fn connections_of_the_app(&self) -> i64 {
        let (client, connection) = tokio_postgres::Config::new()
            .host(&self.address)
            .port(self.port)
            .user(USER)
            .password(PASSWORD)
            .dbname("postgres")
            .connect(NoTls)
            .await
            .unwrap();
        let serving = tokio::spawn(connection);
        let row = client.query_one("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'understudy-app'", &[]).await.unwrap();
        drop(client);
        serving.await.unwrap().unwrap();
        row.get(0)
    }
}

impl Drop for ThrowawayServer {
    fn drop(&mut self) {
        // A stopped process handles no other signal before it goes on.
        self.thaw();
        let postmaster = Pid::from_raw(self.postmaster.id().try_into().unwrap());
        let _ = kill(postmaster, Signal::SIGQUIT);
        let _ = self.postmaster.wait();
    }
}

/// The newest PostgreSQL of this machine.
fn programs() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            let programs = path.join("bin");
            programs.join("initdb").exists().then_some((version, programs))
        })
        .collect();
    found.sort();
    match found.pop() {
        Some((_, programs)) => programs,
        None => panic!("no PostgreSQL server is installed under /usr/lib/postgresql; try: apt-get install postgresql"),
    }
}

/// PostgreSQL refuses to run as root, so it runs as the user that its package has made, and ends with this process.
fn as_postgres(program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).args(["--pdeathsig=QUIT", "--"]).arg(program).current_dir("/");
    command
}

/// Makes the file the server's own, where the server runs as another user.
fn own(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().expect("the user 'postgres', which PostgreSQL's package makes");
        nix::unistd::chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

fn children_of(parent: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    listed.split_whitespace().map(|child| child.parse().unwrap()).collect()
}
