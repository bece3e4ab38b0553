//! The test installation: what Ansible has laid down, and the programs that look after it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;

use super::docker::{self, App, Node};
use super::history;
use super::server::Login;

/// The settings of the test installation, where `UNDERSTUDY_SETTINGS` names no other.
const SETTINGS: &str = "/etc/understudy-test/failover-check.toml";

/// The program under test, where `UNDERSTUDY_FAILOVER_CHECK` names no other.
const PROGRAM: &str = "/usr/local/sbin/failover-check";

/// How long a command of the program may take; `wait-healthy` is given less.
const COMMAND_LIMIT_SECONDS: &str = "300";

/// What the tests need of `failover-check.toml`.
#[derive(Debug, Deserialize)]
struct Settings {
    state_directory: PathBuf,
    app_container: String,
    app_url: String,
    #[serde(default = "default_port")]
    postgres_port: u16,
    #[serde(default = "default_socket")]
    docker_socket: PathBuf,
    nodes: BTreeMap<String, String>,
}

fn default_port() -> u16 {
    5432
}

fn default_socket() -> PathBuf {
    PathBuf::from("/var/run/docker.sock")
}

/// What the tests need of the cluster record. Read by the test's own eyes, not by the library's.
#[derive(Debug, Clone)]
pub struct Record {
    pub epoch: u64,
    pub primary: String,
    pub standby_eligible: bool,
    pub in_transition: bool,
    pub paused: bool,
}

/// The installation under test.
#[derive(Debug)]
pub struct Installation {
    pub settings_file: PathBuf,
    program: PathBuf,
    settings: Settings,
}

