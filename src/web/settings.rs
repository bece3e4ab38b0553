//! What was typed ([`Arguments`]), and what it means ([`Settings`]). After this module no string is parsed again.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::error::StartError;
use super::password::PasswordFile;

/// The longest deadline that can be asked for. A check that may take longer than this is of no use to whoever probes.
const LONGEST_DEADLINE: Duration = Duration::from_secs(60);

/// Serve `/health`, `/ready` and `/metrics`, following the primary that the cluster record names.
#[derive(Debug, Parser)]
#[command(name = "app", version)]
struct Arguments {
    /// Address and port to listen on [env: UNDERSTUDY_LISTEN] [default: 0.0.0.0:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,

    /// The cluster record, which says who is primary
    #[arg(long, value_name = "FILE", default_value = "/var/lib/understudy/cluster.json")]
    record: PathBuf,

    /// File that holds the database user's password
    #[arg(long, value_name = "FILE", default_value = "/run/secrets/understudy/database_password")]
    password_file: PathBuf,

    /// Database to connect to [env: UNDERSTUDY_DATABASE]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,

    /// User to connect as [env: UNDERSTUDY_DATABASE_USER]
    #[arg(long, value_name = "NAME")]
    database_user: Option<String>,

    /// Port of both nodes
    #[arg(long, value_name = "PORT", default_value_t = 5432, value_parser = clap::value_parser!(u16).range(1..))]
    database_port: u16,

    /// How long a check of readiness may take in all
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    ready_deadline: String,

    /// How many connections to the primary are kept at most
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    pool_size: u16,
}

/// What the app was told, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The cluster record.
    pub record: PathBuf,
    /// The database user's password.
    pub password_file: PathBuf,
    /// Database to connect to.
    pub database: String,
    /// User to connect as.
    pub database_user: String,
    /// Port of both nodes; their host names are the ones in the record.
    pub database_port: u16,
    /// How long a check of readiness may take in all: waiting for a connection, connecting and asking.
    pub ready_deadline: Duration,
    /// How many connections to the primary are kept at most.
    pub pool_size: usize,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// Serve with these settings.
    Serve(Box<Settings>),
    /// Print this text (help or version) and end.
    Print(String),
}

impl Settings {
    /// Reads the command line, and the environment where a flag was not given.
    ///
    /// # Errors
    /// A flag is unknown, a setting is missing or means nothing, or the password file cannot be used.
    pub fn from_command_line(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Asked, StartError> {
        let arguments = match Arguments::try_parse_from(arguments) {
            Ok(arguments) => arguments,
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                return Ok(Asked::Print(error.to_string()));
            }
            Err(error) => return Err(usage(&error)),
        };
        let settings = arguments.settings(environment)?;
        // A password that cannot be read now would otherwise show as "not ready" for ever.
        PasswordFile::at(&settings.password_file).read()?;
        Ok(Asked::Serve(Box::new(settings)))
    }
}

