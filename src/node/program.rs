//! PostgreSQL's own programs.

use std::process::Command;

use super::error::NodeError;

/// Runs a program of PostgreSQL; what it prints goes to the container's log.
///
/// # Errors
/// [`NodeError::Program`] when it cannot be started or fails.
pub fn run(command: &mut Command, program: &'static str) -> Result<(), NodeError> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(NodeError::Program { program, how: status.to_string() }),
        Err(error) => Err(NodeError::Program { program, how: error.to_string() }),
    }
}
