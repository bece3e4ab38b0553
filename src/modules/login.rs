//! Where and as whom a module connects: the options that modules of community.postgresql call `login_…`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use crate::ansible_module::arguments::{Kind, OptionSpec};
use crate::postgres::connection::{Host, Target};

/// `login_host`.
pub const LOGIN_HOST: OptionSpec = OptionSpec::new("login_host", Kind::Text).aliases(&["host"]);
/// `login_port`.
pub const LOGIN_PORT: OptionSpec = OptionSpec::new("login_port", Kind::Integer(1, 65535)).aliases(&["port"]).default("5432");
/// `login_user`.
pub const LOGIN_USER: OptionSpec = OptionSpec::new("login_user", Kind::Text).aliases(&["login"]).default("postgres");
/// `login_password`.
pub const LOGIN_PASSWORD: OptionSpec = OptionSpec::new("login_password", Kind::Text).secret();
/// `login_unix_socket`.
pub const LOGIN_UNIX_SOCKET: OptionSpec = OptionSpec::new("login_unix_socket", Kind::Path).aliases(&["unix_socket"]);
/// `login_db`.
pub const LOGIN_DB: OptionSpec = OptionSpec::new("login_db", Kind::Text).aliases(&["db"]).default("postgres");

/// Where Debian's and Red Hat's servers put their sockets.
const DEFAULT_SOCKET_FOLDER: &str = "/var/run/postgresql";

/// The `login_…` options of a task.
#[derive(Deserialize)]
pub struct Login {
    login_host: Option<String>,
    login_port: u16,
    login_user: String,
    login_password: Option<String>,
    login_unix_socket: Option<PathBuf>,
    login_db: String,
}

impl Login {
    /// The server to connect to, with its name resolved.
    ///
    /// # Errors
    /// When both a host and a socket are given, or the name cannot be resolved.
    pub fn target(&self, application_name: &str) -> Result<Target, LoginError> {
        let host = match (self.login_host.as_deref().filter(|host| !host.is_empty()), &self.login_unix_socket) {
            (Some(_), Some(_)) => return Err(LoginError::HostAndSocket),
            (Some(folder), None) if folder.starts_with('/') => Host::Socket(PathBuf::from(folder)),
            (Some(name), None) => Host::Address(resolved(name)?),
            (None, Some(folder)) => Host::Socket(folder.clone()),
            (None, None) => Host::Socket(PathBuf::from(DEFAULT_SOCKET_FOLDER)),
        };
        Ok(Target {
            host,
            port: self.login_port,
            user: self.login_user.clone(),
            password: self.login_password.clone(),
            database: self.login_db.clone(),
            application_name: application_name.to_owned(),
        })
    }
}

/// Resolves a name by asking the host's own `getent`. These programs are linked statically, and a static program that lets the C library
/// load the name service modules of a foreign host can crash (it does where `myhostname` or `resolve` stands in `nsswitch.conf`).
fn resolved(name: &str) -> Result<IpAddr, LoginError> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    // IPv4 first: a server that listens on 'localhost' need not listen on ::1.
    for database in ["ahostsv4", "ahosts"] {
        let output = Command::new("getent").arg(database).arg("--").arg(name).output();
        let output = output.map_err(|source| LoginError::NoGetent { name: name.to_owned(), source })?;
        let text = String::from_utf8_lossy(&output.stdout);
        if let Some(address) = text.split_whitespace().next().and_then(|word| word.parse().ok()) {
            return Ok(address);
        }
    }
    Err(LoginError::UnknownHost { name: name.to_owned() })
}

/// Why it is not known where to connect.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Two places.
    #[error("'login_host' and 'login_unix_socket' exclude each other")]
    HostAndSocket,
    /// The name has no address.
    #[error("the host name '{name}' has no address")]
    UnknownHost {
        /// The name.
        name: String,
    },
    /// Names cannot be resolved on this host.
    #[error("cannot run 'getent' to resolve the host name '{name}'")]
    NoGetent {
        /// The name.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl LoginError {
    /// What a person can do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::HostAndSocket => Some("leave one of them out".to_owned()),
            Self::UnknownHost { .. } | Self::NoGetent { .. } => Some("give an address as 'login_host', or 'login_unix_socket'".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(host: Option<&str>, socket: Option<&str>) -> Login {
        Login {
            login_host: host.map(str::to_owned),
            login_port: 5432,
            login_user: "postgres".to_owned(),
            login_password: None,
            login_unix_socket: socket.map(PathBuf::from),
            login_db: "postgres".to_owned(),
        }
    }

    #[test]
    fn every_way_of_naming_a_server() {
        let cases = [
            (None, None, Host::Socket("/var/run/postgresql".into())),
            (Some(""), None, Host::Socket("/var/run/postgresql".into())),
            (Some("/tmp"), None, Host::Socket("/tmp".into())),
            (None, Some("/tmp"), Host::Socket("/tmp".into())),
            (Some("10.0.0.1"), None, Host::Address([10, 0, 0, 1].into())),
            (Some("localhost"), None, Host::Address([127, 0, 0, 1].into())),
        ];
        for (host, socket, expected) in cases {
            assert_eq!(login(host, socket).target("test").unwrap().host, expected, "{host:?} {socket:?}");
        }
        let refused = login(Some("a"), Some("/b")).target("test").err().unwrap();
        assert_eq!(refused.to_string(), "'login_host' and 'login_unix_socket' exclude each other");
        let unknown = login(Some("no-such-host.invalid"), None).target("test").err().unwrap();
        assert_eq!(unknown.to_string(), "the host name 'no-such-host.invalid' has no address");
    }
}
