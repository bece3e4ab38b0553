//! A question to the person at the terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use super::refused;
use crate::failover::error::Error;

/// What an order means that comes with neither a terminal to ask on nor `--yes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// The order itself says it in so many words (`--accept-data-loss`): go on.
    GoesOn,
    /// It has to be said: refuse.
    IsRefused,
}

/// Shows `what` would be done, and asks on the terminal whether to go on. Nothing is asked with `yes`, or where there is no terminal.
///
/// # Errors
/// [`Error::Refused`] where the answer was not yes.
pub fn confirm(what: &str, yes: bool, unasked: Unasked) -> Result<(), Error> {
    let (input, mut output) = (io::stdin(), io::stderr());
    let is_terminal = input.is_terminal() && output.is_terminal();
    // The answer belongs on standard output, which may be read by a program.
    let shown = writeln!(output, "{what}").and_then(|()| {
        if is_terminal && !yes {
            write!(output, "Go on? Type yes: ")?;
        }
        output.flush()
    });
    if let Err(error) = shown {
        log::debug!("cannot show what would be done: {error}");
    }
    if yes || (!is_terminal && unasked == Unasked::GoesOn) {
        return Ok(());
    }
    if !is_terminal {
        return Err(refused("there is no terminal to ask on", "the same with --yes; nothing was changed"));
    }
    let mut answer = String::new();
    let read = input.lock().read_line(&mut answer);
    if read.is_ok() && answer.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    Err(refused("the answer was not yes", "the same again, when it is meant; nothing was changed"))
}
