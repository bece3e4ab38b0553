//! The settings of `failover-check`: a TOML file that Ansible lays down, `/etc/understudy/failover-check.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::notify::NotifySettings;
use super::observation::Thresholds;
use crate::postgres::connection::{Host, Target};
use crate::record::NodeName;

/// The validated settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the record, the events and the lock.
    pub state_directory: PathBuf,
    /// The Docker Engine's socket.
    pub docker_socket: PathBuf,
    /// Container of the app.
    pub app_container: String,
    /// Address of the app as seen from this host, without a path.
    pub app_url: Url,
    /// The two nodes and their containers.
    pub nodes: BTreeMap<NodeName, String>,
    /// How to log in to a node's server.
    pub login: Login,
    /// One hard deadline around each whole probe: connect, handshake and query.
    pub probe_deadline: Duration,
    /// How far back failovers count as flapping.
    pub flapping_window: Duration,
    /// The limits that decisions rest on.
    pub thresholds: Thresholds,
    /// May passes act?
    pub mode: Mode,
    /// As whom a drill writes; none where the file does not say.
    pub drill: Option<DrillLogin>,
    /// Where metrics are written, for the textfile collector of `node_exporter`.
    pub metrics_file: Option<PathBuf>,
    /// Who is told of what changes.
    pub notify: Option<NotifySettings>,
}

/// As whom a drill writes: the app's own role. Its password is read when a drill begins, so that no pass depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillLogin {
    /// The app's database.
    pub database: String,
    /// The app's role.
    pub user: String,
    /// The file with its password.
    pub password_file: PathBuf,
}

/// What passes do with their decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They carry them out.
    #[default]
    Act,
    /// They only say what they would have done. A person's commands still act, and finish what they have begun.
    Observe,
}

/// How to log in to a node's server.
#[derive(Clone)]
pub struct Login {
    /// TCP port of both servers.
    pub port: u16,
    /// Role of the checker.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Database that probes open.
    pub database: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("port", &self.port)
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// The server at an address.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Target {
        Target {
            host: Host::Address(address),
            port: self.port,
            user: self.user.clone(),
            password: Some(self.password.clone()),
            database: self.database.clone(),
            application_name: "failover-check".to_owned(),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file could not be read.
    #[error("cannot read '{}': {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is no TOML, or has an unknown or a missing key, or a value of the wrong type.
    #[error("malformed settings '{}': {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What and where.
        why: String,
    },
    /// A value is impossible.
    #[error("impossible value in settings '{}': {key} = {value}: {why}", path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why it cannot be.
        why: &'static str,
    },
}

