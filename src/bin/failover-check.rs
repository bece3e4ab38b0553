//! `failover-check`: fails a PostgreSQL pair over, and says why it did or did not.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use understudy::failover::command::CommandLine;
use understudy::usage_error::usage_error;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).format_timestamp_millis().init();
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => match usage_error(&error) {
            Some(words) => {
                eprintln!("failover-check: {words}");
                return understudy::exit_code::ExitCode::Usage.into();
            }
            None => error.exit(),
        },
    };
    match command_line.execute() {
        Ok(answer) => {
            if !answer.output.is_empty() {
                println!("{}", answer.output);
            }
            answer.exit_code.into()
        }
        Err(error) => {
            if command_line.wants_json() {
                println!(
                    "{}",
                    serde_json::json!({ "error": error.to_string(), "remedy": error.remedy(), "exit_code": error.exit_code() as u8 })
                );
            } else {
                eprintln!("failover-check: {error}; try: {}", error.remedy());
            }
            error.exit_code().into()
        }
    }
}
