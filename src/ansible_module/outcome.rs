//! What a module hands back, and the one JSON object that Ansible reads of it.

use crate::with_causes::with_causes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::arguments::{ArgumentError, Context};

/// What a module did, or would do in check mode.
#[derive(Debug)]
pub struct Outcome<T> {
    /// Whether anything was changed, or would be.
    pub changed: bool,
    /// One sentence.
    pub message: String,
    /// What the module returns beside that.
    pub returned: T,
    /// What was changed. Shown only where Ansible asks for it, and must hold no secret.
    pub differences: Vec<Difference>,
    /// What a person should know even though all went well.
    pub warnings: Vec<String>,
}

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its path, with a note when it is new.
    pub before_header: String,
    /// Its path, with a note when it goes away.
    pub after_header: String,
    /// Its text before.
    pub before: String,
    /// Its text afterwards.
    pub after: String,
}

/// An error that a module can end with.
pub trait ModuleError: std::error::Error {
    /// What a person can do about it.
    fn remedy(&self) -> Option<String>;

    /// Whether something was changed before it failed.
    fn changed(&self) -> bool {
        false
    }
}

impl ModuleError for ArgumentError {
    fn remedy(&self) -> Option<String> {
        Self::remedy(self)
    }
}

/// What the program prints and how it exits.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The one JSON object.
    pub object: Value,
    /// Whether the program exits 1. Ansible looks at `failed` in the object; the exit code is for people and scripts.
    pub failed: bool,
}

impl Answer {
    /// A module that did its work.
    pub fn of_outcome<T: Serialize>(outcome: Outcome<T>, context: Context, shown: Map<String, Value>) -> Self {
        let mut object = match serde_json::to_value(outcome.returned) {
            Ok(Value::Object(returned)) => returned,
            Ok(_) | Err(_) => Map::new(),
        };
        object.insert("changed".to_owned(), outcome.changed.into());
        object.insert("msg".to_owned(), outcome.message.into());
        object.insert("warnings".to_owned(), outcome.warnings.into());
        object.insert("invocation".to_owned(), json!({ "module_args": shown }));
        if context.diff {
            object.insert("diff".to_owned(), json!(outcome.differences));
        }
        Self { object: object.into(), failed: false }
    }

    /// A module that failed. `shown` is `None` where the arguments themselves were wrong: then nothing is known to be safe to show.
    pub fn of_error(error: &dyn ModuleError, shown: Option<Map<String, Value>>) -> Self {
        let mut answer = Self::of_failure(with_causes(error), error.remedy());
        if let Value::Object(object) = &mut answer.object {
            object.insert("changed".to_owned(), error.changed().into());
            object.extend(shown.map(|shown| ("invocation".to_owned(), json!({ "module_args": shown }))));
        }
        answer
    }

    /// A failure in words.
    pub fn of_failure(message: String, remedy: Option<String>) -> Self {
        let message = match remedy {
            Some(remedy) => format!("{message}; try: {remedy}"),
            None => message,
        };
        Self { object: json!({ "failed": true, "changed": false, "msg": message }), failed: true }
    }
}