impl Arguments {
    fn settings(self, environment: impl Fn(&'static str) -> Option<String>) -> Result<Settings, StartError> {
        let listen = self.listen.or_else(|| environment("UNDERSTUDY_LISTEN")).unwrap_or_else(|| "0.0.0.0:5000".to_owned());
        let named = |given: Option<String>, flag, variable| {
            given.or_else(|| environment(variable)).filter(|name| !name.is_empty()).ok_or(StartError::SettingMissing { flag, variable })
        };
        Ok(Settings {
            listen: listen.parse().map_err(|_| StartError::SettingInvalid {
                flag: "listen",
                value: listen.clone(),
                why: "it is not an address and a port".to_owned(),
                example: "0.0.0.0:5000",
            })?,
            record: self.record,
            password_file: self.password_file,
            database: named(self.database, "database", "UNDERSTUDY_DATABASE")?,
            database_user: named(self.database_user, "database-user", "UNDERSTUDY_DATABASE_USER")?,
            database_port: self.database_port,
            ready_deadline: deadline(&self.ready_deadline)?,
            pool_size: self.pool_size.into(),
        })
    }
}

fn deadline(given: &str) -> Result<Duration, StartError> {
    let invalid = |why: String| StartError::SettingInvalid { flag: "ready-deadline", value: given.to_owned(), why, example: "1s" };
    let deadline = humantime::parse_duration(given).map_err(|error| invalid(error.to_string()))?;
    if deadline.is_zero() || deadline > LONGEST_DEADLINE {
        return Err(invalid(format!("it is not between 1ms and {}", humantime::format_duration(LONGEST_DEADLINE))));
    }
    Ok(deadline)
}

/// The parser's message is several lines long; an operator needs the first, and the flag that was probably meant.
fn usage(error: &clap::Error) -> StartError {
    let text = error.to_string();
    let message = text.lines().next().unwrap_or("wrong usage").trim_start_matches("error: ").to_owned();
    let meant = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => Some(flag.clone()),
        _ => None,
    };
    StartError::Usage { message, meant }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, "hush\n").unwrap();
        let mut line = vec![OsString::from("app"), "--password-file".into()];
        line.push(password_file.into());
        line.extend(arguments.iter().map(OsString::from));
        let environment = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        match Settings::from_command_line(line, environment) {
            Ok(Asked::Serve(settings)) => Ok(*settings),
            Ok(Asked::Print(text)) => Err(text),
            Err(error) => Err(format!("{error}; try: {} (exit {})", error.remedy().unwrap_or_default(), error.exit_code())),
        }
    }

    const NAMED: [&str; 4] = ["--database", "shop", "--database-user", "clerk"];

    fn read_with(more: &[&str]) -> Result<Settings, String> {
        read(&[&NAMED[..], more].concat(), &[])
    }

    #[test]
    fn the_defaults_are_those_of_the_container() {
        let settings = read_with(&[]).unwrap();

        assert_eq!(settings.listen.to_string(), "0.0.0.0:5000");
        assert_eq!(settings.record.to_str(), Some("/var/lib/understudy/cluster.json"));
        assert_eq!(settings.database_port, 5432);
        assert_eq!(settings.ready_deadline, Duration::from_secs(1));
        assert_eq!(settings.pool_size, 4);
    }

    #[test]
    fn a_flag_beats_the_environment() {
        let variables = [("UNDERSTUDY_LISTEN", "127.0.0.1:1"), ("UNDERSTUDY_DATABASE", "shop"), ("UNDERSTUDY_DATABASE_USER", "clerk")];

        let settings = read(&["--database", "other"], &variables).unwrap();

        assert_eq!(settings.listen.to_string(), "127.0.0.1:1");
        assert_eq!(settings.database, "other");
        assert_eq!(settings.database_user, "clerk");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line_with_its_remedy() {
        for (arguments, line) in [
            (&["--databse", "x"][..], "unexpected argument '--databse' found; try: --database (exit 2)"),
            (&["--listen", "5000"], "cannot use '--listen': '5000': it is not an address and a port; try: --listen 0.0.0.0:5000 (exit 3)"),
            (
                &["--ready-deadline", "soon"],
                "cannot use '--ready-deadline': 'soon': expected number at 0; try: --ready-deadline 1s (exit 3)",
            ),
            (
                &["--ready-deadline", "0s"],
                "cannot use '--ready-deadline': '0s': it is not between 1ms and 1m; try: --ready-deadline 1s (exit 3)",
            ),
            (&["--pool-size", "0"], "invalid value '0' for '--pool-size <COUNT>': 0 is not in 1..=100; try: app --help (exit 2)"),
        ] {
            assert_eq!(read_with(arguments).unwrap_err(), line);
        }
        assert_eq!(
            read(&[], &[]).unwrap_err(),
            "a setting is missing: '--database'; try: --database VALUE, or UNDERSTUDY_DATABASE in the environment (exit 2)"
        );
    }

    #[test]
    fn help_names_the_environment() {
        let help = read(&["--help"], &[]).unwrap_err();

        for variable in ["UNDERSTUDY_LISTEN", "UNDERSTUDY_DATABASE", "UNDERSTUDY_DATABASE_USER"] {
            assert!(help.contains(variable), "{help}");
        }
    }
}
