//! What a module accepts, said once as data, and the arguments of a task checked against it.
//!
//! Ansible checks nothing for a binary module: an unknown, missing or ill-typed option would silently do something else. Free-form
//! tasks (`key=value`) and old templates give every value as text, so numbers and YAML's booleans are accepted as text too.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::postgres::conninfo::{Conninfo, ConninfoError};
use crate::postgres::settings_file;

/// What Ansible itself shows in place of a secret argument.
pub const SECRET_SHOWN: &str = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER";

/// How like two names must be (1 is equal) for one to be taken for a misspelling of the other.
const LIKENESS: f64 = 0.6;

/// What an option holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// An absolute path.
    Path,
    /// A whole number between two bounds.
    Integer(i64, i64),
    /// A positive number of seconds, fractions allowed.
    Seconds,
    /// A boolean in any of YAML's spellings.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A libpq connection string, or its keywords and values as a dictionary. Its passwords are masked.
    Conninfo,
    /// Names and values of PostgreSQL settings; `null` for a setting to remove.
    Settings,
}

/// One option of a module.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The name that the module's documentation uses.
    pub name: &'static str,
    /// Other names that are accepted.
    pub aliases: &'static [&'static str],
    /// What it holds.
    pub kind: Kind,
    /// Whether a task must give it.
    pub required: bool,
    /// Its value where a task does not give it, as it would be written.
    pub default: Option<&'static str>,
    /// Whether nobody may see its value.
    pub secret: bool,
}

impl OptionSpec {
    /// An option that may be left out.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, aliases: &[], kind, required: false, default: None, secret: false }
    }

    /// The same option, with other names.
    pub const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// The same option, which must be given.
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same option, with a value for where it is not given.
    pub const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// The same option, whose value nobody may see.
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// How Ansible wants the module to behave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Context {
    /// Nothing may be changed; the answer says what would be.
    pub check_mode: bool,
    /// The answer shall show the difference.
    pub diff: bool,
    /// The number of `-v`.
    pub verbosity: u64,
}

/// The checked arguments of a task: under their own names, of their own types, defaults filled in.
#[derive(Debug)]
pub struct Arguments {
    /// Ready to become the module's own options.
    pub values: Map<String, Value>,
    /// The same for eyes and logs.
    pub shown: Map<String, Value>,
    /// How to behave.
    pub context: Context,
}

/// Checks the JSON object that Ansible wrote against what the module accepts.
///
/// # Errors
/// The first thing that is wrong with it; see [`ArgumentError`].
pub fn check(object: Map<String, Value>, specs: &[OptionSpec]) -> Result<Arguments, ArgumentError> {
    // Sorted, so that of two faults the same one is told each time.
    let (own, given): (BTreeMap<_, _>, BTreeMap<_, _>) = object.into_iter().partition(|(key, _)| key.starts_with("_ansible_"));
    let flag = |key: &str| own.get(key).and_then(boolean).unwrap_or(false);
    let context = Context {
        check_mode: flag("_ansible_check_mode"),
        diff: flag("_ansible_diff"),
        verbosity: own.get("_ansible_verbosity").and_then(Value::as_u64).unwrap_or(0),
    };
    let mut named: BTreeMap<&'static str, (String, Value)> = BTreeMap::new();
    for (key, value) in given {
        let Some(spec) = specs.iter().find(|spec| spec.is_called(&key)) else {
            return Err(unknown(key, specs));
        };
        // `null` is how a template says that an option is not given.
        if value.is_null() {
            continue;
        }
        if let Some((other, _)) = named.get(spec.name) {
            return Err(ArgumentError::Twice { first: other.clone(), second: key });
        }
        named.insert(spec.name, (key, value));
    }
    let mut arguments = Arguments { values: Map::new(), shown: Map::new(), context };
    for spec in specs {
        let given = named.remove(spec.name).map(|(_, value)| value);
        let Some(value) = given.or_else(|| spec.default.map(Value::from)) else {
            if spec.required {
                return Err(ArgumentError::Missing { option: spec.name });
            }
            continue;
        };
        let (value, shown) = typed(spec, &value)?;
        let shown = if spec.secret { Value::from(SECRET_SHOWN) } else { shown };
        arguments.values.insert(spec.name.to_owned(), value);
        arguments.shown.insert(spec.name.to_owned(), shown);
    }
    Ok(arguments)
}

fn unknown(option: String, specs: &[OptionSpec]) -> ArgumentError {
    let names = specs.iter().flat_map(|spec| std::iter::once(&spec.name).chain(spec.aliases));
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(&option, name);
    let nearest = names.copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let nearest = nearest.filter(|name| likeness(name) >= LIKENESS);
    ArgumentError::Unknown { option, nearest, known: specs.iter().map(|spec| spec.name).collect() }
}