impl SettingsError {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                "name the file with --settings FILE, or lay the installation down with playbooks/run_containers.yml".to_owned()
            }
            Self::Malformed { .. } | Self::Impossible { .. } => {
                "correct the file, or lay it down again with playbooks/run_containers.yml; nothing was changed".to_owned()
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    state_directory: PathBuf,
    #[serde(default = "default_socket")]
    docker_socket: PathBuf,
    app_container: String,
    app_url: String,
    database: String,
    failover_user: String,
    failover_password_file: PathBuf,
    #[serde(default = "default_port")]
    postgres_port: u16,
    nodes: BTreeMap<NodeName, String>,
    #[serde(default)]
    mode: Mode,
    drill: Option<DrillLogin>,
    metrics_file: Option<PathBuf>,
    #[serde(default)]
    notify: FileNotify,
    #[serde(default)]
    thresholds: FileThresholds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileNotify {
    webhook_url_file: Option<PathBuf>,
    command: Vec<String>,
    deadline_seconds: f64,
}

impl Default for FileNotify {
    fn default() -> Self {
        // A chat program's webhook answers within a second; nobody waits for it.
        Self { webhook_url_file: None, command: Vec::new(), deadline_seconds: 5.0 }
    }
}

fn default_socket() -> PathBuf {
    PathBuf::from("/var/run/docker.sock")
}

fn default_port() -> u16 {
    5432
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileThresholds {
    probe_deadline_seconds: f64,
    suspicion_passes: u32,
    suspicion_seconds: f64,
    isolation_grace_seconds: f64,
    startup_grace_seconds: f64,
    app_grace_seconds: f64,
    app_restart_cooldown_seconds: f64,
    standby_grace_seconds: f64,
    standby_restart_grace_seconds: f64,
    node_start_cooldown_seconds: f64,
    start_attempts: u32,
    flapping_limit: u32,
    flapping_window_seconds: f64,
}

impl Default for FileThresholds {
    fn default() -> Self {
        Self {
            // A healthy server on the same host answers in 10 ms; a busy one in a few hundred.
            probe_deadline_seconds: 0.7,
            // Three misses in a row over 2.5 s: longer than a stalled disk or a paused virtual machine usually takes, short enough to fail over within 5 s.
            suspicion_passes: 3,
            suspicion_seconds: 2.5,
            isolation_grace_seconds: 30.0,
            startup_grace_seconds: 120.0,
            app_grace_seconds: 10.0,
            app_restart_cooldown_seconds: 120.0,
            // A standby's container restarts and streams again in about 2 s.
            standby_grace_seconds: 5.0,
            // Far beyond any hiccup of the network: a standby that is still not streaming then has lost its place in the log.
            standby_restart_grace_seconds: 60.0,
            node_start_cooldown_seconds: 5.0,
            start_attempts: 3,
            // There and back again may happen in a bad night; a fourth time has a cause that another failover does not cure.
            flapping_limit: 3,
            flapping_window_seconds: 1_800.0,
        }
    }
}

impl Settings {
    /// Reads and checks the file, and the password file that it names.
    ///
    /// # Errors
    /// See [`SettingsError`]. Nothing is guessed: an unknown key is an error too.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = read(path)?;
        let malformed = |why: String| SettingsError::Malformed { path: path.to_owned(), why };
        let file: File = toml::from_str(&text).map_err(|error| malformed(in_one_line(&error, &text)))?;
        let impossible =
            |key: &'static str, value: String, why: &'static str| SettingsError::Impossible { path: path.to_owned(), key, value, why };
        if file.nodes.len() != 2 {
            return Err(impossible("nodes", format!("{} entries", file.nodes.len()), "there are exactly two nodes"));
        }
        let Some(app_url) = Url::parse(&file.app_url).ok().filter(|url| url.scheme() == "http" && url.has_host()) else {
            return Err(impossible("app_url", file.app_url, "it is an http:// address such as http://127.0.0.1:5000"));
        };
        let limits = &file.thresholds;
        let duration = |key: &'static str, seconds: f64, least: f64| {
            let why = if least > 0.0 { "it is a number of seconds above 0" } else { "it is a number of seconds, 0 or more" };
            let valid = seconds.is_finite() && seconds >= least && seconds <= 1e9;
            if valid { Ok(Duration::from_secs_f64(seconds)) } else { Err(impossible(key, seconds.to_string(), why)) }
        };
        let count = |key: &'static str, number: u32| {
            if number > 0 { Ok(number) } else { Err(impossible(key, number.to_string(), "it is at least 1")) }
        };
        let thresholds = Thresholds {
            suspicion_passes: count("suspicion_passes", limits.suspicion_passes)?,
            suspicion: duration("suspicion_seconds", limits.suspicion_seconds, 0.0)?,
            isolation_grace: duration("isolation_grace_seconds", limits.isolation_grace_seconds, 0.0)?,
            startup_grace: duration("startup_grace_seconds", limits.startup_grace_seconds, 0.0)?,
            app_grace: duration("app_grace_seconds", limits.app_grace_seconds, 0.0)?,
            app_restart_cooldown: duration("app_restart_cooldown_seconds", limits.app_restart_cooldown_seconds, 0.0)?,
            standby_grace: duration("standby_grace_seconds", limits.standby_grace_seconds, 0.0)?,
            standby_restart_grace: duration("standby_restart_grace_seconds", limits.standby_restart_grace_seconds, 0.0)?,
            node_start_cooldown: duration("node_start_cooldown_seconds", limits.node_start_cooldown_seconds, 0.0)?,
            start_attempts: count("start_attempts", limits.start_attempts)?,
            flapping_limit: count("flapping_limit", limits.flapping_limit)?,
        };
        let probe_deadline = duration("probe_deadline_seconds", limits.probe_deadline_seconds, 0.01)?;
        let flapping_window = duration("flapping_window_seconds", limits.flapping_window_seconds, 0.0)?;
        let notify = NotifySettings {
            deadline: duration("deadline_seconds", file.notify.deadline_seconds, 0.01)?,
            webhook_file: file.notify.webhook_url_file,
            command: file.notify.command,
            settings_file: path.to_owned(),
        };
        let password = read(&file.failover_password_file)?.trim_end_matches('\n').to_owned();
        if password.is_empty() {
            let value = format!("'{}'", file.failover_password_file.display());
            return Err(impossible("failover_password_file", value, "the file is empty"));
        }
        Ok(Self {
            state_directory: file.state_directory,
            docker_socket: file.docker_socket,
            app_container: file.app_container,
            app_url,
            nodes: file.nodes,
            login: Login { port: file.postgres_port, user: file.failover_user, password, database: file.database },
            probe_deadline,
            flapping_window,
            thresholds,
            mode: file.mode,
            drill: file.drill,
            metrics_file: file.metrics_file,
            notify: Some(notify).filter(NotifySettings::has_receivers),
        })
    }

    /// The container of a node.
    #[must_use]
    pub fn container(&self, node: &NodeName) -> Option<&str> {
        self.nodes.get(node).map(String::as_str)
    }

    /// The node that is not `node`.
    #[must_use]
    pub fn other(&self, node: &NodeName) -> Option<&NodeName> {
        if self.nodes.contains_key(node) { self.nodes.keys().find(|name| *name != node) } else { None }
    }

    /// The cluster record's path.
    #[must_use]
    pub fn record_path(&self) -> PathBuf {
        self.state_directory.join("cluster.json")
    }
}

