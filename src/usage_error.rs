//! What is wrong with a command line, as every program here says it.

/// What is wrong with a command line, in one line; none where it asked for help or the version, which clap prints.
#[must_use]
pub fn usage_error(error: &clap::Error) -> Option<String> {
    if !error.use_stderr() {
        return None;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Some("no command given; try: --help".to_owned());
    }
    let words = error.to_string();
    // clap draws over several lines: the error, what is missing, tips, the usage.
    let is_frame = |line: &&str| line.starts_with("Usage:") || line.starts_with("For more information");
    let lines: Vec<&str> = words.lines().map(str::trim).take_while(|line| !is_frame(line)).filter(|line| !line.is_empty()).collect();
    let line = lines.join(" ").replace(" tip: ", "; tip: ");
    Some(format!("{}; try: --help", line.strip_prefix("error: ").unwrap_or(&line)))
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(subcommand)]
        _command: Command,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        Do { _what: String },
    }

    fn words(arguments: &[&str]) -> Option<String> {
        usage_error(&CommandLine::try_parse_from([&["program"], arguments].concat()).unwrap_err())
    }

    #[test]
    fn it_is_one_line_with_a_remedy_and_none_for_help() {
        assert_eq!(words(&["--help"]), None);
        assert_eq!(words(&[]).unwrap(), "no command given; try: --help");
        assert_eq!(
            words(&["do", "a", "--fast"]).unwrap(),
            "unexpected argument '--fast' found; tip: to pass '--fast' as a value, use '-- --fast'; try: --help"
        );
        assert_eq!(words(&["do"]).unwrap(), "the following required arguments were not provided: <WHAT>; try: --help");
    }
}