/// The value in its own type, and what may be shown of it.
fn typed(spec: &OptionSpec, value: &Value) -> Result<(Value, Value), ArgumentError> {
    let wrong = |expected: &str| ArgumentError::Type {
        option: spec.name,
        expected: expected.to_owned(),
        given: if spec.secret { SECRET_SHOWN.to_owned() } else { described(value) },
    };
    let plain = |value: Value| Ok((value.clone(), value));
    match spec.kind {
        Kind::Text => {
            let text = scalar(value).ok_or_else(|| wrong("text"))?;
            Ok((Value::from(text.as_str()), Value::from(settings_file::masked(&text))))
        }
        Kind::Path => match value.as_str() {
            Some(path) if path.starts_with('/') => plain(value.clone()),
            _ => Err(wrong("an absolute path")),
        },
        Kind::Integer(least, most) => {
            let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
            let number = number.filter(|number| (least..=most).contains(number));
            plain(number.ok_or_else(|| wrong(&format!("a whole number from {least} to {most}")))?.into())
        }
        Kind::Seconds => {
            let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
            // A year is longer than anybody waits, and short enough for every clock arithmetic.
            let number = number.filter(|number| *number > 0.0 && *number <= 31_536_000.0);
            plain(number.ok_or_else(|| wrong("a positive number of seconds"))?.into())
        }
        Kind::Boolean => plain(boolean(value).ok_or_else(|| wrong("yes or no"))?.into()),
        Kind::Choice(choices) => match value.as_str() {
            Some(word) if choices.contains(&word) => plain(value.clone()),
            _ => Err(wrong(&format!("one of {}", choices.join(", ")))),
        },
        Kind::Conninfo => {
            let refused = |source| ArgumentError::Conninfo { option: spec.name, source };
            let conninfo = match value {
                Value::String(text) => Conninfo::parse(text).map_err(refused)?,
                Value::Object(pairs) => {
                    let mut read = Vec::new();
                    // Sorted, so that the order in a template never makes a difference.
                    for (keyword, value) in pairs.iter().collect::<BTreeMap<_, _>>() {
                        // A boolean has no one spelling in libpq, and the value may be a secret: name the keyword only.
                        let value = scalar(value).filter(|_| !value.is_boolean());
                        read.push((
                            keyword.as_str(),
                            value.ok_or_else(|| ArgumentError::Keyword { option: spec.name, keyword: keyword.clone() })?,
                        ));
                    }
                    Conninfo::new(read).map_err(refused)?
                }
                // Whatever it is, it may hold a password.
                _ => {
                    return Err(ArgumentError::Type {
                        option: spec.name,
                        expected: "a connection string or a dictionary".to_owned(),
                        given: SECRET_SHOWN.to_owned(),
                    });
                }
            };
            Ok((conninfo.to_connection_string().into(), conninfo.masked().to_connection_string().into()))
        }
        Kind::Settings => {
            let settings = value.as_object().ok_or_else(|| wrong("a dictionary of settings"))?;
            let mut values = Map::new();
            let mut shown = Map::new();
            for (name, value) in settings {
                let text = match value {
                    Value::Null => Value::Null,
                    Value::Bool(on) => Value::from(if *on { "on" } else { "off" }),
                    other => Value::from(scalar(other).ok_or_else(|| wrong("a dictionary of settings"))?),
                };
                let line = format!("{name} {}", text.as_str().unwrap_or_default());
                let masked = settings_file::masked(&line) != line;
                shown.insert(name.clone(), if masked { SECRET_SHOWN.into() } else { text.clone() });
                values.insert(name.clone(), text);
            }
            Ok((values.into(), shown.into()))
        }
    }
}

/// A text, number or boolean as text; lists and dictionaries are none.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(boolean) => Some(boolean.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(boolean) => Some(*boolean),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" | "y" | "t" | "1" => Some(true),
            "no" | "off" | "false" | "n" | "f" | "0" => Some(false),
            _ => None,
        },
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a dictionary".to_owned(),
        scalar => format!("'{}'", self::scalar(scalar).map(|text| settings_file::masked(&text)).unwrap_or_default()),
    }
}

/// What is wrong with the arguments of a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The module has no such option.
    #[error("unknown option '{option}'")]
    Unknown {
        /// What was given.
        option: String,
        /// The option that it is most like, if it is like one at all.
        nearest: Option<&'static str>,
        /// All options.
        known: Vec<&'static str>,
    },
    /// An option was given under two of its names.
    #[error("'{first}' and '{second}' are the same option")]
    Twice {
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// A required option is missing.
    #[error("the option '{option}' is missing")]
    Missing {
        /// The option.
        option: &'static str,
    },
    /// The value is of another type.
    #[error("the option '{option}' is {given}, not {expected}")]
    Type {
        /// The option.
        option: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        given: String,
    },
    /// A connection string that libpq would not read.
    #[error("the option '{option}': {source}")]
    Conninfo {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        source: ConninfoError,
    },
    /// A value of a connection string that is no text.
    #[error("the value of '{keyword}' in the option '{option}' is neither text nor a number")]
    Keyword {
        /// The option.
        option: &'static str,
        /// The keyword.
        keyword: String,
    },
}

