//! The accidents, by the `docker` command and by signals, as a person or a fault would cause them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a `docker` command may take. `docker stop` waits up to a minute for the server.
const LIMIT_SECONDS: &str = "90";

/// Runs `docker`, whatever comes of it. The Engine itself may hang (see [`Node::pause`]); the scenario has to say so.
fn try_docker(arguments: &[&str]) -> Output {
    let output = Command::new("timeout")
        .args([LIMIT_SECONDS, "docker"])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run docker: {error}; try: make scenarios"));
    assert!(output.status.code() != Some(124), "docker {} did not end within {LIMIT_SECONDS} s: the Engine hangs", arguments.join(" "));
    output
}

/// Runs `docker`, which has to succeed.
fn docker(arguments: &[&str]) -> String {
    let output = try_docker(arguments);
    assert!(output.status.success(), "docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What runs and what does not, for the message of a failed scenario.
pub fn overview(prefix: &str) -> String {
    let filter = format!("name=^{prefix}-");
    let listed = try_docker(&["ps", "--all", "--filter", &filter]);
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

/// The containers that run and do not belong to this installation.
pub fn others_that_run(prefix: &str) -> Vec<String> {
    let listed = docker(&["ps", "--format", "{{.Names}}"]);
    let ours = format!("{prefix}-");
    listed.lines().filter(|name| !name.starts_with(&ours)).map(str::to_owned).collect()
}

/// The addresses that these containers have now; those without one are left out.
pub fn addresses(containers: &[&str]) -> BTreeMap<String, IpAddr> {
    let format = "{{.Name}}{{range .NetworkSettings.Networks}} {{.IPAddress}}{{end}}";
    let mut arguments = vec!["inspect", "--type", "container", "--format", format];
    arguments.extend(containers);
    // A container that does not exist only adds a complaint about itself.
    let listed = try_docker(&arguments);
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?.trim_start_matches('/').to_owned();
            Some((name, words.next()?.parse().ok()?))
        })
        .collect()
}

fn inspect(container: &str, format: &str) -> Option<String> {
    let output = try_docker(&["inspect", "--type", "container", "--format", format, container]);
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// `pg-a` or `pg-b`, with its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub container: String,
}

impl Node {
    pub fn exists(&self) -> bool {
        inspect(&self.container, "{{.Id}}").is_some()
    }

    /// The container's first process, which is the postmaster, as the host numbers it.
    pub fn postmaster(&self) -> Pid {
        let pid: i32 =
            inspect(&self.container, "{{.State.Pid}}").unwrap_or_else(|| panic!("{} does not exist", self.container)).parse().unwrap();
        assert!(pid > 0, "{} does not run", self.container);
        Pid::from_raw(pid)
    }

    /// Begins a write of some hundred megabytes of log, which is still going on when this returns; it ends with its server.
    pub fn begin_bulk_write(&self) -> Child {
        let statements = "CREATE TABLE IF NOT EXISTS scenario_bulk (id bigint, filling text)";
        let bulk = "TRUNCATE scenario_bulk; INSERT INTO scenario_bulk SELECT id, repeat('x', 200) FROM generate_series(1, 3000000) AS id";
        self.begin_sql(&[statements, bulk])
    }

    /// Runs SQL as the superuser inside the container, which is still going on when this returns; it ends with its server.
    pub fn begin_sql(&self, statements: &[&str]) -> Child {
        let mut psql = Command::new("docker");
        psql.args(["exec", &self.container, "psql", "-qXAt", "-h", "/run/postgresql", "-U", "postgres", "-d", "postgres"]);
        psql.args(statements.iter().flat_map(|statement| ["-c", statement]));
        psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        psql.spawn().unwrap_or_else(|error| panic!("cannot run docker: {error}"))
    }

    /// One of the server's own processes, by what it calls itself: `checkpointer`, `startup` …
    pub fn server_process(&self, name: &str) -> Pid {
        let postmaster = self.postmaster().to_string();
        let title = format!("postgres: {name}");
        let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|process| {
            let number: i32 = process.file_name().to_str()?.parse().ok()?;
            let parent = std::fs::read_to_string(process.path().join("stat")).ok()?;
            // After the name in brackets: the state, and the parent.
            let is_child = parent.rsplit(") ").next()?.split_whitespace().nth(1)? == postmaster;
            let calls_itself = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
            (is_child && calls_itself.starts_with(&title)).then(|| Pid::from_raw(number))
        });
        found.unwrap_or_else(|| panic!("{} has no process '{title}'", self.container))
    }

    /// Stops one process.
    pub fn freeze(&self, process: Pid) -> FrozenProcesses {
        kill(process, Signal::SIGSTOP).unwrap();
        FrozenProcesses(vec![process])
    }

    /// The folder of the node's volume on the host.
    pub fn volume(&self) -> PathBuf {
        let format = r#"{{range .Mounts}}{{if eq .Destination "/var/lib/postgresql/node"}}{{.Source}}{{end}}{{end}}"#;
        let folder = inspect(&self.container, format).unwrap_or_else(|| panic!("{} does not exist", self.container));
        assert!(!folder.is_empty(), "{} has no volume", self.container);
        PathBuf::from(folder)
    }

    /// Its address on the pair's network.
    pub fn address(&self) -> IpAddr {
        let known = addresses(&[&self.container]);
        *known.get(&self.container).unwrap_or_else(|| panic!("{} has no address", self.container))
    }

    /// Whether its server answers over its socket.
    pub fn answers(&self) -> bool {
        try_docker(&["exec", &self.container, "psql", "-qXAt", "-h", "/run/postgresql", "-U", "postgres", "-c", "SELECT 1", "postgres"])
            .status
            .success()
    }

    /// Whether its container runs.
    pub fn runs(&self) -> bool {
        inspect(&self.container, "{{.State.Running}}").is_some_and(|runs| runs == "true")
    }

    /// What its container has printed, of all its lives.
    pub fn log(&self) -> String {
        let output = try_docker(&["logs", &self.container]);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// Runs SQL as the superuser inside the container, each statement by itself: what it answered, without headings.
    pub fn sql(&self, statements: &[&str]) -> String {
        let mut arguments = vec!["exec", &self.container, "psql", "-qXAt", "-h", "/run/postgresql", "-U", "postgres", "-d", "postgres"];
        arguments.extend(statements.iter().flat_map(|statement| ["-c", statement]));
        docker(&arguments)
    }

    /// `kill -9` from the host.
    pub fn kill_postmaster(&self) {
        kill(self.postmaster(), Signal::SIGKILL).unwrap();
    }

    /// `docker kill`; not running is fine.
    pub fn kill(&self) {
        try_docker(&["kill", "--signal", "KILL", &self.container]);
    }

    /// `docker stop`: a fast shutdown in good order.
    pub fn stop(&self) {
        docker(&["stop", &self.container]);
    }

    /// `docker rm -f`: the container is gone, its volume stays.
    pub fn remove(&self) {
        docker(&["rm", "--force", &self.container]);
    }

    /// `docker pause`: the kernel gives its processes no time; its sockets stay.
    ///
    /// Seen on Docker 20.10 with cgroup v1: a `docker exec` that begins at the very moment of the pause is frozen half
    /// made, and holds the container's lock in the Engine, so that `inspect` and `kill` hang until someone thaws the
    /// cgroup by hand.
    pub fn pause(&self) {
        docker(&["pause", &self.container]);
    }

    /// `docker unpause`; not paused, or gone, is fine.
    pub fn try_unpause(&self) {
        try_docker(&["unpause", &self.container]);
    }

    /// `docker start` by hand. Whether it did start is the program's business, so the answer is not looked at.
    pub fn start_by_hand(&self) {
        try_docker(&["start", &self.container]);
    }

    /// `pg_promote()` by hand, as the superuser inside the container.
    pub fn promote_by_hand(&self) {
        self.sql(&["SELECT pg_promote()"]);
    }

    /// Stops every process in the container, the postmaster first, so that it makes no new one meanwhile.
    pub fn freeze_processes(&self) -> FrozenProcesses {
        let postmaster = self.postmaster();
        kill(postmaster, Signal::SIGSTOP).unwrap();
        let listed = docker(&["top", &self.container, "-eo", "pid"]);
        let mut frozen = vec![postmaster];
        for pid in listed.lines().filter_map(|line| line.trim().parse().ok()) {
            let pid = Pid::from_raw(pid);
            if pid != postmaster && kill(pid, Signal::SIGSTOP).is_ok() {
                frozen.push(pid);
            }
        }
        FrozenProcesses(frozen)
    }
}

/// Processes that were stopped by a signal.
pub struct FrozenProcesses(Vec<Pid>);

impl FrozenProcesses {
    /// Lets go on whatever still lives.
    pub fn thaw(self) {
        drop(self);
    }
}

impl Drop for FrozenProcesses {
    fn drop(&mut self) {
        for pid in &self.0 {
            // Ended meanwhile: killed by the fence, as it should be.
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

/// Stops both nodes at the same time, as a shutdown of the host does.
pub fn stop_all(nodes: &[&Node]) {
    let mut arguments = vec!["stop"];
    arguments.extend(nodes.iter().map(|node| node.container.as_str()));
    docker(&arguments);
}

/// The app's container.
#[derive(Debug, Clone)]
pub struct App {
    pub container: String,
    pub network: String,
    pub url: String,
}

impl App {
    /// `docker kill`.
    pub fn kill(&self) {
        docker(&["kill", "--signal", "KILL", &self.container]);
    }

    /// `docker start`.
    pub fn start(&self) {
        docker(&["start", &self.container]);
    }

    /// Cuts it off from the nodes.
    pub fn cut_network(&self) {
        docker(&["network", "disconnect", &self.network, &self.container]);
    }

    /// The end of [`Self::cut_network`]; still connected is fine.
    pub fn reconnect(&self) {
        try_docker(&["network", "connect", "--alias", "app", &self.network, &self.container]);
    }

    /// Whether `/ready` says 200, within two seconds.
    pub fn is_ready(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = understudy::http_client::builder(&[]).unwrap().no_proxy().build().unwrap();
            let asked = client.get(format!("{}/ready", self.url.trim_end_matches('/'))).timeout(Duration::from_secs(2)).send().await;
            asked.is_ok_and(|answer| answer.status() == 200)
        })
    }

    /// The value of a setting of the app, from its environment or from the flag in its command.
    pub fn setting(&self, variable: &str, flag: &str) -> String {
        let listed = inspect(&self.container, "{{range .Config.Env}}{{println .}}{{end}}{{range .Config.Cmd}}{{println .}}{{end}}")
            .unwrap_or_else(|| panic!("{} does not exist; try: make scenarios", self.container));
        let lines: Vec<&str> = listed.lines().collect();
        let from_environment = lines.iter().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
        let from_command = lines.iter().position(|line| *line == flag).and_then(|flag| lines.get(flag + 1).copied());
        from_environment.or(from_command).unwrap_or_else(|| panic!("{} has neither {variable} nor {flag}", self.container)).to_owned()
    }
}