fn read(path: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(path).map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })
}

/// The parser's words with the line they are about; its own rendering draws over several lines.
fn in_one_line(error: &toml::de::Error, text: &str) -> String {
    let words = error.message().replace('\n', ", ");
    match error.span() {
        Some(span) => format!("line {}: {words}", text.get(..span.start).unwrap_or_default().matches('\n').count() + 1),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(change: impl Fn(String) -> String) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        fs::write(&password, "secret\n").unwrap();
        let text = format!(
            "state_directory = \"/var/lib/understudy\"\napp_container = \"understudy-app\"\napp_url = \"http://127.0.0.1:5000/\"\ndatabase = \"d\"\n\
             failover_user = \"u\"\nfailover_password_file = \"{}\"\n[nodes]\npg-a = \"understudy-pg-a\"\npg-b = \"understudy-pg-b\"\n[thresholds]\n",
            password.display()
        );
        let path = folder.path().join("s.toml");
        fs::write(&path, change(text)).unwrap();
        Settings::load(&path).map_err(|error| error.to_string().replace(&folder.path().display().to_string(), ""))
    }

    #[test]
    fn the_least_file_has_sound_defaults_and_hides_the_password() {
        let settings = load(|text| text).unwrap();
        assert_eq!(settings.thresholds.suspicion_passes, 3);
        assert_eq!(settings.login.password, "secret");
        assert_eq!(settings.mode, Mode::Act);
        assert_eq!(load(|text| format!("mode = \"observe\"\n{text}")).unwrap().mode, Mode::Observe);
        assert_eq!(settings.app_url.as_str(), "http://127.0.0.1:5000/");
        assert_eq!(settings.other(&"pg-a".parse().unwrap()).unwrap().as_str(), "pg-b");
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn nobody_is_told_unless_a_receiver_is_named_whatever_its_file_holds() {
        assert!(load(|text| text).unwrap().notify.is_none());
        let absent = load(|text| text + "[notify]\nwebhook_url_file = \"/nowhere/webhook\"\n").unwrap().notify.unwrap();
        assert_eq!((absent.webhook_file.unwrap().to_str(), absent.deadline), (Some("/nowhere/webhook"), Duration::from_secs(5)));
        let told = load(|text| text + "[notify]\ncommand = [\"/usr/bin/tell\", \"-x\"]\ndeadline_seconds = 2\n").unwrap().notify.unwrap();
        assert_eq!((told.command.len(), told.deadline), (2, Duration::from_secs(2)));
        assert_eq!(
            load(|text| text + "[notify]\ndeadline_seconds = 0\n").unwrap_err(),
            "impossible value in settings '/s.toml': deadline_seconds = 0: it is a number of seconds above 0"
        );
    }

    #[test]
    fn each_bad_file_is_refused_in_one_line_that_names_the_place() {
        let words = |change: &dyn Fn(String) -> String| load(change).unwrap_err();
        assert_eq!(
            words(&|text| text + "suspicion_secs = 3\n").split(", expected").next().unwrap(),
            "malformed settings '/s.toml': line 11: unknown field `suspicion_secs`"
        );
        assert_eq!(
            words(&|text| text + "flapping_limit = \"x\"\n"),
            "malformed settings '/s.toml': line 11: invalid type: string \"x\", expected u32"
        );
        assert_eq!(
            words(&|text| format!("mode = \"watch\"\n{text}")),
            "malformed settings '/s.toml': line 1: unknown variant `watch`, expected `act` or `observe`"
        );
        assert_eq!(
            words(&|text| text + "standby_grace_seconds = -1\n"),
            "impossible value in settings '/s.toml': standby_grace_seconds = -1: it is a number of seconds, 0 or more"
        );
        assert_eq!(
            words(&|text| text + "flapping_limit = 0\n"),
            "impossible value in settings '/s.toml': flapping_limit = 0: it is at least 1"
        );
        assert_eq!(
            words(&|text| text.replace("pg-b = \"understudy-pg-b\"", "")),
            "impossible value in settings '/s.toml': nodes = 1 entries: there are exactly two nodes"
        );
        assert_eq!(words(&|text| text.replace("/password", "/absent")), "cannot read '/absent': No such file or directory (os error 2)");
        assert!(words(&|_| "a = ".to_owned()).starts_with("malformed settings '/s.toml': line 1: "));
    }
}