impl ArgumentError {
    /// What a person can do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("'{nearest}'")),
            Self::Unknown { known, .. } => Some(format!("one of {}", known.join(", "))),
            Self::Twice { first, .. } => Some(format!("leave '{first}' out")),
            Self::Missing { option } => Some(format!("give '{option}'")),
            Self::Type { expected, .. } => Some(format!("give {expected}")),
            Self::Conninfo { source, .. } => source.remedy(),
            Self::Keyword { .. } => Some("put the value in quotes".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SPECS: [OptionSpec; 8] = [
        OptionSpec::new("login_host", Kind::Text),
        OptionSpec::new("login_port", Kind::Integer(1, 65535)).aliases(&["port"]).default("5432"),
        OptionSpec::new("login_password", Kind::Text).secret(),
        OptionSpec::new("timeout", Kind::Seconds),
        OptionSpec::new("force", Kind::Boolean),
        OptionSpec::new("data_directory", Kind::Path).required(),
        OptionSpec::new("conninfo", Kind::Conninfo),
        OptionSpec::new("settings", Kind::Settings),
    ];

    fn checked(mut given: Value) -> Result<Arguments, ArgumentError> {
        let object = given.as_object_mut().unwrap();
        object.entry("data_directory").or_insert("/d".into());
        check(object.clone(), &SPECS)
    }

    #[test]
    fn text_is_accepted_for_every_type() {
        for (given, expected) in
            [(json!("yes"), true), (json!("On"), true), (json!(1), true), (json!("0"), false), (json!("off"), false), (json!(false), false)]
        {
            assert_eq!(checked(json!({"force": given})).unwrap().values["force"], json!(expected), "{given}");
        }
        let arguments = checked(json!({"port": "15432", "timeout": "2.5", "login_host": 7, "force": null})).unwrap();
        assert_eq!(Value::from(arguments.values), json!({"login_port": 15432, "timeout": 2.5, "login_host": "7", "data_directory": "/d"}));
    }

    #[test]
    fn ansibles_own_keys_are_split_off() {
        let arguments =
            checked(json!({"_ansible_check_mode": true, "_ansible_diff": false, "_ansible_verbosity": 3, "_ansible_new_in_2_40": {}}))
                .unwrap();
        assert_eq!(arguments.context, Context { check_mode: true, diff: false, verbosity: 3 });
        assert_eq!(arguments.values["login_port"], 5432);
    }

    #[test]
    fn what_is_wrong_is_said_in_these_words() {
        let cases = [
            (json!({"login_hots": "a"}), "unknown option 'login_hots'", "'login_host'"),
            (json!({"prot": 1}), "unknown option 'prot'", "'port'"),
            (
                json!({"xyzzy": 1}),
                "unknown option 'xyzzy'",
                "one of login_host, login_port, login_password, timeout, force, data_directory, conninfo, settings",
            ),
            (json!({"port": 1, "login_port": 2}), "'login_port' and 'port' are the same option", "leave 'login_port' out"),
            (json!({"data_directory": null}), "the option 'data_directory' is missing", "give 'data_directory'"),
            (json!({"data_directory": "data"}), "the option 'data_directory' is 'data', not an absolute path", "give an absolute path"),
            (
                json!({"port": 65536}),
                "the option 'login_port' is '65536', not a whole number from 1 to 65535",
                "give a whole number from 1 to 65535",
            ),
            (
                json!({"timeout": "-1"}),
                "the option 'timeout' is '-1', not a positive number of seconds",
                "give a positive number of seconds",
            ),
            (
                json!({"timeout": "NaN"}),
                "the option 'timeout' is 'NaN', not a positive number of seconds",
                "give a positive number of seconds",
            ),
            (json!({"force": "maybe"}), "the option 'force' is 'maybe', not yes or no", "give yes or no"),
            (json!({"login_host": ["a"]}), "the option 'login_host' is a list, not text", "give text"),
            (
                json!({"login_password": ["hunter2"]}),
                "the option 'login_password' is VALUE_SPECIFIED_IN_NO_LOG_PARAMETER, not text",
                "give text",
            ),
            (
                json!({"conninfo": {"password": true}}),
                "the value of 'password' in the option 'conninfo' is neither text nor a number",
                "put the value in quotes",
            ),
        ];
        for (given, message, remedy) in cases {
            let error = checked(given).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.remedy().as_deref()), (message, Some(remedy)));
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let arguments = checked(json!({
            "login_password": "hunter2",
            "conninfo": {"host": "a", "port": 5432, "password": "hunter2"},
            "login_host": "echo password=hunter2",
            "settings": {"ssl_passphrase_command": "echo 1", "x.password": "hunter2", "hot_standby_feedback": true, "gone": null},
        }))
        .unwrap();
        assert!(!Value::from(arguments.shown.clone()).to_string().contains("hunter2"));
        assert_eq!(arguments.shown["conninfo"], "host=a password=******** port=5432");
        assert_eq!(arguments.values["conninfo"], "host=a password=hunter2 port=5432");
        assert_eq!(
            arguments.values["settings"],
            json!({"ssl_passphrase_command": "echo 1", "x.password": "hunter2", "hot_standby_feedback": "on", "gone": null})
        );
    }
}