impl Installation {
    /// Finds it.
    ///
    /// # Panics
    /// With the remedy, when it was not laid down.
    pub fn open() -> Self {
        let from_environment = |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| default.into());
        let settings_file = PathBuf::from(from_environment("UNDERSTUDY_SETTINGS", SETTINGS));
        let program = PathBuf::from(from_environment("UNDERSTUDY_FAILOVER_CHECK", PROGRAM));
        let text = match fs::read_to_string(&settings_file) {
            Ok(text) => text,
            Err(error) => panic!("there is no test installation: cannot read '{}': {error}; try: make scenarios", settings_file.display()),
        };
        assert!(program.exists(), "the program under test is missing: '{}'; try: make scenarios", program.display());
        assert!(nix::unistd::geteuid().is_root(), "the scenarios stop containers and signal their processes; try: run them as root");
        let settings: Settings = toml::from_str(&text).unwrap_or_else(|error| panic!("'{}': {error}", settings_file.display()));
        assert!(
            settings.app_container != "understudy-app" || std::env::var_os("UNDERSTUDY_SETTINGS").is_some(),
            "'{}' is a real installation, and the scenarios break what they find; try: make scenarios",
            settings_file.display()
        );
        Self { settings_file, program, settings }
    }

    /// Waits for the scenario that runs now on this installation, if any, to end. Across processes: `cargo test` knows nothing of nextest's groups.
    pub fn alone(&self) -> Flock<File> {
        let path = Path::new("/run/lock").join(format!("{}-scenarios.lock", self.prefix()));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap()
    }

    /// What the names of everything in this installation begin with.
    pub fn prefix(&self) -> &str {
        self.settings.app_container.strip_suffix("-app").expect("the app's container is called <prefix>-app")
    }

    /// The folder of the configuration and the secrets.
    pub fn configuration(&self) -> &Path {
        self.settings_file.parent().unwrap()
    }

    pub fn node(&self, name: &str) -> Node {
        let container = self.settings.nodes.get(name).unwrap_or_else(|| panic!("the settings name no node '{name}'"));
        Node { name: name.to_owned(), container: container.clone() }
    }

    pub fn other_node(&self, name: &str) -> Node {
        let other = self.settings.nodes.keys().find(|known| *known != name);
        self.node(other.expect("there are two nodes"))
    }

    pub fn app(&self) -> App {
        App { container: self.settings.app_container.clone(), network: self.prefix().to_owned(), url: self.settings.app_url.clone() }
    }

    /// How to log in as the app does. The names of its database and its user are known to its container only.
    pub fn login(&self) -> Login {
        let file = self.configuration().join("secrets/app/database_password");
        let password = fs::read_to_string(&file).unwrap_or_else(|error| panic!("cannot read '{}': {error}", file.display()));
        Login {
            nodes: self.settings.nodes.keys().map(|name| self.node(name)).collect(),
            port: self.settings.postgres_port,
            database: self.app().setting("UNDERSTUDY_DATABASE", "--database"),
            user: self.app().setting("UNDERSTUDY_DATABASE_USER", "--database-user"),
            password: password.strip_suffix('\n').unwrap_or(&password).to_owned(),
        }
    }

    /// The folder of the record, the history and the checker's memory.
    pub fn state(&self) -> &Path {
        &self.settings.state_directory
    }

    /// The Docker Engine's socket.
    pub fn docker_socket(&self) -> &Path {
        &self.settings.docker_socket
    }

    /// The record as it is now.
    pub fn record(&self) -> Record {
        let path = self.state().join("cluster.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read '{}': {error}", path.display()));
        let record: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("'{}': {error}:\n{text}", path.display()));
        Record {
            epoch: record["epoch"].as_u64().unwrap(),
            primary: record["primary"].as_str().unwrap().to_owned(),
            standby_eligible: record["standby_eligible"].as_bool().unwrap(),
            in_transition: !record["transition"].is_null(),
            paused: !record["paused"].is_null(),
        }
    }

    /// A command of the program under test, with these settings.
    pub fn program_with(&self, settings: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--settings").arg(settings);
        command
    }

    /// Runs a command of the program under test to its end, which has to come.
    pub fn failover_check(&self, arguments: &[&str]) -> Output {
        let program = self.program_with(&self.settings_file);
        Command::new("timeout")
            .arg(COMMAND_LIMIT_SECONDS)
            .arg(program.get_program())
            .args(program.get_args())
            .args(arguments)
            .output()
            .unwrap()
    }

    pub fn status_json(&self) -> serde_json::Value {
        let output = self.failover_check(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("'status --json' printed no JSON ({error}): {output:?}");
        })
    }

    /// Waits until the primary is writable, the standby streams and commits wait for it.
    pub fn wait_healthy(&self, limit: Duration) {
        let seconds = format!("{}s", limit.as_secs());
        let output = self.failover_check(&["wait-healthy", "--for", &seconds]);
        assert!(
            output.status.success(),
            "the pair is not healthy ({}):\n{}{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.context()
        );
    }

    /// Puts right what a scenario that was ended in the middle may have left behind and no checker mends.
    pub fn put_right(&self) {
        let nodes: Vec<Node> = self.settings.nodes.keys().map(|name| self.node(name)).collect();
        if nodes.iter().any(|node| !node.exists()) {
            self.lay_down();
        }
        for node in &nodes {
            node.try_unpause();
        }
        self.app().reconnect();
        if self.record().paused {
            self.failover_check(&["resume"]);
        }
    }

    /// Runs the playbook again, which creates what is missing.
    pub fn lay_down(&self) {
        let command = Self::lay_down_command();
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(
            output.status.success(),
            "'{command}' failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The shell command that lays the installation down.
    ///
    /// # Panics
    /// With the remedy, when the environment does not name it.
    pub fn lay_down_command() -> String {
        std::env::var("UNDERSTUDY_LAY_DOWN")
            .unwrap_or_else(|_| panic!("UNDERSTUDY_LAY_DOWN does not say how to lay the test installation down; try: make scenarios"))
    }

    /// What a person would look at first.
    pub fn context(&self) -> String {
        let status = self.failover_check(&["status"]);
        let history = history::read(self);
        let last = history.len().saturating_sub(15);
        let history: String = history[last..].iter().map(|event| format!("  {event}\n")).collect();
        format!(
            "--- status\n{}{}--- the end of the history\n{history}--- containers\n{}",
            String::from_utf8_lossy(&status.stdout),
            String::from_utf8_lossy(&status.stderr),
            docker::overview(self.prefix())
        )
    }
}
