//! The contract between Ansible and a module that is a program of its own.
//!
//! Ansible calls the program with one argument, the path of a JSON file. It holds the task's options and some twenty `_ansible_*` keys.
//! Ansible takes the first JSON object on standard output for the result and ignores the exit code, runs the program in check mode
//! too, and checks and masks nothing. So [`serve`] does, for every module:
//!
//! ```text
//! argv[1] ─► read ─► arguments::check ─► Module::run ─► Answer ─► exactly one JSON object, exit 0 or 1
//!              └──────────┴── any error, and any panic ──┘
//! ```

pub mod arguments;
pub mod outcome;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use arguments::{Context, OptionSpec};
use outcome::{Answer, ModuleError, Outcome};

/// A module: what it accepts and what it does.
pub trait Module {
    /// The name that tasks call it by.
    const NAME: &'static str;
    /// Every option that it accepts.
    const OPTIONS: &'static [OptionSpec];
    /// The options of one task, each of the type that [`Module::OPTIONS`] says.
    type Options: DeserializeOwned;
    /// What it returns beside `changed` and `msg`.
    type Returned: Serialize;
    /// Why it may fail.
    type Error: ModuleError;

    /// Does the work; in check mode, finds out what it would be.
    ///
    /// # Errors
    /// The module's own.
    fn run(options: Self::Options, context: Context) -> Result<Outcome<Self::Returned>, Self::Error>;
}

/// Runs a module as Ansible expects it, with the program's arguments (its own name left out).
/// Whatever happens, a panic too, one JSON object is printed.
pub fn serve<M: Module>(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    install_panic_hook(M::NAME);
    print(&answer::<M>(arguments.into_iter().collect()))
}

fn answer<M: Module>(mut arguments: Vec<OsString>) -> Answer {
    let path = match (arguments.pop(), arguments.pop()) {
        (Some(path), None) => PathBuf::from(path),
        _ => {
            let remedy = format!("use it as the module '{}' of an Ansible task, or give it a JSON file of its options", M::NAME);
            return Answer::of_failure("expected one argument, the path of a JSON file".to_owned(), Some(remedy));
        }
    };
    let read = match read_object(&path) {
        Ok(object) => object,
        Err(error) => return Answer::of_error(&error, None),
    };
    let checked = match arguments::check(read, M::OPTIONS) {
        Ok(checked) => checked,
        Err(error) => return Answer::of_error(&error, None),
    };
    let options = match serde_json::from_value(Value::Object(checked.values)) {
        Ok(options) => options,
        // Only when OPTIONS and Options disagree, which is a fault of the module. The words may hold a value, so they are not shown.
        Err(_) => {
            return Answer::of_failure(
                format!("the options of '{}' do not fit its own table", M::NAME),
                Some("report this as a bug".to_owned()),
            );
        }
    };
    match M::run(options, checked.context) {
        Ok(outcome) => Answer::of_outcome(outcome, checked.context, checked.shown),
        Err(error) => Answer::of_error(&error, Some(checked.shown)),
    }
}

fn read_object(path: &std::path::Path) -> Result<serde_json::Map<String, Value>, FileError> {
    let text = std::fs::read(path).map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(FileError::NoObject { path: path.to_owned() }),
        Err(error) => Err(FileError::NoJson { path: path.to_owned(), line: error.line(), column: error.column() }),
    }
}

/// Without the hook a panic prints no JSON, and Ansible reports nothing but "no start of json char found". The release build aborts
/// on a panic before anything else could run, so the hook itself prints and exits.
fn install_panic_hook(name: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        // The message of a panic may quote a value; the place is enough for a bug report.
        let place = panic.location().map(|location| format!(" at {}:{}", location.file(), location.line())).unwrap_or_default();
        let answer =
            Answer::of_failure(format!("the module '{name}' failed in an unforeseen way{place}"), Some("report this as a bug".to_owned()));
        print(&answer);
        std::process::exit(1);
    }));
}

fn print(answer: &Answer) -> ExitCode {
    // Nobody is left to be told when standard output is closed.
    let _ = writeln!(std::io::stdout(), "{}", answer.object);
    if answer.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Why the file of options cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read the options in '{}'", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the options in '{}' are no JSON (line {line}, column {column})", path.display())]
    NoJson { path: PathBuf, line: usize, column: usize },
    #[error("the options in '{}' are no JSON object", path.display())]
    NoObject { path: PathBuf },
}

impl ModuleError for FileError {
    fn remedy(&self) -> Option<String> {
        Some("give a JSON file such as Ansible writes: {\"option\": \"value\"}".to_owned())
    }
}
